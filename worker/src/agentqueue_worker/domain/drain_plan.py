"""Rule 5: what happens when between SIGTERM and the kubelet's SIGKILL."""

from dataclasses import dataclass
from typing import Final

ABANDON: Final = 0.4
EXIT: Final = 0.6
LAST_RESORT: Final = 0.75
"""Shares of the margin: what is left after the last is for hand-backs from beside a blocked event loop."""


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """Seconds of the monotonic clock."""

    stop_jobs_at: float
    """What still runs then is cancelled: it is checkpointed and handed back."""
    abandon_at: float
    """What has not even ended by then (a thread, a handler that swallows its cancellation) is handed back as it is."""
    exit_at: float
    """The worker is gone by then, whatever is left: leases of what it could not hand back run out."""
    last_resort_at: float
    """If it is not, since something blocks it, a thread ends the process."""

    @property
    def last_words(self) -> float:
        """Seconds between the last resort and the SIGKILL."""
        return self._margin * (1 - LAST_RESORT)

    @property
    def _margin(self) -> float:
        return (self.last_resort_at - self.stop_jobs_at) / LAST_RESORT

    def hurry(self, now: float) -> "DrainPlan":
        """A second signal: jobs are stopped now."""
        return plan_drain(now, grace=0.0, margin=self._margin).at_latest(self)

    def at_latest(self, other: "DrainPlan") -> "DrainPlan":
        """The earlier of both plans, point by point."""
        return DrainPlan(
            min(self.stop_jobs_at, other.stop_jobs_at),
            min(self.abandon_at, other.abandon_at),
            min(self.exit_at, other.exit_at),
            min(self.last_resort_at, other.last_resort_at),
        )


def plan_drain(now: float, *, grace: float, margin: float) -> DrainPlan:
    """Jobs get the grace period but its last `margin` seconds, which are shared by them to end and by hand-backs.

    Args:
        now: when the signal came, monotonic seconds.
        grace: seconds until the SIGKILL. 0: jobs are stopped at once, and the margin comes after.
        margin: seconds; at most half of a grace period is taken.
    """
    if grace > 0:
        margin = min(margin, grace / 2)
    stop = now + max(grace - margin, 0.0)
    return DrainPlan(stop, stop + margin * ABANDON, stop + margin * EXIT, stop + margin * LAST_RESORT)
