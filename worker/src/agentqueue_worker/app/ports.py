"""What the claim loop asks of the world. A registry stands for the user's code: an Agent's handlers, or arq's."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

from agentqueue.agent.context import Runtime
from agentqueue.model.job import JobRecord
from agentqueue.model.result import ResultRecord
from agentqueue_worker.app.job import Handler, RunningJob


class Codec(Protocol):
    """Records as bytes."""

    def decode_job(self, raw: bytes) -> JobRecord:
        """The job's record.

        Raises:
            InvalidPayload: can't be read.
        """
        ...

    def encode_result(self, record: ResultRecord) -> bytes:
        """The result's bytes. `record.result` is the handler's value, or an exception when `success` is false.

        Raises:
            InvalidPayload: the handler's value can't be written. A failure can always be.
        """
        ...


class Cron(Protocol):
    """A job that the clock enqueues."""

    @property
    def name(self) -> str:
        """What tells it from other crons of the queue; the last tick is remembered by it."""
        ...

    def next_tick(self, after_ms: int) -> int:
        """The first tick after that time, both ms since the epoch."""
        ...

    def job_id(self, tick_ms: int) -> str:
        """The same on every worker of the queue."""
        ...

    def record(self, tick_ms: int) -> bytes:
        """The encoded job."""
        ...


class Registry(Protocol):
    """The user's code."""

    @property
    def codec(self) -> Codec:
        """How its records are written."""
        ...

    @property
    def crons(self) -> Sequence[Cron]:
        """What the clock enqueues."""
        ...

    @property
    def names(self) -> Iterable[str]:
        """The names of the jobs it knows."""
        ...

    @property
    def unknown_grace_ms(self) -> int:
        """How long a job of an unknown name is handed back before it is buried; 0: not at all (arq)."""
        ...

    @property
    def cancellable(self) -> bool:
        """Whether requests to cancel are followed (arq: `allow_abort_jobs`)."""
        ...

    def find(self, name: str) -> Handler | None:
        """The handler of that name."""
        ...

    async def start(self, runtime: "WorkerRuntime") -> None:
        """Open what handlers share, before the first claim."""
        ...

    async def stop(self) -> None:
        """Close it, after the last job."""
        ...

    async def recorded(self, job: RunningJob) -> None:
        """The job's outcome is recorded (arq: `after_job_end`). Called only if `wants_recorded`."""
        ...

    @property
    def wants_recorded(self) -> bool:
        """Whether `recorded` is to be called: a task per job that most registries don't need."""
        ...


class WorkerRuntime(Runtime, Protocol):
    """A worker as a registry sees it: what contexts ask of it, and more."""

    worker: str

    def run_in_thread(self, function: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        """Run a blocking function in a thread; cancelled, it goes on and keeps its slot until it ends."""
        ...
