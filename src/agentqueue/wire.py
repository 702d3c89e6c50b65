"""The records on the wire: jobs, results and dead letters, as JSON.

A job record is arq's `{t, f, a, k, et}` with our own fields beside it; it starts with `{"aq":1,` so that a script can
tell it from a plain arq client's without decoding it. A result record is arq's, with ours under `x`.
"""

import contextlib
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum, StrEnum
from typing import Any, Final

import orjson

from agentqueue.errors import InvalidPayload
from agentqueue.failures import (
    MAX_MESSAGE,
    MAX_TRACEBACK,
    arguments_of,
    class_name,
    clean_text,
    describe_value,
    is_a,
    name_exception,
    shape_of,
)
from agentqueue.json_input import MAX_DEPTH, MAX_INT, MIN_INT, read_record

MAX_BYTES: Final = 1024 * 1024
"""The default limit of one record: 1 MiB."""
MARK: Final = b'{"aq":1,'
LAST_MS: Final = 253_402_300_799_000
"""The last second of the year 9999, after which there are no datetimes."""


class Omitted(Enum):
    """The type of OMITTED."""

    OMITTED = "omitted"


OMITTED: Final = Omitted.OMITTED
"""Stands for a payload or a result that a list was not asked for."""


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


NO_OPTIONS: Final = JobOptions()


@dataclass(slots=True)  # one per job: freezing makes it three times as slow to make
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
    options: JobOptions = NO_OPTIONS
    tags: Sequence[str] = ()
    parent: str | None = None
    tenant: str | None = None
    trace: str | None = None
    """W3C `traceparent`."""
    nonce: str | None = None
    """Random where the producer chose the id, which may be enqueued again once the job is forgotten."""

    @property
    def enqueueing(self) -> str:
        """Return what distinguishes this enqueueing of the job's id from the ones before and after it.

        It stays the same over retries, crashes, hand-backs and replays.
        """
        return f"{self.enqueued_ms}:{self.nonce or ''}"

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
    wire: dict[str, Any] = {"aq": 1, "t": record.job_try, "f": record.name, "et": record.enqueued_ms}
    wire |= {"q": record.queue, "p": record.priority}
    extra = _extra(record)
    if extra:
        wire["x"] = extra
    wire |= {"a": record.args, "k": record.kwargs}  # last: lists read the beginning alone
    one = len(record.args) == 1 and not record.kwargs
    return encode(
        wire,
        what=f"job {record.name!r}",
        max_bytes=max_bytes,
        check=record.args[0] if one else (record.args, record.kwargs),
    )


def _extra(record: JobRecord) -> dict[str, Any]:
    """What most jobs have none of, without the fields that are not set."""
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
        "parent": record.parent,
        "tenant": record.tenant,
        "trace": record.trace,
        "nonce": record.nonce,
    }
    return {key: value for key, value in extra.items() if value is not None}


def decode_job(raw: bytes) -> JobRecord:
    """The record in `raw`, ours or a JSON-writing arq client's.

    Raises:
        InvalidPayload: not JSON, or not a job record; `is_pickle(raw)` tells a pickle from garbage.
    """
    try:
        wire = orjson.loads(raw) if raw.startswith(MARK) else read_record(raw, "the job's record")
        record = JobRecord(wire["f"], wire["a"], wire["k"], wire["et"], wire.get("t"), wire.get("q"), wire.get("p"))
        _check_job(record)
        extra = wire.get("x")
        return _with_extra(record, extra) if extra else record
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as exc:
        raise InvalidPayload(f"the job's record is not one: {exc} ({raw[:40]!r}…)") from exc


def _check_job(record: JobRecord) -> None:
    """In one expression, since every job that is run goes through it. Any client may have written the record."""
    if not (
        type(record.name) is str
        and type(record.args) is list
        and type(record.kwargs) is dict
        and type(record.enqueued_ms) is int
        and type(record.job_try) in _INT_OR_NONE
        and type(record.priority) in _INT_OR_NONE
    ):
        raise TypeError("it needs f (string), a (array), k (object), et (integer); t and p are integers or null")


_INT_OR_NONE: Final = (int, type(None))
_NUMBER_OR_NONE: Final = (int, float, type(None))


