"""Job records, as JSON.

A job record has arq's fields `{t, f, a, k, et}` and our own ones. It starts with `{"aq":1,`, so that a script can
distinguish it from the record of a plain arq client without decoding it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from typing import Any, Final

import orjson

from agentqueue.errors import InvalidPayload
from agentqueue.model.json import MAX_BYTES, encode
from agentqueue.model.json_input import read_record
from agentqueue.model.record_fields import INT_OR_NONE, NUMBER_OR_NONE

RECORD_PREFIX: Final = b'{"aq":1,'
"""Beginning of every job record that AgentQueue has written."""


class Omitted(Enum):
    """The type of OMITTED."""

    OMITTED = "omitted"


OMITTED: Final = Omitted.OMITTED
"""Stands for a payload or a result that a list leaves out."""


class State(StrEnum):
    """State of a job. The last three are final."""

    WAITING = "waiting"
    DELAYED = "delayed"
    SUSPENDED = "suspended"
    ACTIVE = "active"
    COMPLETED = "completed"
    DEAD = "dead"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class JobOptions:
    """Settings of one job, which override those of the handler and the worker. Durations are in seconds."""

    timeout: float | None = None
    attempts: int | None = None
    backoff: Mapping[str, Any] | None = None
    """`{type: exponential|fixed, delaySeconds, maxDelaySeconds, jitter}`, as in the resource."""


NO_OPTIONS: Final = JobOptions()
"""Options of a job for which the producer sets none."""


@dataclass(slots=True)  # one per job: freezing makes it three times as slow to make
class JobRecord:
    """A job as it was enqueued."""

    name: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    enqueued_ms: int = 0
    job_try: int | None = None
    """arq's `_job_try`: number of the first attempt."""
    queue: str | None = None
    """None in the record of a plain arq client."""
    priority: int | None = None
    options: JobOptions = NO_OPTIONS
    tags: Sequence[str] = ()
    parent: str | None = None
    tenant: str | None = None
    trace: str | None = None
    """W3C `traceparent`."""
    nonce: str | None = None
    """Random text in a job whose ID the producer chose. The ID may be enqueued again later."""
    parent_queue: str | None = None
    """Queue of the parent, which waits for this job (`ctx.child`). None if nobody waits for it."""
    depth: int = 0
    """Number of jobs that wait for this one: its parent, the parent's parent, and so on."""
    tick: tuple[str, int] | None = None
    """Name of the schedule whose tick this job is, and its due time in ms. None for other jobs."""

    @property
    def enqueueing(self) -> str:
        """Return a text that distinguishes this use of the job's ID from earlier and later ones.

        It stays the same over retries, crashes, releases and replays.
        """
        return f"{self.enqueued_ms}:{self.nonce or ''}"

    @property
    def data(self) -> Any:
        """Return the payload of an Agent's job, or the arguments of a plain arq job."""
        if self.kwargs:
            return {"args": list(self.args), "kwargs": dict(self.kwargs)}
        return self.args[0] if len(self.args) == 1 else (list(self.args) or None)


UNREADABLE_RECORD: Final = JobRecord(name="")
"""Stands for a record that is missing or cannot be read."""


