"""JSON serializers for arq's own clients: `create_pool(..., job_serializer=dumps, job_deserializer=loads)`.

arq pickles by default, and AgentQueue reads pickles with `--arq-pickle` only. With these serializers a plain arq client
can enqueue jobs and read their results, exceptions and aborts included. This module does not import arq.
"""

import builtins
import sys
from asyncio import CancelledError
from collections.abc import Mapping
from typing import Any, Final

import orjson

from agentqueue import errors
from agentqueue.errors import InvalidPayload
from agentqueue.model.json import MAX_BYTES, encode
from agentqueue.model.json_input import read_record
from agentqueue.model.result import encode_exception, is_exception

_RECORD_KEYS: Final = frozenset("fak")


class JobExecutionFailed(errors.JobFailed, RuntimeError):
    """Stands for an exception of a class that is not rebuilt. If arq is imported, its own class is used instead."""


def dumps(record: Mapping[str, Any], *, max_bytes: int = MAX_BYTES) -> bytes:
    """Return an arq job or result record as JSON. An exception becomes `{"$exc": name, "args": [...]}`.

    `max_bytes` is the maximum size of one record. Set another with `functools.partial(dumps, max_bytes=...)`.

    Raises:
        InvalidPayload: The record is not JSON (the message names the path), has NaN, is too deep or too large. arq's
            client wraps the error in its SerializationError.
    """
    wire = dict(record)
    if isinstance(wire.get("r"), BaseException):
        wire["r"] = encode_exception(wire["r"])
    user_data = [wire.get(key) for key in "akr"]
    return encode(wire, what=f"job {wire.get('f')!r}", max_bytes=max_bytes, check=user_data)


def loads(raw: bytes) -> dict[str, Any]:
    """Return the record in `raw` as arq expects it: arguments as a tuple, a failed job's result as an exception.

    Raises:
        InvalidPayload: The text is not JSON, or not a record. arq's client wraps it in its DeserializationError.
    """
    try:
        record = read_record(raw, "the record")
    except orjson.JSONDecodeError as exc:
        raise InvalidPayload(f"the record is not JSON: {exc} ({raw[:40]!r}…)") from exc
    if not (isinstance(record, dict) and record.keys() >= _RECORD_KEYS and isinstance(record["a"], list)):
        raise InvalidPayload(f"the record is not a job's or a result's: {raw[:40]!r}…")
    record["a"] = tuple(record["a"])
    if record.get("s") is False:
        record["r"] = decode_exception(record.get("r"))
    return record


def decode_exception(value: Any) -> Any:
    """Return the exception in `{"$exc": name, "args": [...]}`. Other values are returned unchanged.

    asyncio's CancelledError, builtin exceptions, AgentQueue's and, if arq is imported, arq's own are rebuilt. Another
    becomes JobExecutionFailed("Name: arguments"), since a name in a record must not import modules.
    """
    if not is_exception(value):
        return value
    name, args = str(value["$exc"]), value["args"] if isinstance(value["args"], list) else [value["args"]]
    kind = _find_class(name)
    if kind is not None:
        try:
            return kind(*args)
        except Exception:  # noqa: BLE001, S110  # the constructor takes other arguments (UnicodeDecodeError)
            pass
    text = ", ".join(map(str, args))
    # arq's own class if this process has imported arq, since its users write `except JobExecutionFailed`
    failed = _find_class(JobExecutionFailed.__name__) or JobExecutionFailed
    return failed(f"{name}: {text}" if text else name)


def _find_class(name: str) -> type[BaseException] | None:
    if name == CancelledError.__name__:
        return CancelledError
    for module in (builtins, sys.modules.get("arq.worker"), sys.modules.get("arq.jobs"), errors):
        kind = getattr(module, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            return kind
    return JobExecutionFailed if name == JobExecutionFailed.__name__ else None
