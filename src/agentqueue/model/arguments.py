"""Fingerprint of a call's arguments. A journal keeps it, so that no call gets the value of one with other arguments."""

import hashlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import PurePath
from typing import Any, Final

import orjson

from agentqueue.model.exceptions import class_name

_OPTIONS: Final = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
_WITH_TEXT: Final = (Decimal, PurePath, complex, range)


def fingerprint_arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Return 16 hexadecimal digits that are equal for equal arguments, in every process.

    Objects that have no content that can be compared, such as clients, count by the name of their class.

    Returns:
        None without arguments, or if they can't be compared (they contain themselves, or integers over 64 bits).
    """
    if not args and not kwargs:
        return None
    try:
        raw = orjson.dumps((args, kwargs), default=_content_of, option=_OPTIONS)
    except (TypeError, ValueError):
        return None
    return hashlib.blake2b(raw, digest_size=8).hexdigest()


def _content_of(value: Any) -> Any:
    """Return the content of an argument that is not JSON."""
    if isinstance(value, set | frozenset):
        return sorted(orjson.dumps(item, default=_content_of, option=_OPTIONS).decode() for item in value)
    if isinstance(value, bytes | bytearray):
        return value.hex()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, _WITH_TEXT):
        return str(value)
    fields = vars(value) if hasattr(type(value), "model_dump") else None  # a pydantic model
    return class_name(value) if fields is None else [class_name(value), fields]
