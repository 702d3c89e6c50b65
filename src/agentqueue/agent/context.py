"""The context that a handler receives with its job."""

import math
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    Never,
    ParamSpec,
    Protocol,
    TypeVar,
    TypeVarTuple,
    Unpack,
    cast,
    overload,
)

import orjson

from agentqueue.agent.children import MAX_DEPTH, Child, ChildFailed, child_fingerprint
from agentqueue.agent.durable import ChildCall, GatherCall, StepCall, StepOptions, check_key, current_step
from agentqueue.agent.job_definition import JobDefinition, job_of
from agentqueue.agent.limit import LimitBlock, LimitCalls
from agentqueue.agent.outcomes import DurableError, InvalidCheckpoint, Suspended
from agentqueue.agent.payload import to_json
from agentqueue.agent.waiting import First, Signal, Waiting
from agentqueue.clock import now_ms
from agentqueue.errors import InvalidPayload, UsageError
from agentqueue.ids import new_nonce
from agentqueue.keys import check_id, check_job_name, check_queue
from agentqueue.model.attempts import Progress
from agentqueue.model.exceptions import clean_text, describe_value
from agentqueue.model.job import JobRecord, child_id
from agentqueue.model.journal import idempotency_key
from agentqueue.model.json import encode
from agentqueue.model.limits import check_limit_names
from agentqueue.model.new_job import NO_PAYLOAD, prepare_job
from agentqueue.model.numbers import plain_number
from agentqueue.model.retry_policy import Seconds, seconds
from agentqueue.model.stream import MAX_EVENT_BYTES
from agentqueue.model.times import from_ms

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from structlog.typing import FilteringBoundLogger

    from agentqueue.agent.declaration import JobDeclaration
    from agentqueue.agent.durable import Durable
    from agentqueue.model.new_job import EnqueueOptions, NewJob

T = TypeVar("T")
R = TypeVar("R")
P = TypeVar("P")
Q = ParamSpec("Q")
Ts = TypeVarTuple("Ts")
EndingReason = Literal["cancelled", "draining", "suspended", "timeout", "lease-lost"]
"""Why the worker ends a run of a job.

Only after "cancelled" is the job over. After "draining", "suspended" and "lease-lost" it runs again, and after
"timeout" it may. So cleaning up that must not happen in the middle of a job, such as undoing a booking, asks
`ctx.ending` first.
"""
MAX_CHILDREN: Final = 1_000
"""Maximum number of jobs that one job may enqueue. One script sends them, which blocks the server meanwhile."""
MAX_CHILDREN_BYTES: Final = 3 * 1024 * 1024
"""Maximum size of the jobs that one job enqueues, in bytes. One script sends them with its result."""


class Runtime(Protocol):
    """The worker that runs a job, as its context uses it."""

    queue: str
    declared_queue: str
    """The queue that the agent declares. A deployment may override it with `queue`."""
    state: Any
    draining: bool
    thread: int
    """Identifier of the event loop's thread."""
    loop: "AbstractEventLoop"

    @property
    def client(self) -> Any:
        """Return an `agentqueue.Client` of the server that the worker serves."""
        ...

    def progress(self, job_id: str, progress: Progress) -> None:
        """Record a job's progress, which is written periodically. Called in the loop's thread."""
        ...

    def checkpoint(self, job_id: str, raw: bytes, *, strict: bool) -> Coroutine[Any, Any, None]:
        """Store a job's checkpoint. Called in the loop's thread.

        Raises:
            QueueUnavailable, UnsupportedServer: `strict` is set, and Redis is unavailable. Otherwise this waits.
        """
        ...

    def durable(self, job_id: str) -> "Durable":
        """Return the durable calls of a running job. Called in the handler's task or thread."""
        ...

    def limits(self, job_id: str) -> LimitCalls:
        """Return a running job's calls under limits. Called in the handler's task or thread, or in one of a step."""
        ...


