"""The records on the wire: jobs, results and dead letters, as JSON.

A job record is arq's `{t, f, a, k, et}` with our own fields beside it; it starts with `{"aq":1,` so that a script can
tell it from a plain arq client's without decoding it. A result record is arq's, with ours under `x`.
"""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

import orjson

from agentqueue.errors import InvalidPayload

MAX_BYTES: Final = 1024 * 1024
"""The default limit of one record: 1 MiB."""
MAX_DEPTH: Final = 100
"""Deeper payloads are refused: JSON decoders elsewhere give up between 128 (orjson writing: 254) and 1,000."""
MARK: Final = b'{"aq":1,'


class State(StrEnum):
    """Where a job is. The last three are final."""

    WAITING = "waiting"
    DELAYED = "delayed"
    ACTIVE = "active"
    COMPLETED = "completed"
    DEAD = "dead"
    CANCELLED = "cancelled"


class Reason(StrEnum):
    """Why a job became a dead letter."""

    FAILED = "failed"
    """Its attempts are used up."""
    FATAL = "fatal"
    """The handler raised Fatal (or, for an arq function, a plain exception)."""
    CRASHED = "crashed"
    """Its workers died under it too often."""
    EXPIRED = "expired"
    """Its `_expires` passed before it was done."""
    NO_RECORD = "no-record"
    """Its id was in the queue without a record."""
    GARBAGE = "garbage"
    """Its record can't be read."""
    PICKLED = "pickled"
    """Its record is a pickle, which is not read unless asked for."""
    INVALID_PAYLOAD = "invalid-payload"
    """The handler's model refuses its payload."""
    UNKNOWN_JOB = "unknown-job"
    """No worker of the queue knows its name."""


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What a producer may set per job, over the handler's and the queue's own settings. Durations in seconds."""

    timeout: float | None = None
    attempts: int | None = None
    backoff: Mapping[str, Any] | None = None
    """`{type: exponential|fixed, delaySeconds, maxDelaySeconds, jitter}`, as in the resource."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as it was enqueued."""

    name: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    enqueued_ms: int = 0
    job_try: int | None = None
    """arq's `_job_try`: the attempt to start counting from."""
    queue: str | None = None
    """None in a record that a plain arq client wrote."""
    priority: int | None = None
    options: JobOptions = JobOptions()
    tags: Sequence[str] = ()
    parent: str | None = None
    tenant: str | None = None
    trace: str | None = None
    """W3C `traceparent`."""

    @property
    def data(self) -> Any:
        """The one payload of an Agent's job, or arq's arguments as they are."""
        if self.kwargs:
            return {"args": list(self.args), "kwargs": dict(self.kwargs)}
        return self.args[0] if len(self.args) == 1 else (list(self.args) or None)


