"""Entries of a journal are read as they were written, and others are refused."""

import orjson
import pytest

from agentqueue.errors import InvalidPayload
from agentqueue.model.journal import Entry, EntryState, decode_entry, encode_body


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
