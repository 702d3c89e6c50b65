"""The one place that reads the clock. Everything else is given the time."""

import time
from datetime import UTC, datetime


def now_ms() -> int:
    """Milliseconds since the epoch, by this machine. Leases go by Redis's own TIME instead."""
    return time.time_ns() // 1_000_000


def monotonic() -> float:
    """Seconds that never go back, for measuring durations."""
    return time.monotonic()


def from_ms(value: int) -> datetime:
    """An aware UTC datetime from milliseconds since the epoch."""
    return datetime.fromtimestamp(value / 1000, tz=UTC)
