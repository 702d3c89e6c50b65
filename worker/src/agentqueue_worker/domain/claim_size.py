"""Decides how many jobs a worker claims: those for its free slots, and short ones ahead of them."""

from typing import Final

from agentqueue.model.outcomes import MAX_JOBS_PER_CALL

MANY_SLOTS: Final = 32
"""Number of slots from which a round trip no longer fills all free slots. See `claim_limit` for the measurements."""
SHORT_JOB_S: Final = 0.005
"""Seconds. Shorter jobs keep the worker and the server busy, longer ones keep slots waiting for round trips."""
NEWEST_WEIGHT: Final = 0.05
"""Weight of the newest value in a moving mean, which then reflects about the last twenty values."""
INTERVAL_S: Final = 0.003
"""Seconds between two round trips while no slot waits for a job, if jobs are not short. Outcomes gather meanwhile.

Without it, 50 ms jobs would cost a quarter more CPU on both sides, since nearly each would cause a round trip.
"""
AHEAD_FACTOR: Final = 1.5
"""Work that is claimed ahead, in round trips. It must last until the next reply."""
AHEAD_INTERVALS: Final = 2.5
"""Work that is claimed ahead at least, in intervals: jobs that started together end together.

With 100 slots and 50 ms jobs, slots are in use for 98% of the time. With 1.5 intervals it is 95%, and a job costs a
fifth more CPU on both sides, since a slot that waits ends the interval.
"""
MAX_AHEAD_S: Final = 0.01
"""Maximum work that is claimed ahead, in seconds of all slots. A job of a higher priority passes it (`start_order`): it
waits for a round trip, and not for this work."""
MIN_AHEAD_LIMIT: Final = 32
"""A worker with fewer slots may still claim this number of jobs ahead. With one slot it pays most: round trips take ten
times as long as no-op jobs."""
STALE_AFTER_S: Final = 0.05
"""Seconds without a free slot after which jobs that were claimed ahead go back: jobs have become longer than before."""
STALE_MEAN_S: Final = 1.0
"""Mean duration, in seconds, that is assumed then, so that nothing is claimed ahead for a while."""


def ahead_limit(concurrency: int) -> int:
    """Return the maximum number of jobs that a worker may hold beyond its slots."""
    return max(concurrency, MIN_AHEAD_LIMIT)


def ahead_size(concurrency: int, mean_seconds: float, round_trip_seconds: float) -> int:
    """Return how many jobs to hold beyond the slots, so that a slot that becomes free need not wait for a round trip.

    Args:
        concurrency: number of slots.
        mean_seconds: mean duration of the last jobs, 0 if it is not known yet. Then nothing is claimed ahead.
        round_trip_seconds: mean duration of the last round trips.
    """
    if not mean_seconds:
        return 0
    seconds = min(max(AHEAD_FACTOR * round_trip_seconds, AHEAD_INTERVALS * interval(mean_seconds)), MAX_AHEAD_S)
    return min(round(concurrency * seconds / mean_seconds), ahead_limit(concurrency))


def interval(mean_seconds: float) -> float:
    """Return the minimum seconds between two round trips while no slot waits for a job."""
    return INTERVAL_S if mean_seconds >= SHORT_JOB_S else 0.0


def claim_limit(concurrency: int, mean_seconds: float, ahead: int) -> int:
    """Return the maximum number of jobs that one round trip claims.

    With few slots, fill them all: round trips dominate (14,000 no-op jobs/s with 10 slots, versus 11,000 when filling
    half). With many slots and short jobs, claim half: while those run, the server works on the next ones (27,000/s
    with 100 slots, versus 22,000). With many slots and long jobs, claim a twelfth, so that jobs which end together do
    not wait for each other's round trip (50 ms jobs with 100 slots: 97% of the ideal, versus 93%). The limit grows with
    the jobs that are held ahead, or a slow network could not keep them up (0.86 of the throughput over 3 ms).

    Args:
        concurrency: number of slots.
        mean_seconds: mean duration of the last jobs, 0 if it is not known yet.
        ahead: number of jobs to hold beyond the slots.
    """
    half = -(-(concurrency + ahead) // 2)
    if concurrency < MANY_SLOTS:
        limit = max(concurrency, half)
    else:
        limit = half if mean_seconds < SHORT_JOB_S else concurrency // 12 + 1 + ahead
    return min(limit, MAX_JOBS_PER_CALL)


def moving_mean(mean: float, value: float) -> float:
    """Return the moving mean with one more value."""
    return mean + (value - mean) * NEWEST_WEIGHT
