"""Schedules: when they come, which expressions and time zones are known, and their record."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from agentqueue.errors import UsageError
from agentqueue.model.schedule import (
    Missed,
    Schedule,
    Source,
    check_cron,
    decode_schedule,
    encode_schedule,
    next_tick,
    zone,
)
from agentqueue.model.times import LAST_MS

BERLIN = "Europe/Berlin"


def ms(text: str, timezone: str = "UTC") -> int:
    """Return a local time, such as `2026-03-29T02:30`, in ms since the epoch."""
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(timezone)).timestamp() * 1000)


@pytest.mark.parametrize(
    ("cron", "timezone", "after", "due"),
    [
        pytest.param("*/5 * * * *", "UTC", "2026-01-01T00:00", "2026-01-01T00:05", id="the-next-one-is-later"),
        pytest.param("*/10 * * * * *", "UTC", "2026-01-01T00:00:05", "2026-01-01T00:00:10", id="seconds"),
        pytest.param("0 9 * * MON-FRI", BERLIN, "2026-07-03T08:00", "2026-07-06T07:00", id="a-weekend-between"),
        pytest.param("30 2 * * *", BERLIN, "2026-03-29T00:00", "2026-03-29T01:00", id="in-the-gap-of-spring"),
        pytest.param("30 2 * * *", BERLIN, "2026-10-24T23:00", "2026-10-25T00:30", id="the-first-of-two-in-autumn"),
        pytest.param("30 2 * * *", BERLIN, "2026-10-25T00:30", "2026-10-26T01:30", id="not-the-second-of-two"),
        pytest.param("*/30 * * * *", BERLIN, "2026-10-25T00:30", "2026-10-25T01:00", id="each-half-hour-in-autumn"),
        pytest.param("0 0 29 2 *", "UTC", "2026-01-01T00:00", "2028-02-29T00:00", id="a-leap-day"),
    ],
)
def test_the_next_time_follows_the_clock_of_its_zone(cron: str, timezone: str, after: str, due: str) -> None:
    assert next_tick(cron, timezone, ms(after)) == ms(due)
    assert Schedule(name="s", cron=cron, timezone=timezone, job="j").next_tick(ms(after)) == ms(due)


@pytest.mark.parametrize("after_ms", [-1, LAST_MS])
def test_there_is_no_next_time_outside_of_the_calendar(after_ms: int) -> None:
    assert next_tick("* * * * *", "UTC", after_ms) is None


@pytest.mark.parametrize(
    ("cron", "timezone", "message"),
    [
        ("61 * * * *", "UTC", "'61 * * * *' is not a cron expression that ever comes (Bad minute); write five fields"),
        ("0 0 30 2 *", "UTC", "'0 0 30 2 *' is not a cron expression that ever comes (Bad day-of-month)"),
        ("often", "UTC", "'often' is not a cron expression that ever comes (Wrong number of fields)"),
        ("* * * * *", "Mars/Base", "time zone 'Mars/Base' is not known; write an IANA name such as Europe/Berlin"),
        ("* * * * *", "../etc/passwd", "time zone '../etc/passwd' is not known"),
    ],
)
def test_what_never_comes_is_refused_with_what_to_write(cron: str, timezone: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_cron(cron, timezone)
    assert message in str(refused.value)


def test_a_valid_expression_is_accepted() -> None:
    check_cron("0 9 * * 1-5", BERLIN)
    assert str(zone(BERLIN)) == BERLIN


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(name="s", cron="* * * * *", job="j"),
        Schedule(
            name="nightly",
            cron="0 3 * * *",
            timezone=BERLIN,
            job="report",
            data={"day": [1, None]},
            missed=Missed.ALL,
            suspend=True,
            source=Source.RESOURCE,
        ),
    ],
)
def test_a_record_comes_back_as_it_was_written(schedule: Schedule) -> None:
    assert decode_schedule(encode_schedule(schedule)) == schedule


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"1", b'{"name": 1}'])
def test_another_programs_record_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="not the record of a schedule"):
        decode_schedule(raw)
