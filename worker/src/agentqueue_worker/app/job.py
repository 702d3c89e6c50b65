"""A running job, and the handler that runs it."""

from collections.abc import Awaitable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from agentqueue.model.job import JobRecord
from agentqueue.model.journal import StepRecord
from agentqueue.model.outcomes import Claimed
from agentqueue.model.retry_policy import Backoff
from agentqueue_worker.domain.claimed_job import ClaimedJob
from agentqueue_worker.domain.verdict import Verdict

if TYPE_CHECKING:
    import asyncio

    from agentqueue.agent.context import Context


class Ending(StrEnum):
    """Reason why the worker itself ends a running job. Handlers read the value as `ctx.ending`."""

    TIMEOUT = "timeout"
    CANCEL = "cancelled"
    """A client asked to cancel the job."""
    DRAIN = "draining"
    """The worker drains, and the run was about to begin a step, or the grace period is over. The job is released."""
    SUSPEND = "suspended"
    """The handler only waits. The job waits without a slot, and is delivered again."""
    LOST = "lease-lost"
    """Another worker holds the job. The outcome of this run is dropped."""


class HoldOfJob(Protocol):
    """The waits of a running job, `agentqueue_worker.app.hold.Hold`."""

    @property
    def fields(self) -> Sequence[str]:
        """Fields of the journal for which the run was suspended."""
        ...

    def tell_news(self) -> None:
        """Let every wait ask again, since something has come for the job."""
        ...

    def cancel(self) -> None:
        """Cancel every wait."""
        ...

    def awaits(self, task: "asyncio.Task[Any]") -> bool:
        """Return whether a task does nothing but wait, or has started tasks that do."""
        ...


class EmitterOfJob(Protocol):
    """The events that a running job emits, `agentqueue_worker.app.emitter.Emitter`."""

    async def flush(self) -> None:
        """Write what the run has emitted so far."""
        ...

    async def finish(self) -> None:
        """Write all that the run has emitted, and drop what earlier runs have emitted besides."""
        ...


class DurableCallsOfJob(Protocol):
    """The durable calls of a running job, `agentqueue_worker.app.durable_run.DurableRun`."""

    closed: bool
    """The job has left its slot."""

    @property
    def emitter(self) -> EmitterOfJob | None:
        """Writes the events that the run emits."""
        ...

    @property
    def has_stream(self) -> bool:
        """True if the job has emitted events."""
        ...

    @property
    def has_journal(self) -> bool:
        """True if Redis keeps a journal of the job."""
        ...

    @property
    def steps(self) -> Sequence[StepRecord]:
        """Steps of the job, without their values."""
        ...

    @property
    def in_thread(self) -> bool:
        """True if the handler is a plain function."""
        ...

    @property
    def in_flight(self) -> int:
        """Number of steps and calls that a suspension must not cut."""
        ...

    @property
    def hold(self) -> "HoldOfJob":
        """The waits of the run."""
        ...

    async def settle(self) -> None:
        """Wait for calls that must not be cut, which the handler has left behind when it failed."""
        ...

    def close(self) -> None:
        """Let every later call raise, because the job has left its slot."""
        ...


class LimitsOfJob(Protocol):
    """The calls of a running job under limits, `agentqueue_worker.app.limits.JobLimits`."""

    @property
    def has_asked(self) -> bool:
        """True once a call has been reserved, or waits in the line."""
        ...

    def ask_now(self) -> None:
        """Let the calls that wait ask again, since something has become free."""
        ...

    def close(self) -> None:
        """Cancel the calls that wait, because the job has left its slot."""
        ...


