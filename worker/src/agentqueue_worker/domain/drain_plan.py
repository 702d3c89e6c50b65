"""Plans the time between SIGTERM and the kubelet's SIGKILL (rule 5)."""

from dataclasses import dataclass
from typing import Final

ABANDON_SHARE: Final = 0.4
"""Share of the margin that jobs get to end after they were cancelled."""
EXIT_SHARE: Final = 0.6
"""Share of the margin after which the worker exits. The time since `ABANDON_SHARE` is used to release leases."""
WATCHDOG_SHARE: Final = 0.75
"""Share of the margin after which a thread ends the process.

The remainder is reserved for releasing leases from a thread when the event loop is blocked.
"""


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """Times of a drain, in seconds of the monotonic clock."""

    stop_jobs_at: float
    """Jobs that still run are cancelled. Their checkpoints are written, and they are released."""
    abandon_at: float
    """Jobs that have not ended (a thread, a handler that swallows its cancellation) are released as they are."""
    exit_at: float
    """The worker exits, whatever is left. Leases that it could not release expire."""
    watchdog_at: float
    """If the worker is still running at this point, a watchdog thread terminates the process."""

    @property
    def release_budget_s(self) -> float:
        """Seconds between the watchdog and the SIGKILL."""
        return self._margin * (1 - WATCHDOG_SHARE)

    @property
    def _margin(self) -> float:
        return (self.watchdog_at - self.stop_jobs_at) / WATCHDOG_SHARE

    def hurry(self, now: float) -> "DrainPlan":
        """Return the plan after a second signal, which stops jobs now."""
        return plan_drain(now, grace=0.0, margin=self._margin).earlier_of(self)

    def earlier_of(self, other: "DrainPlan") -> "DrainPlan":
        """Return the earlier times of both plans."""
        return DrainPlan(
            min(self.stop_jobs_at, other.stop_jobs_at),
            min(self.abandon_at, other.abandon_at),
            min(self.exit_at, other.exit_at),
            min(self.watchdog_at, other.watchdog_at),
        )


def plan_drain(now: float, *, grace: float, margin: float) -> DrainPlan:
    """Return the plan of a drain. Jobs get the grace period except its last `margin` seconds.

    Args:
        now: when the signal came, in monotonic seconds.
        grace: seconds until the SIGKILL. If it is 0, jobs are stopped at once, and the margin follows.
        margin: seconds for ending jobs and releasing leases. At most half of the grace period is used.
    """
    if grace > 0:
        margin = min(margin, grace / 2)
    stop = now + max(grace - margin, 0.0)
    return DrainPlan(stop, stop + margin * ABANDON_SHARE, stop + margin * EXIT_SHARE, stop + margin * WATCHDOG_SHARE)
