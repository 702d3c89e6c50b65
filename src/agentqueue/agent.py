"""What the authors of handlers import: Agent, Context, Retry, Fatal, Backoff.

    agent = Agent("flight-search")

    @agent.job(timeout=60, attempts=3)
    async def search_flights(ctx: Context, request: FlightRequest) -> Offers: ...

Importing this module costs nothing heavy: pydantic comes in with the first payload that has an annotation to check.
"""

import contextlib
import functools
import inspect
import math
import re
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Literal, Never, Protocol, TypeVar, Unpack, cast, overload

import orjson

from agentqueue.clock import now_ms
from agentqueue.errors import InvalidName, UsageError
from agentqueue.failures import clean_text, describe_value
from agentqueue.keys import check_queue
from agentqueue.parsers import LONGEST_S
from agentqueue.payload import NO_PAYLOAD, Payload, to_json
from agentqueue.quantities import plain_number
from agentqueue.signature import payload_parameter
from agentqueue.wire import JobRecord, Progress, child_id, encode

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from structlog.typing import FilteringBoundLogger

    from agentqueue.store import NewJob
    from agentqueue.submission import EnqueueOptions

Seconds = float | timedelta
"""Durations in what people write: seconds, or a timedelta."""
Function = TypeVar("Function", bound=Callable[..., Any])
MAX_CHILDREN: Final = 1_000
"""Jobs that one job may enqueue: they are sent in one script, which keeps the server busy that long."""
MAX_CHILDREN_BYTES: Final = 3 * 1024 * 1024
_JOB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}")


class Retry(Exception):
    """Raised by a handler: this attempt failed, try again, after `after` (seconds or timedelta) or the usual backoff.

    While the worker drains (`ctx.should_yield`) it hands the job back instead, and no attempt is burnt. A negative
    `after` (until a moment that has passed by now) is none: the job is tried again at once.
    """

    def __init__(self, message: str = "", *, after: Seconds | None = None) -> None:
        self.after = None if after is None else _delay(after)
        super().__init__(message or ("try again" if self.after is None else f"try again after {self.after:g} s"))


class Fatal(Exception):
    """Raised by a handler: trying again is of no use; the job goes straight to the dead letters."""


def seconds(value: Seconds, *, endless: bool = False) -> float:
    """The duration in seconds; `endless`: it may be `math.inf`.

    Raises:
        UsageError: negative, over 10 years, or not a number.
    """
    out = value.total_seconds() if isinstance(value, timedelta) else plain_number(value)
    if out is not None and (0 <= out <= LONGEST_S or (endless and out == math.inf)):
        return float(out)
    raise UsageError(f"duration {value!r} must be a number of seconds from 0 to {LONGEST_S:.0f}, or a timedelta")


def _delay(value: Seconds) -> float:
    past = value < timedelta() if isinstance(value, timedelta) else (plain_number(value) or 0) < 0
    return 0.0 if past else seconds(value)


@dataclass(frozen=True, slots=True)
class Backoff:
    """The delay before a failed job is tried again. Durations in seconds."""

    type: Literal["exponential", "fixed"] = "exponential"
    """exponential: the delay doubles with each attempt; fixed: it stays the same."""
    delay: float = 2.0
    max_delay: float = 600.0
    """The delay never grows beyond this (10 minutes)."""
    jitter: float = 0.1
    """Share of the delay that is random, 0 to 1, so that jobs that failed together don't come back together."""

    def __post_init__(self) -> None:
        if self.type not in ("exponential", "fixed"):
            raise UsageError(f"backoff type {self.type!r} must be exponential or fixed")
        if not 0 <= self.jitter <= 1:
            raise UsageError(f"backoff jitter {self.jitter!r} must be a share from 0 to 1")
        seconds(self.delay)
        seconds(self.max_delay)

    @classmethod
    def parse(cls, wire: "Mapping[str, Any] | Backoff | Seconds", base: "Backoff | None" = None) -> "Backoff":
        """From the resource's words `{type, delaySeconds, maxDelaySeconds, jitter}`; what is absent is `base`'s.

        A number of seconds or a timedelta is a fixed delay, as it is for a producer.
        """
        if isinstance(wire, Backoff):
            return wire
        if not isinstance(wire, Mapping):
            return cls("fixed", delay=seconds(wire))
        base = base or cls()
        names = {"type": "type", "delaySeconds": "delay", "maxDelaySeconds": "max_delay", "jitter": "jitter"}
        unknown = wire.keys() - names.keys()
        if unknown:
            raise UsageError(f"backoff has no {min(unknown)!r}; it knows {', '.join(names)}")
        given = {names[key]: value for key, value in wire.items()}
        if "delay" in given and "max_delay" not in given:
            given["max_delay"] = max(base.max_delay, seconds(given["delay"]))
        return replace(base, **given)