def _with_extra(record: JobRecord, extra: Mapping[str, Any]) -> JobRecord:
    options = JobOptions(extra.get("timeout"), extra.get("attempts"), extra.get("backoff"))
    if type(options.timeout) not in _NUMBER_OR_NONE or type(options.attempts) not in _INT_OR_NONE:
        raise TypeError("x.timeout must be a number and x.attempts an integer")
    return replace(
        record,
        options=options,
        tags=[tag for tag in extra.get("tags") or () if type(tag) is str],
        parent=_text_of(extra, "parent"),
        tenant=_text_of(extra, "tenant"),
        trace=_text_of(extra, "trace"),
        nonce=_text_of(extra, "nonce"),
    )


def _text_of(extra: Mapping[str, Any], name: str) -> str | None:
    """Any client may have written the record: what is no text there counts as not there."""
    value = extra.get(name)
    return value if type(value) is str else None


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


_PLAIN = frozenset((str, bool, type(None)))


def find_problem(value: Any, path: str = "", depth: int = 0) -> str | None:
    """What in `value` is not JSON, with its path (`.quotes[3].price is NaN`), or None."""
    kind = type(value)
    if kind in _PLAIN:
        return None
    if kind is dict or kind is list or kind is tuple:
        if depth > MAX_DEPTH:
            return f"{path[:80]}… is nested deeper than {MAX_DEPTH} levels"
        return _dict_problem(value, path, depth) if kind is dict else _list_problem(value, path, depth)
    name = path or "the payload"
    if kind is float:
        return None if math.isfinite(value) else f"{name} is {value}, which JSON has no word for"
    if kind is int:
        return None if MIN_INT <= value <= MAX_INT else f"{name} is an integer over 64 bits; send it as a string"
    return f"{name} is a {class_name(value)}, not JSON (object, array, string, number, true, false or null)"


# Both loops pass over what most values are without a call: every job that is enqueued goes through them.


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


@dataclass(frozen=True, slots=True)
class AttemptError:
    """How one attempt, or one worker's death, ended."""

    attempt: int
    at_ms: int
    type: str
    message: str
    traceback: str = ""

    @property
    def line(self) -> str:
        """The error in one line."""
        return f"{self.type}: {self.message}" if self.message else self.type


def attempt_error(attempt: int, at_ms: int, type_: str, message: str, traceback: str = "") -> AttemptError:
    """The error, cut to what is kept: a message's start, a traceback's end."""
    return AttemptError(
        attempt,
        at_ms,
        type_,
        clean_text(message[:MAX_MESSAGE]),
        clean_text(traceback[-MAX_TRACEBACK:]),
    )


MAX_ERRORS: Final = 10
"""The last errors of a job that are kept."""


def encode_errors(errors: Sequence[AttemptError]) -> bytes:
    """The last errors, as meta `errors` holds them."""
    return orjson.dumps([asdict(error) for error in errors[-MAX_ERRORS:]])


# A job's meta is a hash beside its record. What can't be read there (somebody else wrote it) counts as not there: it
# must neither keep the job from running nor stop the worker.


MOST: Final = 1_000_000_000_000_000
"""The largest count or time that is believed."""


def number_of(raw: bytes | None) -> int:
    """A count in a job's meta or beside it; 0 if there is none."""
    try:
        return min(int(raw or 0), MOST)
    except ValueError:
        return 0


def returns_of(meta: Mapping[str, bytes]) -> int:
    """How many times the job came back without an attempt's end: its worker died, or handed it back."""
    return number_of(meta.get("crashes")) + number_of(meta.get("handbacks"))


def attempt_errors_of(meta: Mapping[str, bytes]) -> list[AttemptError]:
    """How the job's attempts ended, the oldest that is kept first."""
    try:
        return [_attempt_error(error) for error in orjson.loads(meta.get("errors", b"[]"))]
    except (TypeError, ValueError):  # a JSONDecodeError is a ValueError
        return []


def errors_of(meta: Mapping[str, bytes]) -> list[AttemptError]:
    """Every error and crash that a job's meta tells of, oldest first. A crash's type is `Crashed`."""
    crashes = [_crash(value) for name, value in meta.items() if name.startswith("crash:")]
    return sorted([*attempt_errors_of(meta), *filter(None, crashes)], key=lambda error: error.at_ms)


