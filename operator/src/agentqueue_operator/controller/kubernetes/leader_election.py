"""Who leads: one Lease, read and written by all replicas, each by its own clock that never goes back.

Nobody compares clocks: a claim has run out for whoever has not seen it change for its whole duration. The leader stops
before any other can begin: it counts from when it *sent* its last successful renewal, the others from when they saw it.
"""

from dataclasses import dataclass
from typing import Final

DURATION_S: Final = 15.0
"""A claim that nobody sees renewed for so long is free."""
STEP_DOWN_S: Final = 10.0
"""Since its last renewal: then the leader begins no more writes."""
LAST_WRITE_S: Final = 14.0
"""Since its last renewal: then a write that was begun is given up."""
RENEW_S: Final = 2.0
"""Between renewals, and between the looks of those who wait: four renewals may fail."""
RETRY_S: Final = 1.0
"""After a failed one."""
LONGEST_S: Final = 60.0
"""A claim may ask for no more: a typo in a Lease must not stop everything."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a Lease says. Any difference shows that its holder lives."""

    holder: str
    duration_s: float
    renewed: str
    transitions: int


@dataclass(frozen=True, slots=True)
class Sighting:
    """A claim, and since when it has been seen like that, by this replica's clock."""

    claim: Claim
    since_s: float

    def is_over(self, now_s: float) -> bool:
        """Whether its holder has let it go, or is gone."""
        return not self.claim.holder or now_s - self.since_s > min(self.claim.duration_s, LONGEST_S)


def sight(before: Sighting | None, claim: Claim, now_s: float) -> Sighting:
    """After a look at the Lease that was begun at `now_s`."""
    return before if before is not None and before.claim == claim else Sighting(claim, now_s)


@dataclass(frozen=True, slots=True)
class Create:
    """There is no Lease yet."""


@dataclass(frozen=True, slots=True)
class Take:
    """The Lease is free."""


@dataclass(frozen=True, slots=True)
class Renew:
    """The Lease is ours."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Another has it."""

    holder: str


Step = Create | Take | Renew | Wait


def decide(seen: Sighting | None, *, me: str, now_s: float) -> Step:
    """What to do about the Lease as it was just seen; each write bears the version that was seen as its condition."""
    if seen is None:
        return Create()
    if seen.claim.holder == me:
        return Renew()
    return Take() if seen.is_over(now_s) else Wait(seen.claim.holder)


@dataclass(frozen=True, slots=True)
class Term:
    """The right to write, since the last renewal was sent."""

    renewed_s: float

    def leads(self, now_s: float) -> bool:
        """Whether a write may begin."""
        return now_s - self.renewed_s < STEP_DOWN_S

    def left_s(self, now_s: float) -> float:
        """How long a write that begins now may take; 0: none may begin."""
        return self.renewed_s + LAST_WRITE_S - now_s if self.leads(now_s) else 0.0
