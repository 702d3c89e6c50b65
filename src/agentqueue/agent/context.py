"""The context that a handler receives with its job."""

import math
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import TYPE_CHECKING, Any, Final, Never, Protocol, Unpack

import orjson

from agentqueue.agent.job_definition import JobDefinition, job_of
from agentqueue.agent.payload import to_json
from agentqueue.clock import now_ms
from agentqueue.errors import UsageError
from agentqueue.ids import new_nonce
from agentqueue.keys import check_job_name, check_queue
from agentqueue.model.attempts import Progress
from agentqueue.model.exceptions import clean_text, describe_value
from agentqueue.model.job import JobRecord, child_id
from agentqueue.model.json import encode
from agentqueue.model.new_job import NO_PAYLOAD, prepare_job
from agentqueue.model.numbers import plain_number

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from structlog.typing import FilteringBoundLogger

    from agentqueue.model.new_job import EnqueueOptions, NewJob

MAX_CHILDREN: Final = 1_000
"""Jobs that one job may enqueue: they are sent in one script, which keeps the server busy that long."""
MAX_CHILDREN_BYTES: Final = 3 * 1024 * 1024


class Runtime(Protocol):
    """What a context asks of the worker that runs its job."""

    queue: str
    declared_queue: str
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
        target: Callable[..., Any] | JobDefinition | tuple[str, str],
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
            'as a tuple: ctx.enqueue(("queue", "job"), data)'
        )

    def _check_room(self, size: int) -> None:
        if len(self.children) >= MAX_CHILDREN:
            raise UsageError(f"job {self.id} enqueues more than {MAX_CHILDREN:,} jobs; let children enqueue the rest")
        if sum(len(job.record) for job in self.children) + size > MAX_CHILDREN_BYTES:
            raise UsageError(f"the jobs that job {self.id} enqueues are over 3 MiB in all; pass references")
