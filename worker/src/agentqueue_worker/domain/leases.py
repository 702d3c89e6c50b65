"""Which jobs this worker holds, and which it has lost."""

from collections.abc import Iterable, Mapping
from typing import Final

from agentqueue.keys import Level
from agentqueue.model.outcomes import Claimed

RENEWALS_PER_LEASE: Final = 4
"""Three may fail before the lease runs out."""


def renewal_interval_s(lease_ms: int) -> float:
    """Seconds between renewals."""
    return lease_ms / RENEWALS_PER_LEASE / 1000


class Leases:
    """The jobs this worker holds: running ones, and those whose outcome is not recorded yet.

    The renewing thread reads it, the event loop writes it: each method is one operation on one dict, and so whole.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[str, Claimed] = {}

    def __len__(self) -> int:
        return len(self._held)

    def take(self, claimed: Claimed) -> None:
        """It was claimed."""
        self._held[claimed.id] = claimed

    def drop(self, job_id: str) -> None:
        """Its outcome is recorded, or it is lost."""
        self._held.pop(job_id, None)

    def snapshot(self) -> dict[str, Claimed]:
        """What to renew."""
        return self._held.copy()

    def lost(self, ids: Iterable[str], renewed: Mapping[str, Claimed]) -> list[str]:
        """Of the ids that a renewal called lost, those that are: not what was claimed anew since the renewal began."""
        held = self._held
        return [job_id for job_id in ids if job_id in held and held[job_id] is renewed.get(job_id)]


def to_renew(held: Mapping[str, Claimed]) -> list[tuple[str, Level]]:
    """Ids and levels, as the engine takes them."""
    return [(job_id, claimed.level) for job_id, claimed in held.items()]
