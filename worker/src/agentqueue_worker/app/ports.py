"""Interfaces that the claim loop needs. A registry stands for the user's code: an Agent's handlers, or arq's."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

from agentqueue.agent.context import Runtime
from agentqueue.model.job import JobRecord
from agentqueue.model.result import ResultRecord
from agentqueue.store import CodeSet
from agentqueue_worker.app.job import Handler, RunningJob


class Codec(Protocol):
    """Encodes and decodes records."""

    def decode_job(self, raw: bytes) -> JobRecord:
        """Return the job's record.

        Raises:
            InvalidPayload: the record can't be read.
        """
        ...

    def encode_completed(self, job: RunningJob, value: object, *, queue: str, worker: str) -> bytes | None:
        """Return the encoded result of a completed job without errors and progress, as most jobs are.

        Args:
            job: the job.
            value: the handler's value.
            queue: queue of the job.
            worker: name of the worker.

        Returns:
            None if the result needs `encode_result`.
        """
        ...

    def encode_result(self, record: ResultRecord) -> bytes:
        """Return the encoded result.

        Args:
            record: the result. Its field `result` is the handler's value, or an exception if `success` is false.

        Raises:
            InvalidPayload: the handler's value can't be encoded. Results of failed jobs always can.
        """
        ...


class Cron(Protocol):
    """A cron of an arq program, whose live workers enqueue its ticks."""

    @property
    def name(self) -> str:
        """Name of the cron, unique in its queue. The last tick is stored under it."""
        ...

    def next_tick(self, after_ms: int) -> int:
        """Return the first tick after that time. Both are in ms since the epoch."""
        ...

    def job_id(self, tick_ms: int) -> str:
        """Return the ID of the tick's job, which is the same on every worker of the queue."""
        ...

    def record(self, tick_ms: int) -> bytes:
        """Return the encoded job of the tick."""
        ...


class Registry(Protocol):
    """The user's code, as the claim loop sees it."""

    @property
    def codec(self) -> Codec:
        """Codec of the jobs' records and results."""
        ...

    @property
    def crons(self) -> Sequence[Cron]:
        """Crons of an arq program. Those of an Agent are schedules, see `code`."""
        ...

    @property
    def code(self) -> CodeSet:
        """What is registered for the queue: the jobs, and an Agent's crons."""
        ...

    @property
    def names(self) -> Iterable[str]:
        """Names of the jobs that have a handler."""
        ...

    @property
    def unknown_grace_ms(self) -> int:
        """Milliseconds for which jobs of unknown names are deferred before they are rejected. arq's value is 0."""
        ...

    @property
    def cancellable(self) -> bool:
        """True if cancellation requests are followed (arq: `allow_abort_jobs`)."""
        ...

    def find(self, name: str) -> Handler | None:
        """Return the handler of that name, or None."""
        ...

    async def start(self, runtime: "WorkerRuntime") -> None:
        """Run the startup hooks, before the first claim."""
        ...

    async def stop(self) -> None:
        """Run the shutdown hooks, after the last job."""
        ...

    async def on_recorded(self, job: RunningJob) -> None:
        """Handle that a job's outcome is recorded (arq: `after_job_end`). Called only if `wants_recorded`."""
        ...

    @property
    def wants_recorded(self) -> bool:
        """True if `on_recorded` is called for each job. It costs a task per job, and most registries don't need it."""
        ...


class WorkerRuntime(Runtime, Protocol):
    """A worker as a registry sees it: the interface of job contexts, and more."""

    worker: str

    def run_in_thread(self, function: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        """Run a blocking function in a thread. If it is cancelled, it runs on and keeps its slot until it ends."""
        ...
