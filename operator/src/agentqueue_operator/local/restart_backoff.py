"""When an agent whose workers died may start new ones."""

import math
from dataclasses import dataclass, replace

LONGEST_S = 30.0
"""The longest pause between two starts of workers that keep dying."""
CALM_S = 60.0
"""A death so long after the last one counts as the first: longer than the longest pause and a start."""


@dataclass(frozen=True, slots=True)
class Restarts:
    """What is known of an agent's workers' deaths; times in monotonic seconds."""

    deaths: int = 0
    """In a row, each within CALM_S of the one before. Workers that are lost together count as one."""
    last: float = -math.inf
    """When the last one that counts was seen."""
    not_before: float = -math.inf
    """No start until then."""
    on_trial: bool = False
    """One died before it was ready: until one gets there, one at a time is started."""


def after_death(restarts: Restarts, *, at: float, started: float, was_ready: bool) -> Restarts:
    """The first death of a worker that had been ready restarts it at once (its jobs wait); then 1, 2, 4 … 30 s.

    Only the death of a worker that was started since the last one says that starting again does not help. One that ran
    beside it already is of the same loss, however late it is noticed (`kill -9` of all, no memory left): it does not
    lengthen the row. So in each step of the row each place is started once at most, whichever dies first.

    Args:
        restarts: what was known before.
        at: when the death was seen.
        started: when that worker was started.
        was_ready: whether it ever got ready.
    """
    calm = at - restarts.last > CALM_S
    if calm or started >= restarts.last:
        restarts = replace(restarts, deaths=1 if calm else restarts.deaths + 1, last=at)
    not_before = restarts.last + _pause(restarts.deaths, was_ready=was_ready)
    return replace(
        restarts,
        not_before=max(not_before, restarts.not_before),
        on_trial=restarts.on_trial or not was_ready,
    )


def _pause(deaths: int, *, was_ready: bool) -> float:
    exponent = deaths - (2 if was_ready else 1)
    return min(LONGEST_S, 2.0**exponent) if exponent >= 0 else 0.0


def after_ready(restarts: Restarts) -> Restarts:
    """A worker got ready: the code imports, so all that are missing may start."""
    return replace(restarts, on_trial=False)


def may_start(restarts: Restarts, *, at: float, starting: int, most: int) -> int:
    """How many workers, at most `most`, may be started now."""
    if at < restarts.not_before:
        return 0
    return max(0, 1 - starting) if restarts.on_trial else most
