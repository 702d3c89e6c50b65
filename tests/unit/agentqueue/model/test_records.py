"""Records and notes that other clients wrote, or that can't be read."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from agentqueue.errors import InvalidPayload
from agentqueue.keys import KeySpace
from agentqueue.model.attempts import (
    AttemptError,
    Progress,
    attempt_errors_of,
    decode_progress,
    encode_errors,
    encode_progress,
    errors_of,
    number_of,
    returns_of,
)
from agentqueue.model.dead_letter import DeadLetterReason, decode_dead_letter, fingerprint
from agentqueue.model.job import JobRecord, State, decode_job, encode_job
from agentqueue.model.journal import StepRecord
from agentqueue.model.result import (
    MAX_EXCEPTION,
    ResultRecord,
    decode_result,
    encode_completed,
    encode_exception,
    encode_result,
)


def result(value: Any = None, *, success: bool = True, args: tuple[Any, ...] = (), **kwargs: Any) -> ResultRecord:
    return ResultRecord(
        id="a",
        name="job",
        queue="q",
        success=success,
        result=value,
        started_ms=1,
        finished_ms=2,
        args=args,
        kwargs=kwargs,
    )


@pytest.mark.parametrize(
    ("record", "data"),
    [
        pytest.param(result(args=({"a": 1},)), {"a": 1}, id="one-argument"),
        pytest.param(result(args=(1, 2)), [1, 2], id="several"),
        pytest.param(result(), None, id="none"),
        pytest.param(result(args=(1,), b=2), {"args": [1], "kwargs": {"b": 2}}, id="with-names"),
    ],
)
def test_a_results_payload_is_what_was_sent(record: ResultRecord, data: Any) -> None:
    assert record.data == data


@pytest.mark.parametrize(
    ("record", "line"),
    [
        pytest.param(result("x"), None, id="completed"),
        pytest.param(result(ValueError("no"), success=False), "ValueError: no", id="an-exception"),
        pytest.param(result({"$exc": "KeyError", "args": ["k"]}, success=False), "KeyError: k", id="an-encoded-one"),
        pytest.param(result("gone", success=False), "gone", id="anything-else"),
    ],
)
def test_why_a_job_is_not_completed_in_one_line(record: ResultRecord, line: str | None) -> None:
    assert record.error == line


def test_a_large_record_with_a_small_result_is_kept() -> None:
    """The limit is the result's: arguments, which it carries along, had a limit of their own."""
    assert len(encode_result(result(1, args=("x" * 2_000,)), max_bytes=1_000)) > 2_000
    with pytest.raises(InvalidPayload, match=r"over the limit of 1,000; store the bulk elsewhere"):
        encode_result(result("x" * 2_000), max_bytes=1_000)


@pytest.mark.parametrize(
    ("wire", "state"),
    [
        pytest.param({"s": True, "r": 1}, State.COMPLETED, id="success"),
        pytest.param({"s": False, "r": {"$exc": "CancelledError", "args": []}}, State.CANCELLED, id="cancelled"),
        pytest.param({"s": False, "r": {"$exc": "ValueError", "args": []}}, State.DEAD, id="failed"),
    ],
)
def test_the_state_of_a_result_that_a_plain_arq_worker_wrote(wire: dict[str, Any], state: State) -> None:
    plain = {"t": 1, "f": "job", "a": [], "k": {}, "et": 1, "st": 2, "ft": 3, "q": "q", "id": "a", **wire}
    assert decode_result(orjson.dumps(plain)).state is state


@pytest.mark.parametrize("raw", [b"{", b"[]", b"{}", b'{"errors": [], "reason": "none such"}'])
def test_what_is_no_dead_letter_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidPayload, match="the dead letter is not valid"):
        decode_dead_letter(raw)


