"""The jobs whose leases this worker holds."""

from collections.abc import Iterable, Mapping
from typing import Final

from agentqueue.keys import Level
from agentqueue.model.outcomes import Claimed

RENEWALS_PER_LEASE: Final = 4
"""Number of renewals in the time of one lease. Three may fail before the lease expires."""


def renewal_interval_s(lease_ms: int) -> float:
    """Return the seconds between two renewals of leases that last `lease_ms`."""
    return lease_ms / RENEWALS_PER_LEASE / 1000


class Leases:
    """The jobs that this worker holds: running ones, and those whose outcome is not recorded yet.

    The event loop writes it and the lease thread reads it. Each access is one operation on one dict, and so atomic.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[str, Claimed] = {}

    def __len__(self) -> int:
        return len(self._held)

    def take(self, jobs: Iterable[Claimed]) -> None:
        """Add jobs that were claimed."""
        self._held.update({claimed.id: claimed for claimed in jobs})

    def drop(self, job_ids: Iterable[str]) -> None:
        """Remove jobs whose outcomes are recorded, or whose leases are lost."""
        held = self._held
        for job_id in job_ids:
            held.pop(job_id, None)

    def snapshot(self) -> dict[str, Claimed]:
        """Return the jobs whose leases are renewed now, by ID."""
        return self._held.copy()

    def confirm_lost(self, reported: Iterable[str], renewed: Mapping[str, Claimed]) -> list[str]:
        """Return the reported jobs that are really lost.

        A job that was claimed again since the renewal started has a new lease, and is left out.

        Args:
            reported: IDs that the renewal reported as lost.
            renewed: the jobs of that renewal.
        """
        held = self._held
        return [job_id for job_id in reported if job_id in held and held[job_id] is renewed.get(job_id)]


def to_renew(held: Mapping[str, Claimed]) -> list[tuple[str, Level]]:
    """Return IDs and levels of the jobs, as the engine takes them."""
    return [(job_id, claimed.level) for job_id, claimed in held.items()]
