"""Times of cron expressions: the calendar, changes of the clocks, and which times a schedule needs ahead."""

from datetime import datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentqueue.errors import UsageError
from agentqueue.model.cron_times import (
    AHEAD,
    ENOUGH_AHEAD_MS,
    MAX_COUNTED,
    MAX_MISSED_RUNS,
    check_cron,
    plan_times,
    times_after,
    times_before,
)

BERLIN = "Europe/Berlin"
NEW_YORK = "America/New_York"
LORD_HOWE = "Australia/Lord_Howe"
HOUR_MS = 3_600_000
NOW = 1_780_000_000_000


def ms(text: str, timezone: str = "UTC") -> int:
    """Return a local time, such as `2026-03-29T02:30`, in ms since the epoch. A fold is written `(2)` behind it."""
    moment = datetime.fromisoformat(text.removesuffix("(2)")).replace(tzinfo=ZoneInfo(timezone))
    return round(moment.replace(fold=int(text.endswith("(2)"))).timestamp() * 1000)


@pytest.mark.parametrize(
    ("cron", "timezone", "after", "due"),
    [
        pytest.param("*/5 * * * *", "UTC", "2026-01-01T00:00", ["2026-01-01T00:05", "2026-01-01T00:10"], id="minutes"),
        pytest.param("*/10 * * * * *", "UTC", "2026-01-01T00:00:05", ["2026-01-01T00:00:10"], id="seconds"),
        pytest.param("0 9 * * MON-FRI", BERLIN, "2026-07-03T12:00", ["2026-07-06T07:00"], id="over-a-weekend"),
        pytest.param("0 0 29 2 *", "UTC", "2026-01-01T00:00", ["2028-02-29T00:00", "2032-02-29T00:00"], id="leap-day"),
        pytest.param("0 0 31 * *", "UTC", "2026-01-31T00:00", ["2026-03-31T00:00", "2026-05-31T00:00"], id="day-31"),
        pytest.param(
            "0 0 L * *", "UTC", "2026-01-31T00:00", ["2026-02-28T00:00", "2026-03-31T00:00"], id="last-day-of-month"
        ),
        pytest.param("59 23 31 12 *", "UTC", "2026-12-31T23:59", ["2027-12-31T23:59"], id="end-of-the-year"),
        pytest.param("0 0 1 1 *", "Pacific/Kiritimati", "2026-06-01T00:00", ["2026-12-31T10:00"], id="utc-plus-14"),
    ],
)
def test_times_follow_the_calendar(cron: str, timezone: str, after: str, due: list[str]) -> None:
    assert list(islice(times_after(cron, timezone, ms(after)), len(due))) == [ms(text) for text in due]


@pytest.mark.parametrize(
    ("cron", "timezone", "after", "due"),
    [
        pytest.param(
            "30 2 * * *",
            BERLIN,
            "2026-03-28T02:30",
            ["2026-03-29T03:00", "2026-03-30T02:30"],
            id="a-time-that-is-skipped-in-spring-comes-when-the-gap-ends",
        ),
        pytest.param(
            "30 2 * * *",
            BERLIN,
            "2026-10-24T02:30",
            ["2026-10-25T02:30", "2026-10-26T02:30"],
            id="a-time-that-is-there-twice-in-autumn-comes-once",
        ),
        pytest.param(
            "*/30 * * * *",
            BERLIN,
            "2026-03-29T01:00",
            ["2026-03-29T01:30", "2026-03-29T03:00", "2026-03-29T03:30"],
            id="every-half-hour-goes-on-through-the-gap",
        ),
        pytest.param(
            "*/30 * * * *",
            BERLIN,
            "2026-10-25T02:00",
            ["2026-10-25T02:30", "2026-10-25T02:00(2)", "2026-10-25T02:30(2)", "2026-10-25T03:00"],
            id="every-half-hour-goes-on-through-both-hours",
        ),
        pytest.param(
            "0 30 2 * * *",
            BERLIN,
            "2026-03-28T02:30",
            ["2026-03-30T02:30"],
            id="with-seconds-a-time-that-is-skipped-does-not-come",
        ),
        pytest.param(
            "0 30 2 * * *",
            BERLIN,
            "2026-10-24T02:30",
            ["2026-10-25T02:30", "2026-10-25T02:30(2)"],
            id="with-seconds-a-time-that-is-there-twice-comes-twice",
        ),
        pytest.param(
            "0 2 * * *", NEW_YORK, "2026-03-07T02:00", ["2026-03-08T03:00", "2026-03-09T02:00"], id="new-york-in-spring"
        ),
        pytest.param(
            "15 2 * * *",
            LORD_HOWE,
            "2026-10-03T02:15",
            ["2026-10-04T02:30", "2026-10-05T02:15"],
            id="a-gap-of-half-an-hour",
        ),
        pytest.param("0 12 * * *", BERLIN, "2026-03-28T12:00", ["2026-03-29T12:00"], id="a-day-of-23-hours"),
    ],
)
def test_times_follow_changes_of_the_clocks(cron: str, timezone: str, after: str, due: list[str]) -> None:
    found = list(islice(times_after(cron, timezone, ms(after, timezone)), len(due)))
    assert found == [ms(text, timezone) for text in due]


