"""Schedules: what is refused, and their record in Redis."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentqueue.errors import InvalidPayload, UsageError
from agentqueue.keys import Level
from agentqueue.model.job import decode_job
from agentqueue.model.new_job import NO_PAYLOAD
from agentqueue.model.schedule import Missed, Schedule, decode_schedule, encode_schedule, tick_id, tick_record

NIGHTLY = Schedule(
    name="nightly",
    cron="0 3 * * *",
    timezone="Europe/Berlin",
    job="report",
    data={"day": [1, None], "text": 'a,0] "et":0, b'},
    missed=Missed.ALL,
    suspend=True,
    priority=Level.HIGH,
)
PLAIN = Schedule("plain", cron="* * * * *", job="report")


def test_a_schedule_has_defaults() -> None:
    assert (PLAIN.timezone, PLAIN.missed, PLAIN.suspend, PLAIN.priority) == ("UTC", Missed.ONE, False, Level.NORMAL)
    assert PLAIN.data is NO_PAYLOAD


def test_fields_of_the_resource_become_a_schedule() -> None:
    fields = {
        "name": "nightly",
        "cron": "0 3 * * *",
        "timezone": "Europe/Berlin",
        "job": "report",
        "data": NIGHTLY.data,
        "missed": "all",
        "suspend": True,
        "priority": "high",
    }
    assert Schedule.parse(fields) == NIGHTLY
    assert Schedule.parse(NIGHTLY.describe()) == NIGHTLY
    assert Schedule.parse(PLAIN.describe()) == PLAIN
    assert Schedule.parse({"name": "plain", "cron": "* * * * *", "job": "report", "timezone": None}) == PLAIN


def test_null_is_a_payload() -> None:
    assert Schedule.parse({"name": "plain", "cron": "* * * * *", "job": "report", "data": None}).data is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a b"}, "schedule name 'a b' must have 1 to 64 characters"),
        ({"name": "n" * 65}, "must have 1 to 64 characters"),
        ({"cron": "61 * * * *"}, "schedule 'nightly': '61 * * * *' is not a cron expression that ever comes"),
        ({"timezone": "Mars/Base"}, "schedule 'nightly': time zone 'Mars/Base' is not known"),
        ({"job": "a b"}, "schedule 'nightly': job name 'a b' must have"),
        ({"missed": "both"}, "schedule 'nightly': missed is 'both'; write skip, one, all"),
        ({"suspend": "yes"}, "schedule 'nightly': suspend is 'yes'; write true or false"),
        ({"priority": "top"}, "schedule 'nightly': priority 'top' is none of urgent"),
        ({"timeout": 5}, "schedule 'nightly' has no field 'timeout'; its fields are name, cron, job"),
        ({"cron": None}, "schedule 'nightly' has no cron; it needs name, cron and job"),
    ],
)
def test_a_field_that_is_not_valid_is_refused_with_what_to_write(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        Schedule.parse({"name": "nightly", "cron": "0 3 * * *", "job": "report"} | change)
    assert message in str(refused.value)


@pytest.mark.parametrize("data", [{"at": object()}, "x" * 70_000])
def test_data_that_is_no_json_or_too_large_is_refused(data: Any) -> None:
    with pytest.raises(UsageError, match="schedule 'plain': its data can't be used"):
        encode_schedule("q", Schedule("plain", cron="* * * * *", job="report", data=data), "code")


@pytest.mark.parametrize("schedule", [NIGHTLY, PLAIN], ids=["nightly", "plain"])
def test_a_schedule_comes_back_as_it_was_written(schedule: Schedule) -> None:
    text = encode_schedule("reports", schedule, "resource")
    found = decode_schedule(text)
    assert (found.schedule, found.source, found.text) == (schedule, "resource", text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"1",
        b'{"name":1}',
        b'{"source":"code","level":3,"record":[]}',
        encode_schedule("q", PLAIN, "code").replace(b'"code"', b'"someone"'),
    ],
)
def test_another_programs_record_is_refused(text: bytes) -> None:
    with pytest.raises(UsageError):
        decode_schedule(text)


@given(
    due=st.integers(1, 9_999_999_999_999),
    data=st.one_of(st.just(NO_PAYLOAD), st.none(), st.text(), st.dictionaries(st.text(), st.integers(-(2**63), 2**63))),
)
def test_a_tick_is_the_parts_of_its_record_with_the_due_time_between(due: int, data: Any) -> None:
    schedule = Schedule("nightly", cron="0 3 * * *", job="report", data=data, priority=Level.LOW)
    wire = orjson.loads(encode_schedule("reports", schedule, "code"))
    record = str(due).join(wire["record"]).encode()
    assert record == tick_record("reports", schedule, due)
    job = decode_job(record)
    assert (job.name, job.enqueued_ms, job.queue, job.tick) == ("report", due, "reports", ("nightly", due))
    assert list(job.args) == ([] if data is NO_PAYLOAD else [data])
    assert (wire["level"], job.priority) == (4, 15)


@pytest.mark.parametrize("tick", ["nightly", ["nightly"], ["nightly", "5"], [5, 5], ["nightly", 5, 5]])
def test_a_tick_of_another_shape_makes_a_record_unreadable(tick: Any) -> None:
    record = orjson.dumps({"aq": 1, "tick": tick, "t": None, "f": "report", "et": 5, "a": [], "k": {}})
    with pytest.raises(InvalidPayload, match=r"tick must be \[name of the schedule, due time in ms\]"):
        decode_job(record)


def test_the_id_of_a_tick_has_its_queue() -> None:
    assert tick_id("reports", "nightly", 5) == "tick:reports:nightly:5"
