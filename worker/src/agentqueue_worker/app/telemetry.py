"""What the parts of a worker report of themselves; adapters count and log it."""

from collections.abc import Sequence
from typing import Protocol

from agentqueue.model.attempts import AttemptError
from agentqueue.model.outcomes import Outcome
from agentqueue.store import RenewReply
from agentqueue_worker.app.job import RunningJob


class Telemetry(Protocol):
    """Called on the hot path: implementations add to plain numbers. The renewing thread calls `renewed` alone."""

    def ended(self, job: RunningJob, outcome: Outcome | None, seconds: float, error: AttemptError | None) -> None:
        """A job left its slot. `outcome` None: its lease was lost. `error`: of an attempt that failed."""
        ...

    def stepped(self, seconds: float, outcomes: int, claimed: int) -> None:
        """A step was answered."""
        ...

    def lost(self, ids: Sequence[str]) -> None:
        """Outcomes that were not recorded, since another worker has the jobs (rule 2)."""
        ...

    def redis_failed(self, exc: Exception) -> None:
        """Redis did not answer."""
        ...

    def redis_answered(self) -> None:
        """Redis answers (again)."""
        ...

    def wrong_type_keys(self, keys: Sequence[tuple[str, str]]) -> None:
        """Keys of another Redis type than ours, which is named with each: somebody else wrote them."""
        ...

    def blocked(self, exc: Exception) -> None:
        """Redis is full: outcomes with children wait."""
        ...

    def renewed(self, reply: RenewReply | None, seconds: float) -> None:
        """A renewal was answered, or failed (None)."""
        ...
