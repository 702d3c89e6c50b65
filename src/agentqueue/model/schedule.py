"""Schedules, which enqueue a job at the times of a cron expression: their record, and their next time. Pure."""

from dataclasses import dataclass
from datetime import tzinfo
from enum import StrEnum
from functools import lru_cache
from typing import Any

import orjson

from agentqueue.errors import UsageError
from agentqueue.model.times import LAST_MS, from_ms


class Missed(StrEnum):
    """What becomes of the times that pass while no worker could run the job."""

    SKIP = "skip"
    """They are dropped."""
    ONE = "one"
    """The job runs once for all of them."""
    ALL = "all"
    """The job runs once for each."""


class Source(StrEnum):
    """Where a schedule is written down. Each source replaces its own schedules only."""

    CODE = "code"
    """`@agent.cron` in the handlers' code."""
    RESOURCE = "resource"
    """`spec.agents[].schedules` of the AgentQueue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A job that is enqueued at the times of a cron expression."""

    name: str
    """Name, unique in its queue and source."""
    cron: str
    """Five fields, or six with the seconds first, in the format of cronsim."""
    timezone: str = "UTC"
    """IANA name of the time zone in which the expression is read."""
    job: str
    """Name of the job."""
    data: Any = None
    """Payload, as JSON; None for a job without one."""
    missed: Missed = Missed.ONE
    suspend: bool = False
    """True: it stays, but enqueues nothing."""
    source: Source = Source.CODE

    def next_tick(self, after_ms: int) -> int | None:
        """Return the first time after another one, both in ms since the epoch; None if there is none."""
        return next_tick(self.cron, self.timezone, after_ms)


def next_tick(cron: str, timezone: str, after_ms: int) -> int | None:
    """Return the first time of a cron expression after another time, both in ms since the epoch.

    A time that the clocks skip in spring comes with the end of the gap, and one that comes twice in autumn counts once,
    as in Debian's cron. Expressions with seconds, or with `*` as the hour or the minute, follow elapsed time instead.

    Args:
        cron: a valid cron expression.
        timezone: a known time zone.
        after_ms: the time after which to search.

    Returns:
        None if there is none within the next 50 years.
    """
    from cronsim import CronSim  # noqa: PLC0415 (slow to import, and only schedules need it)

    if not 0 <= after_ms < LAST_MS:
        return None
    found = next(CronSim(cron, from_ms(after_ms).astimezone(zone(timezone))), None)
    return None if found is None else round(found.timestamp() * 1000)


@lru_cache(maxsize=1_024)
def check_cron(cron: str, timezone: str = "UTC") -> None:
    """Check a cron expression and its time zone.

    Raises:
        UsageError: the expression is not one, has no time at all, or the time zone is not known.
    """
    from cronsim import CronSim, CronSimError  # noqa: PLC0415

    zone(timezone)
    try:
        next(CronSim(cron, from_ms(0)))
    except (CronSimError, StopIteration) as error:
        why = str(error) or "no such day exists"
        raise UsageError(
            f"{cron!r:.80} is not a cron expression that ever comes ({why}); "
            "write five fields: minute hour day month weekday"
        ) from error


@lru_cache(maxsize=256)
def zone(name: str) -> tzinfo:
    """Return a time zone by its IANA name.

    Raises:
        UsageError: it is not known.
    """
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(
            f"time zone {name!r:.80} is not known; write an IANA name such as Europe/Berlin, or UTC"
        ) from error


def encode_schedule(schedule: Schedule) -> bytes:
    """Return the record of a schedule as JSON."""
    return orjson.dumps(
        {
            "name": schedule.name,
            "cron": schedule.cron,
            "timezone": schedule.timezone,
            "job": schedule.job,
            **({} if schedule.data is None else {"data": schedule.data}),
            "missed": schedule.missed,
            "suspend": schedule.suspend,
            "source": schedule.source,
        }
    )


def decode_schedule(raw: bytes) -> Schedule:
    """Return the schedule of a record.

    Raises:
        ValueError: another program has written it.
    """
    try:
        wire = orjson.loads(raw)
        return Schedule(
            name=str(wire["name"]),
            cron=str(wire["cron"]),
            timezone=str(wire["timezone"]),
            job=str(wire["job"]),
            data=wire.get("data"),
            missed=Missed(wire["missed"]),
            suspend=bool(wire["suspend"]),
            source=Source(wire["source"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not the record of a schedule: {raw[:80]!r}") from error
