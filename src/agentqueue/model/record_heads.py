"""Read the beginning of a record. Lists show jobs without their payloads, which may have a megabyte each.

Large members come last in a record. If a record is truncated, the members before the cut are read.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from agentqueue.errors import InvalidPayload
from agentqueue.model.dead_letter import DeadLetter, decode_dead_letter
from agentqueue.model.job import OMITTED, JobRecord, decode_job, is_pickle
from agentqueue.model.result import ResultRecord, decode_result

HEAD_BYTES: Final = 16 * 1024
"""Bytes of a record that lists read. Names, tags, times and the last error usually fit. Others are read whole."""
DEAD_LETTER_BYTES: Final = 128 * 1024
"""Bytes of a dead letter that lists read. Ten errors with message and traceback fit."""
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|["\[\]{},]', re.DOTALL)
_CLOSERS: Final = {b"[": b"]", b"{": b"}"}


class Cut(Exception):  # no error: the record must be read whole
    """A required member is behind the cut."""


def read_head(head: bytes, *, depth: int = 1) -> dict[str, Any]:
    """Return the members of a JSON object whose text may be truncated. Members behind the cut are missing.

    Args:
        head: The whole text, or its beginning.
        depth: 1 returns complete members; 2 also returns a member of which only some members are complete.

    Raises:
        Cut: No member is complete.
        InvalidPayload: The text is not an object, or not JSON.
    """
    if is_pickle(head):
        raise InvalidPayload("it is a pickle")
    try:
        value = orjson.loads(head)
    except orjson.JSONDecodeError:
        try:
            value = orjson.loads(_mended(head, depth))
        except orjson.JSONDecodeError as exc:
            raise InvalidPayload(f"it is not JSON: {exc}") from None
    if not isinstance(value, dict):
        raise InvalidPayload(f"a record is an object, not {type(value).__name__}")
    return value


def _mended(head: bytes, depth: int) -> bytes:
    """Return the text up to the last complete member, with its brackets closed."""
    open_, end, closers = b"", 0, b""
    for token in _TOKEN.finditer(head):
        kind = token[0][:1]
        if token[0] == b'"':  # a truncated string
            break
        if kind in _CLOSERS:
            open_ = _CLOSERS[kind] + open_
        elif kind in b"]}":
            open_ = open_[1:]
        elif kind == b"," and len(open_) <= depth:
            end, closers = token.start(), open_
    if not end:
        raise Cut
    return head[:end] + closers


def _need(wire: Mapping[str, Any], *names: str) -> None:
    if not wire.keys() >= {*names}:
        raise Cut


def decode_job_head(head: bytes) -> JobRecord:
    """Return a job record without its payload.

    Raises:
        Cut: The whole record is needed.
        InvalidPayload: The text is not a job record.
    """
    wire = read_head(head)
    _need(wire, "f", "et")
    if b'"a":' not in head:  # the cut is before the payload
        raise Cut
    return decode_job(orjson.dumps(wire | {"a": [], "k": {}}))


def decode_result_head(head: bytes, *, job_id: str) -> ResultRecord:
    """Return a result record without payload and return value.

    Raises:
        Cut: The whole record is needed.
        InvalidPayload: The text is not a result record.
    """
    wire = read_head(head, depth=2)
    _need(wire, "f", "s", "et", "st", "ft", "t")
    if "a" not in wire:  # truncated; the whole record of an arq worker may lack the queue and the ID
        _need(wire, "q", "id")
    if not wire["s"]:
        _need(wire, "r")  # the error
    return decode_result(orjson.dumps({"r": None} | wire | {"a": [], "k": {}}), job_id=job_id)


def decode_dead_letter_head(head: bytes, *, whole_errors: bool) -> DeadLetter:
    """Return a dead letter without its payload.

    Args:
        head: The beginning of the record.
        whole_errors: Return all errors. Otherwise the last error without its traceback.

    Raises:
        Cut: The whole record is needed.
        InvalidPayload: The text is not a dead letter.
    """
    wire = read_head(head)
    _need(wire, "id", "queue", "name", "reason", "died_ms", "errors" if whole_errors else "last")
    errors = wire["errors"] if whole_errors else [wire["last"]] if wire["last"] else []
    return replace(decode_dead_letter(orjson.dumps(wire | {"errors": errors, "data": None})), data=OMITTED)
