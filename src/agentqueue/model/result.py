"""Result records of jobs that have ended, as JSON."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import orjson

from agentqueue.errors import InvalidPayload
from agentqueue.model.attempts import AttemptError, Progress, attempt_error_of, progress_of
from agentqueue.model.dead_letter import DeadLetterReason
from agentqueue.model.exceptions import (
    MAX_TRACEBACK,
    arguments_of,
    describe_value,
    is_a,
    name_exception,
)
from agentqueue.model.job import JobRecord, State
from agentqueue.model.journal import StepRecord, decode_steps, encode_steps
from agentqueue.model.json import MAX_BYTES, find_problem
from agentqueue.model.json_input import read_record
from agentqueue.model.record_fields import INT, INT_OR_NONE, LIST, TEXT, TEXT_OR_NONE, check_fields, expect_type


@dataclass(slots=True)
class ResultRecord:
    """Result of a job: the fields of arq's result record, and ours under `x`. Not frozen, since each run makes one."""

    id: str
    name: str
    queue: str
    success: bool
    result: Any
    """Return value of the handler. A failed job has the exception, which is read as `{"$exc": name, "args": [...]}`."""
    started_ms: int
    """Time of the last start, in ms. 0 if the job never started."""
    finished_ms: int
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    enqueued_ms: int = 0
    job_try: int = 1
    """Number of the attempt that ended the job, from 1."""
    state: State = State.COMPLETED
    priority: int | None = None
    """Priority number, as in the job record. None is normal."""
    attempts: int = 0
    """Number of attempts that ended with a result or an error of the handler, including the last."""
    deliveries: int = 0
    worker: str | None = None
    reason: DeadLetterReason | None = None
    progress: Progress | None = None
    errors: Sequence[AttemptError] = ()
    steps: Sequence[StepRecord] = ()
    tags: Sequence[str] = ()
    parent: str | None = None
    tenant: str | None = None
    trace: str | None = None

    @classmethod
    def of(
        cls,
        job: JobRecord,
        *,
        id: str,  # noqa: A002  # the field's name
        queue: str,
        state: State,
        result: Any,
        finished_ms: int,
        started_ms: int = 0,
        job_try: int = 1,
        attempts: int = 0,
        deliveries: int = 0,
        worker: str | None = None,
        reason: DeadLetterReason | None = None,
        progress: Progress | None = None,
        errors: Sequence[AttemptError] = (),
        steps: Sequence[StepRecord] = (),
    ) -> "ResultRecord":
        """Return the result of a job. The job's record supplies its payload, priority and origin."""
        return cls(
            id=id,
            name=job.name,
            queue=queue,
            success=state is State.COMPLETED,
            result=result,
            started_ms=started_ms,
            finished_ms=finished_ms,
            args=job.args,
            kwargs=job.kwargs,
            enqueued_ms=job.enqueued_ms,
            job_try=job_try,
            state=state,
            priority=job.priority,
            attempts=attempts,
            deliveries=deliveries,
            worker=worker,
            reason=reason,
            progress=progress,
            errors=errors,
            steps=steps,
            tags=job.tags,
            parent=job.parent,
            tenant=job.tenant,
            trace=job.trace,
        )

    @property
    def data(self) -> Any:
        """Return the job's payload; see `JobRecord.data`."""
        if self.kwargs:
            return {"args": list(self.args), "kwargs": dict(self.kwargs)}
        return self.args[0] if len(self.args) == 1 else (list(self.args) or None)

    @property
    def error(self) -> str | None:
        """Return the error in one line. None for a completed job."""
        if self.success:
            return None
        if isinstance(self.result, BaseException):
            return name_exception(self.result).line
        if is_exception(self.result):
            args = self.result["args"]
            first = args[:1] if type(args) is list else [args]  # another client may have written another type
            return ": ".join(map(str, [self.result["$exc"], *first]))
        return str(self.result)


def encode_exception(exc: BaseException) -> dict[str, Any]:
    """Return an exception as `{"$exc": name, "args": [...]}`. Arguments that are not JSON become text.

    A group whose members are of one kind is encoded like a member.
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
    """Return whether a value has few parts. A value that contains itself many times would take too long to encode."""
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
"""Maximum size of an exception's arguments, in bytes. Larger ones are replaced by the message."""