@pytest.mark.parametrize("raw", [b"{", b'{"s": 1}', b"[1]"])
def test_what_is_no_result_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidPayload, match="the job's result is not valid"):
        decode_result(raw)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        pytest.param({"f": 1}, "f (string)", id="name"),
        pytest.param({"a": {}}, "a (array)", id="arguments"),
        pytest.param({"et": "noon"}, "et (integer)", id="time"),
        pytest.param({"t": "first"}, "t and p are integers", id="try"),
        pytest.param({"x": {"timeout": "soon"}}, "x.timeout must be a number", id="timeout"),
        pytest.param({"x": {"attempts": 2.5}}, "x.attempts an integer", id="attempts"),
    ],
)
def test_a_job_record_with_wrong_types_is_refused(record: dict[str, Any], message: str) -> None:
    whole = {"t": None, "f": "job", "a": [], "k": {}, "et": 1} | record
    with pytest.raises(InvalidPayload) as refused:
        decode_job(orjson.dumps(whole))
    assert message in str(refused.value)


def test_a_jobs_payload_is_what_was_sent() -> None:
    assert JobRecord("job", args=[1], kwargs={"b": 2}).data == {"args": [1], "kwargs": {"b": 2}}
    assert JobRecord("job", args=[{"a": 1}]).data == {"a": 1}


@pytest.mark.parametrize(
    "arg", [pytest.param("\ud800", id="a-lone-surrogate"), pytest.param("x" * MAX_EXCEPTION, id="too-long")]
)
def test_an_exceptions_arguments_that_cant_be_written_are_written_as_text(arg: str) -> None:
    wire = encode_exception(ValueError(arg, 7))
    assert wire["$exc"] == "ValueError"
    (text,) = wire["args"]
    assert len(orjson.dumps(text)) <= MAX_EXCEPTION


def test_an_exception_without_a_text_is_named() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert encode_exception(Mute(object(), Mute()))["args"][1] == "(Mute, whose text can't be made: RuntimeError)"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param("\ud800", "the result is not JSON", id="a-lone-surrogate"),
        pytest.param({"n": float("nan")}, "the result.n is nan", id="not-a-number"),
    ],
)
def test_a_result_that_json_cannot_represent_is_refused(value: Any, message: str) -> None:
    with pytest.raises(InvalidPayload, match=f"job 'job': {message}"):
        encode_result(result(value))


def test_a_result_keeps_its_history() -> None:
    record = result(ValueError("no"), success=False)
    record.tags, record.parent, record.progress = ("trip",), "p", Progress(40, "half", 3)
    record.reason, record.errors = DeadLetterReason.FAILED, (AttemptError(1, 10, "ValueError", "no"),)
    found = decode_result(encode_result(record))
    assert (list(found.tags), found.parent, found.progress) == (["trip"], "p", Progress(40, "half", 3))
    assert (found.reason, list(found.errors)) == (DeadLetterReason.FAILED, list(record.errors))


def test_a_result_keeps_the_steps_of_its_job() -> None:
    record = replace(
        result(5), steps=(StepRecord("plan#1", "done", 5, 3, 1), StepRecord("pay#1", "raised", 9, 1, 2, "no"))
    )
    assert tuple(decode_result(encode_result(record)).steps) == record.steps


def test_failures_of_one_kind_have_one_fingerprint() -> None:
    def of(message: str) -> str:
        return fingerprint(DeadLetterReason.FATAL, "search", "Fatal", message)

    assert of("no airport 'XYZ' in 30 s\nat line 3") == of("no airport 'QQQ' in 7 s")
    assert len({of(""), of("no airport 'XYZ'"), of("no airline 'XYZ'")}) == 3


def test_a_jobs_meta_has_every_error_and_crash() -> None:
    first, second = AttemptError(1, 10, "ValueError", "no"), AttemptError(2, 30, "KeyError", "k")
    notes = {"errors": encode_errors([first, second]), "crash:1": b"20|pod-1/abc|lease ran out", "crashes": b"1"}
    assert attempt_errors_of(notes) == [first, second]
    crash = AttemptError(0, 20, "Crashed", "worker pod-1: lease ran out")
    assert errors_of(notes) == [first, crash, second]
    assert returns_of(notes | {"releases": b"2"}) == 3
    progress = Progress(50, "half", 1)
    assert decode_progress(encode_progress(progress)) == progress


