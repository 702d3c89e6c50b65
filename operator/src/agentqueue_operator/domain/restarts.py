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
    """In a row, each within CALM_S of the one before."""
    last: float = -math.inf
    not_before: float = -math.inf
    """No start until then."""
    on_trial: bool = False
    """The last one died before it was ready: until one gets there, one at a time is started."""


def after_death(restarts: Restarts, *, at: float, was_ready: bool) -> Restarts:
    """The first death of a worker that had been ready restarts it at once (its jobs wait); then 1, 2, 4 … 30 s."""
    deaths = 1 if at - restarts.last > CALM_S else restarts.deaths + 1
    exponent = deaths - (2 if was_ready else 1)
    pause = min(LONGEST_S, 2.0**exponent) if exponent >= 0 else 0.0
    return Restarts(deaths, at, max(at + pause, restarts.not_before), on_trial=not was_ready)


def after_ready(restarts: Restarts) -> Restarts:
    """A worker got ready: the code imports, so all that are missing may start."""
    return replace(restarts, on_trial=False)


def may_start(restarts: Restarts, *, at: float, starting: int, most: int) -> int:
    """How many workers, at most `most`, may be started now."""
    if at < restarts.not_before:
        return 0
    return max(0, 1 - starting) if restarts.on_trial else most
