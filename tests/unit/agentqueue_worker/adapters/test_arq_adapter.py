"""The rules of the arq adapter that need no server: records, verdicts, crons."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from arq import cron, func
from arq import worker as arq_worker
from arq.cron import CronJob
from arq.worker import JobExecutionFailed, Retry, RetryJob

from agentqueue.arq import dumps, loads
from agentqueue.errors import InvalidPayload
from agentqueue.model.dead_letter import DeadLetterReason
from agentqueue.model.job import JobRecord, State, encode_job, is_pickle
from agentqueue.model.result import ResultRecord, decode_result
from agentqueue_worker.adapters.arq.crons import ArqCron
from agentqueue_worker.adapters.arq.functions import ArqHandler
from agentqueue_worker.adapters.arq.records import UNREADABLE_JOB_NAME, ArqRecord, Serializers
from agentqueue_worker.adapters.arq.worker import ArqWorker, keep_ms_of
from agentqueue_worker.app.job import RunningJob
from agentqueue_worker.domain.verdict import Failed, Hopeless, Verdict
from tests.support.arq_programs import PICKLE

JSON = Serializers()
PICKLED = Serializers.choose(None, None, pickled=True)
ARQ_RECORD = {"t": 2, "f": "search", "a": ("BER",), "k": {"n": 1}, "et": 7}


async def search(ctx: dict[str, Any]) -> None:
    """A function to register."""


# --- which serializers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "read", "pickled", "expected"),
    [
        pytest.param(None, None, False, (dumps, loads), id="json-by-default"),
        pytest.param(None, None, True, tuple(PICKLE.values()), id="pickle-asked-for"),
        pytest.param(None, loads, False, (PICKLE["job_serializer"], loads), id="arqs-default-beside-a-deserializer"),
        pytest.param(dumps, None, False, (dumps, loads), id="a-serializer-alone-unpickles-nothing"),
        pytest.param(dumps, None, True, (dumps, PICKLE["job_deserializer"]), id="a-serializer-and-pickle"),
    ],
)
def test_pickle_is_used_only_where_it_or_a_deserializer_is_asked_for(
    write: Any, read: Any, pickled: bool, expected: Any
) -> None:
    chosen = Serializers.choose(write, read, pickled=pickled)
    assert (chosen.write, chosen.read) == expected


# --- jobs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("serializers", [JSON, PICKLED, Serializers.choose(dumps, loads, pickled=False)])
def test_a_record_of_ours_is_read_whatever_the_program_asks_for(serializers: Serializers) -> None:
    record = JobRecord(name="search", args=("BER",), enqueued_ms=7, tags=["acme"])
    found = serializers.decode_job(encode_job(record))
    assert (found.name, list(found.args), found.enqueued_ms, list(found.tags)) == ("search", ["BER"], 7, ["acme"])


@pytest.mark.parametrize(
    ("serializers", "raw"), [(JSON, dumps(ARQ_RECORD)), (PICKLED, PICKLE["job_serializer"](ARQ_RECORD))]
)
def test_a_record_of_arqs_client_is_read(serializers: Serializers, raw: bytes) -> None:
    found = serializers.decode_job(raw)
    assert (found.name, tuple(found.args), found.kwargs) == ("search", ("BER",), {"n": 1})
    assert (found.job_try, found.enqueued_ms) == (2, 7)


def test_a_pickle_is_not_read_unless_asked_for() -> None:
    raw = PICKLE["job_serializer"](ARQ_RECORD)
    assert is_pickle(raw)
    with pytest.raises(InvalidPayload):
        JSON.decode_job(raw)


@pytest.mark.parametrize("raw", [b"garbage", b"\x80\x04garbage", b"\x80\x04N."])
def test_what_the_users_deserializer_refuses_stands_for_itself(raw: bytes) -> None:
    record = PICKLED.decode_job(raw)
    assert isinstance(record, ArqRecord)
    assert record.name == UNREADABLE_JOB_NAME
    assert "refuses its record" in (record.problem or "")


@pytest.mark.parametrize(
    "changes", [{"t": "2"}, {"f": None}, {"a": "BER"}, {"k": []}, {"et": 1.5}, {"et": None}, {"f": ["search"]}]
)
def test_what_it_reads_must_be_a_jobs_record(changes: dict[str, Any]) -> None:
    record = PICKLED.decode_job(PICKLE["job_serializer"]({**ARQ_RECORD, **changes}))
    assert isinstance(record, ArqRecord)
    assert (record.name, record.problem) == (UNREADABLE_JOB_NAME, "its record is not a job's")


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((), {}, None),
        (({1},), {}, "{1}"),
        ((1, b"x"), {}, [1, "b'x'"]),
        (("a",), {"at": timedelta(1)}, {"args": ["a"], "kwargs": {"at": "datetime.timedelta(days=1)"}}),
    ],
)
def test_a_dead_letter_can_show_arguments_that_are_not_json(args: Any, kwargs: Any, expected: Any) -> None:
    assert ArqRecord(name="x", args=args, kwargs=kwargs).data == expected


# --- results -------------------------------------------------------------------------------------------------------


def result(value: Any, *, success: bool = True, reason: DeadLetterReason | None = None, **more: Any) -> ResultRecord:
    state = State.COMPLETED if success else State.DEAD
    given: dict[str, Any] = {"id": "one", "name": "search", "queue": "arq:queue", "started_ms": 1, "finished_ms": 2}
    return ResultRecord(success=success, result=value, reason=reason, state=state, **(given | more))


@pytest.mark.parametrize("serializers", [JSON, PICKLED])
def test_a_result_is_arqs_record(serializers: Serializers) -> None:
    raw = serializers.encode_result(result({"price": 3}, args=("BER",), kwargs={"n": 1}, enqueued_ms=7, job_try=2))
    record = serializers.read(raw)
    assert {key: record[key] for key in ("t", "f", "a", "k", "et", "s", "r", "st", "ft", "q", "id")} == {
        "t": 2,
        "f": "search",
        "a": ("BER",),
        "k": {"n": 1},
        "et": 7,
        "s": True,
        "r": {"price": 3},
        "st": 1,
        "ft": 2,
        "q": "arq:queue",
        "id": "one",
    }


def test_a_json_result_keeps_our_own_fields() -> None:
    raw = JSON.encode_result(result(1, worker="pod-1", deliveries=3))
    assert (decode_result(raw).worker, decode_result(raw).deliveries) == ("pod-1", 3)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (DeadLetterReason.EXPIRED, "JobExecutionFailed('job expired')"),
        (DeadLetterReason.NO_RECORD, "JobExecutionFailed('job expired')"),
        (DeadLetterReason.UNKNOWN_JOB, "JobExecutionFailed(\"function 'search' not found\")"),
        (DeadLetterReason.GARBAGE, "DeserializationError('unable to deserialize job')"),
        (DeadLetterReason.CRASHED, "JobExecutionFailed('Crashed: twice')"),
        (DeadLetterReason.PICKLED, "JobExecutionFailed('Crashed: twice')"),
        (DeadLetterReason.FATAL, "RuntimeError('Crashed: twice')"),
        (None, "RuntimeError('Crashed: twice')"),
    ],
)
@pytest.mark.parametrize("serializers", [JSON, PICKLED])
def test_a_job_that_never_ran_ends_with_arqs_own_exception(
    serializers: Serializers, reason: DeadLetterReason | None, expected: str
) -> None:
    raw = serializers.encode_result(result(RuntimeError("Crashed: twice"), success=False, reason=reason))
    assert repr(serializers.read(raw)["r"]) == expected


def test_a_result_that_is_not_json_says_so() -> None:
    record = loads(JSON.encode_result(result({1, 2})))
    assert (record["s"], record["r"]) == (False, "unable to serialize result")


def test_a_result_that_the_users_serializer_refuses_says_so() -> None:
    own = Serializers.choose(_refuse_sets, loads, pickled=False)
    record = loads(own.encode_result(result({1, 2}, args=("BER",))))
    assert (record["s"], record["r"], record["a"]) == (False, "unable to serialize result", ("BER",))


def test_arguments_that_the_users_serializer_refuses_are_written_as_text() -> None:
    own = Serializers.choose(_refuse_sets, loads, pickled=False)
    record = loads(own.encode_result(result({1, 2}, args=({3},), kwargs={"n": {4}})))
    assert (record["s"], record["r"]) == (False, "unable to serialize result")
    assert (record["a"], record["k"]) == (("{3}",), {"n": "{4}"})


def _refuse_sets(record: dict[str, Any]) -> bytes:
    return dumps(record)


def test_a_crons_record_is_written_as_the_program_writes() -> None:
    assert JSON.decode_job(JSON.encode_job("nightly")).name == "nightly"
    assert PICKLED.read(PICKLED.encode_job("nightly"))["f"] == "nightly"


# --- verdicts ------------------------------------------------------------------------------------------------------


class FakeWorker(ArqWorker):
    """The options that a handler asks for."""

    def __init__(self, **options: Any) -> None:
        self.max_tries, self.job_timeout_s, self.retry_jobs = 5, 300.0, True
        self.keep_result_s, self.keep_result_forever = 3600.0, False
        self.__dict__.update(options)


def handler(function: Any = search, **options: Any) -> ArqHandler:
    return ArqHandler(FakeWorker(**options), func(function))


@pytest.mark.parametrize(
    ("exc", "verdict"),
    [
        pytest.param(Retry(defer=2.5), Failed(after=2.5), id="retry"),
        pytest.param(Retry(defer=timedelta(minutes=1)), Failed(after=60.0), id="retry-timedelta"),
        pytest.param(Retry(), Failed(after=0.0), id="retry-at-once"),
        pytest.param(RetryJob("again"), Failed(after=0.0), id="retry-job"),
        pytest.param(asyncio.CancelledError(), Failed(after=0.0), id="cancelled"),
        pytest.param(ValueError("x"), Hopeless(), id="plain-exception"),
        pytest.param(TimeoutError(), Hopeless(), id="timeout"),
        pytest.param(
            JobExecutionFailed("max 5 retries exceeded"), Hopeless(DeadLetterReason.FAILED), id="tries-used-up"
        ),
    ],
)
def test_only_arqs_own_exceptions_run_a_job_again(exc: BaseException, verdict: Verdict) -> None:
    assert handler().judge(exc, _any_job()) == verdict


@pytest.mark.parametrize("exc", [Retry(defer=2), RetryJob(), asyncio.CancelledError()])
def test_without_retry_jobs_every_exception_is_final(exc: BaseException) -> None:
    assert handler(retry_jobs=False).judge(exc, _any_job()) == Hopeless()


def _any_job() -> RunningJob:
    return object.__new__(RunningJob)


@pytest.mark.parametrize(
    ("function", "options", "expected"),
    [
        pytest.param(func(search), {}, (5, 300.0, 3_600_000), id="the-workers"),
        pytest.param(func(search, max_tries=1, timeout=9, keep_result=2), {}, (1, 9, 2_000), id="its-own"),
        pytest.param(func(search, keep_result=0), {}, (5, 300.0, 0), id="no-result"),
        pytest.param(func(search, keep_result_forever=True), {}, (5, 300.0, -1), id="for-ever"),
        pytest.param(func(search), {"keep_result_forever": True}, (5, 300.0, -1), id="the-workers-for-ever"),
        pytest.param(
            func(search, keep_result_forever=False),
            {"keep_result_forever": True},
            (5, 300.0, 3_600_000),
            id="not-this-one",
        ),
        pytest.param(cron(search), {}, (1, 300.0, 0), id="a-cron-runs-once-and-keeps-nothing"),
    ],
)
def test_a_functions_options_go_before_the_workers(function: Any, options: Any, expected: Any) -> None:
    made = ArqHandler(FakeWorker(**options), function)
    assert (made.attempts, made.limit, made.keep_ms) == expected
    assert made.timeout is None


def test_without_a_function_the_workers_keep_result_counts() -> None:
    assert keep_ms_of(FakeWorker(keep_result_s=1.5)) == 1_500


# --- crons ---------------------------------------------------------------------------------------------------------


def ms(text: str, timezone: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(timezone)).timestamp() * 1000)


def cron_of(timezone: str = "UTC", **options: Any) -> ArqCron:
    return ArqCron(cron(search, **options), timezone=ZoneInfo(timezone), serializers=JSON)


@pytest.mark.parametrize(
    ("options", "after", "expected"),
    [
        pytest.param({"minute": 30}, "2026-11-24T10:00:00", "2026-11-24T10:30:00.123", id="arqs-microsecond"),
        pytest.param({"minute": 30, "microsecond": 0}, "2026-11-24T10:30:00", "2026-11-24T11:30:00", id="after-not-at"),
        pytest.param({"second": None}, "2026-11-24T10:00:00.050", "2026-11-24T10:00:00.123", id="within-the-second"),
        pytest.param({"second": None}, "2026-11-24T10:00:00.123", "2026-11-24T10:00:01.123", id="the-next-second"),
        pytest.param({"hour": {3, 15}}, "2026-11-24T10:00:00", "2026-11-24T15:00:00.123", id="set-of-hours"),
        pytest.param(
            {"weekday": "sun", "hour": 1, "minute": 0}, "2026-11-24T10:00:00", "2026-11-29T01:00:00.123", id="sun"
        ),
        pytest.param(
            {"month": 2, "day": 29, "hour": 0, "minute": 0}, "2026-11-24T10:00:00", "2028-02-29T00:00:00.123", id="leap"
        ),
    ],
)
def test_the_next_tick_is_the_first_after_a_time(options: Any, after: str, expected: str) -> None:
    options = {"hour": None, "minute": None} | options
    if "hour" in options and options["minute"] is None and options["hour"] is not None:
        options["minute"] = 0
    assert cron_of(**options).next_tick(ms(after)) == ms(expected)


def test_a_ticks_own_time_leads_to_the_next_one() -> None:
    every = cron_of(minute=None, second=set(range(60)))
    ticks = [every.next_tick(ms("2026-11-24T10:00:00"))]
    for _ in range(5):
        ticks.append(every.next_tick(ticks[-1]))
    assert ticks == [ms(f"2026-11-24T10:00:0{second}.123") for second in range(6)]


def test_ticks_follow_the_time_zone() -> None:
    daily = cron_of("Europe/Berlin", hour=8, minute=0, microsecond=0)
    assert daily.next_tick(ms("2026-11-24T10:00:00")) == ms("2026-11-25T08:00:00", "Europe/Berlin")


def test_a_ticks_id_is_arqs() -> None:
    assert cron_of(name="nightly").job_id(1_700) == "nightly:1700"
    assert cron_of(name="nightly", job_id="own").job_id(1_700) == "own"


def test_two_schedules_of_one_function_are_told_apart() -> None:
    names = {
        cron_of(name="report", hour=8).name,
        cron_of(name="report", hour=20).name,
        cron_of(name="report", hour={8, 20}).name,
        cron_of(name="report", hour=8, weekday="mon").name,
    }
    assert len(names) == 4
    assert "report * * * 8,20 * 0 123456" in names


def test_every_field_of_a_schedule_is_in_its_name() -> None:
    schedule = set(CronJob.__dataclass_fields__) & {
        *["month", "day", "weekday", "hour", "minute", "second", "microsecond"]
    }
    base = cron_of(name="report").name
    others: list[dict[str, Any]] = [{name: 1} for name in schedule]
    assert all(cron_of(name="report", **other).name != base for other in others)


def test_utc_is_taken_as_given() -> None:
    made = ArqCron(cron(search, minute=5, microsecond=0), timezone=UTC, serializers=JSON)
    assert made.next_tick(0) == 300_000


def test_the_adapter_is_written_for_the_arq_it_is_pinned_to() -> None:
    """arq's Worker is subclassed: these are its parts that the adapter stands on."""
    for name in ("run", "async_run", "run_check", "record_health", "_add_signal_handler", "pool"):
        assert hasattr(arq_worker.Worker, name), name
