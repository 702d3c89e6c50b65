"""Verdicts on the exception of a handler. The registry judges it, and the retry policy decides what follows."""

from dataclasses import dataclass

from agentqueue.model.dead_letter import DeadLetterReason


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed. If attempts are left, the next one starts after `after` seconds, or after the backoff."""

    after: float | None = None


@dataclass(frozen=True, slots=True)
class Hopeless:
    """Another attempt is useless. The job becomes a dead letter now."""

    reason: DeadLetterReason = DeadLetterReason.FATAL


@dataclass(frozen=True, slots=True)
class Yielded:
    """The handler released the job on purpose. It counts as no attempt."""

    after: float | None = None
    """Seconds until the job is claimable again. None puts it back to its old place."""


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The job can't go on now, for a cause outside of it. It counts as no attempt."""

    after: float
    """Seconds until the job is claimable again."""
    reason: str


@dataclass(frozen=True, slots=True)
class CancelledOnRequest:
    """The job was cancelled."""


Verdict = Failed | Hopeless | Yielded | Snoozed | CancelledOnRequest