@dataclass(frozen=True, slots=True)
class JobDefinition:
    """A handler as an agent knows it. None in an option: the worker's settings decide."""

    agent: "Agent"
    name: str
    func: Callable[..., Any]
    payload: Payload
    is_async: bool
    timeout: float | None = None
    """Seconds."""
    attempts: int | None = None
    backoff: Backoff | None = None
    keep_result: float | None = None
    """Seconds; infinite: for ever; 0: no result is kept."""

    @property
    def queue(self) -> str:
        """The queue of its agent."""
        return self.agent.queue


@dataclass(frozen=True, slots=True)
class CronDefinition:
    """A job that is enqueued by the clock, once per tick over all workers."""

    job: JobDefinition
    expression: str
    timezone: str

    @property
    def name(self) -> str:
        """What tells it from other crons of the queue."""
        return f"{self.job.name}:{self.expression}:{self.timezone}"


def job_of(target: Any) -> JobDefinition | None:
    """Return the definition behind a function decorated with `@agent.job`, or the definition itself; None for others.

    Raises:
        UsageError: the function is more than one job, of two agents or under two names.
    """
    if isinstance(target, JobDefinition):
        return target
    found = _jobs_of(target)
    if len(found) > 1:
        names = " and ".join(f"{job.name!r} of agent {job.agent.name!r}" for job in found)
        raise UsageError(
            f"{_name(target)} is the job {names}: pass the one that is meant, as in agent.jobs[{found[0].name!r}], "
            "or the queue and the job's name"
        )
    return found[0] if found else None


def _jobs_of(target: Any) -> Sequence[JobDefinition]:
    """Decorators that wrap copy the function's attributes, so that one may bring another function's jobs along."""
    found = getattr(target, "__agentqueue_jobs__", ())
    return [job for job in found if job.func is target] or found


class WorkerContext:
    """What `@agent.startup` and `@agent.shutdown` functions get: `state` is every handler's `ctx.state`."""

    def __init__(self, *, queue: str, worker: str, state: SimpleNamespace, log: "FilteringBoundLogger") -> None:
        self.queue = queue
        self.worker = worker
        self.state = state
        self.log = log


Hook = TypeVar("Hook", bound=Callable[[WorkerContext], Any])