def _crash(raw: bytes) -> AttemptError | None:
    try:
        at, owner, why = raw.decode().split("|", 2)
        return AttemptError(0, int(float(at)), "Crashed", f"worker {owner.partition('/')[0]}: {why}")
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job says it is."""

    percent: float
    message: str | None = None
    at_ms: int = 0


def encode_progress(progress: Progress) -> bytes:
    """The progress, as meta `progress` holds it."""
    return orjson.dumps(asdict(progress))


def decode_progress(raw: bytes | None) -> Progress | None:
    """The progress in meta `progress`."""
    try:
        return _progress(orjson.loads(raw)) if raw else None
    except (TypeError, ValueError):  # a JSONDecodeError is a ValueError
        return None


@dataclass(slots=True)
class ResultRecord:
    """How a job ended: arq's result record, with ours beside it under `x`. Not frozen: one is made per job run."""

    id: str
    name: str
    queue: str
    success: bool
    result: Any
    """The handler's return value; of a failure the exception, read back as `{"$exc": name, "args": [...]}`."""
    started_ms: int
    """0: it never started."""
    finished_ms: int
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    enqueued_ms: int = 0
    job_try: int = 1
    """The attempt that ended it, from 1."""
    state: State = State.COMPLETED
    priority: int | None = None
    """The number, as in the job's record; None: normal."""
    attempts: int = 0
    """Attempts that ended by the handler's own doing, this one included."""
    deliveries: int = 0
    worker: str | None = None
    reason: Reason | None = None
    progress: Progress | None = None
    errors: Sequence[AttemptError] = ()
    tags: Sequence[str] = ()
    parent: str | None = None
    tenant: str | None = None
    trace: str | None = None

    @property
    def data(self) -> Any:
        """The job's payload, as `JobRecord.data`."""
        if self.kwargs:
            return {"args": list(self.args), "kwargs": dict(self.kwargs)}
        return self.args[0] if len(self.args) == 1 else (list(self.args) or None)

    @property
    def error(self) -> str | None:
        """Why it is not completed, in one line."""
        if self.success:
            return None
        if isinstance(self.result, BaseException):
            return name_exception(self.result).line
        if is_exception(self.result):
            args = self.result["args"]
            first = args[:1] if type(args) is list else [args]  # another client may have written it
            return ": ".join(map(str, [self.result["$exc"], *first]))
        return str(self.result)


def encode_exception(exc: BaseException) -> dict[str, Any]:
    """`{"$exc": name, "args": [...]}`; arguments that are not JSON are written as text.

    A group whose members are of one kind is written as its member.
    """
    cause = name_exception(exc)
    if is_a(cause.exc, BaseExceptionGroup):
        return {"$exc": cause.type, "args": [cause.message]}
    given = arguments_of(cause.exc)
    args = [cause.message]
    if _is_small(given):
        short = [arg if find_problem(arg) is None else describe_value(arg, limit=MAX_TRACEBACK) for arg in given]
        with contextlib.suppress(orjson.JSONEncodeError):  # lone surrogates
            if len(orjson.dumps(short)) <= MAX_EXCEPTION:
                args = short
    return {"$exc": cause.type, "args": args}


def _is_small(value: Any) -> bool:
    """Whether it is made of few values: one that holds itself many times over would take for ever to write."""
    rest, size = [value], 0
    while rest:
        one = rest.pop()
        size += 1 + (len(one) if type(one) in _SIZED else 0)
        if size > MAX_EXCEPTION:
            return False
        if type(one) is dict:
            rest += one.values()
        elif type(one) is list or type(one) is tuple:
            rest += one
    return True


_SIZED: Final = frozenset((dict, list, str, tuple))


MAX_EXCEPTION: Final = 32 * 1024
"""Bytes of an exception's arguments that are kept; of larger ones the text's beginning."""


def is_exception(value: Any) -> bool:
    """Whether a decoded result is an exception's `{"$exc": name, "args": [...]}`."""
    return type(value) is dict and value.keys() == {"$exc", "args"}


