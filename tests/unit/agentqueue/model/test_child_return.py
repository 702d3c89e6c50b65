"""What a child returns survives the way through Redis."""

import orjson
import pytest

from agentqueue.errors import InvalidPayload
from agentqueue.model.child_return import (
    MAX_MESSAGE_CHARACTERS,
    ChildEnd,
    ChildError,
    ChildReturn,
    decode_return,
    encode_error,
    encode_value,
)


@pytest.mark.parametrize("value", [None, 0, "x", [1, {"a": None}], {"v": 1, "e": 2}])
def test_a_value_comes_back_and_starts_as_the_scripts_expect(value: object) -> None:
    raw = encode_value(value)
    assert raw.startswith(b'{"v":')
    assert decode_return(raw) == ChildReturn(value)


def test_the_value_of_a_child_that_another_program_ended_is_in_its_result() -> None:
    assert decode_return(b'{"v":null,"result":{"s":true,"r":[1],"a":[],"k":{}}}') == ChildReturn([1])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ChildError(ChildEnd.DEAD, "ValueError", "no seat", "failed"), "ValueError: no seat"),
        (ChildError(ChildEnd.CANCELLED, "Cancelled", ""), "Cancelled"),
        (ChildError(ChildEnd.LOST, "ChildLost", 'it said "so"\n'), 'ChildLost: it said "so"\n'),
    ],
)
def test_an_error_comes_back(error: ChildError, line: str) -> None:
    raw = encode_error(error)
    assert raw.startswith(b'{"e":')
    assert decode_return(raw) == ChildReturn(error=error)
    assert error.line == line


def test_a_long_message_is_cut() -> None:
    error = decode_return(encode_error(ChildError(ChildEnd.DEAD, "ValueError", "x" * 10_000))).error
    assert error is not None
    assert len(error.message) == MAX_MESSAGE_CHARACTERS


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"e":1}',
        b'{"e":{"state":"alive","type":"x","message":""}}',
        orjson.dumps({"e": {"state": "dead", "type": 1, "message": ""}}),
    ],
)
def test_what_another_program_wrote_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidPayload, match="what the child returned"):
        decode_return(raw)