def is_exception(value: Any) -> bool:
    """Return whether a decoded result is an exception, `{"$exc": name, "args": [...]}`."""
    return type(value) is dict and value.keys() == {"$exc", "args"}


def encode_result(record: ResultRecord, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the record as JSON. The record of a failure can always be encoded.

    Raises:
        InvalidPayload: The handler's return value is not JSON, is too deep or exceeds `max_bytes`.
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


COMPLETED: Final = State.COMPLETED.value
"""The state of each completed job. Reading the value of an Enum takes longer than reading this."""


def encode_completed(
    job: JobRecord,
    value: Any,
    *,
    id: str,  # noqa: A002  # the field's name
    queue: str,
    started_ms: int,
    finished_ms: int,
    attempt: int,
    deliveries: int,
    worker: str,
    max_bytes: int = MAX_BYTES,
) -> bytes | None:
    """Return the JSON of a completed job's result, the same as of `encode_result` and in half the time.

    Args:
        job: the record of the job, which has no errors and no progress.
        value: the return value of the handler.
        id: ID of the job, valid text.
        queue: queue of the job.
        started_ms: time of the start, in ms since the epoch.
        finished_ms: time of the end, in ms since the epoch.
        attempt: number of the attempt, from 1. It is also the number of attempts.
        deliveries: number of times that a worker started the job.
        worker: name of the worker.
        max_bytes: maximum size of the JSON.

    Returns:
        None if the result needs `encode_result`: the job has tags or an origin, or the value is not plain JSON.
    """
    if job.tags or job.parent is not None or job.tenant is not None or job.trace is not None:
        return None
    if find_problem(value, "the result"):
        return None
    wire = {
        "t": attempt,
        "f": job.name,
        "et": job.enqueued_ms,
        "s": True,
        "st": started_ms,
        "ft": finished_ms,
        "q": queue,
        "id": id,
        "x": {
            "state": COMPLETED,
            "p": job.priority,
            "attempts": attempt,
            "deliveries": deliveries,
            "worker": worker,
        },
        "r": value,
        "a": job.args,
        "k": job.kwargs,
    }
    try:
        raw = orjson.dumps(wire)
    except orjson.JSONEncodeError:
        return None
    return raw if len(raw) <= max_bytes else None


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
    if record.steps:
        extra["steps"] = encode_steps(record.steps)
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
        "r": value,  # large fields come last, since lists read only the beginning
        "a": record.args,
        "k": record.kwargs,
    }


def decode_result(raw: bytes, *, job_id: str = "") -> ResultRecord:
    """Return the result in `raw`, written by AgentQueue or by an arq worker with a JSON serializer (without `x`).

    Raises:
        InvalidPayload: The text is not JSON, or not a result record. See `is_pickle`.
    """
    try:
        wire = read_record(raw, "the job's result")
        extra = wire.get("x") or {}
        success = expect_type(wire["s"], bool)
        record = ResultRecord(
            id=wire.get("id") or job_id,
            name=expect_type(wire["f"], str),
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
            reason=DeadLetterReason(extra["reason"]) if extra.get("reason") else None,
            progress=progress_of(extra["progress"]) if extra.get("progress") else None,
            errors=tuple(attempt_error_of(error) for error in extra.get("errors", ())),
            steps=decode_steps(extra.get("steps", ())),
            tags=extra.get("tags") or (),
            parent=extra.get("parent"),
            tenant=extra.get("tenant"),
            trace=extra.get("trace"),
        )
        check_fields(record, _RESULT_TYPES)
        return record
    except InvalidPayload:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as exc:  # a JSONDecodeError is a ValueError
        raise InvalidPayload(f"the job's result is not valid: {exc} ({raw[:40]!r}…)") from exc


def _arq_state(success: bool, result: Any) -> State:  # noqa: FBT001  # the wire's own field
    if success:
        return State.COMPLETED
    return State.CANCELLED if is_exception(result) and result["$exc"] == "CancelledError" else State.DEAD


_RESULT_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    **dict.fromkeys(("id", "name", "queue"), TEXT),
    **dict.fromkeys(("started_ms", "finished_ms", "enqueued_ms", "job_try", "attempts", "deliveries"), INT),
    **dict.fromkeys(("worker", "parent", "tenant", "trace"), TEXT_OR_NONE),
    "priority": INT_OR_NONE,
    "args": LIST,
    "kwargs": (dict,),
    "tags": LIST,
}