class _Finished:
    """An awaitable that is done. `ctx.progress` returns it, so that `await` is allowed but not required."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


FINISHED: Final = _Finished()
"""Result of calls that need not wait."""


class Context:
    """A job, as its handler sees it, and the connection to the worker. Plain `def` handlers may use it too."""

    __slots__ = (
        "__weakref__",  # bridges to frameworks number the runs of a job
        "_checkpoint",
        "_durable",
        "_limits",
        "_log",
        "_record",
        "_resume",
        "_runtime",
        "attempt",
        "children",
        "delivery",
        "ended",
        "ending",
        "id",
        "last_progress",
        "stopping",
        "thread",
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
        self._durable: Durable | None = None
        self._limits: LimitCalls | None = None
        self._log: FilteringBoundLogger | None = None
        self.id = id
        """The job's ID."""
        self.attempt = attempt
        """Number of this attempt, from 1. Failures of the handler count, crashes and drains do not."""
        self.delivery = delivery
        """Number of this start, from 1. Every start counts."""
        self.children: list[NewJob] = []
        """Jobs that `enqueue` has collected."""
        self.last_progress: Progress | None = None
        self.ended = False
        """True once the job has left its slot."""
        self.ending: EndingReason | None = None
        """Why the worker ends this run, None while it does not. See `EndingReason`."""
        self.thread = runtime.thread
        """Identifier of the handler's thread, which alone may make durable calls."""
        self.stopping = False
        """True if the job was cancelled, timed out or lost its lease. A thread must check it: it cannot be stopped."""

    @property
    def queue(self) -> str:
        """Return the job's queue."""
        return self._runtime.queue

    @property
    def name(self) -> str:
        """Return the job's name."""
        return self._record.name

    @property
    def tags(self) -> Sequence[str]:
        """Return the job's tags."""
        return self._record.tags

    @property
    def tenant(self) -> str | None:
        """Return the job's tenant. Children inherit it unless they are given another one."""
        return self._record.tenant

    @property
    def trace(self) -> str | None:
        """Return the job's W3C `traceparent`. Children inherit it unless they are given another one."""
        return self._record.trace

    @property
    def parent(self) -> str | None:
        """Return the ID of the job that enqueued this one with `ctx.enqueue`."""
        return self._record.parent

    @property
    def scheduled_for(self) -> datetime | None:
        """Return the due time of the tick that this job is, in UTC; see `Agent.cron`. None for other jobs."""
        tick = self._record.tick
        return None if tick is None else from_ms(tick[1])

    @property
    def state(self) -> Any:
        """Return the state that `@agent.startup` has set up. All jobs of this worker share it."""
        return self._runtime.state

    @property
    def client(self) -> Any:
        """Return a `Client` of the server that the job came from: `client: Client = ctx.client`. Async handlers only.

        All jobs of the worker share it, and the worker closes it. What it does is not kept in the journal: a handler
        that may run again calls it in a step, and gives the jobs that it enqueues an `id`.

        Raises:
            UsageError: A plain `def` handler runs in a thread, and needs a `SyncClient` of its own.
        """
        if threading.get_ident() != self._runtime.thread:
            raise UsageError(
                "ctx.client belongs to the event loop of the worker: write the handler as `async def`, "
                "or make a SyncClient in it"
            )
        return self._runtime.client

    @property
    def resume(self) -> Any:
        """Return the last checkpoint of an earlier delivery, or None."""
        if type(self._resume) is bytes:
            self._resume = orjson.loads(self._resume)
        return self._resume

    @property
    def should_yield(self) -> bool:
        """Return True if the worker drains or the job is cancelled. Checkpoint, then `raise Retry()` to release it."""
        return self._runtime.draining or self.stopping

    @property
    def log(self) -> "FilteringBoundLogger":
        """Return a structlog logger with the job's ID, name, queue, attempt and delivery.

        In the job's task and in plain handlers, other loggers have these fields as well, also those of `logging`.
        """
        if self._log is None:
            import structlog  # noqa: PLC0415  # imported by jobs that log

            self._log = structlog.get_logger("agentqueue.job").bind(
                job_id=self.id, job=self.name, queue=self.queue, attempt=self.attempt, delivery=self.delivery
            )
        return self._log

    def progress(self, percent: float, message: str | None = None) -> Awaitable[None]:
        """Report the job's progress. It is written at most twice a second, so frequent calls are cheap.

        Args:
            percent: A number of any type from 0 to 100. Numbers outside are cut to this range, since sums of floats
                may end at 100.00000000000001. NaN keeps the previous percentage.
            message: A short description of the current step.

        Raises:
            UsageError: `percent` is not a number, or is True or False.
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
        return FINISHED

    def checkpoint(self, value: Any, *, strict: bool = False) -> Awaitable[None]:
        """Store a JSON value that survives drains, crashes and retries. The next delivery reads it as `ctx.resume`.

        The value is stored when the call has been awaited. In a plain `def` handler the call itself waits. While Redis
        is unavailable it waits too, for as long as the job may run.

        Args:
            value: The value.
            strict: Raise QueueUnavailable if Redis does not take the value now, instead of waiting.

        Raises:
            InvalidCheckpoint: The value is not JSON, or exceeds 1 MiB. The job becomes a dead letter at once.
            QueueUnavailable: See `strict`.
            DurableError: The job has ended.
        """
        if self.ended:
            raise DurableError(f"job {self.id} has ended; nothing may use its context any more")
        try:
            raw = encode(to_json(value, "the checkpoint"), what=f"the checkpoint of job {self.id}")
        except InvalidPayload as exc:
            raise InvalidCheckpoint(str(exc)) from exc
        self._checkpoint = raw
        runtime = self._runtime
        if threading.get_ident() == runtime.thread:
            return runtime.checkpoint(self.id, raw, strict=strict)
        import asyncio  # noqa: PLC0415  # imported by handlers in threads

        asyncio.run_coroutine_threadsafe(runtime.checkpoint(self.id, raw, strict=strict), runtime.loop).result()
        return FINISHED

    def emit(self, data: Any) -> Awaitable[None]:
        """Append an event to the job's stream, which `client.stream` and the console's API pass on while the job runs.

        Events are written in batches, 50 ms after the first of a batch at the latest. The call waits only while the
        buffer is full. In a plain `def` handler the call itself waits. Steps may emit too, and a step that is not
        called again, since the journal has its value, emits the same again. So a run that goes on after a
        crash or a suspension emits the same text from its beginning, and readers get nothing twice.

        Args:
            data: A JSON value, a pydantic model or a dataclass. A text may be a part of a longer text, such as a token.

        Raises:
            InvalidPayload: The value is not JSON, or exceeds 64 KiB.
            DurableError: The job has ended, or the call comes from a thread that is neither the handler's nor a step's.
        """
        if self.ended:
            raise DurableError(f"job {self.id} has ended; nothing may use its context any more")
        step = current_step.get()
        event = encode(to_json(data, "the event"), what=f"an event of job {self.id}", max_bytes=MAX_EVENT_BYTES)
        runtime = self._runtime
        thread = threading.get_ident()
        if step is None and thread != self.thread:
            self._calls()  # raises
        if self._durable is None:
            self._durable = runtime.durable(self.id)
        if thread == runtime.thread:
            return self._durable.emit(event, step or "")
        return cast("Awaitable[None]", self._call(self._emit_in_loop(event, step or "")) or FINISHED)

    async def _emit_in_loop(self, event: bytes, step: str) -> None:
        assert self._durable is not None
        await self._durable.emit(event, step)

    # A type checker knows all arguments of a call without options, by ParamSpec. With options it knows the positional
    # ones, by TypeVarTuple.
    @overload
    def step(
        self, name: str, function: Callable[Q, Awaitable[T]], /, *args: Q.args, **kwargs: Q.kwargs
    ) -> Awaitable[T]: ...
    @overload
    def step(
        self, name: str, function: Callable[[*Ts], Awaitable[T]], /, *args: *Ts, **options: Unpack[StepOptions]
    ) -> Awaitable[T]: ...
    @overload
    def step(self, name: str, function: Callable[Q, T], /, *args: Q.args, **kwargs: Q.kwargs) -> Awaitable[T]: ...
    @overload
    def step(
        self, name: str, function: Callable[[*Ts], T], /, *args: *Ts, **options: Unpack[StepOptions]
    ) -> Awaitable[T]: ...
    def step(  # type: ignore[misc]  # mypy takes *Ts for something that *args can't be
        self, name: str, function: Callable[..., Any], /, *args: Any, **keywords: Any
    ) -> Any:
        """Run a function once, however often the job runs, and return its value.

        The value is kept as JSON in the job's journal before the call returns. When the job runs again, after a crash,
        a drain or a failed attempt, the call returns the kept value and does not call the function. Both runs get the
        value as its JSON and the function's return annotation make it. In a plain `def` handler the call itself waits,
        and returns the value.

        With `once=True` the function is called at most once: the call is recorded before it starts, and an exception
        is its final outcome, raised as `StepFailed` in this and in every later run (`NotDone` and `Retry` allow another
        call). A call that was cut off, such as by a crash, is not made again: `verify` finds out what has become of it,
        or the job becomes a dead letter with the reason `outcome-unknown`.

        Args:
            name: The step's name: letters, digits and `_.:-`. Several calls of a name are numbered in their order.
            function: An async function, or a plain one, which runs in a thread.
            args: Its arguments. A later run must give the same ones.
            keywords: Options (see `StepOptions`) and the function's keyword arguments. An argument with the name of an
                option is passed with `functools.partial`.

        Raises:
            DurableError: The call cannot be kept as it is written; the message says what to write instead.
            StepFailed: A step with `once=True` has raised an exception, in this run or in an earlier one.
            OutcomeUnknown: A step with `once=True` was cut off.
        """
        return self._call(self._calls().step(StepCall.of(name, function, args, keywords)))

    def wait_for(self, name: str, *, timeout: Seconds | None = None, key: str | None = None) -> Awaitable[Signal]:
        """Wait for a signal that somebody sends to the job, for hours or days if need be.

        The next signal of the name that no wait has taken is returned, also one that was sent before. A job that only
        waits gives up its slot after a moment: `ctx.ending` is "suspended", the handler is cancelled, and when the
        signal comes it runs from its start. Steps and waits that have ended return what they returned before. So
        cleanup in `finally` and `async with` runs at each suspension, and asks `ctx.ending` first.

        Args:
            name: The signal's name, as `Client.signal` gives it.
            timeout: Longest wait, in seconds or as a timedelta, from the first run that calls. `asyncio.timeout`
                around the call does not work: it starts again with each run.
            key: Distinguishes waits for one name that several tasks of the job make.

        Raises:
            TimeoutError: No signal came within `timeout`. A later one is kept for the next wait.
            DurableError: The call cannot be kept as it is written; the message says what to write instead.
        """
        return self._wait(self._calls().wait_for(name, timeout, check_key(key, "ctx.wait_for")))

    def sleep(self, duration: Seconds, *, key: str | None = None) -> Awaitable[None]:
        """Sleep without a slot. The time counts from the first run that makes the call, by the clock of Redis.

        Args:
            duration: Seconds, or a timedelta.
            key: Distinguishes sleeps of several tasks of the job.
        """
        return self._wait(self._calls().sleep(duration, check_key(key, "ctx.sleep")))

    def first(self, *, key: str | None = None, **waits: Awaitable[Any]) -> Awaitable[First]:
        """Wait for the first of several waits to end, and return its name and value. The others take no signal.

        The choice is kept: a later run gets the same one. `asyncio.wait` and `as_completed` would decide again in each
        run. Async handlers only.

        Args:
            key: Distinguishes choices of several tasks of the job.
            waits: What `ctx.wait_for` and `ctx.sleep` return, by a name of yours.

        Raises:
            TimeoutError: The first to end is a `wait_for` whose timeout has passed.
        """
        return cast("Awaitable[First]", self._call(self._calls().first(waits, check_key(key, "ctx.first"))))

    def busy(self) -> AbstractAsyncContextManager[None]:
        """Return a context manager that keeps the run from being suspended: `async with ctx.busy():`.

        A plain await beside a wait of another task would be cut off by the suspension, and run again. While the worker
        drains, steps within it still begin; without it the run is ended before its next step.
        """
        return self._calls().busy()

    def limit(self, *names: str, units: int | None = None) -> LimitBlock:
        """Reserve a call under limits that all workers share: `async with ctx.limit("gpt-main", units=1_200) as use:`.

        The block begins when all the limits have room for it, and waits until then. In a plain `def` handler write
        `with`. In a durable job, make the block in the function of a step, so that a later run does not reserve a call
        that it does not make.

        Args:
            names: Names of the limits, which the resource or AGENTQUEUE_LIMITS defines. All are reserved, or none.
            units: Units that the call may take, such as tokens. By default as many as nine of ten calls have taken. Set
                `use.units` to the units that the provider has counted; what was reserved too much is free again.

        Raises:
            DurableError: A limit is not defined, the call is larger than a limit, or a name is wrong.
            ThrottledTooLong: The provider has refused calls for longer than the limit allows.
        """
        if self.ended:
            raise DurableError(f"job {self.id} has ended; nothing may use its context any more")
        if units is not None and not (type(units) is int and units >= 0):
            raise DurableError(f"ctx.limit: units={units!r:.80} must be a whole number from 0 on")
        try:
            check_limit_names(names)
        except UsageError as exc:
            raise DurableError(f"ctx.limit: {exc}") from exc
        if self._limits is None:
            self._limits = self._runtime.limits(self.id)
        return LimitBlock(self._limits, names, units, self._call_in_loop)

    def _call_in_loop(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        if threading.get_ident() == self._runtime.thread:
            coroutine.close()
            raise DurableError('ctx.limit in async code needs "async with"; "with" would block all jobs of the worker')
        return self._call(coroutine)

    def _wait(self, waiting: Waiting[T]) -> Awaitable[T]:
        if threading.get_ident() == self._runtime.thread:
            return waiting
        return cast("Awaitable[T]", self._call(waiting.begin()))

    @property
    def idempotency_key(self) -> str:
        """Return a text that is the same in every call of the step that runs now, for providers that take one.

        It has letters, digits and `-_.` only, and at most 121 characters. No other step and no other job has it.

        Raises:
            UsageError: No step runs in this task or thread.
        """
        step = current_step.get()
        if step is None:
            raise UsageError("ctx.idempotency_key is known inside a step only; read it in the step's function")
        return idempotency_key(self.id, step)

    @overload
    def child(
        self,
        target: "Callable[[Context, P], Awaitable[R]] | JobDeclaration[P, R]",
        data: P,
        *,
        key: str | None = None,
        **options: "Unpack[EnqueueOptions]",
    ) -> Child[R]: ...
    @overload
    def child(
        self,
        target: "Callable[[Context], Awaitable[R]] | JobDeclaration[None, R]",
        *,
        key: str | None = None,
        **options: "Unpack[EnqueueOptions]",
    ) -> Child[R]: ...
    @overload
    def child(
        self,
        target: "Callable[[Context, P], R]",
        data: P,
        *,
        key: str | None = None,
        **options: "Unpack[EnqueueOptions]",
    ) -> Child[R]: ...
    @overload
    def child(
        self, target: "Callable[[Context], R]", *, key: str | None = None, **options: "Unpack[EnqueueOptions]"
    ) -> Child[R]: ...
    @overload
    def child(
        self,
        target: JobDefinition | tuple[str, str],
        data: Any = NO_PAYLOAD,
        *,
        key: str | None = None,
        **options: "Unpack[EnqueueOptions]",
    ) -> Child[Any]: ...
    def child(self, target: Any, data: Any = NO_PAYLOAD, *more: Never, key: str | None = None, **options: Any) -> Any:
        """Ask for a job whose result this job waits for. It is sent once, however often this job runs.

        `await` the child, or give it to `gather` with others. Nothing is sent before. While this job waits, it needs no
        slot of a worker.

        Args:
            target: A function decorated with `@agent.job`, its definition in `agent.jobs`, a `declare`d job, or
                `(queue, job name)`.
            data: The payload; see `enqueue`.
            more: Not used; see `enqueue`.
            key: Distinguishes children of one target that several tasks of the job ask for, such as the ID of an item.
            options: See `EnqueueOptions`. `priority`, `tenant` and `trace` are this job's by default. `timeout` is of
                the child's attempts; the time that this job waits is limited by `gather` and by the child's `result`.

        Raises:
            DurableError: The target is not a job, the payload is refused, an option is out of range, or too many jobs
                wait for one another in a row.
        """
        if more:
            raise DurableError("ctx.child takes one payload; put several values into one model or dict")
        if options.get("id") is not None:
            raise DurableError("a child's ID is derived from its call; give it a key= instead of an id=")
        key = check_key(key, "ctx.child")
        record, calls = self._record, self._calls()
        if record.depth >= MAX_DEPTH:
            raise DurableError(
                f"job {self.id} is child of {record.depth} jobs that wait for one another, which is the limit; "
                "does a job ask for itself?"
            )
        inherited = {"priority": record.priority, "tenant": record.tenant, "trace": record.trace}
        try:
            queue, name, payload = self._resolve(target, data)
            prepared = prepare_job(
                queue,
                name,
                payload,
                inherited | options,
                now_ms=now_ms(),
                new_id="",
                draw_nonce=new_nonce,
                parent=check_id(self.id),
                parent_queue=self.queue,
                depth=record.depth + 1,
            )
        except UsageError as exc:
            raise DurableError(f"ctx.child: {exc}") from exc
        job = job_of(target)
        load = None if job is None else partial(job.result.load, what=f"the result of {queue}/{name}")
        call = ChildCall(prepared.job, name, child_fingerprint(queue, name, payload), key, load)
        calls.child(call)
        return Child(call, self._gather)

    @overload
    def gather(
        self,
        children: Sequence[Child[R]],
        *,
        on_error: Literal["raise"] = "raise",
        need: int | None = None,
        timeout: Seconds | None = None,
        cancel_rest: bool = False,
    ) -> Awaitable[list[R]]: ...
    @overload
    def gather(
        self,
        children: Sequence[Child[R]],
        *,
        on_error: Literal["collect"],
        need: int | None = None,
        timeout: Seconds | None = None,
        cancel_rest: bool = False,
    ) -> Awaitable[list[R | ChildFailed]]: ...
    def gather(
        self,
        children: Sequence[Child[Any]],
        *,
        on_error: Literal["raise", "collect"] = "raise",
        need: int | None = None,
        timeout: Seconds | None = None,
        cancel_rest: bool = False,
    ) -> Any:
        """Send children, and wait for their results. This job needs no slot of a worker meanwhile.

        What a gather has come to is kept in the journal: later runs get the same results, or the same error.

        Args:
            children: Up to 1,000 children; their results may have 16 MiB in all.
            on_error: `raise`: the first child that fails is raised. `collect`: failed children are results too.
            need: Number of children that must complete; all by default. The others go on, and their results are not
                returned. With `raise`, children may fail as long as so many can complete.
            timeout: Seconds from the first call. They count while this job is suspended, and in later runs.
            cancel_rest: Cancel the children that have not ended when the gather is complete, fails or is late.

        Returns:
            The results, in the order of the children. With `need`, of those that had ended by then.

        Raises:
            ChildFailed: A child has failed. The others go on unless `cancel_rest` is set.
            TimeoutError: The time is over. The children go on unless `cancel_rest` is set.
            DurableError: An argument is out of range.
        """
        if on_error not in ("raise", "collect"):
            raise DurableError(f"on_error={on_error!r} must be 'raise' or 'collect'")
        count = len(children) if need is None else need
        if not 0 < count <= len(children) and (children or need is not None):
            raise DurableError(f"need={need!r} must be a number from 1 to the number of children, {len(children)}")
        limit = None if timeout is None else seconds(timeout, "timeout")
        calls = [child.call for child in children]
        return self._gather(GatherCall(calls, on_error == "collect", count, limit, cancel_rest))

    def _gather(self, call: GatherCall) -> Any:
        return self._call(self._calls().gather(call))

    def _calls(self) -> "Durable":
        """Return the worker's part of the durable calls.

        Raises:
            DurableError: The job has ended, a step runs, or another thread than the handler's calls.
        """
        if self.ended:
            raise DurableError(f"job {self.id} has ended; nothing may use its context any more")
        if (step := current_step.get()) is not None:
            raise DurableError(
                f'step "{step}" calls its job\'s context, whose calls are kept themselves; '
                "make the call in the handler, between its steps"
            )
        if threading.get_ident() != self.thread:
            raise DurableError(
                f"the context of job {self.id} is used in another thread than the handler's; "
                "make the call in the handler, and pass its value to the thread"
            )
        if self._durable is None:
            self._durable = self._runtime.durable(self.id)
        return self._durable

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Return the coroutine in the event loop's thread. In the thread of a plain handler wait for its result."""
        runtime = self._runtime
        if threading.get_ident() == runtime.thread:
            return coroutine
        import asyncio  # noqa: PLC0415  # imported by handlers in threads
        from concurrent.futures import CancelledError  # noqa: PLC0415

        try:
            return asyncio.run_coroutine_threadsafe(coroutine, runtime.loop).result()
        except CancelledError:  # an Exception, which a handler would take for an error of its call
            if self.ending == "suspended":
                raise Suspended(f"job {self.id} waits without a slot, and its handler runs again later") from None
            raise asyncio.CancelledError(f"job {self.id} is being ended: {self.ending}") from None

    @property
    def last_checkpoint(self) -> bytes | None:
        """Return the newest checkpoint as JSON: of this delivery, or the one that it resumed from."""
        return self._checkpoint

    @overload
    def enqueue(
        self,
        target: "Callable[[Context, P], Any] | JobDeclaration[P, Any]",
        data: P,
        **options: "Unpack[EnqueueOptions]",
    ) -> str: ...
    @overload
    def enqueue(
        self, target: "Callable[[Context], Any] | JobDeclaration[None, Any]", **options: "Unpack[EnqueueOptions]"
    ) -> str: ...
    @overload
    def enqueue(
        self, target: JobDefinition | tuple[str, str], data: Any = NO_PAYLOAD, **options: "Unpack[EnqueueOptions]"
    ) -> str: ...
    def enqueue(self, target: Any, data: Any = NO_PAYLOAD, *more: Never, **options: Any) -> str:
        """Enqueue a child job when this job succeeds. Both are recorded together, and once even if this job reruns.

        Args:
            target: A function decorated with `@agent.job`, its definition in `agent.jobs`, a `declare`d job, or
                `(queue, job name)`.
            data: The payload, which the function's annotation checks. None is a payload too. Without a payload the
                handler runs with its default, or with the context alone.
            more: Not used. It gives a clear error to calls like the clients' `enqueue(queue, name, data)`.
            options: See `EnqueueOptions`. `tenant` and `trace` are this job's by default. The default `id` is derived
                from this job's ID, its enqueueing and the number of the call, so that a rerun gives the same ID.

        Returns:
            The child's ID.

        Raises:
            InvalidPayload: The payload is refused.
            UsageError: The target is not a job.
            DurableError: The children exceed 1,000 jobs or 3 MiB. The job becomes a dead letter at once.
        """
        queue, name, payload = self._resolve(target, data)
        if more:
            raise UsageError("ctx.enqueue takes one payload; put several values into one model or dict")
        inherited = {"tenant": self._record.tenant, "trace": self._record.trace}
        prepared = prepare_job(
            queue,
            name,
            payload,
            inherited | options,
            now_ms=now_ms(),
            new_id=child_id(self.id, self._record.enqueueing, len(self.children)),
            draw_nonce=new_nonce,
            parent=self.id,
        )
        self._check_room(len(prepared.job.record))
        self.children.append(prepared.job)
        return prepared.job.id

    def _resolve(self, target: Any, data: Any) -> tuple[str, str, Any]:
        job = job_of(target)
        if job is not None:
            own = job.queue == self._runtime.declared_queue
            return (self.queue if own else job.queue), job.name, job.payload.dump(data)
        if isinstance(target, tuple) and len(target) == 2:
            return check_queue(target[0]), check_job_name(target[1]), to_json(data)
        raise UsageError(
            f"{target!r} is not a job: pass a function decorated with @agent.job, or the queue and the job's name "
            'as a tuple, such as ("queue", "job")'
        )

    def _check_room(self, size: int) -> None:
        if len(self.children) >= MAX_CHILDREN:
            raise DurableError(f"job {self.id} enqueues more than {MAX_CHILDREN:,} jobs; let children enqueue the rest")
        if sum(len(job.record) for job in self.children) + size > MAX_CHILDREN_BYTES:
            raise DurableError(f"the jobs that job {self.id} enqueues are over 3 MiB in all; pass references")
