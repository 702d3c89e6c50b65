"""How long jobs wait for a slot: the buckets in which workers count, Redis keeps and the operator shows the waits."""

from collections.abc import Mapping
from typing import Final

WAIT_BOUNDS: Final = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
"""Upper bounds of the buckets, in seconds: close together around the usual `scaling.targetWaitSeconds` (30)."""
PREFIX: Final = "wait_"
"""Fields of a queue's counters in Redis that hold waits begin so."""
TOTAL_MS: Final = f"{PREFIX}ms"
"""All waits added up, in milliseconds."""
BUCKETS: Final = (*(f"{PREFIX}le_{bound:g}" for bound in WAIT_BOUNDS), f"{PREFIX}le_inf")
"""The field of each bucket. A wait is counted in one of them, unlike in Prometheus, where buckets are cumulative."""
BOUNDS_MS: Final = tuple(bound * 1000 for bound in WAIT_BOUNDS)
"""In milliseconds: `bisect_left` gives the bucket of a wait."""


def cumulative(counted: Mapping[str, int]) -> tuple[list[tuple[str, float]], float]:
    """Return the buckets as Prometheus has them (bound and number of waits up to it), and the waits' sum in seconds.

    Args:
        counted: field -> number, as Redis keeps them; what is missing is 0.
    """
    buckets, waits = [], 0
    for bound, field in zip((*map(str, WAIT_BOUNDS), "+Inf"), BUCKETS, strict=True):
        waits += counted.get(field, 0)
        buckets.append((bound, float(waits)))
    return buckets, counted.get(TOTAL_MS, 0) / 1000
