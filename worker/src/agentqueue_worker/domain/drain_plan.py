"""Rule 5: what happens when between SIGTERM and the kubelet's SIGKILL."""

from dataclasses import dataclass
from typing import Final

ABANDON_SHARE: Final = 0.4
EXIT_SHARE: Final = 0.6
WATCHDOG_SHARE: Final = 0.75
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
    watchdog_at: float
    """If it is not, since something blocks it, a thread ends the process."""

    @property
    def release_budget_s(self) -> float:
        """Seconds between the last resort and the SIGKILL."""
        return self._margin * (1 - WATCHDOG_SHARE)

    @property
    def _margin(self) -> float:
        return (self.watchdog_at - self.stop_jobs_at) / WATCHDOG_SHARE

    def hurry(self, now: float) -> "DrainPlan":
        """A second signal: jobs are stopped now."""
        return plan_drain(now, grace=0.0, margin=self._margin).earlier_of(self)

    def earlier_of(self, other: "DrainPlan") -> "DrainPlan":
        """The earlier of both plans, point by point."""
        return DrainPlan(
            min(self.stop_jobs_at, other.stop_jobs_at),
            min(self.abandon_at, other.abandon_at),
            min(self.exit_at, other.exit_at),
            min(self.watchdog_at, other.watchdog_at),
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
    return DrainPlan(stop, stop + margin * ABANDON_SHARE, stop + margin * EXIT_SHARE, stop + margin * WATCHDOG_SHARE)
