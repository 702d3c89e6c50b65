"""Buckets of the times for which jobs wait for a slot. Workers count in them, and the operator exports them."""

from collections.abc import Mapping
from typing import Final

WAIT_BOUNDS: Final = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
"""Upper bounds of the buckets, in seconds. They are dense around the default `scaling.targetWaitSeconds` (30)."""
PREFIX: Final = "wait_"
"""Prefix of the counters in Redis that hold waits."""
TOTAL_MS: Final = f"{PREFIX}ms"
"""Counter of the total wait, in ms."""
BUCKETS: Final = (*(f"{PREFIX}le_{bound:g}" for bound in WAIT_BOUNDS), f"{PREFIX}le_inf")
"""Counter of each bucket. A wait counts in one bucket only, while Prometheus has cumulative buckets."""
BOUNDS_MS: Final = tuple(bound * 1000 for bound in WAIT_BOUNDS)
"""Upper bounds of the buckets, in ms. `bisect_left` finds the bucket of a wait."""


def cumulative(counted: Mapping[str, int]) -> tuple[list[tuple[str, float]], float]:
    """Return cumulative buckets as Prometheus has them, and the sum of the waits in seconds.

    Args:
        counted: The counters in Redis. Missing ones are 0.
    """
    buckets, waits = [], 0
    for bound, field in zip((*map(str, WAIT_BOUNDS), "+Inf"), BUCKETS, strict=True):
        waits += counted.get(field, 0)
        buckets.append((bound, float(waits)))
    return buckets, counted.get(TOTAL_MS, 0) / 1000
