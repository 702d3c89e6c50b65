"""Agents: named queues with their handlers.

    agent = Agent("flight-search")

    @agent.job(timeout=60, attempts=3)
    async def search_flights(ctx: Context, request: FlightRequest) -> Offers: ...

This module imports nothing heavy. pydantic is imported with the first payload that has an annotation to check.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count, islice
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, cast, overload

from agentqueue.agent.context import Context
from agentqueue.agent.job_definition import CronDefinition, HandlerOptions, JobDefinition, jobs_of
from agentqueue.agent.payload import Payload
from agentqueue.agent.result import Result
from agentqueue.agent.signature import name_of, payload_parameter
from agentqueue.errors import UsageError
from agentqueue.keys import check_job_name, check_queue
from agentqueue.model.retry_policy import MIN_TIMEOUT_S, Backoff, Seconds, check_attempts, seconds
from agentqueue.model.schedule import Missed, check_schedule_name

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


class WorkerContext:
    """Argument of `@agent.startup` and `@agent.shutdown` functions. Handlers read `state` as `ctx.state`."""

    def __init__(self, *, queue: str, worker: str, state: SimpleNamespace, log: "FilteringBoundLogger") -> None:
        self.queue = queue
        self.worker = worker
        self.state = state
        self.log = log


Function = TypeVar("Function", bound=Callable[[Context], Any] | Callable[[Context, Any], Any])
"""A handler, `(ctx)` or `(ctx, payload)`."""
Hook = TypeVar("Hook", bound=Callable[[WorkerContext], Any])


@dataclass(slots=True, eq=False)
class Agent:
    """A named queue and its handlers."""

    name: str
    queue: str = ""
    """The queue's name. By default the agent's name."""
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
    def job(self, /, **options: Unpack[HandlerOptions]) -> Callable[[Function], Function]: ...
    def job(self, func: Any = None, /, **options: Any) -> Any:
        """Register a function as a handler of this agent. The function does not change, so that tests can call it.

        Args:
            func: `async def f(ctx)` or `f(ctx, payload)`; a plain `def` runs in a thread. A function may be a job of
                several agents; it is then enqueued by its definition, `agent.jobs[name]`.
            options: `name` (by default the function's, with dashes); `timeout` in seconds; `attempts`, the first one
                included; `backoff`, a number of seconds for a fixed one; `keep_result`, how long the result can be
                read, in seconds (`math.inf`: for ever).

        Raises:
            UsageError: The signature or an option is not valid, or the name is taken or outside `A-Za-z0-9_.:-`.
        """

        def register(function: Function) -> Function:
            self._define(function, **options)
            return function

        return register if func is None else register(func)

    def cron(
        self,
        expression: str,
        *,
        timezone: str = "UTC",
        schedule: str | None = None,
        missed: Literal["skip", "one", "all"] = "one",
        **options: Unpack[HandlerOptions],
    ) -> Callable[[Function], Function]:
        """Run a handler without payload at the times of a cron expression, once per tick over all workers.

        The next tick stands in the queue as a delayed job, so that it also comes while no worker runs.
        `ctx.scheduled_for` is its due time.

        Args:
            expression: Five fields, or six with the seconds first, in the format of cronsim.
            timezone: An IANA name, such as `Europe/Berlin`.
            schedule: Name of the schedule, at most 64 characters. By default the job's name; further crons of a job
                have a number behind it.
            missed: What happens to ticks that could not start near their time: `skip` runs none of them, `one` runs
                the last one, `all` runs each of the last 100.
            options: See `HandlerOptions`. A function that is a job already takes none.

        Raises:
            UsageError: The expression or the time zone is not a text (workers check both when they start), the name is
                taken or not valid, or `missed` is unknown.
        """
        for what, text in (("expression", expression), ("time zone", timezone)):
            if not isinstance(text, str):
                raise UsageError(
                    f"agent {self.name!r}: a cron's {what} must be a text, not {text!r:.80}; "
                    'write @agent.cron("0 3 * * *", timezone="Europe/Berlin")'
                )

        try:
            rule = Missed(missed)
        except ValueError as exc:
            raise UsageError(
                f"agent {self.name!r}: a cron's missed is {missed!r:.80}; write {', '.join(Missed)}"
            ) from exc

        def register(function: Function) -> Function:
            known = next((job for job in jobs_of(function) if self.jobs.get(job.name) is job), None)
            job = known or self._define(function, **options)
            if job.payload.parameter is not None and not job.payload.is_optional:
                raise UsageError(
                    f"{name_of(function)} needs a payload, and a cron's job has none: take (ctx) alone, "
                    f"or give {job.payload.parameter!r} a default"
                )
            self.crons.append(CronDefinition(job, expression, timezone, self._schedule_name(schedule, job), rule))
            return function

        return register

    def _schedule_name(self, given: str | None, job: JobDefinition) -> str:
        taken = {cron.name for cron in self.crons}
        if given is None:
            numbered = (f"{job.name}-{number}" for number in count(2))
            given = next(name for name in (job.name, *islice(numbered, len(taken) + 1)) if name not in taken)
        if given in taken:
            raise UsageError(f"agent {self.name!r} has a schedule {given!r} already; give one of them schedule=...")
        try:
            return check_schedule_name(given)
        except UsageError as exc:
            raise UsageError(f"agent {self.name!r}: {exc}; write @agent.cron(..., schedule=NAME)") from exc

    def startup(self, func: Hook) -> Hook:
        """Run a function before the first job, to open resources that handlers share. It takes a WorkerContext.

        Raises:
            UsageError: It is not callable, or a generator, whose body would not run.
        """
        self.on_startup.append(_check_hook(func))
        return func

    def shutdown(self, func: Hook) -> Hook:
        """Run a function after the last job, to close such resources. The last registered function runs first.

        Raises:
            UsageError: See `startup`.
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
            agent=self.name,
            queue=self.queue,
            name=check_job_name(name or getattr(func, "__name__", "").strip("_").replace("_", "-")),
            func=func,
            payload=Payload.of(func, payload_parameter(func, Context)),
            result=Result.of(func),
            is_async=runs_on_loop,
            timeout=None if timeout is None else seconds(timeout, "timeout", least=MIN_TIMEOUT_S, endless=True),
            attempts=check_attempts(attempts),
            backoff=None if backoff is None else Backoff.parse(backoff),
            keep_result=None if keep_result is None else seconds(keep_result, "keep_result", endless=True),
        )
        if job.name in self.jobs:
            raise UsageError(f"agent {self.name!r} has a job {job.name!r} already; give one of them name=...")
        self.jobs[job.name] = job
        with contextlib.suppress(AttributeError):  # a bound method has no attributes: it is enqueued by name
            own = [known for known in jobs_of(func) if known.func is func]
            func.__agentqueue_jobs__ = (*own, job)  # type: ignore[attr-defined]
        return job