@given(
    cron=st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 0 29 2 *", "*/20 * * * * *", "0 30 2 * * *", "0 5 * * SUN"]),
    timezone=st.sampled_from(["UTC", BERLIN, NEW_YORK, LORD_HOWE]),
    start=st.integers(ms("2026-01-01"), ms("2028-01-01")),
)
def test_times_before_are_those_after_in_reverse(cron: str, timezone: str, start: int) -> None:
    forward = list(islice(times_after(cron, timezone, start), 5))
    assert forward == sorted(set(forward))
    assert forward[0] > start
    assert list(islice(times_before(cron, timezone, forward[-1] + 1), 5)) == forward[::-1]


@pytest.mark.parametrize(
    ("cron", "timezone", "message"),
    [
        ("61 * * * *", "UTC", "'61 * * * *' is not a cron expression that ever comes (Bad minute); write five fields"),
        ("0 0 30 2 *", "UTC", "'0 0 30 2 *' is not a cron expression that ever comes (Bad day-of-month)"),
        ("often", "UTC", "'often' is not a cron expression that ever comes (Wrong number of fields)"),
        ("* * * * *", "Mars/Base", "time zone 'Mars/Base' is not known; write an IANA name such as Europe/Berlin"),
        ("* * * * *", "../etc/passwd", "time zone '../etc/passwd' is not known"),
        (5, "UTC", "the cron expression must be a text, not 5"),
        ("* * * * *", None, "the time zone must be a text, not None"),
    ],
)
def test_what_never_comes_is_refused_with_what_to_write(cron: str, timezone: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_cron(cron, timezone)
    assert message in str(refused.value)


def hourly(missed: str, *, now: int, listed: list[int], past: int | None = None) -> tuple[list[int], int]:
    """Return what an hourly schedule needs: due times by their hour from NOW, and the number that is left out."""
    plan = plan_times("0 * * * *", "UTC", missed, now_ms=now, listed=listed, past_ms=past)
    first = next(times_after("0 * * * *", "UTC", NOW))
    return [(due - first) // HOUR_MS for due in plan.times], plan.missed


FIRST = next(times_after("0 * * * *", "UTC", NOW))


def test_a_new_schedule_begins_now() -> None:
    assert hourly("all", now=NOW, listed=[]) == (list(range(AHEAD)), 0)


def test_times_ahead_are_filled_up() -> None:
    listed = [FIRST + number * HOUR_MS for number in range(10)]
    assert hourly("one", now=NOW, listed=listed) == (list(range(10, AHEAD)), 0)
    full = [FIRST + number * HOUR_MS for number in range(AHEAD)]
    assert hourly("one", now=NOW, listed=full) == ([], 0)


@pytest.mark.parametrize(
    ("missed", "times", "left_out"),
    [("skip", [], 4), ("one", [4], 3), ("all", [1, 2, 3, 4], 0)],
)
def test_times_that_have_passed_since_the_last_one_follow_the_rule(
    missed: str, times: list[int], left_out: int
) -> None:
    now = FIRST + 4 * HOUR_MS + HOUR_MS * 2 // 3
    found, count = hourly(missed, now=now, listed=[], past=FIRST)
    assert (found, count) == ([*times, *range(5, 5 + AHEAD)], left_out)


def test_a_tick_that_is_just_due_is_not_missed() -> None:
    assert hourly("skip", now=FIRST + HOUR_MS + 60_000, listed=[], past=FIRST)[0][:2] == [1, 2]


def test_all_is_bounded_with_those_that_are_listed() -> None:
    listed = [FIRST + number * HOUR_MS for number in range(30)]
    now = FIRST + 499 * HOUR_MS + 1
    found, left_out = hourly("all", now=now, listed=listed)
    assert found[: MAX_MISSED_RUNS - 30] == list(range(500 - MAX_MISSED_RUNS + 30, 500))
    assert left_out == 500 - MAX_MISSED_RUNS


def test_counting_is_bounded() -> None:
    plan = plan_times("* * * * * *", "UTC", "one", now_ms=NOW, past_ms=NOW - 7 * 24 * HOUR_MS)
    assert plan.missed == MAX_COUNTED
    assert len(plan.times) == 1 + AHEAD


def test_rare_times_are_not_computed_far_ahead() -> None:
    first = plan_times("0 0 29 2 *", "UTC", "one", now_ms=ms("2026-01-01"))
    assert first.times == [ms("2028-02-29")]
    assert plan_times("0 0 29 2 *", "UTC", "one", now_ms=ms("2026-01-02"), listed=first.times).times == []
    yearly = plan_times("0 0 1 1 *", "UTC", "one", now_ms=ms("2026-06-01")).times
    assert yearly == [ms("2027-01-01")]
    assert yearly[-1] < ms("2026-06-01") + ENOUGH_AHEAD_MS
