"""Counts how long jobs waited for a slot, from when they became due until a worker claimed them."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Final

from agentqueue.keys import Level
from agentqueue.model.attempts import returns_of
from agentqueue.model.outcomes import Claimed
from agentqueue.model.wait_histogram import BOUNDS_MS, BUCKETS, TOTAL_MS

EARLIEST_TIME_MS: Final = 1e12
"""Smaller scores are no times: arq's `abort()` writes 1 to bring a job to the head of its queue."""
OVERFLOW_BUCKET: Final = len(BOUNDS_MS)
"""The bucket without a bound."""


class Waits:
    """Waits by priority. The event loop's thread counts; the renewing thread and the probes only read.

    A job that waits for its time, or for its next attempt, begins to wait when it is due. A job that came back from
    another worker is not counted: it has its old place in the queue, which does not show when it came back.
    """

    __slots__ = ("_counts", "_sent", "_total_ms")

    def __init__(self) -> None:
        # Lists by the number of the level: as keys of a dictionary the members of an Enum are ten times as slow.
        self._counts = [[0] * len(BUCKETS) for _ in range(max(Level) + 1)]
        self._total_ms = [0.0] * (max(Level) + 1)
        self._sent: dict[str, int] = {}

    def add(self, jobs: Iterable[Claimed], now_ms: int) -> None:
        """Count jobs that were claimed at that time, which is of Redis's clock as their scores are."""
        counts, total_ms, bounds = self._counts, self._total_ms, BOUNDS_MS
        for job in jobs:
            if job.meta and returns_of(job.meta):
                continue
            score, level = job.score, job.level
            wait_ms = now_ms - score
            bucket = bisect_left(bounds, wait_ms)
            if bucket == OVERFLOW_BUCKET and score < EARLIEST_TIME_MS:
                continue
            counts[level][bucket] += 1
            if wait_ms > 0.0:  # Redis's clock may have been set back
                total_ms[level] += wait_ms

    def of(self, *levels: Level) -> dict[str, int]:
        """Return the waits of jobs of these priorities, by Redis's fields."""
        columns = zip(*(list(self._counts[level]) for level in levels), strict=True)
        total_ms = round(sum(self._total_ms[level] for level in levels))
        return dict(zip(BUCKETS, map(sum, columns), strict=True)) | {TOTAL_MS: total_ms}

    def unsent(self) -> dict[str, int]:
        """Return what Redis does not know yet, by its fields; what is 0 is left out."""
        left = {field: number - self._sent.get(field, 0) for field, number in self.of(*Level).items()}
        return {field: number for field, number in left.items() if number}

    def sent(self, numbers: Mapping[str, int]) -> None:
        """Redis has added these."""
        for field, number in numbers.items():
            self._sent[field] = self._sent.get(field, 0) + number