def encode_result(record: ResultRecord, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The record's bytes. A failure's can always be written.

    Raises:
        InvalidPayload: the handler's return value is not JSON, too deep or over `max_bytes`.
    """
    value = record.result
    if isinstance(value, BaseException):
        value = encode_exception(value)
    else:
        problem = find_problem(value, "the result")
        if problem:
            raise InvalidPayload(f"job {record.name!r}: {problem}")
    try:
        raw = orjson.dumps(_result_wire(record, value))
    except orjson.JSONEncodeError as exc:
        raise InvalidPayload(f"job {record.name!r}: the result is not JSON: {exc}") from exc
    if len(raw) > max_bytes and record.success:
        own = len(orjson.dumps(value))
        if own > max_bytes:
            raise InvalidPayload(
                f"job {record.name!r}: the result has {own:,} bytes, over the limit of {max_bytes:,}; "
                "store the bulk elsewhere and return a reference"
            )
    return raw


def _result_wire(record: ResultRecord, value: Any) -> dict[str, Any]:
    extra: dict[str, Any] = {
        "state": record.state,
        "p": record.priority,
        "attempts": record.attempts,
        "deliveries": record.deliveries,
        "worker": record.worker,
    }
    if record.reason is not None:
        extra["reason"] = record.reason
    if record.progress is not None:
        extra["progress"] = asdict(record.progress)
    if record.tags:
        extra["tags"] = list(record.tags)
    if record.parent is not None:
        extra["parent"] = record.parent
    if record.tenant is not None:
        extra["tenant"] = record.tenant
    if record.trace is not None:
        extra["trace"] = record.trace
    if record.errors:
        extra["errors"] = [asdict(error) for error in record.errors]
    return {
        "t": record.job_try,
        "f": record.name,
        "et": record.enqueued_ms,
        "s": record.success,
        "st": record.started_ms,
        "ft": record.finished_ms,
        "q": record.queue,
        "id": record.id,
        "x": extra,
        "r": value,  # what may be large comes last: lists read the beginning alone
        "a": record.args,
        "k": record.kwargs,
    }


def decode_result(raw: bytes, *, job_id: str = "") -> ResultRecord:
    """The result in `raw`, ours or a JSON-writing arq worker's (which has no `x`).

    Raises:
        InvalidPayload: not JSON (`is_pickle(raw)` tells a pickle), or not a result record.
    """
    try:
        wire = read_record(raw, "the job's result")
        extra = wire.get("x") or {}
        success = _expect(wire["s"], bool)
        record = ResultRecord(
            id=wire.get("id") or job_id,
            name=_expect(wire["f"], str),
            queue=wire.get("q") or "",
            success=success,
            result=wire["r"],
            started_ms=wire["st"],
            finished_ms=wire["ft"],
            args=wire["a"],
            kwargs=wire["k"],
            enqueued_ms=wire["et"],
            job_try=wire["t"] or 0,
            state=State(extra.get("state") or _arq_state(success, wire["r"])),
            priority=extra.get("p"),
            attempts=extra.get("attempts", wire["t"] or 0),
            deliveries=extra.get("deliveries", wire["t"] or 0),
            worker=extra.get("worker"),
            reason=Reason(extra["reason"]) if extra.get("reason") else None,
            progress=_progress(extra["progress"]) if extra.get("progress") else None,
            errors=tuple(_attempt_error(error) for error in extra.get("errors", ())),
            tags=extra.get("tags") or (),
            parent=extra.get("parent"),
            tenant=extra.get("tenant"),
            trace=extra.get("trace"),
        )
        _check_fields(record, _RESULT_TYPES)
        return record
    except InvalidPayload:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as exc:  # a JSONDecodeError is a ValueError
        raise InvalidPayload(f"the job's result is not one: {exc} ({raw[:40]!r}…)") from exc


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


def _arq_state(success: bool, result: Any) -> State:  # noqa: FBT001  # the wire's own field
    if success:
        return State.COMPLETED
    return State.CANCELLED if is_exception(result) and result["$exc"] == "CancelledError" else State.DEAD


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
    tenant: str | None = None
    trace: str | None = None

    @property
    def error(self) -> str:
        """The last error in one line."""
        return self.errors[-1].line if self.errors else str(self.reason)


def encode_dead(letter: DeadLetter) -> bytes:
    """The dead letter's bytes. What was decoded once can be encoded, so this can't fail on the job's own data."""
    wire = asdict(letter)
    errors, data = wire.pop("errors"), wire.pop("data")
    last = errors[-1] | {"traceback": ""} if errors else None
    # Last what may be large, and before it the last error's line: lists read the beginning alone.
    return orjson.dumps(wire | {"last": last, "errors": errors, "data": data})


def decode_dead(raw: bytes) -> DeadLetter:
    """The dead letter in `raw`.

    Raises:
        InvalidPayload: not one.
    """
    try:
        wire = orjson.loads(raw)
        wire.pop("last", None)
        wire["errors"] = tuple(_attempt_error(error) for error in wire["errors"])
        wire["reason"] = Reason(wire["reason"])
        letter = DeadLetter(**wire)
        _check_fields(letter, _DEAD_TYPES)
        return letter
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise InvalidPayload(f"the dead letter is not one: {exc}") from exc


_TEXT: Final = (str,)
_TEXT_OR_NONE: Final = (str, type(None))
_INT: Final = (int,)
_LIST: Final = (list, tuple)
_ERROR_TYPES: Final = {"attempt": _INT, "at_ms": _INT, "type": _TEXT, "message": _TEXT, "traceback": _TEXT}
_PROGRESS_TYPES: Final = {"percent": (int, float), "message": _TEXT_OR_NONE, "at_ms": _INT}
_RESULT_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    **dict.fromkeys(("id", "name", "queue"), _TEXT),
    **dict.fromkeys(("started_ms", "finished_ms", "enqueued_ms", "job_try", "attempts", "deliveries"), _INT),
    **dict.fromkeys(("worker", "parent", "tenant", "trace"), _TEXT_OR_NONE),
    "priority": _INT_OR_NONE,
    "args": _LIST,
    "kwargs": (dict,),
    "tags": _LIST,
}
_DEAD_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    **dict.fromkeys(("id", "queue", "name", "fingerprint"), _TEXT),
    **dict.fromkeys(("priority", "attempts", "deliveries", "enqueued_ms", "died_ms"), _INT),
    "replayable": (bool,),
    "tags": _LIST,
    **dict.fromkeys(("parent", "tenant", "trace"), _TEXT_OR_NONE),
}


