"""The arguments of `enqueue`, and the errors of those that are not valid."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from agentqueue.agent.context import Context
from agentqueue.agent.declaration import declare
from agentqueue.agent.definition import Agent
from agentqueue.client.arguments import is_by_name, read_call
from agentqueue.errors import InvalidName, InvalidPayload, UsageError
from agentqueue.ids import new_id, new_nonce
from agentqueue.keys import Level
from agentqueue.model.job import JobOptions, decode_job
from agentqueue.model.new_job import NO_PAYLOAD, OPTION_NAMES, EnqueueOptions, prepare_job

NOW = 1_800_000_000_000
agent = Agent("flights")


class Request(BaseModel):
    origin: str


@dataclass
class Plain:
    origin: str


@agent.job
async def search(ctx: Context, request: Request) -> None: ...


@agent.job
async def tick(ctx: Context) -> None: ...


def made(data: Any = NO_PAYLOAD, queue: Any = "flights", name: Any = "search", **options: Any) -> Any:
    return prepare_job(queue, name, data, options, now_ms=NOW, new_id="drawn", draw_nonce=new_nonce)[:2]


def test_none_is_a_payload_and_none_at_all_is_not() -> None:
    assert decode_job(made(None)[0].record).args == [None]
    assert decode_job(made()[0].record).args == []


def test_without_options_all_is_plain() -> None:
    job, id_is_random = made({"a": 1})
    record = decode_job(job.record)
    assert (job.queue, job.id, job.level, job.delay_ms, id_is_random) == ("flights", "drawn", Level.NORMAL, 0, True)
    assert (record.name, record.data, record.enqueued_ms, record.queue, record.priority) == (
        "search",
        {"a": 1},
        NOW,
        "flights",
        None,
    )
    assert record.options == JobOptions()


def test_every_option_reaches_the_record() -> None:
    job, id_is_random = made(
        [1],
        priority="high",
        id="trip",
        tags=["acme", "blue sky"],
        timeout=timedelta(minutes=1),
        attempts=7,
        backoff={"type": "fixed", "delaySeconds": 3, "jitter": None},
        tenant="acme",
        trace="00-abc-def-01",
        delay=2.5,
    )
    record = decode_job(job.record)
    assert (job.id, job.level, job.delay_ms, id_is_random) == ("trip", Level.HIGH, 2_500, False)
    assert (record.priority, record.tags, record.tenant, record.trace) == (
        5,
        ["acme", "blue sky"],
        "acme",
        "00-abc-def-01",
    )
    assert record.options == JobOptions(60.0, 7, {"type": "fixed", "delaySeconds": 3})


@pytest.mark.parametrize(
    ("priority", "level", "number"),
    [
        (None, Level.NORMAL, None),
        ("normal", Level.NORMAL, None),
        (10, Level.NORMAL, None),
        (12, Level.NORMAL, 12),
        ("LOW", Level.LOW, 15),
        (7, Level.HIGH, 7),
        (1, Level.URGENT, 1),
        (Level.URGENT, Level.URGENT, 1),
    ],
)
def test_priorities(priority: Any, level: Level, number: int | None) -> None:
    job, _ = made(priority=priority)
    assert (job.level, decode_job(job.record).priority) == (level, number)


@pytest.mark.parametrize(
    ("options", "delay_ms"),
    [
        ({"delay": 0}, 0),
        ({"delay": 0.0004}, 0),
        ({"delay": timedelta(days=1)}, 86_400_000),
        ({"delay": 10 * 365 * 86_400}, 315_360_000_000),
        ({"at": datetime.fromtimestamp(NOW / 1000 + 5, tz=UTC)}, 5_000),
        ({"at": datetime(2001, 1, 1, tzinfo=UTC)}, 0),
        ({"backoff": 5}, 0),
    ],
)
def test_delays(options: dict[str, Any], delay_ms: int) -> None:
    assert made(**options)[0].delay_ms == delay_ms


def test_one_number_as_backoff_is_a_fixed_delay() -> None:
    assert decode_job(made(backoff=5)[0].record).options.backoff == {"type": "fixed", "delaySeconds": 5.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"delay": -1}, "`delay` must be a number of seconds", id="delay-negative"),
        pytest.param({"delay": math.nan}, "`delay` must be a number of seconds", id="delay-nan"),
        pytest.param({"delay": math.inf}, "`delay` must be a number of seconds", id="delay-infinite"),
        pytest.param({"delay": True}, "`delay` must be a number of seconds", id="delay-bool"),
        pytest.param({"delay": "5"}, "`delay` must be a number of seconds", id="delay-text"),
        pytest.param(
            {"delay": timedelta(days=3_651)}, "`delay` must be a number of seconds", id="delay-over-ten-years"
        ),
        pytest.param({"delay": 1, "at": datetime(2100, 1, 1, tzinfo=UTC)}, "not both", id="delay-and-at"),
        pytest.param({"at": datetime(2030, 1, 1)}, "time zone", id="at-naive"),  # noqa: DTZ001  # the point
        pytest.param({"at": "tomorrow"}, "time zone", id="at-text"),
        pytest.param({"at": datetime(2300, 1, 1, tzinfo=UTC)}, "over 10 years", id="at-far"),
        pytest.param({"timeout": 0}, "`timeout` must be a number of seconds", id="timeout-zero"),
        pytest.param({"attempts": 0}, "`attempts` must be a whole number", id="attempts-zero"),
        pytest.param({"attempts": 1.5}, "`attempts` must be a whole number", id="attempts-fraction"),
        pytest.param({"attempts": 1_001}, "`attempts` must be a whole number", id="attempts-many"),
        pytest.param({"backoff": -1}, "`backoff` must be a number of seconds", id="backoff-negative"),
        pytest.param({"backoff": {"type": "linear"}}, "exponential or fixed", id="backoff-type"),
        pytest.param({"backoff": {"delay": 1}}, "has no 'delay'", id="backoff-key"),
        pytest.param({"backoff": {"jitter": 2}}, "jitter", id="backoff-jitter"),
        pytest.param({"backoff": {"maxDelaySeconds": -1}}, "maxDelaySeconds", id="backoff-max"),
        pytest.param({"prio": 1}, "did you mean 'priority'", id="option-misspelt"),
        pytest.param({"zzz": 1}, "it may be at, attempts", id="option-unknown"),
    ],
)
def test_bad_options_are_usage_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made(**options)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"queue": ""}, id="queue-empty"),
        pytest.param({"queue": None}, id="queue-none"),
        pytest.param({"queue": "a b"}, id="queue-space"),
        pytest.param({"queue": "flights:dead"}, id="queue-reserved"),
        pytest.param({"name": ""}, id="name-empty"),
        pytest.param({"name": 5}, id="name-number"),
        pytest.param({"name": "two words"}, id="name-space"),
        pytest.param({"id": ""}, id="id-empty"),
        pytest.param({"id": "x" * 257}, id="id-long"),
        pytest.param({"id": "a\nb"}, id="id-newline"),
        pytest.param({"id": 5}, id="id-number"),
        pytest.param({"priority": "soon"}, id="priority-name"),
        pytest.param({"priority": 0}, id="priority-zero"),
        pytest.param({"priority": True}, id="priority-bool"),
        pytest.param({"tags": "acme"}, id="tags-text"),
        pytest.param({"tags": ["x"] * 21}, id="tags-many"),
        pytest.param({"tags": [""]}, id="tag-empty"),
        pytest.param({"tags": [5]}, id="tag-number"),
        pytest.param({"tenant": "\x00"}, id="tenant-control"),
        pytest.param({"trace": 5}, id="trace-number"),
    ],
)
def test_bad_names_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidName):
        made(**arguments)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param({"x": [1, math.nan]}, r"\.x\[1\] is nan", id="nan"),
        pytest.param({"x": math.inf}, r"\.x is inf", id="infinite"),
        pytest.param({"x": object()}, r"\.x is of the type object", id="object"),
        pytest.param({"x": {1, 2}}, r"\.x is of the type set", id="set"),
        pytest.param({"x": datetime(2030, 1, 1, tzinfo=UTC)}, r"\.x is of the type datetime", id="datetime"),
        pytest.param({5: 1}, "keys must be strings", id="key"),
        pytest.param({"x": 2**64}, "over 64 bits", id="int"),
        pytest.param(b"raw", "is of the type bytes", id="bytes"),
        pytest.param("\ud800", "not JSON", id="surrogate"),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(data: Any, message: str) -> None:
    with pytest.raises(InvalidPayload, match=message):
        made(data)


def test_the_limits_of_size_and_depth_are_exact() -> None:
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    made(deep)
    with pytest.raises(InvalidPayload, match="nested deeper than 100"):
        made([deep])
    size = len(made("")[0].record)
    prepare_job("flights", "search", "x" * 10, {}, now_ms=NOW, new_id="a", draw_nonce=new_nonce, max_bytes=size + 10)
    with pytest.raises(InvalidPayload, match="over the limit"):
        prepare_job(
            "flights", "search", "x" * 11, {}, now_ms=NOW, new_id="a", draw_nonce=new_nonce, max_bytes=size + 10
        )


class TestCalls:
    def test_queue_name_and_data_by_position_or_keyword(self) -> None:
        assert read_call(("q", "n", 1), {"id": "a"})[:4] == ("q", "n", 1, {"id": "a"})
        assert read_call((), {"queue": "q", "name": "n", "data": 1})[:4] == ("q", "n", 1, {})
        assert read_call(("q", "n"), {})[:4] == ("q", "n", NO_PAYLOAD, {})
        assert read_call(("q", "n", None), {})[:4] == ("q", "n", None, {})

    def test_models_and_dataclasses_are_written_as_json_types(self) -> None:
        assert read_call(("q", "n", Request(origin="BER")), {})[2] == {"origin": "BER"}
        assert read_call(("q", "n", Plain("BER")), {})[2] == {"origin": "BER"}

    def test_a_declared_job_was_named_by_the_caller_and_may_be_mistyped(self) -> None:
        declared = declare("flights", "search", Request)
        assert read_call((declared, Request(origin="BER")), {})[:3] == ("flights", "search", {"origin": "BER"})
        assert (
            is_by_name((declared,), {}) == is_by_name((), {"function": declared}) == is_by_name(("q", "n"), {}) is True
        )
        assert is_by_name((search,), {}) == is_by_name((), {"function": search}) is False

    def test_a_function_brings_its_queue_name_and_model(self) -> None:
        for given in (Request(origin="BER"), {"origin": "BER"}):
            assert read_call((search, given), {"id": "a"})[:4] == ("flights", "search", {"origin": "BER"}, {"id": "a"})
        assert read_call((tick,), {})[:4] == ("flights", "tick", NO_PAYLOAD, {})
        assert read_call((agent.jobs["search"], {"origin": "BER"}), {})[2] == {"origin": "BER"}
        assert read_call((), {"function": search, "payload": {"origin": "BER"}})[2] == {"origin": "BER"}

    @pytest.mark.parametrize(
        ("args", "keywords", "error", "message"),
        [
            pytest.param((), {}, UsageError, "needs queue and name", id="nothing"),
            pytest.param(("q",), {}, UsageError, "needs name", id="no-name"),
            pytest.param(("q", "n", 1, 2), {}, UsageError, "but 4 arguments", id="surplus"),
            pytest.param(("q", "n"), {"name": "m"}, UsageError, "'name' twice", id="twice"),
            pytest.param((len, 1), {}, UsageError, "len is not a job", id="not-a-job"),
            pytest.param((search, {"origin": 5}), {}, InvalidPayload, "origin", id="model-refuses"),
            pytest.param((tick, 1), {}, InvalidPayload, "takes no payload", id="takes-none"),
        ],
    )
    def test_bad_calls(self, args: Any, keywords: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            read_call(args, keywords)


def test_drawn_ids_are_ids_and_differ() -> None:
    ids = {new_id() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(made(id=job_id)[0].id == job_id for job_id in ids)


def test_an_id_of_the_producers_own_comes_with_a_nonce() -> None:
    first, second = (decode_job(made(id="trip")[0].record) for _ in range(2))
    assert first.enqueueing != second.enqueueing
    assert decode_job(made()[0].record).nonce is None


def test_none_is_the_same_as_left_out() -> None:
    assert made(5, **dict.fromkeys(OPTION_NAMES)) == made(5)
    assert set(EnqueueOptions.__annotations__) == OPTION_NAMES


def test_a_payload_that_is_left_out_shows_as_such() -> None:
    assert repr(NO_PAYLOAD) == "NO_PAYLOAD"
