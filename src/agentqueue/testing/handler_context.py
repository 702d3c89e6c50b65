"""A context for unit tests of handlers, without a server or a worker."""

import asyncio
import functools
import inspect
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from types import SimpleNamespace
from typing import Any, Final

import orjson

from agentqueue.agent.children import ChildFailed
from agentqueue.agent.context import FINISHED, Context
from agentqueue.agent.durable import ChildCall, GatherCall, StepCall, current_step
from agentqueue.agent.job_definition import job_of
from agentqueue.agent.limit import LimitUse
from agentqueue.agent.outcomes import NotDone, Retry, Snooze, StepFailed
from agentqueue.agent.payload import to_json
from agentqueue.agent.waiting import First, Signal, Waiting
from agentqueue.client import Client
from agentqueue.errors import UsageError
from agentqueue.model.attempts import Progress
from agentqueue.model.exceptions import name_exception
from agentqueue.model.job import JobRecord, decode_job
from agentqueue.model.json import MAX_BYTES, encode
from agentqueue.model.retry_policy import Seconds

SENDER: Final = "test"
"""Sender of the signals that a test gives."""


def context(
    *,
    signals: Mapping[str, Any] | None = None,
    children: Mapping[Any, Any] | None = None,
    id: str = "job-1",  # noqa: A002  # the public name
    name: str = "job",
    queue: str = "queue",
    attempt: int = 1,
    delivery: int = 1,
    resume: Any = None,
    state: Any = None,
    client: Client | None = None,
) -> "HandlerContext":
    """Return a context with which a test calls a handler: `await buy(context(), order)`.

    Steps run at once, and nothing is kept. Sleeps end at once, and limits have room. Jobs that the handler enqueues are
    in `ctx.children`, and what it emits is in `ctx.emitted`. A plain `def` handler is called in a test without an event
    loop, or by `asyncio.to_thread`.

    Args:
        signals: Data of each signal by its name, for every wait for it. A wait for another signal times out.
        children: Result of each child by its function, definition or declaration, or `(queue, name)`: a value, a
            function of the payload, or an exception with which it fails.
        id: The job's ID.
        name: The job's name.
        queue: The job's queue.
        attempt: Number of the attempt.
        delivery: Number of the start.
        resume: The checkpoint of an earlier delivery.
        state: What `@agent.startup` would have set up.
        client: The client that the handler gets as `ctx.client`, such as that of a Sandbox.
    """
    calls = _DirectCalls(signals or {}, children or {})
    raw = None if resume is None else encode(resume, what="resume")
    record = JobRecord(name=name, queue=queue)
    runtime = _Runtime(queue, state, calls, client)
    made = HandlerContext(runtime, record, id=id, attempt=attempt, delivery=delivery, resume=raw)
    made.emitted = calls.emitted
    made.thread = threading.get_ident()
    return made


class HandlerContext(Context):
    """The context of a handler that a test calls."""

    __slots__ = ("emitted",)

    emitted: list[Any]
    """What the handler has emitted, as readers of its stream get it."""


class _Runtime:
    """The worker of a context. Without a running event loop, as in tests of plain handlers, it has one in a thread."""

    draining = False

    def __init__(self, queue: str, state: Any, calls: "_DirectCalls", client: Client | None) -> None:
        self.queue = self.declared_queue = queue
        self.state = SimpleNamespace() if state is None else state
        self._calls = calls
        self._client = client
        try:
            self.loop = asyncio.get_running_loop()
            self.thread = threading.get_ident()
        except RuntimeError:
            self.loop, self.thread = _loop_in_thread()

    @property
    def client(self) -> Client:
        """Return the client that the test has given."""
        if self._client is None:
            raise UsageError("the handler uses ctx.client: give one, context(client=box.client)")
        return self._client

    def progress(self, job_id: str, progress: Progress) -> None:
        """Keep nothing: `ctx.last_progress` has it."""

    async def checkpoint(self, job_id: str, raw: bytes, *, strict: bool) -> None:
        """Keep nothing: `ctx.last_checkpoint` has it."""

    def durable(self, job_id: str) -> "_DirectCalls":  # noqa: ARG002  # the port's shape
        """Return the durable calls."""
        return self._calls

    def limits(self, job_id: str) -> "_DirectLimits":  # noqa: ARG002  # the port's shape
        """Return limits that have room for every call."""
        return _DirectLimits()


class _DirectLimits:
    """Limits with room for every call. See the port, `agentqueue.agent.limit.LimitCalls`."""

    async def enter(self, names: Sequence[str], units: int | None) -> LimitUse:
        """Reserve nothing."""
        return LimitUse(names, units)

    async def exit(self, use: LimitUse, exc: BaseException | None) -> None:  # noqa: ARG002  # the port's shape
        """Check what the handler has set."""
        use.count()


