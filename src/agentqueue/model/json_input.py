"""Read JSON that somebody else wrote, without loss: the one reader for command lines, HTTP bodies and foreign records.

Readers of JSON differ where RFC 8259 leaves them room: an integer beyond 64 bits becomes a rounded float, of two values
of one name the last one wins. What is read here is what was written; anything else is refused, as I-JSON (RFC 7493)
asks. Records that this library wrote are checked when they are written, and are read by orjson alone.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, Final

import orjson

from agentqueue.errors import InvalidPayload

MAX_DEPTH: Final = 100
"""Deeper payloads are refused: JSON decoders elsewhere give up between 128 (orjson writing: 254) and 1,000."""
MIN_INT: Final = -(2**63)
MAX_INT: Final = 2**64 - 1
"""What JSON writers and readers elsewhere take; Python's own goes on."""
_MOST_LEVELS: Final = 700
"""Limit for a whole text. A payload in it has MAX_DEPTH, checked when its job is made; that error names the path."""
_TOO_DEEP: Final = f"is nested deeper than {_MOST_LEVELS} levels"
_LONGEST_INT: Final = len(str(MIN_INT))


class _Refused(ValueError):
    """What the JSON does that would not be read as it was written."""


def read_json(raw: bytes, what: str, *, hint: str = "") -> Any:
    """Return the value of the JSON text in `raw`.

    Args:
        raw: the text, in UTF-8.
        what: names it at the start of the error's message.
        hint: ends the message of a text that is not JSON.

    Raises:
        InvalidPayload: not JSON (NaN, Infinity, lone surrogates and numbers beyond a double included), an integer
            beyond 64 bits, a name twice in one object, or too deep.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        if "limit" in exc.msg or "depth" in exc.msg:  # orjson's own, of 1,024 levels: its words changed
            raise InvalidPayload(f"{what} {_TOO_DEEP}") from None
        raise InvalidPayload(f"{what} is not JSON: {exc.msg}: line {exc.lineno} column {exc.colno}{hint}") from exc
    if type(value) is str:
        return value
    try:
        value = _EXACT.decode(raw.decode())
    except _Refused as exc:
        raise InvalidPayload(f"{what} {exc}") from None
    except RecursionError:  # where Python stops depends on its version and on the caller's own depth
        raise InvalidPayload(f"{what} {_TOO_DEEP}") from None
    if raw.count(b"[") + raw.count(b"{") > _MOST_LEVELS and _is_deep(value):
        raise InvalidPayload(f"{what} {_TOO_DEEP}")
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MOST_LEVELS):
        level = [item for found in level if type(found) in (list, dict) for item in _items(found)]
    return any(type(found) in (list, dict) for found in level)


def _items(found: Any) -> Iterable[Any]:
    return found.values() if type(found) is dict else found


_MANY_DIGITS: Final = re.compile(rb"\d{19}")


def read_record(raw: bytes, what: str) -> Any:
    """Return the value of a JSON record that another program may have written, as fast as orjson while it is exact.

    Raises:
        orjson.JSONDecodeError: not JSON. InvalidPayload: it holds an integer beyond 64 bits.
    """
    return read_json(raw, what) if _MANY_DIGITS.search(raw) else orjson.loads(raw)


def _integer(text: str) -> int:
    """Python itself refuses to convert more than 4,300 digits, so the length is looked at first."""
    if len(text) <= _LONGEST_INT:
        value = int(text)
        if MIN_INT <= value <= MAX_INT:
            return value
    raise _Refused(f"has the integer {text[:40]}{'…' * (len(text) > 40)}, which is over 64 bits; send it as a string")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _Refused(f"has the name {twice!r:.80} twice in one object; which value is meant?")
    return found


_EXACT: Final = json.JSONDecoder(parse_int=_integer, object_pairs_hook=_object)