def encode_job(record: JobRecord, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the record as JSON.

    Raises:
        InvalidPayload: The payload is not JSON, has NaN or infinity, is too deep, or the record exceeds `max_bytes`.
            The message names the path.
    """
    wire: dict[str, Any] = {
        "aq": 1,
        "t": record.job_try,
        "f": record.name,
        "et": record.enqueued_ms,
        "q": record.queue,
        "p": record.priority,
    }
    extra = _extra(record)
    if extra:
        wire["x"] = extra
    wire["a"], wire["k"] = record.args, record.kwargs  # last, since lists read only the beginning
    if record.tick is not None:  # first, as below
        wire = {"aq": 1, "tick": record.tick} | wire
    if record.parent_queue is not None:  # first, since scripts find it by the beginning of the record
        wire = {"aq": 1, "up": [record.parent, record.parent_queue, record.depth]} | wire
    one = len(record.args) == 1 and not record.kwargs
    return encode(
        wire,
        what=f"job {record.name!r}",
        max_bytes=max_bytes,
        check=record.args[0] if one else (record.args, record.kwargs),
    )


def _extra(record: JobRecord) -> dict[str, Any]:
    """Return the fields that few jobs have, without those that are not set."""
    options = record.options
    if (
        options is NO_OPTIONS
        and not record.tags
        and record.parent is record.tenant is record.trace is record.nonce is None
    ):
        return {}
    extra = {
        "timeout": options.timeout,
        "attempts": options.attempts,
        "backoff": options.backoff,
        "tags": list(record.tags) or None,
        "parent": record.parent if record.parent_queue is None else None,
        "tenant": record.tenant,
        "trace": record.trace,
        "nonce": record.nonce,
    }
    return {key: value for key, value in extra.items() if value is not None}


def decode_job(raw: bytes) -> JobRecord:
    """Return the record in `raw`, written by AgentQueue or by an arq client with a JSON serializer.

    Raises:
        InvalidPayload: The text is not JSON, or not a job record. See `is_pickle`.
    """
    try:
        wire = orjson.loads(raw) if raw.startswith(RECORD_PREFIX) else read_record(raw, "the job's record")
        record = JobRecord(wire["f"], wire["a"], wire["k"], wire["et"], wire.get("t"), wire.get("q"), wire.get("p"))
        _check_job(record)
        extra, parent = wire.get("x"), wire.get("up")
        if parent:
            record = _with_parent(record, parent)
        if "tick" in wire:
            record.tick = _tick_of(wire["tick"])
        return _with_extra(record, extra) if extra else record
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as exc:
        raise InvalidPayload(f"the job's record is not valid: {exc} ({raw[:40]!r}…)") from exc


def _check_job(record: JobRecord) -> None:
    """Refuse a record with fields of other types, which any client may have written. One expression is fastest."""
    if not (
        type(record.name) is str
        and type(record.args) is list
        and type(record.kwargs) is dict
        and type(record.enqueued_ms) is int
        and type(record.job_try) in INT_OR_NONE
        and type(record.priority) in INT_OR_NONE
    ):
        raise TypeError("it needs f (string), a (array), k (object), et (integer); t and p are integers or null")


def _with_parent(record: JobRecord, wire: Any) -> JobRecord:
    if type(wire) is not list or [type(part) for part in wire] != [str, str, int]:
        raise TypeError("up must be [ID of the parent, queue of the parent, depth]")
    return replace(record, parent=wire[0], parent_queue=wire[1], depth=wire[2])


def _tick_of(wire: Any) -> tuple[str, int]:
    if type(wire) is not list or [type(part) for part in wire] != [str, int]:
        raise TypeError("tick must be [name of the schedule, due time in ms]")
    return wire[0], wire[1]


def _with_extra(record: JobRecord, extra: Mapping[str, Any]) -> JobRecord:
    options = JobOptions(extra.get("timeout"), extra.get("attempts"), extra.get("backoff"))
    if type(options.timeout) not in NUMBER_OR_NONE or type(options.attempts) not in INT_OR_NONE:
        raise TypeError("x.timeout must be a number and x.attempts an integer")
    return replace(
        record,
        options=options,
        tags=[tag for tag in extra.get("tags") or () if type(tag) is str],
        parent=record.parent or _text_of(extra, "parent"),
        tenant=_text_of(extra, "tenant"),
        trace=_text_of(extra, "trace"),
        nonce=_text_of(extra, "nonce"),
    )


def _text_of(extra: Mapping[str, Any], name: str) -> str | None:
    """Return a text field. Another type counts as missing, since any client may have written the record."""
    value = extra.get(name)
    return value if type(value) is str else None


def is_pickle(raw: bytes) -> bool:
    """Return whether `raw` starts like a pickle of protocol 2 or later, which arq writes by default."""
    return len(raw) > 2 and raw[0] == 0x80 and 2 <= raw[1] <= 5  # PEP 3154: PROTO opcode


def child_id(parent: str, enqueueing: str, index: int) -> str:
    """Return the ID of a job's child with an index.

    It is the same on every run of the parent, so that a rerun sends nothing twice. It differs if the parent's ID is
    enqueued again; see `JobRecord.enqueueing`.
    """
    return hashlib.sha256(f"{parent}\0{enqueueing}\0{index}".encode()).hexdigest()[:32]
