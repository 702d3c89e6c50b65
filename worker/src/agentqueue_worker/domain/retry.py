"""Decides if and when a failed job is tried again."""

from dataclasses import dataclass
from typing import Final

from agentqueue.model.retry_policy import Backoff

TOTAL_FACTOR: Final = 20
"""A job that makes progress before each failure may fail this many times as often as one that makes none."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Start the next attempt after the delay."""

    delay_ms: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Stop, because the attempts are used up."""


def decide_retry(
    backoff: Backoff, *, attempt: int, attempts: int, after: float | None, roll: float, past: int = 0
) -> TryAgain | GiveUp:
    """Decide what follows a failed attempt.

    Args:
        backoff: delay between attempts.
        attempt: number of the attempt that failed, from 1.
        attempts: maximum number of attempts without progress, such as a new step in the job's journal.
        after: delay that the handler asked for, in seconds. None means the delay of `backoff`.
        roll: random number from 0 to 1, for the jitter.
        past: number of attempts that had failed when the job made progress last. They count for the backoff and for
            the total, which is TOTAL_FACTOR times `attempts`.
    """
    if attempt - past >= attempts or attempt >= attempts * TOTAL_FACTOR:
        return GiveUp()
    return TryAgain(backoff_ms(backoff, attempt=attempt, roll=roll) if after is None else round(after * 1000))


def snooze_ms(after: float, *, now_ms: int, expires_ms: int) -> int:
    """Return the delay of a job that snoozes in ms. It ends when the job expires, so that it does so at its time.

    Args:
        after: delay that the handler asked for, in seconds.
        now_ms: the current time, in ms since the epoch.
        expires_ms: when the job expires, in ms since the epoch. 0 if it does not.
    """
    delay_ms = round(after * 1000)
    return max(min(delay_ms, expires_ms - now_ms), 0) if expires_ms else delay_ms


def backoff_ms(backoff: Backoff, *, attempt: int, roll: float) -> int:
    """Return the delay after that attempt in ms. Jitter only shortens it, so the maximum delay is never exceeded."""
    if backoff.type == "fixed":
        delay = backoff.delay
    else:
        delay = min(backoff.delay * 2 ** min(attempt - 1, 60), max(backoff.max_delay, 0.0))
    return round(delay * (1 - backoff.jitter * roll) * 1000)
