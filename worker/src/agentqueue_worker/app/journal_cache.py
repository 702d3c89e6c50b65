"""Journals of jobs that this worker has suspended, so that it reads only what has changed when it runs them again."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agentqueue.model.outcomes import SUSPENDED_BY, Claimed

MIN_BYTES: Final = 4 * 1024
"""Size from which a journal is kept, in bytes. A smaller one is read again as fast."""
MAX_BYTES: Final = 16 * 1024 * 1024
"""Size of all kept journals, in bytes: one of the largest. Those that were suspended first leave."""


@dataclass(frozen=True, slots=True)
class _Kept:
    entries: Mapping[str, bytes]
    size: int
    delivery: int
    claimed_ms: bytes


class JournalCache:
    """Journals by job. One counts if the job has not been started since this worker has suspended it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._size = 0

    def keep(self, job_id: str, entries: Mapping[str, bytes], *, size: int, delivery: int, lease: bytes) -> None:
        """Keep the journal of a run that ends with a suspension.

        Args:
            job_id: the job.
            entries: the journal's entries by field.
            size: their size in bytes.
            delivery: number of the run.
            lease: in-progress value of the run, which ends with the time of the claim.
        """
        self._forget(job_id)
        if not MIN_BYTES <= size <= MAX_BYTES:
            return
        self._kept[job_id] = _Kept(entries, size, delivery, lease.split(b"|")[3])
        self._size += size
        while self._size > MAX_BYTES:
            self._forget(next(iter(self._kept)))

    def take(self, claimed: Claimed) -> Mapping[str, bytes] | None:
        """Return the journal of a job that this worker runs again, as it was at the suspension; None if it has none.

        The job's meta hash names the run that has suspended it last, and the number of deliveries says that no other
        run has followed.
        """
        kept = self._forget(claimed.id)
        if kept is None or claimed.delivery != kept.delivery + 1 or claimed.meta.get(SUSPENDED_BY) != kept.claimed_ms:
            return None
        return kept.entries

    def _forget(self, job_id: str) -> _Kept | None:
        kept = self._kept.pop(job_id, None)
        if kept is not None:
            self._size -= kept.size
        return kept
