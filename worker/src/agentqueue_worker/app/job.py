"""One claimed job while this worker has it."""

from collections.abc import Awaitable
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Protocol

from agentqueue.model.job import JobRecord
from agentqueue.model.outcomes import Claimed
from agentqueue.model.retry_policy import Backoff
from agentqueue_worker.domain.verdict import Verdict

if TYPE_CHECKING:
    import asyncio

    from agentqueue.agent.context import Context


class Ending(Enum):
    """Why the worker itself ends a running job."""

    TIMEOUT = auto()
    CANCEL = auto()
    """Somebody asked for it."""
    DRAIN = auto()
    """The grace period is over: it goes back."""
    LOST = auto()
    """Another worker has it by now: its outcome is dropped."""


class Job:
    """Made per claim and so kept small: no dataclass machinery, no dictionary."""

    __slots__ = (
        "attempt",
        "claimed",
        "context",
        "deadline",
        "ending",
        "extra",
        "handler",
        "id",
        "record",
        "result",
        "started",
        "started_ms",
        "success",
        "task",
        "unsaved",
    )

    def __init__(
        self, claimed: Claimed, record: JobRecord, handler: "Handler", *, attempt: int, started: float, started_ms: int
    ) -> None:
        self.id = claimed.id
        self.claimed = claimed
        self.record = record
        self.handler = handler
        self.attempt = attempt
        """From 1: attempts that ended so far, and this one."""
        self.started = started
        """Monotonic seconds."""
        self.started_ms = started_ms
        self.deadline: float | None = None
        """When it has run out of time, monotonic."""
        self.task: asyncio.Task[None] | None = None
        self.context: Context | None = None
        """Set by a handler that gives its function one: children, progress and checkpoint are read from it."""
        self.ending: Ending | None = None
        self.unsaved: dict[str, bytes] | None = None
        """Notes not written yet: they go with the outcome."""
        self.success = False
        self.result: Any = None
        """What it returned or raised, once it ended: for `Registry.recorded`."""
        self.extra: Any = None
        """The registry's own."""

    @property
    def delivery(self) -> int:
        """From 1: starts, whatever ended them."""
        claimed = self.claimed
        return claimed.delivery if claimed.meta else claimed.attempts + 1


class Handler(Protocol):
    """What runs the jobs of one name. A job's record may override timeout, attempts, backoff."""

    @property
    def name(self) -> str:
        """The job's name: labels metrics and logs, so it must come from a bounded set."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds an attempt may take; None: no limit."""
        ...

    @property
    def attempts(self) -> int:
        """Attempts in all, the first one included."""
        ...

    @property
    def backoff(self) -> Backoff:
        """The delay between attempts."""
        ...

    @property
    def keep_ms(self) -> int:
        """How long the result is kept; 0: not at all, -1: for ever."""
        ...

    def call(self, job: Job) -> Awaitable[Any]:
        """Start the handler, in the job's own task: what this awaits to is the result.

        It is cancelled on a timeout, a cancellation, a lost lease and at the end of a drain; `job.ending` tells which.

        Raises:
            InvalidPayload: here, before anything ran, for a payload the handler's model refuses.
        """
        ...

    def judge(self, exc: BaseException, job: Job) -> Verdict:
        """How what `call` raised counts. Not asked when the worker ended the job itself (`job.ending` is set)."""
        ...
