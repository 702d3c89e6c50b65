"""Statistics of the benchmark: pure functions of numbers."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and greatest of some values."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Pace:
    """Rate of a run and the share of its jobs that the rate was taken from."""

    per_second: float
    share: float


def spread(values: Sequence[float]) -> Spread:
    """Return the median, the least and the greatest of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def advantage(ours: Sequence[float], theirs: Sequence[float], *, more_is_better: bool) -> Spread | None:
    """Return by how many times ours is better, taken round by round; None where a round has no ratio.

    Rounds run in turns, so a pair met the same machine: its ratio holds where the machine's speed drifts.
    """
    pairs = list(zip(ours, theirs, strict=False))
    if not pairs or any(a <= 0 or b <= 0 for a, b in pairs):
        return None
    return spread([a / b if more_is_better else b / a for a, b in pairs])


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` percent of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(round(rank), 1) - 1]


def pace(journals: Sequence[Sequence[int]], slots: int) -> Pace:
    """Return the rate at which processes started jobs.

    Args:
        journals: for each process, the nanoseconds of its starts in order.
        slots: jobs that each process runs at a time.

    Returns:
        Jobs per second from the moment when every process has filled its slots until the last start. A start after
        that needs the end of an earlier job, so it is a rate of whole runs. `share` is the part of all jobs in it.
    """
    working = [times for times in journals if times]
    begin = max((times[min(slots, len(times)) - 1] for times in working), default=0)
    counted = [at for times in working for at in times if at > begin]
    if not counted:
        return Pace(0.0, 0.0)
    return Pace(len(counted) * 1e9 / (max(counted) - begin), len(counted) / sum(map(len, working)))