def encode_job(record: JobRecord, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The record's bytes.

    Raises:
        InvalidPayload: not JSON (the message names the path), NaN or infinite, too deep, or over `max_bytes`.
    """
    wire: dict[str, Any] = {"aq": 1, "t": record.job_try, "f": record.name, "a": record.args, "k": record.kwargs}
    wire |= {"et": record.enqueued_ms, "q": record.queue, "p": record.priority}
    extra = {
        key: value
        for key, value in (
            ("timeout", record.options.timeout),
            ("attempts", record.options.attempts),
            ("backoff", record.options.backoff),
            ("tags", list(record.tags) or None),
            ("parent", record.parent),
            ("tenant", record.tenant),
            ("trace", record.trace),
        )
        if value is not None
    }
    if extra:
        wire["x"] = extra
    return encode(wire, what=f"job {record.name!r}", max_bytes=max_bytes, check=(record.args, record.kwargs))


def decode_job(raw: bytes) -> JobRecord:
    """The record in `raw`, ours or a JSON-writing arq client's.

    Raises:
        InvalidPayload: not JSON, or not a job record; `is_pickle(raw)` tells a pickle from garbage.
    """
    try:
        wire = orjson.loads(raw)
        extra = wire.get("x") or {}
        return JobRecord(
            name=_expect(wire["f"], str),
            args=_expect(wire["a"], list),
            kwargs=_expect(wire["k"], dict),
            enqueued_ms=_expect(wire["et"], int),
            job_try=wire.get("t"),
            queue=wire.get("q"),
            priority=wire.get("p"),
            options=JobOptions(extra.get("timeout"), extra.get("attempts"), extra.get("backoff")),
            tags=extra.get("tags") or (),
            parent=extra.get("parent"),
            tenant=extra.get("tenant"),
            trace=extra.get("trace"),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as exc:
        raise InvalidPayload(f"the job's record is not one: {exc} ({raw[:40]!r}…)") from exc


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


def is_pickle(raw: bytes) -> bool:
    """Whether `raw` starts like a pickle of protocol 2 or later, arq's default serializer."""
    return len(raw) > 2 and raw[0] == 0x80 and 2 <= raw[1] <= 5  # PEP 3154: PROTO opcode


def encode(value: Any, *, what: str, max_bytes: int = MAX_BYTES, check: Any = None) -> bytes:
    """`value` as JSON. `check` is the part that users gave, looked through for what JSON can't say (orjson would
    write NaN as null).

    Raises:
        InvalidPayload: see `encode_job`.
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


_PLAIN = frozenset((str, int, bool, type(None)))


def find_problem(value: Any, path: str = "", depth: int = 0) -> str | None:
    """What in `value` is not JSON, with its path (`.quotes[3].price is NaN`), or None."""
    kind = type(value)
    name = path or "the payload"
    if kind in _PLAIN:
        return _int_problem(value, name) if kind is int else None
    if depth > MAX_DEPTH:
        return f"{name[:80]}… is nested deeper than {MAX_DEPTH} levels"
    if kind is float:
        return None if math.isfinite(value) else f"{name} is {value}, which JSON has no word for"
    if kind is dict:
        return _dict_problem(value, path, depth)
    if kind is list or kind is tuple:
        return _list_problem(value, path, depth)
    return f"{name} is a {kind.__name__}, not JSON (object, array, string, number, true, false or null)"


def _list_problem(value: Sequence[Any], path: str, depth: int) -> str | None:
    for index, item in enumerate(value):
        if type(item) not in _PLAIN or type(item) is int:
            problem = find_problem(item, f"{path}[{index}]", depth + 1)
            if problem:
                return problem
    return None


def _int_problem(value: int, path: str) -> str | None:
    return (
        None
        if -(2**63) <= value < 2**64
        else f"{path or 'the payload'} is an integer over 64 bits; send it as a string"
    )


def _dict_problem(value: Mapping[Any, Any], path: str, depth: int) -> str | None:
    for key, item in value.items():
        if type(key) is not str:
            return f"{path or 'the payload'} has the key {key!r}; keys must be strings"
        kind = type(item)
        if kind not in _PLAIN or kind is int:
            problem = find_problem(item, f"{path}.{key}", depth + 1)
            if problem:
                return problem
    return None


@dataclass(frozen=True, slots=True)
class AttemptError:
    """How one attempt, or one worker's death, ended."""

    attempt: int
    at_ms: int
    type: str
    message: str
    traceback: str = ""

    MAX_MESSAGE = 2_000
    MAX_TRACEBACK = 8_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that will not run again by itself, with all that is known of why."""

    id: str
    queue: str
    name: str
    data: Any
    priority: int
    reason: Reason
    errors: Sequence[AttemptError]
    fingerprint: str
    attempts: int
    deliveries: int
    enqueued_ms: int
    died_ms: int
    replayable: bool = True
    tags: Sequence[str] = ()
    parent: str | None = None

    @property
    def error(self) -> str:
        """The last error in one line."""
        return f"{self.errors[-1].type}: {self.errors[-1].message}" if self.errors else str(self.reason)


def encode_dead(letter: DeadLetter) -> bytes:
    """The dead letter's bytes. What was decoded once can be encoded, so this can't fail on the job's own data."""
    return orjson.dumps(asdict(letter))


def decode_dead(raw: bytes) -> DeadLetter:
    """The dead letter in `raw`.

    Raises:
        InvalidPayload: not one.
    """
    try:
        wire = orjson.loads(raw)
        wire["errors"] = tuple(AttemptError(**error) for error in wire["errors"])
        wire["reason"] = Reason(wire["reason"])
        return DeadLetter(**wire)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as exc:
        raise InvalidPayload(f"the dead letter is not one: {exc}") from exc


_VARIABLE = re.compile(
    r"0x[0-9a-f]+|[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{16,}|\d+(?:\.\d+)?|'[^']*'|\"[^\"]*\"", re.IGNORECASE
)


def fingerprint(reason: Reason, name: str, error_type: str, message: str) -> str:
    """12 hex digits that are equal for failures of one kind: numbers, ids, addresses and quoted values don't count.

    >>> fingerprint(Reason.FATAL, "search", "Fatal", "no airport 'XYZ'") == fingerprint(
    ...     Reason.FATAL, "search", "Fatal", "no airport 'QQQ'")
    True
    """
    shape = _VARIABLE.sub("*", message.splitlines()[0] if message else "")
    return hashlib.sha256(f"{reason}\0{name}\0{error_type}\0{shape}".encode()).hexdigest()[:12]


def child_id(parent: str, index: int) -> str:
    """The id of a job's index-th child: the same on every run of the parent, so that a rerun sends nothing twice."""
    return hashlib.sha256(f"{parent}\0{index}".encode()).hexdigest()[:32]
