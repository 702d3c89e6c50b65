"""One claimed job while this worker has it."""

from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from agentqueue.store import Claimed
from agentqueue.wire import JobRecord

if TYPE_CHECKING:
    import asyncio

    from agentqueue.agent import Context
    from agentqueue_worker.app.ports import Handler


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
