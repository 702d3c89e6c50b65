"""The beginnings of records, as lists read them: wherever a record is cut, what is read is what the whole one says."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentqueue.errors import InvalidPayload
from agentqueue.model.attempts import Progress, attempt_error
from agentqueue.model.dead_letter import DeadLetter, DeadLetterReason, decode_dead_letter, encode_dead_letter
from agentqueue.model.job import OMITTED, JobOptions, JobRecord, State, decode_job, encode_job
from agentqueue.model.record_heads import Cut, decode_dead_letter_head, decode_job_head, decode_result_head, read_head
from agentqueue.model.result import ResultRecord, decode_result, encode_result

PAYLOAD = {"a": ['quo"te\\', {"x": [1, {}], "f": "not the name"}], "et": 5, "errors": [], "ü": "]}"}
JOB = JobRecord(
    "search", [PAYLOAD], {}, 1_700_000_000_000, queue="q", priority=5, tags=["a", "b"], trace="t", nonce="n"
)
ERRORS = tuple(attempt_error(n, 5, "ValueError", 'no "airport"', 'Traceback, {"[') for n in (1, 2))
RESULT = ResultRecord(
    id="j", name="search", queue="q", success=True, result=PAYLOAD, started_ms=5, finished_ms=9,
    args=[PAYLOAD], enqueued_ms=1, state=State.COMPLETED, priority=5, attempts=3, deliveries=3, worker="w",
    progress=Progress(50.0, "half", 7), errors=ERRORS,
)  # fmt: skip
LETTER = DeadLetter(
    id="j", queue="q", name="search", data=PAYLOAD, priority=5, reason=DeadLetterReason.FATAL, errors=ERRORS,
    fingerprint="abc", attempts=2, deliveries=2, enqueued_ms=1, died_ms=9, tags=("a",),
)  # fmt: skip


@given(st.integers(0, 2_000))
def test_a_job_is_read_alike_or_not_at_all(end: int) -> None:
    raw = encode_job(replace(JOB, options=JobOptions(timeout=5.0)))
    whole = replace(decode_job(raw), args=[], kwargs={})
    try:
        found = decode_job_head(raw[:end])
    except Cut:
        assert end <= raw.index(b'"a":') + 4
        return
    assert found == whole


@given(st.integers(0, 2_000))
def test_a_result_is_read_alike_or_not_at_all(end: int) -> None:
    raw = encode_result(RESULT)
    whole = decode_result(raw)
    try:
        found = decode_result_head(raw[:end], job_id="j")
    except Cut:
        assert end <= raw.index(b'"x":') + 6
        return
    names = ["id", "name", "queue", "success", "started_ms", "finished_ms", "enqueued_ms"]
    if end > raw.index(b'"errors":'):
        names += ["state", "priority", "attempts", "deliveries", "worker", "progress"]
    assert [getattr(found, name) for name in names] == [getattr(whole, name) for name in names]
    assert found.data is None


def test_a_failures_result_is_its_error_and_is_needed() -> None:
    raw = encode_result(replace(RESULT, success=False, result=ValueError("no"), state=State.CANCELLED))
    assert decode_result_head(raw, job_id="j").error == "ValueError: no"
    with pytest.raises(Cut):
        decode_result_head(raw[: raw.index(b'"r":') + 5], job_id="j")


@given(st.integers(0, 2_000), st.booleans())
def test_a_dead_letter_is_read_alike_or_not_at_all(end: int, whole_errors: bool) -> None:
    raw = encode_dead_letter(LETTER)
    errors = ERRORS if whole_errors else (replace(ERRORS[-1], traceback=""),)
    try:
        found = decode_dead_letter_head(raw[:end], whole_errors=whole_errors)
    except Cut:
        assert end <= raw.index(b'"data":' if whole_errors else b'"errors":')
        return
    assert found == replace(decode_dead_letter(raw), data=OMITTED, errors=errors)


def test_a_dead_letter_without_errors() -> None:
    assert decode_dead_letter_head(encode_dead_letter(replace(LETTER, errors=())), whole_errors=False).error == "fatal"


@pytest.mark.parametrize(
    "raw",
    [b"[]", b"5", b'"x"', b'{"a":1,}}', b"\x80\x04K\x05.", b'{"f":"x","et":1,nonsense', b'{"f":nonsense,"et":1,"k'],
    ids=repr,
)
def test_what_is_no_record_is_refused(raw: bytes) -> None:
    for decode in (decode_job_head, lambda head: decode_result_head(head, job_id="j")):
        with pytest.raises((InvalidPayload, Cut)):
            decode(raw)


VALUES = st.recursive(
    st.one_of(st.none(), st.integers(-5, 5), st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=6), st.integers(0, 400))
def test_members_before_the_cut_are_whole(value: dict[str, Any], end: int) -> None:
    raw = orjson.dumps(value)
    try:
        found = read_head(raw[:end])
    except (Cut, InvalidPayload):
        return
    assert list(found.items()) == list(value.items())[: len(found)]


@pytest.mark.parametrize(
    "change",
    [
        {"died_ms": 10**18},
        {"died_ms": -1},
        {"died_ms": "5"},
        {"tags": "a"},
        {"id": None},
        {"priority": True},
        {"errors": [{"attempt": 1}]},
        {"errors": [5]},
        {"errors": [{"attempt": 1, "at_ms": "x", "type": "T", "message": "m", "traceback": ""}]},
        {"reason": "new"},
        {"more": 1},
    ],
    ids=repr,
)
def test_a_dead_letter_of_other_types_is_none(change: dict[str, Any]) -> None:
    raw = orjson.dumps(orjson.loads(encode_dead_letter(LETTER)) | change)
    with pytest.raises(InvalidPayload, match="the dead letter is not valid"):
        decode_dead_letter(raw)


@pytest.mark.parametrize(
    "change",
    [{"st": "x"}, {"ft": 10**18}, {"a": {}}, {"k": []}, {"x": {"progress": {"percent": "x"}}}, {"x": {"tags": 5}}],
    ids=repr,
)
def test_a_result_of_other_types_is_none(change: dict[str, Any]) -> None:
    raw = orjson.dumps(orjson.loads(encode_result(RESULT)) | change)
    with pytest.raises(InvalidPayload, match="the job's result is not valid"):
        decode_result(raw)
