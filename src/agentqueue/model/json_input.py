"""Read JSON of other programs without loss: command lines, HTTP bodies and foreign records.

JSON readers differ where RFC 8259 allows it: an integer beyond 64 bits becomes a rounded float, and the last of two
values with the same name wins. This reader refuses such texts, as I-JSON (RFC 7493) requires. Records of this library
are checked when they are written, and are read by orjson alone.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, Final

import orjson

from agentqueue.errors import InvalidPayload

MAX_DEPTH: Final = 100
"""Maximum nesting of a payload. Other JSON libraries fail between 128 and 1,000 levels, orjson's writer at 254."""
MIN_INT: Final = -(2**63)
"""Smallest integer that other JSON libraries read: signed 64 bits."""
MAX_INT: Final = 2**64 - 1
"""Largest integer that other JSON libraries read: unsigned 64 bits."""
_MOST_LEVELS: Final = 700
"""Maximum nesting of a whole text. Its payload is limited to MAX_DEPTH when the job is prepared."""
_TOO_DEEP: Final = f"is nested deeper than {_MOST_LEVELS} levels"
_LONGEST_INT: Final = len(str(MIN_INT))


class _Refused(ValueError):
    """The text is JSON that would not be read as it was written."""


def read_json(raw: bytes, what: str, *, hint: str = "") -> Any:
    """Return the value of the JSON text in `raw`.

    Args:
        raw: The text, in UTF-8.
        what: Name of the text at the start of error messages.
        hint: End of the message for a text that is not JSON.

    Raises:
        InvalidPayload: The text is not JSON (NaN, Infinity, lone surrogates and numbers beyond a double included), has
            an integer beyond 64 bits, has a name twice in one object, or is too deep.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        if (
            "limit" in exc.msg or "depth" in exc.msg
        ):  # orjson's own limit of 1,024 levels, whose message depends on the version
            raise InvalidPayload(f"{what} {_TOO_DEEP}") from None
        raise InvalidPayload(f"{what} is not JSON: {exc.msg}: line {exc.lineno} column {exc.colno}{hint}") from exc
    if type(value) is str:
        return value
    try:
        value = _EXACT.decode(raw.decode())
    except _Refused as exc:
        raise InvalidPayload(f"{what} {exc}") from None
    except RecursionError:  # Python's limit depends on its version and on the depth of the caller
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
    """Return the value of a JSON record of another program. It uses orjson unless a number may exceed 64 bits.

    Raises:
        orjson.JSONDecodeError: The text is not JSON.
        InvalidPayload: The text has an integer beyond 64 bits.
    """
    return read_json(raw, what) if _MANY_DIGITS.search(raw) else orjson.loads(raw)


def _integer(text: str) -> int:
    """Return the integer. The length is checked first, since Python refuses to convert more than 4,300 digits."""
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
