"""JSON as AgentQueue stores and shows it."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from agentqueue.errors import InvalidPayload
from agentqueue.model.exceptions import class_name, describe_value
from agentqueue.model.json_input import MAX_DEPTH, MAX_INT, MIN_INT

MAX_BYTES: Final = 1024 * 1024
"""Default maximum size of one record, in bytes: 1 MiB. Larger values slow down Redis for everyone."""


def encode(value: Any, *, what: str, max_bytes: int = MAX_BYTES, check: Any = None) -> bytes:
    """Return `value` as JSON.

    Args:
        value: The value to encode.
        what: Name of the value at the start of error messages.
        max_bytes: Maximum size of the result.
        check: The part that comes from users and may not be JSON. By default all of `value`. orjson alone would write
            NaN as null.

    Raises:
        InvalidPayload: The value is not JSON, has NaN, is too deep, or the result exceeds `max_bytes`.
    """
    problem = find_problem(value if check is None else check)
    if problem:
        raise InvalidPayload(f"{what}: {problem}")
    try:
        raw = orjson.dumps(value)
    except orjson.JSONEncodeError as exc:
        raise InvalidPayload(f"{what} is not JSON: {exc}") from exc
    if len(raw) > max_bytes:
        raise InvalidPayload(
            f"{what} has {len(raw):,} bytes, over the limit of {max_bytes:,}; "
            "store the bulk elsewhere and pass a reference"
        )
    return raw


_PLAIN = frozenset((str, bool, type(None)))


def find_problem(value: Any, path: str = "", depth: int = 0) -> str | None:
    """Return a description of the first part that is not JSON, such as `.quotes[3].price is NaN`, or None."""
    kind = type(value)
    if kind in _PLAIN:
        return None
    if kind is dict or kind is list or kind is tuple:
        if depth > MAX_DEPTH:
            return f"{path[:80]}… is nested deeper than {MAX_DEPTH} levels"
        return _dict_problem(value, path, depth) if kind is dict else _list_problem(value, path, depth)
    name = path or "the payload"
    if kind is float:
        return None if math.isfinite(value) else f"{name} is {value}, which JSON cannot represent"
    if kind is int:
        return None if MIN_INT <= value <= MAX_INT else f"{name} is an integer over 64 bits; send it as a string"
    return f"{name} is of the type {class_name(value)}, not JSON (object, array, string, number, true, false or null)"


# Both loops skip plain values without a call, since every enqueued job goes through them.


def _list_problem(value: Sequence[Any], path: str, depth: int) -> str | None:
    for index, item in enumerate(value):
        kind = type(item)
        if kind in _PLAIN or (kind is int and MIN_INT <= item <= MAX_INT):
            continue
        problem = find_problem(item, f"{path}[{index}]", depth + 1)
        if problem:
            return problem
    return None


def _dict_problem(value: Mapping[Any, Any], path: str, depth: int) -> str | None:
    for key, item in value.items():
        if type(key) is not str:
            return f"{path or 'the payload'} has the key {describe_value(key, repr)}; keys must be strings"
        kind = type(item)
        if kind in _PLAIN or (kind is int and MIN_INT <= item <= MAX_INT):
            continue
        problem = find_problem(item, f"{path}.{key}", depth + 1)
        if problem:
            return problem
    return None


def camel(name: str) -> str:
    """Return a name in camelCase: `started_at` becomes `startedAt`."""
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)