def _check_fields(value: Any, types: Mapping[str, tuple[type, ...]]) -> None:
    """Refuse what somebody else has written into a record: a field of another type, or a time that no clock shows."""
    for name, allowed in types.items():
        found = getattr(value, name)
        if type(found) not in allowed:
            raise TypeError(f"{name} is a {type(found).__name__}")
        if name.endswith("_ms") and not 0 <= found <= LAST_MS:
            raise ValueError(f"{name} is {found}, which is no time")


def _attempt_error(wire: Mapping[str, Any]) -> AttemptError:
    error = AttemptError(**wire)
    _check_fields(error, _ERROR_TYPES)
    return error


def _progress(wire: Mapping[str, Any]) -> Progress:
    progress = Progress(**wire)
    _check_fields(progress, _PROGRESS_TYPES)
    return progress


def fingerprint(reason: Reason, name: str, error_type: str, message: str) -> str:
    """12 hex digits that are equal for failures of one kind: numbers, ids, addresses and quoted values don't count.

    >>> fingerprint(Reason.FATAL, "search", "Fatal", "no airport 'XYZ'") == fingerprint(
    ...     Reason.FATAL, "search", "Fatal", "no airport 'QQQ'")
    True
    """
    return hashlib.sha256(f"{reason}\0{name}\0{error_type}\0{shape_of(message)}".encode()).hexdigest()[:12]


def child_id(parent: str, enqueueing: str, index: int) -> str:
    """Return the id of a job's index-th child.

    It is the same on every run of one enqueueing of the parent (`JobRecord.enqueueing`), so that a rerun sends nothing
    twice. It is another one where the parent's id is enqueued again.
    """
    return hashlib.sha256(f"{parent}\0{enqueueing}\0{index}".encode()).hexdigest()[:32]