@dataclass(slots=True, eq=False)
class Agent:
    """A named queue and its handlers."""

    name: str
    queue: str = ""
    """By default the name."""
    jobs: dict[str, JobDefinition] = field(default_factory=dict, init=False)
    crons: list[CronDefinition] = field(default_factory=list, init=False)
    on_startup: list[Callable[[WorkerContext], Any]] = field(default_factory=list, init=False)
    on_shutdown: list[Callable[[WorkerContext], Any]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.queue = check_queue(self.queue or self.name)

    def __repr__(self) -> str:
        return f"Agent({self.name!r}, jobs={list(self.jobs)})"

    @overload
    def job(self, func: Function, /) -> Function: ...
    @overload
    def job(
        self,
        /,
        *,
        name: str | None = None,
        timeout: Seconds | None = None,
        attempts: int | None = None,
        backoff: Backoff | Mapping[str, Any] | Seconds | None = None,
        keep_result: Seconds | None = None,
    ) -> Callable[[Function], Function]: ...
    def job(self, func: Any = None, /, **options: Any) -> Any:
        """Make a function a handler of this agent. It stays callable as it is, for tests.

        Args:
            func: `async def f(ctx)` or `f(ctx, payload)`; a plain `def` runs in a thread. A function may be a job of
                several agents; it is then enqueued by its definition, `agent.jobs[name]`.
            options: `name` (by default the function's, with dashes); `timeout` in seconds; `attempts`, the first one
                included; `backoff`, a number of seconds for a fixed one; `keep_result`, how long the result can be
                read, in seconds (`math.inf`: for ever).

        Raises:
            UsageError: a signature that is neither, a name that is taken or outside `A-Za-z0-9_.:-`, a bad option.
        """

        def register(function: Function) -> Function:
            self._define(function, **options)
            return function

        return register if func is None else register(func)

    def cron(self, expression: str, *, timezone: str = "UTC", **options: Any) -> Callable[[Function], Function]:
        """Run a handler without payload at the times of a cron expression, once per tick over all workers.

        Args:
            expression: five fields, or six with seconds first, as cronsim reads them.
            timezone: an IANA name, such as `Europe/Berlin`.
            options: as of `job`; not with a function that is a job already.

        Raises:
            UsageError: the expression or the time zone is no text. What they say is checked where a worker starts.
        """
        for what, text in (("expression", expression), ("time zone", timezone)):
            if not isinstance(text, str):
                raise UsageError(
                    f"agent {self.name!r}: a cron's {what} must be a text, not {text!r:.80}; "
                    'write @agent.cron("0 3 * * *", timezone="Europe/Berlin")'
                )

        def register(function: Function) -> Function:
            known = next((job for job in _jobs_of(function) if job.agent is self), None)
            job = known or self._define(function, **options)
            if job.payload.parameter is not None and not job.payload.is_optional:
                raise UsageError(
                    f"{_name(function)} needs a payload, and a cron's job has none: take (ctx) alone, "
                    f"or give {job.payload.parameter!r} a default"
                )
            self.crons.append(CronDefinition(job, expression, timezone))
            return function

        return register

    def startup(self, func: Hook) -> Hook:
        """Run a function (plain or async, one argument) before the first job: open what handlers share.

        Raises:
            UsageError: not callable, or a generator, whose body would not run.
        """
        self.on_startup.append(_check_hook(func))
        return func

    def shutdown(self, func: Hook) -> Hook:
        """Run a function after the last job, the last registered first: close what startup opened.

        Raises:
            UsageError: as for `startup`.
        """
        self.on_shutdown.insert(0, _check_hook(func))
        return func

    def _define(
        self,
        func: Callable[..., Any],
        *,
        name: str | None = None,
        timeout: Seconds | None = None,
        attempts: int | None = None,
        backoff: Backoff | Mapping[str, Any] | Seconds | None = None,
        keep_result: Seconds | None = None,
    ) -> JobDefinition:
        runs_on_loop = is_async(func)
        job = JobDefinition(
            agent=self,
            name=self._check_name(name or getattr(func, "__name__", "").strip("_").replace("_", "-")),
            func=func,
            payload=Payload(func, payload_parameter(func, Context)),
            is_async=runs_on_loop,
            timeout=None if timeout is None else seconds(timeout, endless=True),
            attempts=check_attempts(attempts),
            backoff=None if backoff is None else Backoff.parse(backoff),
            keep_result=None if keep_result is None else seconds(keep_result, endless=True),
        )
        if job.timeout == 0:
            raise UsageError(f"job {job.name!r}: timeout must be more than 0 seconds")
        self.jobs[job.name] = job
        with contextlib.suppress(AttributeError):  # a bound method has no room for it: it is enqueued by name
            own = [known for known in _jobs_of(func) if known.func is func]
            func.__agentqueue_jobs__ = (*own, job)  # type: ignore[attr-defined]
        return job

    def _check_name(self, name: str) -> str:
        check_job_name(name)
        if name in self.jobs:
            raise UsageError(f"agent {self.name!r} has a job {name!r} already; give one of them name=...")
        return name


def _check_hook(func: Hook) -> Hook:
    if not callable(func):
        raise UsageError(f"{func!r:.80} can't be called; decorate a function")
    if yields(func):
        raise UsageError(
            f"{_name(func)} yields, so that its body would not run: write one function for @agent.startup, and one for "
            "@agent.shutdown"
        )
    try:
        inspect.signature(func).bind(None)
    except TypeError as exc:
        raise UsageError(f"{_name(func)} must take one argument, the worker's context ({exc}): write (ctx)") from exc
    except ValueError:  # some builtins and extensions have no signature: the call itself shows
        pass
    return func


def check_job_name(name: str) -> str:
    """The name itself, if it may be a job's.

    Raises:
        InvalidName: empty, over 128 characters, or outside letters, digits and `_.:-`.
    """
    if type(name) is str and _JOB_NAME.fullmatch(name):
        return name
    raise InvalidName(f"job name {name!r:.80} must have 1 to 128 characters: letters, digits and _.:-")


def check_attempts(attempts: int | None) -> int | None:
    """The number itself, if it may be a number of attempts: 1 to 1,000."""
    if attempts is None or (type(attempts) is int and 1 <= attempts <= 1_000):
        return attempts
    raise UsageError(f"attempts {attempts!r} must be a whole number from 1 to 1000, the first run included")


def is_async(func: Callable[..., Any]) -> bool:
    """Return whether calling it gives a coroutine; else it runs in a thread, and what it gives is awaited if it can be.

    The outermost callable is judged, which is what is called: a decorator may make an async function of a plain one,
    and the other way round, whatever `functools.wraps` copies.

    Raises:
        UsageError: not callable, or a generator; a handler returns its result.
    """
    called = _outermost(func)
    if called is None:
        raise UsageError(f"{func!r:.80} can't be called; decorate a function, or pass a bound method")
    if yields(func):
        raise UsageError(f"{_name(func)} yields; a handler returns its result (and tells of progress by ctx.progress)")
    try:
        inspect.signature(func)
    except ValueError as exc:  # some builtins and extensions
        raise UsageError(
            f"{_name(func)} has no signature that Python can read; call it in a function of yours"
        ) from exc
    return inspect.iscoroutinefunction(called)


def yields(func: Callable[..., Any]) -> bool:
    """Return whether it is a generator, or one that contextlib made a context manager of: its body would not run."""
    called = _outermost(func)
    code = getattr(called, "__code__", None)
    if called is not None and getattr(code, "co_filename", None) == contextlib.__file__:
        called = inspect.unwrap(called)
    return inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called)


