"""Counts how long jobs waited for a slot, from when they became due until a worker claimed them."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Final

from agentqueue.keys import Level
from agentqueue.model.attempts import returns_of
from agentqueue.model.outcomes import Claimed
from agentqueue.model.wait_histogram import BOUNDS_MS, BUCKETS, TOTAL_MS
from agentqueue_worker.domain.claimed_job import EARLIEST_TIME_MS

OVERFLOW_BUCKET: Final = len(BOUNDS_MS)
"""Index of the bucket without an upper bound."""


class Waits:
    """Wait counts by priority. The event loop's thread writes them, the lease thread and the probes only read them.

    The wait of a delayed job, or of the next attempt of a job, starts when it is due. A job that another worker
    released is not counted: it has its old place in the queue, which does not show when it was released.
    """

    __slots__ = ("_counts", "_sent", "_total_ms")

    def __init__(self) -> None:
        # Lists indexed by level. Dictionaries with members of an Enum as keys are ten times slower.
        self._counts = [[0] * len(BUCKETS) for _ in range(max(Level) + 1)]
        self._total_ms = [0.0] * (max(Level) + 1)
        self._sent: dict[str, int] = {}

    def add(self, jobs: Iterable[Claimed], now_ms: int) -> None:
        """Count jobs that were claimed at `now_ms`, a time of the clock of Redis, as their scores are."""
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
            if wait_ms > 0.0:  # the clock of Redis may have been set back
                total_ms[level] += wait_ms

    def of(self, *levels: Level) -> dict[str, int]:
        """Return the wait counts of these priorities, by their field names in Redis."""
        columns = zip(*(list(self._counts[level]) for level in levels), strict=True)
        total_ms = round(sum(self._total_ms[level] for level in levels))
        return dict(zip(BUCKETS, map(sum, columns), strict=True)) | {TOTAL_MS: total_ms}

    def unsent(self) -> dict[str, int]:
        """Return the counts that Redis does not have yet, by field name. Zeros are left out."""
        left = {field: number - self._sent.get(field, 0) for field, number in self.of(*Level).items()}
        return {field: number for field, number in left.items() if number}

    def sent(self, numbers: Mapping[str, int]) -> None:
        """Handle that Redis has added these counts."""
        for field, number in numbers.items():
            self._sent[field] = self._sent.get(field, 0) + number
