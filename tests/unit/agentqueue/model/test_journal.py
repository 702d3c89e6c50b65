"""Entries of a journal are read as they were written, and others are refused."""

import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentqueue.errors import InvalidPayload
from agentqueue.model.journal import (
    MAX_STEPS_SHOWN,
    Entry,
    EntryState,
    RunningStep,
    StepRecord,
    decode_entry,
    decode_running,
    decode_steps,
    encode_body,
    encode_running,
    encode_steps,
    events_field,
    idempotency_key,
    step_field,
    step_to_json,
    steps_of,
)


def written(state: EntryState, body: bytes) -> bytes:
    """Return the entry as record_step.lua writes it."""
    return b'{"is":"%s","at":1700000000000,%s' % (str(state).encode(), body[1:])


def test_an_entry_with_a_value_comes_back() -> None:
    value = orjson.dumps({"quote": 'a "quoted" ,"v": text', "n": [1, None]})
    raw = written(EntryState.DONE, encode_body(delivery=2, ms=7, fingerprint="abc", value=value))
    assert orjson.loads(raw)["v"] == orjson.loads(value)
    entry = decode_entry(raw)
    assert entry == Entry(EntryState.DONE, 1_700_000_000_000, 7, 2, "abc", None, value)
    assert entry.has_ended


def test_an_entry_without_a_value_comes_back() -> None:
    error = {"type": "ConnectionError", "message": "cut off"}
    entry = decode_entry(written(EntryState.FAILED, encode_body(delivery=1, error=error)))
    assert entry == Entry(EntryState.FAILED, 1_700_000_000_000, 0, 1, None, error, b"null")
    assert not entry.has_ended


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"is":"done"}', b'{"is":"gone","at":1}', b'{"is":"done","at":"x"}']
)
def test_what_is_no_entry_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidPayload, match="no entry of a journal"):
        decode_entry(raw)


def test_a_steps_field_is_known_by_its_label() -> None:
    labels = ["pay", "pay#2", "pay/ana#2", "pay/a#b"]
    assert [step_field(label) for label in labels] == ["step:pay#1", "step:pay#2", "step:pay/ana#2", "step:pay/a#b#1"]


@given(st.text(max_size=300), st.text(max_size=300))
def test_an_idempotency_key_fits_into_a_header_and_the_path_of_a_url(job_id: str, label: str) -> None:
    key = idempotency_key(job_id, label)
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,121}", key, re.ASCII)
    assert key == idempotency_key(job_id, label)


def test_steps_that_look_alike_have_different_idempotency_keys() -> None:
    calls = [
        ("a", "b.c#1"),
        ("a.b", "c#1"),
        ("a", "b-c#1"),
        ("a", "b/c#1"),
        ("a", "b/ü#1"),
        ("a", "b/ö#1"),
        *(("a" * 150, f"{'b' * 150}#{n}") for n in (1, 2)),
    ]
    assert len({idempotency_key(*call) for call in calls}) == len(calls)
    assert idempotency_key("order-7", "pay/ana@example.org#2").startswith("order-7.pay-ana-example.org-2.")


def test_steps_are_shown_in_the_order_in_which_they_ended() -> None:
    error = {"type": "ConnectionError", "message": "cut off"}
    entries = {
        "step:b#1": b'{"is":"failed","at":9.5' + encode_body(delivery=2, ms=3, error=error).replace(b"{", b",", 1),
        "step:a#1": b'{"is":"done","at":5' + encode_body(delivery=1, value=b'"' + b"x" * 9).replace(b"{", b",", 1),
        "step:c#1": b"written by another program",
        "wait:a#1": b'{"is":"done","at":1}',
    }
    steps = steps_of(entries)
    assert steps == [
        StepRecord("a#1", "done", 5, 0, 1),
        StepRecord("b#1", "failed", 9, 3, 2, "ConnectionError: cut off"),
    ]
    assert list(decode_steps(encode_steps(steps))) == steps
    assert step_to_json(steps[1]) == {
        "name": "b#1",
        "outcome": "failed",
        "at": "1970-01-01T00:00:00.009Z",
        "ms": 3,
        "delivery": 2,
        "error": "ConnectionError: cut off",
    }


def test_the_last_steps_are_shown() -> None:
    entries = {f"step:a#{n}": b'{"is":"done","at":%d}' % n for n in range(1, MAX_STEPS_SHOWN + 11)}
    assert [step.at_ms for step in steps_of(entries)] == list(range(11, MAX_STEPS_SHOWN + 11))


def test_an_entry_without_an_error_object_has_no_error_line() -> None:
    assert steps_of({"step:a#1": b'{"is":"failed","at":1,"e":"x"}'})[0].error is None


def test_what_a_step_has_emitted_has_a_field_beside_the_step() -> None:
    assert events_field("step:plan/ana#2") == "events:plan/ana#2"


RUNNING = [RunningStep("plan#1", 1_700_000_000_000, 1), RunningStep("pay#2", 1_700_000_000_500, 3)]


def test_running_steps_come_back_without_those_that_have_ended() -> None:
    raw = encode_running(4, RUNNING)
    assert decode_running(raw, 4, ()) == RUNNING
    assert decode_running(raw, 4, {"plan#1"}) == RUNNING[1:]


def test_steps_of_an_earlier_delivery_do_not_run() -> None:
    assert decode_running(encode_running(4, RUNNING), 5, ()) == []


@pytest.mark.parametrize("raw", [None, b"", b"nonsense", b"7", b'[1, [["plan#1"]]]', b'[1, [["a", "b", "c"]]]'])
def test_a_note_of_running_steps_that_is_missing_or_unreadable_has_none(raw: bytes | None) -> None:
    assert decode_running(raw, 1, ()) == []