class RunningJob(ClaimedJob["Handler"]):
    """A claimed job that this worker runs.

    One is made for each run, so it has slots, and its constructor does not call the base class's.
    """

    __slots__ = (
        "attempt",
        "context",
        "deadline",
        "delivery",
        "durable",
        "ending",
        "extra",
        "has_progressed",
        "limits",
        "started",
        "started_ms",
        "task",
        "tasks",
        "unsaved",
    )

    handler: "Handler"

    def __init__(
        self, claimed: Claimed, record: JobRecord, handler: "Handler", *, started: float, started_ms: int
    ) -> None:
        self.id = claimed.id
        self.claimed = claimed
        self.record = record
        self.handler = handler
        first = 1 if record.job_try is None else max(record.job_try, 1)
        self.attempt = claimed.attempts + first
        """Number of this attempt, from 1. arq's `_job_try` sets the number of the first attempt."""
        self.delivery = claimed.delivery if claimed.meta else claimed.attempts + 1
        """Number of this start, from 1. Starts that ended in a crash or a release count too."""
        self.started = started
        """When it started, in seconds of the monotonic clock."""
        self.started_ms = started_ms
        self.deadline: float | None = None
        """When the timeout ends the attempt, in seconds of the monotonic clock."""
        self.task: asyncio.Task[None] | None = None
        self.tasks: set[asyncio.Task[Any]] | None = None
        """Tasks that the handler has started and that have not ended, as far as there were any."""
        self.context: Context | None = None
        """Context that the handler gave to its function. It holds children, progress and checkpoint."""
        self.durable: DurableCallsOfJob | None = None
        """The job's durable calls, once it has made one."""
        self.limits: LimitsOfJob | None = None
        """The job's calls under limits, once it has made one."""
        self.ending: Ending | None = None
        self.unsaved: dict[str, bytes] | None = None
        """Fields (progress, checkpoint) that Redis does not have yet. They are recorded with the outcome."""
        self.has_progressed = False
        """This run has made progress that counts: a new step, or a checkpoint with another value."""
        self.extra: Any = None
        """Value that the registry attaches to the job."""

    @property
    def has_journal(self) -> bool:
        """True if Redis keeps a journal of the job."""
        return "journal" in self.claimed.meta if self.durable is None else self.durable.has_journal

    @property
    def has_stream(self) -> bool:
        """True if the job has emitted events."""
        return "stream" in self.claimed.meta or (self.durable is not None and self.durable.has_stream)

    @property
    def past_attempts(self) -> int:
        """Number of attempts that had failed when the job made progress last."""
        claimed = self.claimed
        return claimed.attempts if self.has_progressed else claimed.count("past_attempts")

    def progress_fields(self) -> dict[str, int]:
        """Return the fields of the meta hash that record progress of this run. Few jobs have failed, so mostly none.

        Nothing is counted down: the limits of attempts and crashes apply to those since then.
        """
        claimed = self.claimed
        if self.has_progressed or not (claimed.attempts or claimed.meta):
            return {}
        fields = {"past_attempts": claimed.attempts, "past_crashes": claimed.count("crashes")}
        return {name: count for name, count in fields.items() if count != claimed.count(name)}

    @property
    def attempts(self) -> int:
        """Number of attempts, this one included."""
        return self.attempt

    @property
    def deliveries(self) -> int:
        """Number of times that a worker started the job, this start included."""
        return self.delivery


class Handler(Protocol):
    """Runs the jobs of one name. A job's record may override the timeout, the attempts and the backoff."""

    @property
    def name(self) -> str:
        """Name of the job. It is a label of metrics and logs, so it must come from a bounded set."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds that an attempt may take. None means no limit."""
        ...

    @property
    def attempts(self) -> int:
        """Maximum number of attempts, the first one included."""
        ...

    @property
    def backoff(self) -> Backoff:
        """Delay between attempts."""
        ...

    @property
    def keep_ms(self) -> int:
        """Milliseconds that the result is kept. 0 means not at all, -1 means forever."""
        ...

    def call(self, job: RunningJob) -> Awaitable[Any]:
        """Start the handler in the job's own task, and return an awaitable of its result.

        The task is cancelled on a timeout, a cancellation, a lost lease and at the end of a drain. `job.ending` holds
        the reason.

        Raises:
            InvalidPayload: the handler's model refuses the payload. Nothing of the handler has run.
        """
        ...

    def judge(self, exc: BaseException, job: RunningJob) -> Verdict:
        """Return how an exception of the handler counts. Not called if the worker ended the job itself."""
        ...
