"""How many jobs a step claims at most."""

from typing import Final

from agentqueue.model.outcomes import MAX_JOBS_PER_CALL

MANY_SLOTS: Final = 32
SHORT_JOB_S: Final = 0.005
"""Seconds: shorter jobs keep the worker and the server busy, longer ones keep slots waiting for steps."""
NEWEST_WEIGHT: Final = 0.05
"""Of the newest job in the moving mean of durations: some twenty jobs back."""


def claim_limit(concurrency: int, mean_seconds: float) -> int:
    """Jobs to claim at once, by how long jobs take lately (0: not known yet).

    Few slots: all, since it is the steps that cost (no-op jobs at 10: 14,000/s for 11,000 with half of them).
    Many slots and short jobs: half; while those run, the server works on the next step (at 100: 27,000/s for 22,000).
    Many slots and long jobs: a twelfth, so that jobs which end together don't wait for each other's step (50 ms jobs
    at 100: 97% of the ideal for 93%).
    """
    if concurrency < MANY_SLOTS:
        return concurrency
    return min(-(-concurrency // 2) if mean_seconds < SHORT_JOB_S else concurrency // 12 + 1, MAX_JOBS_PER_CALL)


def moving_mean(mean: float, value: float) -> float:
    """The mean with one more value."""
    return mean + (value - mean) * NEWEST_WEIGHT
