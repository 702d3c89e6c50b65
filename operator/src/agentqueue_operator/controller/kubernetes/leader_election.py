"""Decides which replica leads, from one Lease that all replicas read and write.

Replicas do not compare clocks; each uses its own monotonic clock. A record has expired for a replica that has not seen
it change for its whole duration. The leader stops before another replica can begin: it counts from when it *sent* its
last successful renewal, and the others from when they saw it.
"""

from dataclasses import dataclass
from typing import Final

DURATION_S: Final = 15.0
"""`leaseDurationSeconds`: a Lease that is not renewed for this time is free."""
STEP_DOWN_S: Final = 10.0
"""Seconds after its last renewal from which the leader begins no write."""
LAST_WRITE_S: Final = 14.0
"""Seconds after its last renewal at which the leader aborts a running write."""
RENEW_S: Final = 2.0
"""Seconds between two renewals, and between two reads by a standby. Four renewals may fail."""
RETRY_S: Final = 1.0
"""Seconds until a failed renewal is retried."""
MAX_DURATION_S: Final = 60.0
"""Maximum duration that a Lease may have, in seconds: a typo in it must not block the election for long."""


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """Content of a Lease. Any change shows that its holder is alive."""

    holder: str
    duration_s: float
    renewed: str
    transitions: int


@dataclass(frozen=True, slots=True)
class ObservedLease:
    """A record, and when this replica first observed it, by its own clock."""

    record: LeaseRecord
    since_s: float

    def is_free(self, now_s: float) -> bool:
        """Return whether its holder has released it or has stopped to renew it."""
        return not self.record.holder or now_s - self.since_s > min(self.record.duration_s, MAX_DURATION_S)


def observe(before: ObservedLease | None, record: LeaseRecord, now_s: float) -> ObservedLease:
    """Return the observation after a read of the Lease.

    Args:
        before: the previous observation; None: there was none.
        record: the content that was read.
        now_s: start of the read, in monotonic seconds.
    """
    return before if before is not None and before.record == record else ObservedLease(record, now_s)


@dataclass(frozen=True, slots=True)
class Create:
    """Create the Lease, because it does not exist."""


@dataclass(frozen=True, slots=True)
class Take:
    """Take the Lease, because it is free."""


@dataclass(frozen=True, slots=True)
class Renew:
    """Renew the Lease, because this replica holds it."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait, because another replica holds the Lease."""

    holder: str


Step = Create | Take | Renew | Wait


def decide(observed: ObservedLease | None, *, me: str, now_s: float) -> Step:
    """Return what to do with the Lease. Each write has the resourceVersion that was read as its precondition.

    Args:
        observed: the latest observation; None: there is no Lease.
        me: the holder name of this replica.
        now_s: the time, in monotonic seconds.
    """
    if observed is None:
        return Create()
    if observed.record.holder == me:
        return Renew()
    return Take() if observed.is_free(now_s) else Wait(observed.record.holder)


@dataclass(frozen=True, slots=True)
class Term:
    """The right to write, which begins when a renewal is sent."""

    renewed_s: float
    """When the last successful renewal was sent, in monotonic seconds."""

    def leads(self, now_s: float) -> bool:
        """Return whether a write may begin."""
        return now_s - self.renewed_s < STEP_DOWN_S

    def write_budget_s(self, now_s: float) -> float:
        """Return how long a write that begins now may take, in seconds; 0: none may begin."""
        return self.renewed_s + LAST_WRITE_S - now_s if self.leads(now_s) else 0.0