def test_a_count_that_no_job_has_reached_is_not_carried_on() -> None:
    assert number_of(b"9" * 30) == 10**15


@pytest.mark.parametrize(
    "raw", [b"many", b"", b"{}", b"[1]", b"\xff", b"1|2", b"inf|pod|gone", b'{"at":1}', b"noon|pod|gone"]
)
def test_notes_that_cant_be_read_count_as_none(raw: bytes) -> None:
    assert number_of(raw) == 0
    assert errors_of({"errors": raw, "crash:1": raw}) == []
    assert decode_progress(raw) is None


def test_the_history_has_a_key() -> None:
    assert KeySpace("q").done == "q:done"


def test_records_keep_where_a_job_comes_from_and_whom_it_is_for() -> None:
    origin: dict[str, Any] = {"tags": ["acme"], "parent": "p-1", "tenant": "acme", "trace": "00-1-2-01"}
    for given in ({}, origin):
        found = decode_result(encode_result(replace(result(5), **given)))
        job = decode_job(encode_job(JobRecord("search", **given)))
        for name, value in ({"tags": [], "parent": None, "tenant": None, "trace": None} | given).items():
            assert (name, list(found.tags) if name == "tags" else getattr(found, name)) == (name, value)
            assert (name, list(job.tags) if name == "tags" else getattr(job, name)) == (name, value)


def test_what_is_no_text_in_a_foreign_record_counts_as_not_there() -> None:
    raw = b'{"aq":1,"t":null,"f":"x","a":[],"k":{},"et":1,"q":"q","p":null,"x":{"tenant":5,"trace":[],"parent":{}}}'
    record = decode_job(raw)
    assert (record.tenant, record.trace, record.parent, record.nonce) == (None, None, None, None)


def encode_both(job: JobRecord, value: Any) -> tuple[bytes | None, bytes]:
    """Return a completed job's result as both functions encode it."""
    quick = encode_completed(
        job, value, id="j", queue="q", started_ms=7, finished_ms=9, attempt=2, deliveries=3, worker="w", max_bytes=300
    )
    record = ResultRecord.of(
        job,
        id="j",
        queue="q",
        state=State.COMPLETED,
        result=value,
        started_ms=7,
        finished_ms=9,
        job_try=2,
        attempts=2,
        deliveries=3,
        worker="w",
    )
    return quick, encode_result(record)


@pytest.mark.parametrize("value", [None, 7, "ü", [1.5, {"a": []}], {"$exc": "E", "args": []}])
@pytest.mark.parametrize("priority", [None, 8])
def test_both_encoders_of_a_completed_job_write_the_same(value: Any, priority: int | None) -> None:
    quick, thorough = encode_both(JobRecord("search", ({"to": "XYZ"},), {"n": 1}, 5, priority=priority), value)
    assert quick == thorough


@pytest.mark.parametrize(
    "fields", [{"tags": ["a"]}, {"parent": "p"}, {"tenant": "t"}, {"trace": "00-1"}, {"args": ("x" * 300,)}]
)
def test_the_quick_encoder_refuses_a_job_with_an_origin_or_a_large_payload(fields: dict[str, Any]) -> None:
    quick, _ = encode_both(replace(JobRecord("search", (1,)), **fields), 7)
    assert quick is None


@pytest.mark.parametrize("value", [{1: 2}, {3}, "\ud800", float("nan"), 2**70])
def test_the_quick_encoder_refuses_a_value_that_is_not_plain_json(value: Any) -> None:
    job = JobRecord("search", (1,))
    assert (
        encode_completed(
            job, value, id="j", queue="q", started_ms=7, finished_ms=9, attempt=1, deliveries=1, worker="w"
        )
        is None
    )
