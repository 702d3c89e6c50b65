"""Times as records hold them (milliseconds since the epoch) and as people read them (ISO 8601, UTC)."""

from datetime import UTC, datetime
from typing import Final


def from_ms(value: int) -> datetime:
    """An aware UTC datetime from milliseconds since the epoch."""
    return datetime.fromtimestamp(value / 1000, tz=UTC)


def iso_of(value: int) -> str | None:
    moment = moment_of(value)
    return None if moment is None else iso(moment)


def moment_of(value: int | None) -> datetime | None:
    """None for 0, and for what is no time: any client may have written it."""
    return from_ms(value) if value and 0 < value <= LAST_MS else None


def iso(moment: datetime) -> str:
    """`2026-03-01T12:00:00.123Z`."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


LAST_MS: Final = 253_402_300_799_000
"""The last second of the year 9999, after which there are no datetimes."""
