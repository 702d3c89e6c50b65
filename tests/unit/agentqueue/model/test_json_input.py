"""JSON is read without loss, or refused."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentqueue.arq import loads
from agentqueue.errors import InvalidPayload
from agentqueue.model.job import decode_job
from agentqueue.model.json_input import MAX_INT, MIN_INT, read_json, read_record
from agentqueue.model.result import decode_result

TOO_LONG = 12_345_678_901_234_567_890_123


def values(integers: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    text = st.text(st.characters(exclude_categories=["Cs"]))
    leaves = st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | text
    return st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=20)


@given(values(st.integers(MIN_INT, MAX_INT)), st.booleans())
def test_every_json_value_comes_back_as_it_is(value: Any, ascii_only: bool) -> None:  # hypothesis'
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    for found in (read_json(raw, "it"), read_record(raw, "it")):
        assert (repr(found), found) == (repr(value), value)


@given(values(st.integers()))
def test_what_would_be_rounded_is_refused(value: Any) -> None:
    raw = json.dumps(value).encode()
    for read in (read_json, read_record):
        try:
            found = read(raw, "it")
        except InvalidPayload as exc:
            assert "over 64 bits; send it as a string" in str(exc)  # noqa: PT017  # either outcome is right
        else:
            assert repr(found) == repr(value)


@given(st.binary() | st.text(alphabet='[]{}",:0123456789.eE+-ntfalsru\\dDNIi ').map(str.encode))
def test_any_bytes_are_read_or_refused_in_one_line(raw: bytes) -> None:
    try:
        found = read_json(raw, "the body")
    except InvalidPayload as exc:
        assert str(exc).startswith("the body ")  # noqa: PT017
        assert "\n" not in str(exc)  # noqa: PT017
    else:
        assert json.loads(raw) == found
        assert not isinstance(found, float) or math.isfinite(found)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"12345678901234567890123", "has the integer 12345678901234567890123, which is over 64 bits"),
        (b'{"a": [1, 18446744073709551616]}', "has the integer 18446744073709551616"),
        (b"-9223372036854775809", "has the integer -9223372036854775809"),
        (b"[" + b"9" * 300 + b"]", "has the integer " + "9" * 40 + "…,"),
        (b'{"a": 1, "b": {"x": 1, "x": 1}}', "has the name 'x' twice in one object"),
        (b"NaN", "is not JSON: "),
        (b"[-Infinity]", "is not JSON: "),
        (b"1e400", "is not JSON: number is infinity"),
        (b'"\\ud800"', "is not JSON: "),
        (b'"\xff"', "is not JSON: "),
        (b"", "is not JSON: "),
        (b'{"a": 1,}', "is not JSON: trailing comma"),
        (b"[" * 701 + b"]" * 701, "is nested deeper than 700 levels"),
        (b"[[]," + b'{"a":' * 700 + b"1" + b"}" * 700 + b"]", "is nested deeper than 700 levels"),
        (b"[" * 1_024 + b"]" * 1_024, "is nested deeper than 700 levels"),
        (b'{"a":' * 100_000, "is nested deeper than 700 levels"),
    ],
)
def test_refusals_name_the_error(raw: bytes, why: str) -> None:
    with pytest.raises(InvalidPayload) as refused:
        read_json(raw, "the payload")
    assert str(refused.value).startswith(f"the payload {why}")


def test_what_stands_around_a_deep_payload_has_room() -> None:
    assert read_json(b"[" * 700 + b"]" * 700, "it")[0][0] != []
    assert read_json(b"[" + b"[]," * 500 + b"1]", "it")[-1] == 1


def test_the_largest_integers_are_read() -> None:
    assert read_json(b"[18446744073709551615, -9223372036854775808]", "it") == [2**64 - 1, -(2**63)]


def test_a_job_that_another_program_wrote_is_refused_rather_than_rounded() -> None:
    raw = json.dumps({"t": None, "f": "pay", "a": [{"amount": TOO_LONG}], "k": {}, "et": 1}).encode()
    with pytest.raises(InvalidPayload, match=f"the job's record has the integer {TOO_LONG}"):
        decode_job(raw)
    with pytest.raises(InvalidPayload, match=f"the record has the integer {TOO_LONG}"):
        loads(raw)


def test_a_result_that_another_program_wrote_is_refused_rather_than_rounded() -> None:
    wire = {"t": 1, "f": "pay", "a": [], "k": {}, "et": 1, "s": True, "r": TOO_LONG, "st": 1, "ft": 2, "q": "pay"}
    with pytest.raises(InvalidPayload, match=f"the job's result has the integer {TOO_LONG}"):
        decode_result(json.dumps(wire).encode())
