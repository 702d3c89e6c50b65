"""Suspended jobs, as their notes describe them; waits, as a journal has them."""

from typing import Any

import orjson
import pytest

from agentqueue.model.suspension import NEVER_MS, Answer, Pending, Suspension, decode_suspension, decode_wait

FLAG: dict[str, Any] = {"kind": "signal", "for": ["signal approval"], "since": 5, "until": 9, "level": 3}


def decode(score: float | None = 9.0, **changes: Any) -> Suspension | None:
    return decode_suspension({"suspended": orjson.dumps(FLAG | changes)}, score)


def test_a_suspension_is_decoded() -> None:
    assert decode() == Suspension("signal", ["signal approval"], 5, 9)
    assert decode(float(NEVER_MS), until=NEVER_MS) == Suspension("signal", ["signal approval"], 5, None)


@pytest.mark.parametrize(
    "changes",
    [{"until": 8}, {"kind": "other"}, {"for": "approval"}, {"since": "soon"}, {"until": None}],
    ids=["outdated", "kind", "for", "since", "until"],
)
def test_a_note_that_does_not_fit_is_none(changes: dict[str, Any]) -> None:
    assert decode(**changes) is None


def test_a_job_without_a_note_or_with_another_programs_is_not_suspended() -> None:
    assert decode_suspension({}, 9.0) is None
    assert decode_suspension({"suspended": b"{"}, 9.0) is None
    assert decode_suspension({"suspended": b"[]"}, 9.0) is None
    assert decode(None) is None


@pytest.mark.parametrize(
    ("waits_for", "text"),
    [
        (["signal approval"], "the signal approval"),
        (["signal a", "sleep ", "sleep x"], "the signal a or a time"),
        (["children search"], "search"),
        (["children "], "its children"),
        (["other"], "other"),
        ([7, "signal a"], "the signal a"),
        ([], "what is there already"),
    ],
)
def test_people_read_what_a_job_waits_for(waits_for: list[Any], text: str) -> None:
    found = decode_suspension({"suspended": orjson.dumps(FLAG | {"for": waits_for})}, 9.0)
    assert found is not None
    assert found.text == text


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"wait":"signal","for":"a","since":1}', Pending(None)),
        (b'{"wait":"sleep","for":"","since":1,"until":7}', Pending(7)),
        (b'{"is":"done","at":1,"v":null}', Answer(None)),
        (b'{"is":"done","at":1,"sent":2,"sender":"ana","v":[1]}', Answer([1], sender="ana", sent_ms=2)),
        (b'{"is":"raised","at":1,"v":null}', Answer(None, is_late=True)),
    ],
)
def test_a_wait_is_decoded(raw: bytes, expected: Pending | Answer) -> None:
    assert decode_wait(raw) == expected


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"is":"done"}'])
def test_a_text_of_another_program_is_refused(raw: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        decode_wait(raw)