@functools.cache
def _loop_in_thread() -> tuple[asyncio.AbstractEventLoop, int]:
    """Return an event loop that runs in a thread until the process ends, and the thread's identifier."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="handler-context", daemon=True)
    thread.start()
    assert thread.ident is not None
    return loop, thread.ident


class _GivenWait(Waiting[Any]):
    """A wait whose answer a test has given, or none."""

    def __init__(self, answer: Callable[[], Any], *, is_given: bool) -> None:
        self.is_given = is_given
        self._answer = answer

    async def begin(self) -> Any:
        """Return the answer."""
        return self._answer()


class _DirectCalls:
    """Durable calls that are made at once. See the port, `agentqueue.agent.durable.Durable`."""

    def __init__(self, signals: Mapping[str, Any], children: Mapping[Any, Any]) -> None:
        self._signals = signals
        self._results = {_target_of(target): (target, result) for target, result in children.items()}
        self._steps: Counter[str] = Counter()
        self.emitted: list[Any] = []

    async def step(self, call: StepCall) -> Any:
        """Run a step. Its value is what a journal would return."""
        self._steps[call.place] += 1
        label = f"{call.place}#{self._steps[call.place]}"
        token = current_step.set(label)
        try:
            value = call.function(*call.args, **call.kwargs)
            while inspect.isawaitable(value):
                value = await value
        except Exception as exc:
            if not call.once or isinstance(exc, NotDone | Retry | Snooze):
                raise
            raise StepFailed(label, type(exc).__name__, name_exception(exc).message) from exc
        finally:
            current_step.reset(token)
        return call.value.load(call.value.dump(value, f'the value of step "{call.name}"', max_bytes=MAX_BYTES))

    def wait_for(self, name: str, timeout: Seconds | None, key: str | None) -> Waiting[Signal]:  # noqa: ARG002
        """Return the signal that the test has given."""

        def answer() -> Signal:
            if name in self._signals:
                return Signal(name, to_json(self._signals[name], f"the data of signal {name!r}"), SENDER)
            if timeout is not None:
                raise TimeoutError(f'no signal "{name}" is given, so its timeout has passed')
            raise UsageError(f"the handler waits for the signal {name!r}: give it, context(signals={{{name!r}: ...}})")

        return _GivenWait(answer, is_given=name in self._signals)

    def sleep(self, duration: Seconds, key: str | None) -> Waiting[None]:  # noqa: ARG002  # the port's shape
        """Return at once."""
        return _GivenWait(lambda: None, is_given=False)

    async def first(self, waits: Mapping[str, Any], key: str | None) -> First:  # noqa: ARG002  # the port's shape
        """Return the first signal that is given, else the first wait, whose time has passed."""
        name = next((name for name, wait in waits.items() if wait.is_given), next(iter(waits)))
        return First(name, await waits[name].begin())

    def emit(self, event: bytes, step: str) -> Awaitable[None]:  # noqa: ARG002  # the port's shape
        """Keep an event."""
        self.emitted.append(orjson.loads(event))
        return FINISHED

    def busy(self) -> AbstractAsyncContextManager[None]:
        """Do nothing."""
        return nullcontext()

    def child(self, call: ChildCall) -> None:
        """Do nothing: the child is sent when it is awaited."""

    def gather(self, call: GatherCall) -> Coroutine[Any, Any, Any]:
        """Return the results that the test has given."""
        return self._gather(call)

    async def _gather(self, call: GatherCall) -> Any:
        results: list[Any] = []
        for child in call.children:
            result = await self._result_of(child)
            if isinstance(result, ChildFailed) and not call.collect:
                raise result
            results.append(result)
        return results[0] if call.of_one else results

    async def _result_of(self, child: ChildCall) -> Any:
        queue, name = child.job.queue, child.name
        if (queue, name) not in self._results:
            raise UsageError(
                f"the handler asks for a child: give its result, context(children={{({queue!r}, {name!r}): ...}})"
            )
        target, result = self._results[queue, name]
        if callable(result):
            args = decode_job(child.job.record).args
            job = job_of(target)
            payload = args if job is None or not args else [job.payload.load(args[0])]
            result = result(*payload)
            while inspect.isawaitable(result):
                result = await result
        if isinstance(result, BaseException):
            cause = name_exception(result).line
            return ChildFailed(
                f"child {queue}/{name} failed: {cause}", id="", target=(queue, name), error=cause, state="dead"
            )
        wire = to_json(result, f"the result of {queue}/{name}", comes_back=False)
        return orjson.loads(orjson.dumps(wire)) if child.load is None else child.load(wire)


def _target_of(target: Any) -> tuple[str, str]:
    job = job_of(target)
    return (job.queue, job.name) if job is not None else (target[0], target[1])
