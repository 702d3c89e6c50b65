"""Backoff for the start of workers after workers of the same agent have died."""

import math
from dataclasses import dataclass, replace

MAX_PAUSE_S = 30.0
"""Longest pause in seconds between two starts of workers that keep dying."""
RESET_AFTER_S = 60.0
"""Time in seconds after which a death counts as the first one again: more than the longest pause plus a start."""


@dataclass(frozen=True, slots=True)
class Restarts:
    """Recent deaths of an agent's workers. Times are in monotonic seconds."""

    deaths: int = 0
    """Consecutive deaths, each within RESET_AFTER_S of the one before. Workers that are lost together count as one."""
    last: float = -math.inf
    """Time at which the last death that counts was observed."""
    not_before: float = -math.inf
    """Time before which no worker may start."""
    on_trial: bool = False
    """A worker died before it was ready. Until one becomes ready, only one at a time is started."""


def after_death(restarts: Restarts, *, at: float, started: float, was_ready: bool) -> Restarts:
    """Return the state after the death of a worker.

    After the first death of a worker that had been ready, a new one may start at once, because its jobs wait. Further
    deaths delay the start by 1, 2, 4 … 30 s.

    Only the death of a worker that was started after the last death shows that a restart does not help. A worker that
    was already running then belongs to the same loss (`kill -9` of all, no memory left), even if it is noticed later,
    and does not increase the delay. So each worker is restarted at most once per step of the backoff.

    Args:
        restarts: the state before.
        at: time at which the death was observed.
        started: time at which the worker was started.
        was_ready: whether the worker ever became ready.
    """
    is_first = at - restarts.last > RESET_AFTER_S
    if is_first or started >= restarts.last:
        restarts = replace(restarts, deaths=1 if is_first else restarts.deaths + 1, last=at)
    exponent = restarts.deaths - (2 if was_ready else 1)
    not_before = restarts.last + (min(MAX_PAUSE_S, 2.0**exponent) if exponent >= 0 else 0.0)
    return replace(
        restarts,
        not_before=max(not_before, restarts.not_before),
        on_trial=restarts.on_trial or not was_ready,
    )


def after_ready(restarts: Restarts) -> Restarts:
    """Return the state after a worker became ready: the code can be imported, so all missing workers may start."""
    return replace(restarts, on_trial=False)


def may_start(restarts: Restarts, *, at: float, starting: int, most: int) -> int:
    """Return the number of workers that may be started now.

    Args:
        restarts: recent deaths.
        at: monotonic seconds.
        starting: workers that start already.
        most: upper bound of the result.
    """
    if at < restarts.not_before:
        return 0
    return max(0, 1 - starting) if restarts.on_trial else most
