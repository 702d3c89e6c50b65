"""Whether a failed job is tried again, and when."""

from dataclasses import dataclass

from agentqueue.model.retry_policy import Backoff


@dataclass(frozen=True, slots=True)
class TryAgain:
    """The next attempt starts after the delay."""

    delay_ms: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The attempts are used up."""


def decide_retry(
    backoff: Backoff, *, attempt: int, attempts: int, after: float | None, roll: float
) -> TryAgain | GiveUp:
    """What follows the failure of an attempt.

    Args:
        backoff: the delay between attempts.
        attempt: the one that failed, from 1.
        attempts: how many there may be.
        after: the delay that the handler asked for, in seconds; None: the backoff's.
        roll: a random number from 0 to 1.
    """
    if attempt >= attempts:
        return GiveUp()
    return TryAgain(backoff_ms(backoff, attempt=attempt, roll=roll) if after is None else round(after * 1000))


def backoff_ms(backoff: Backoff, *, attempt: int, roll: float) -> int:
    """The delay after that attempt. Jitter only shortens it, so that the cap is one; a fixed delay needs none."""
    if backoff.type == "fixed":
        delay = backoff.delay
    else:
        delay = min(backoff.delay * 2 ** min(attempt - 1, 60), max(backoff.max_delay, 0.0))
    return round(delay * (1 - backoff.jitter * roll) * 1000)