def _check_hook(func: Hook) -> Hook:
    if not callable(func):
        raise UsageError(f"{func!r:.80} can't be called; decorate a function")
    if yields(func):
        raise UsageError(
            f"{name_of(func)} yields, so that its body would not run: write one function for @agent.startup, and one "
            "for @agent.shutdown"
        )
    try:
        inspect.signature(func).bind(None)
    except TypeError as exc:
        raise UsageError(f"{name_of(func)} must take one argument, the worker's context ({exc}): write (ctx)") from exc
    except ValueError:  # some builtins and extensions have no signature: the call fails if it does not fit
        pass
    return func


def is_async(func: Callable[..., Any]) -> bool:
    """Return whether a call of the handler gives a coroutine. Other handlers run in a thread.

    The outermost callable decides, since it is called: a decorator may make an async function of a plain one, and the
    other way round.

    Raises:
        UsageError: It is not callable, or a generator. A handler returns its result.
    """
    called = _outermost(func)
    if called is None:
        raise UsageError(f"{func!r:.80} can't be called; decorate a function, or pass a bound method")
    if yields(func):
        raise UsageError(
            f"{name_of(func)} yields; a handler returns its result (and reports progress with ctx.progress)"
        )
    try:
        inspect.signature(func)
    except ValueError as exc:  # some builtins and extensions
        raise UsageError(
            f"{name_of(func)} has no signature that Python can read; call it in a function of yours"
        ) from exc
    return inspect.iscoroutinefunction(called)


def yields(func: Callable[..., Any]) -> bool:
    """Return whether a function is a generator, also as a contextlib context manager. A call does not run its body."""
    called = _outermost(func)
    code = getattr(called, "__code__", None)
    if called is not None and getattr(code, "co_filename", None) == contextlib.__file__:
        called = inspect.unwrap(called)
    return inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called)


def _outermost(func: Any) -> Callable[..., Any] | None:
    """Return the function that a call runs first, behind partials, methods and objects with `__call__`."""
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
