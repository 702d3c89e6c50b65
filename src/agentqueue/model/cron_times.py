"""Times of cron expressions, in a time zone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import lru_cache
from itertools import chain, islice, takewhile
from typing import Final

from agentqueue.errors import UsageError
from agentqueue.model.times import from_ms

AHEAD: Final = 32
"""Number of due times that a schedule holds ahead. Each claim of a tick takes one; the rest bridges the time until
somebody computes more."""
ENOUGH_AHEAD_MS: Final = 400 * 86_400_000
"""Due times further ahead than this are computed only if they are the next one: rules of time zones change."""
MAX_MISSED_RUNS: Final = 100
"""Maximum number of missed ticks that run with `all`."""
MAX_COUNTED: Final = 1_000
"""Maximum number of missed ticks that are counted at a time. A cron of every second misses 86,400 a day."""
LATE_MS: Final = 600_000
"""Longest time after which a tick still counts as on time; half of the time to the next tick, if that is less."""


def check_cron(cron: str, timezone: str) -> None:
    """Refuse an expression or a time zone that can't be used.

    Raises:
        UsageError: It is not a cron expression that ever comes, or not the name of a time zone.
    """
    for what, text in (("cron expression", cron), ("time zone", timezone)):
        if not isinstance(text, str):
            raise UsageError(f'the {what} must be a text, not {text!r:.80}; write "0 3 * * *" and "Europe/Berlin"')
    next(times_after(cron, timezone, 0))


def times_after(cron: str, timezone: str, after_ms: int) -> Iterator[int]:
    """Yield the times of an expression after a time, in ms since the epoch. They end where nothing comes in 50 years.

    Raises:
        UsageError: See `check_cron`.
    """
    return _times(cron, timezone, after_ms)


def times_before(cron: str, timezone: str, before_ms: int) -> Iterator[int]:
    """Yield the times of an expression before a time, the latest first.

    Raises:
        UsageError: See `check_cron`.
    """
    return _times(cron, timezone, before_ms, reverse=True)


def _times(cron: str, timezone: str, from_time_ms: int, *, reverse: bool = False) -> Iterator[int]:
    from cronsim import CronSim, CronSimError  # noqa: PLC0415  # programs without schedules don't need it

    zone = _zone(timezone)
    try:
        moments: CronSim = CronSim(cron, from_ms(from_time_ms).astimezone(zone), reverse=reverse)
        first = next(moments)
    except (CronSimError, StopIteration) as exc:
        raise UsageError(
            f"{cron!r:.80} is not a cron expression that ever comes ({exc}); "
            "write five fields: minute hour day month weekday, or six with the seconds first"
        ) from exc
    return map(_to_ms, chain((first,), moments))


def _to_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise UsageError(
            f"time zone {name!r:.80} is not known; write an IANA name such as Europe/Berlin, or UTC"
        ) from exc


@dataclass(frozen=True, slots=True)
class TimesAhead:
    """Due times to add to those that a schedule holds."""

    times: Sequence[int]
    """Ascending, in ms since the epoch. Those up to now are missed ones, for which `missed` has a rule."""
    missed: int = 0
    """Number of missed ticks that are left out, at most MAX_COUNTED."""


def plan_times(
    cron: str, timezone: str, missed: str, *, now_ms: int, listed: Sequence[int] = (), past_ms: int | None = None
) -> TimesAhead:
    """Return the due times that a schedule needs besides those that it holds.

    Args:
        cron: The expression.
        timezone: Its time zone.
        missed: What happens to missed ticks, see `agentqueue.model.schedule.Missed`.
        now_ms: The time now.
        listed: Due times that the schedule holds, ascending.
        past_ms: Time up to which no tick will come any more. None for a new schedule, which begins now.
    """
    known_until = listed[-1] if listed else now_ms if past_ms is None else past_ms
    before: list[int] = []
    left_out = 0
    if known_until < now_ms:
        wanted = 1
        if missed == "all":
            wanted = max(MAX_MISSED_RUNS - len(listed), 0)
        gap = takewhile(lambda due: due > known_until, times_before(cron, timezone, now_ms + 1))
        before = list(islice(gap, wanted))[::-1]
        left_out = sum(1 for _ in islice(gap, MAX_COUNTED))
        if missed == "skip" and before and is_late(before[0], now_ms, next(times_after(cron, timezone, before[0]))):
            before, left_out = [], left_out + 1
    count = AHEAD - sum(due > now_ms for due in listed)
    after = list[int]()
    for due in islice(times_after(cron, timezone, max(known_until, now_ms)), max(count, 0)):
        if due > now_ms + ENOUGH_AHEAD_MS and (after or listed):
            break
        after.append(due)
    return TimesAhead([*before, *after], left_out)


def is_late(due_ms: int, now_ms: int, following_ms: int) -> bool:
    """Return whether a tick is missed although the following one is not due yet. `skip` then leaves it out."""
    return now_ms - due_ms > min(LATE_MS, (following_ms - due_ms) / 2)