def _outermost(func: Any) -> Callable[..., Any] | None:
    """The function that runs first when it is called, through partials, methods and objects with `__call__`."""
    while True:
        if isinstance(func, functools.partial):
            func = func.func
        elif isinstance(func, staticmethod) or inspect.ismethod(func):
            func = func.__func__
        elif not callable(func):
            return None
        elif isinstance(func, type) or inspect.isroutine(func):
            return cast("Callable[..., Any]", func)
        else:
            func = type(func).__call__


def _name(func: Callable[..., Any]) -> str:
    return getattr(func, "__qualname__", None) or repr(func)


class Runtime(Protocol):
    """What a context asks of the worker that runs its job."""

    queue: str
    own_queue: str
    """The queue its agent names, which a deployment may override with `queue`."""
    state: Any
    draining: bool
    thread: int
    """The id of the event loop's thread."""
    loop: "AbstractEventLoop"

    def progress(self, job_id: str, progress: Progress) -> None:
        """Note how far the job is; written now and then. Called in the loop's thread."""
        ...

    def checkpoint(self, job_id: str, raw: bytes) -> Coroutine[Any, Any, None]:
        """Keep the job's checkpoint. Called in the loop's thread."""
        ...


class _Finished:
    """An awaitable that is done: what `ctx.progress` gives, so that `await` is right and never needed."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


_FINISHED: Final = _Finished()


class Context:
    """What a handler knows of its job, and how it talks to the worker. Plain `def` handlers may use all of it too."""

    __slots__ = (
        "_checkpoint",
        "_log",
        "_record",
        "_resume",
        "_runtime",
        "attempt",
        "children",
        "delivery",
        "id",
        "last_progress",
        "stopping",
    )

    def __init__(
        self,
        runtime: Runtime,
        record: JobRecord,
        *,
        id: str,  # noqa: A002  # the public name
        attempt: int = 1,
        delivery: int = 1,
        resume: bytes | None = None,
    ) -> None:
        self._runtime = runtime
        self._record = record
        self._resume: Any = resume
        self._checkpoint: bytes | None = resume
        self._log: FilteringBoundLogger | None = None
        self.id = id
        """The job's id."""
        self.attempt = attempt
        """From 1; counts runs that ended in the handler's own failure."""
        self.delivery = delivery
        """From 1; counts starts, whatever ended them."""
        self.children: list[NewJob] = []
        """What `enqueue` collected."""
        self.last_progress: Progress | None = None
        self.stopping = False
        """Set when the job was cancelled, ran out of time or lost its lease; a thread can't be stopped from outside."""

    @property
    def queue(self) -> str:
        """The queue the job came from."""
        return self._runtime.queue

    @property
    def name(self) -> str:
        """The job's name."""
        return self._record.name

    @property
    def tags(self) -> Sequence[str]:
        """The tags it was enqueued with."""
        return self._record.tags

    @property
    def tenant(self) -> str | None:
        """The tenant that the job is for; its children have the same one unless they are given another."""
        return self._record.tenant

    @property
    def trace(self) -> str | None:
        """The W3C `traceparent` that it was enqueued with; its children have it too unless given another."""
        return self._record.trace

    @property
    def parent(self) -> str | None:
        """The id of the job that sent this one with `ctx.enqueue`."""
        return self._record.parent

    @property
    def state(self) -> Any:
        """What `@agent.startup` opened, shared by all jobs of this worker."""
        return self._runtime.state

    @property
    def resume(self) -> Any:
        """The last checkpoint of an earlier delivery, or None."""
        if type(self._resume) is bytes:
            self._resume = orjson.loads(self._resume)
        return self._resume

    @property
    def should_yield(self) -> bool:
        """True once the worker drains (or the job was cancelled): checkpoint and stop; `raise Retry()` hands back."""
        return self._runtime.draining or self.stopping

    @property
    def log(self) -> "FilteringBoundLogger":
        """A structlog logger with the job's id, name, queue, attempt and delivery bound.

        In the job's task and in plain handlers every other logger, of `logging` too, has them as well.
        """
        if self._log is None:
            import structlog  # noqa: PLC0415  # jobs that don't log don't pay for it

            self._log = structlog.get_logger("agentqueue.job").bind(
                job_id=self.id, job=self.name, queue=self.queue, attempt=self.attempt, delivery=self.delivery
            )
        return self._log

    def progress(self, percent: float, message: str | None = None) -> Awaitable[None]:
        """Say how far the job is, 0 to 100, with a word on what it does. Cheap: written at most twice a second.

        Any number will do (numpy's, Decimal, Fraction): below 0 it counts as 0, over 100 as 100, since sums of floats
        end at 100.00000000000001. NaN, as 0/0 has it in numpy, leaves the percentage as it was.

        Raises:
            UsageError: not a number at all, or True or False.
        """
        number = plain_number(percent)
        if number is None:
            raise UsageError(f"progress {describe_value(percent, repr, limit=80)} must be a number from 0 to 100")
        if type(number) is float and math.isnan(number):
            number = 0 if self.last_progress is None else self.last_progress.percent
        number = min(max(number, 0), 100)
        text = None if message is None else clean_text(describe_value(message, limit=500))
        progress = Progress(number, text, now_ms())
        self.last_progress = progress
        runtime = self._runtime
        if threading.get_ident() == runtime.thread:
            runtime.progress(self.id, progress)
        else:
            runtime.loop.call_soon_threadsafe(runtime.progress, self.id, progress)
        return _FINISHED

    def checkpoint(self, value: Any) -> Awaitable[None]:
        """Keep a JSON value over drains, crashes and retries; it comes back as `ctx.resume`. Await it: then it is kept.

        In a plain `def` handler the call itself waits. While Redis is away the value is kept by the worker and
        written later.

        Raises:
            InvalidPayload: not JSON, or over 1 MiB.
        """
        raw = encode(to_json(value, "the checkpoint"), what=f"the checkpoint of job {self.id}")
        self._checkpoint = raw
        runtime = self._runtime
        if threading.get_ident() == runtime.thread:
            return runtime.checkpoint(self.id, raw)
        import asyncio  # noqa: PLC0415  # loaded where a loop runs

        asyncio.run_coroutine_threadsafe(runtime.checkpoint(self.id, raw), runtime.loop).result()
        return _FINISHED

    @property
    def last_checkpoint(self) -> bytes | None:
        """The newest checkpoint as JSON, this delivery's or the one it resumed from."""
        return self._checkpoint

    def enqueue(
        self,
        target: Callable[..., Any] | tuple[str, str],
        data: Any = NO_PAYLOAD,
        *more: Never,
        **options: "Unpack[EnqueueOptions]",
    ) -> str:
        """Have a job sent with this one's success: both or neither, and once however often this one runs.

        Args:
            target: a function decorated with `@agent.job`, its definition in `agent.jobs`, or `(queue, job name)`.
            data: its payload, checked against the function's annotation. None is a payload too; left out, the handler
                runs with its default, or without one.
            more: none; here so that who writes the clients' `enqueue(queue, name, data)` is told of the tuple.
            options: a producer's: `priority`, `delay`, `at`, `tags`, `timeout`, `attempts`, `backoff`, `tenant` and
                `trace` (by default this job's), `id` (by default made of this job's id, its enqueueing and the number
                of the call: a rerun makes the same, and another one if this job's id is enqueued again later).

        Returns:
            The child's id.

        Raises:
            InvalidPayload: the payload is refused. UsageError: an unknown target, more than 1,000 children or 3 MiB.
        """
        from agentqueue.submission import prepare  # noqa: PLC0415  # it imports this module

        queue, name, payload = self._resolve(target, data)
        if more:
            raise UsageError("ctx.enqueue takes one payload; put several values into one model or dict")
        inherited = {"tenant": self._record.tenant, "trace": self._record.trace}
        prepared = prepare(
            queue,
            name,
            payload,
            inherited | options,
            now_ms=now_ms(),
            new_id=child_id(self.id, self._record.enqueueing, len(self.children)),
            parent=self.id,
        )
        self._check_room(len(prepared.job.record))
        self.children.append(prepared.job)
        return prepared.job.id

    def _resolve(self, target: Any, data: Any) -> tuple[str, str, Any]:
        job = job_of(target)
        if job is not None:
            own = job.queue == self._runtime.own_queue
            return (self.queue if own else job.queue), job.name, job.payload.dump(data)
        if isinstance(target, tuple) and len(target) == 2:
            return check_queue(target[0]), check_job_name(target[1]), to_json(data)
        raise UsageError(
            f"{target!r} is not a job: pass a function decorated with @agent.job, or the queue and the job's name "
            'as a tuple: ctx.enqueue(("queue", "job"), data)'
        )

    def _check_room(self, size: int) -> None:
        if len(self.children) >= MAX_CHILDREN:
            raise UsageError(f"job {self.id} enqueues more than {MAX_CHILDREN:,} jobs; let children enqueue the rest")
        if sum(len(job.record) for job in self.children) + size > MAX_CHILDREN_BYTES:
            raise UsageError(f"the jobs that job {self.id} enqueues are over 3 MiB in all; pass references")
