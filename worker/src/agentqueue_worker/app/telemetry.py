"""Interface for the events of a worker. Adapters count and log them."""

from collections.abc import Sequence
from typing import Protocol

from agentqueue.model.attempts import AttemptError
from agentqueue.model.outcomes import Outcome
from agentqueue.store import RenewReply
from agentqueue_worker.app.job import RunningJob


class Telemetry(Protocol):
    """Handles the events of a worker on the hot path. The lease thread calls `renewed`, the event loop the others."""

    def ended(self, job: RunningJob, outcome: Outcome | None, seconds: float, error: AttemptError | None) -> None:
        """Handle that a job left its slot.

        Args:
            job: the job.
            outcome: the outcome, or None if the lease was lost.
            seconds: how long the job ran.
            error: the error of a failed attempt.
        """
        ...

    def step_ended(self, job: str, step: str, outcome: str, seconds: float) -> None:
        """Handle that a step of a job of that name is done, has failed, or was replayed from the journal."""
        ...

    def round_trip_made(self, seconds: float, outcomes: int, claimed: int) -> None:
        """Handle the reply to a round trip that took `seconds`. `outcomes` and `claimed` are numbers of jobs."""
        ...

    def lost(self, ids: Sequence[str]) -> None:
        """Handle outcomes that were not recorded, because another worker holds the jobs (rule 2)."""
        ...

    def redis_failed(self, exc: Exception) -> None:
        """Handle that Redis did not answer."""
        ...

    def redis_answered(self) -> None:
        """Handle a reply of Redis."""
        ...

    def wrong_type_keys(self, keys: Sequence[tuple[str, str]]) -> None:
        """Handle keys that another program wrote. Each comes with its Redis type, which is not the one that we use."""
        ...

    def redis_full(self, exc: Exception) -> None:
        """Handle that a full Redis refused outcomes with children."""
        ...

    def renewed(self, reply: RenewReply | None, seconds: float) -> None:
        """Handle the reply to a renewal. None means that the renewal failed."""
        ...
