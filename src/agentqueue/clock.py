"""The one place that reads the clock. Everything else is given the time."""

import time


def now_ms() -> int:
    """Milliseconds since the epoch, by this machine. Leases go by Redis's own TIME instead."""
    return time.time_ns() // 1_000_000


def monotonic() -> float:
    """Seconds that never go back, for measuring durations."""
    return time.monotonic()
