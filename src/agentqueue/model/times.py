"""Times in records (milliseconds since the epoch), as datetimes, and as ISO 8601 texts in UTC."""

from datetime import UTC, datetime
from typing import Final


def from_ms(value: int) -> datetime:
    """Return the UTC datetime of milliseconds since the epoch."""
    return datetime.fromtimestamp(value / 1000, tz=UTC)


def iso_of(value: int) -> str | None:
    """Return the ISO 8601 text of milliseconds since the epoch; see `moment_of` for None."""
    moment = moment_of(value)
    return None if moment is None else iso(moment)


def moment_of(value: int | None) -> datetime | None:
    """Return the UTC datetime of milliseconds since the epoch. None for 0 and for a time that no datetime can hold."""
    return from_ms(value) if value and 0 < value <= LAST_MS else None


def iso(moment: datetime) -> str:
    """Return a UTC datetime as text, such as `2026-03-01T12:00:00.123Z`."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


LAST_MS: Final = 253_402_300_799_000
"""Last time that a datetime can hold, in ms: the last second of the year 9999."""
