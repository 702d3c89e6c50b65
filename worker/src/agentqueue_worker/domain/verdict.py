"""How an exception that a handler raised counts: the registry judges, the retry policy decides what follows."""

from dataclasses import dataclass

from agentqueue.model.dead_letter import DeadLetterReason


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed: again after `after` seconds, or after the backoff, as long as there are attempts left."""

    after: float | None = None


@dataclass(frozen=True, slots=True)
class Hopeless:
    """Trying again is of no use: the job is buried now."""

    reason: DeadLetterReason = DeadLetterReason.FATAL


@dataclass(frozen=True, slots=True)
class Yielded:
    """The handler gave up its place on purpose: the job goes back, and no attempt is burnt."""

    after: float | None = None
    """Seconds; None: to where it stood."""


@dataclass(frozen=True, slots=True)
class CancelledOnRequest:
    """The job ends as cancelled."""


Verdict = Failed | Hopeless | Yielded | CancelledOnRequest
