"""The only module that reads the clock. Others get the time as an argument."""

import time


def now_ms() -> int:
    """Return this machine's time in milliseconds since the epoch. Leases use the time of Redis instead."""
    return time.time_ns() // 1_000_000


def monotonic() -> float:
    """Return seconds of a clock that never goes back, for durations."""
    return time.monotonic()
