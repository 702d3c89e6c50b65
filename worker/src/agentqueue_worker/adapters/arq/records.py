"""Records of jobs and results: JSON, ours and arq's, or as the user's serializers have them."""

import pickle  # noqa: TID251  # arq's default, for who asks for it
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog
from arq import jobs as arq_jobs
from arq.worker import JobExecutionFailed

from agentqueue.arq import dumps, loads
from agentqueue.clock import now_ms
from agentqueue.errors import InvalidPayload
from agentqueue.model.dead_letter import DeadLetterReason
from agentqueue.model.exceptions import describe_value, name_exception
from agentqueue.model.job import RECORD_PREFIX, JobRecord, decode_job, encode_job
from agentqueue.model.json import find_problem
from agentqueue.model.result import ResultRecord, encode_result

Serializer = Callable[[dict[str, Any]], bytes]
Deserializer = Callable[[bytes], dict[str, Any]]
UNREADABLE_JOB_NAME: Final = "<unreadable>"
"""Stands for the name of a job whose record the user's deserializer refused."""
NOT_SERIALIZABLE: Final = "unable to serialize result"
"""arq's own words; its client raises SerializationError with them."""
log = structlog.get_logger("agentqueue.arq")


@dataclass(slots=True)
class ArqRecord(JobRecord):
    """A job that the user's deserializer read: its arguments may be any Python objects."""

    problem: str | None = None
    """Why it could not be read after all."""

    @property
    def data(self) -> Any:
        """The arguments as a dead letter shows them: what is not JSON by its repr."""
        args = [_plain(value) for value in self.args]
        if self.kwargs:
            return {"args": args, "kwargs": {str(key): _plain(value) for key, value in self.kwargs.items()}}
        return args[0] if len(args) == 1 else (args or None)


def _is_sound(record: JobRecord) -> bool:
    return (
        type(record.name) is str
        and isinstance(record.args, list | tuple)
        and isinstance(record.kwargs, dict)
        and (record.job_try is None or type(record.job_try) is int)
        and type(record.enqueued_ms) is int
    )


def _plain(value: Any) -> Any:
    return value if find_problem(value) is None else describe_value(value, repr, limit=1_000)


def _why(exc: BaseException) -> str:
    return name_exception(exc.__cause__ or exc).line


@dataclass(frozen=True, slots=True)
class Serializers:
    """How a program's records are written and read: JSON, unless the user asked for another way (rule 9)."""

    write: Serializer = dumps
    read: Deserializer = loads

    @classmethod
    def choose(cls, write: Serializer | None, read: Deserializer | None, *, pickled: bool) -> "Serializers":
        """arq's defaults (pickle) where pickle or a deserializer was asked for, JSON where not."""
        if pickled or read is not None:
            return cls(write or pickle.dumps, read or pickle.loads)
        return cls(write or dumps, loads)

    def decode_job(self, raw: bytes) -> JobRecord:
        """The job's record: ours by its mark, another by the user's deserializer.

        Raises:
            InvalidPayload: not JSON, where JSON is what is read.
        """
        if self.read is loads or raw.startswith(RECORD_PREFIX):
            return decode_job(raw)
        try:
            name, args, kwargs, job_try, enqueued_ms = arq_jobs.deserialize_job_raw(raw, deserializer=self.read)
        except arq_jobs.DeserializationError as exc:
            return ArqRecord(name=UNREADABLE_JOB_NAME, problem=f"the job_deserializer refuses its record: {_why(exc)}")
        record = ArqRecord(name=name, args=args, kwargs=kwargs, job_try=job_try, enqueued_ms=enqueued_ms)
        return record if _is_sound(record) else ArqRecord(name=UNREADABLE_JOB_NAME, problem="its record is not a job's")

    def encode_job(self, name: str) -> bytes:
        """A cron's job, so that plain arq workers on the same queue read it as well."""
        if self.write is dumps:
            return encode_job(JobRecord(name=name, enqueued_ms=now_ms()))
        return arq_jobs.serialize_job(name, (), {}, None, now_ms(), serializer=self.write)

    def encode_result(self, record: ResultRecord) -> bytes:
        """The result; one that can't be written is recorded as a failure that says so, as arq does."""
        if not record.success:
            record = replace(record, result=_as_arq_has_it(record))
        return _encode_json(record) if self.write is dumps else self._encode_own(record)

    def _encode_own(self, record: ResultRecord) -> bytes:
        raw = arq_jobs.serialize_result(
            record.name,
            tuple(record.args),
            dict(record.kwargs),
            record.job_try,
            record.enqueued_ms,
            record.success,
            record.result,
            record.started_ms,
            record.finished_ms,
            f"{record.id}:{record.name}",
            record.queue,
            record.id,
            serializer=self._write_or_refuse,
        )
        # Twice refused: the arguments are not the serializer's either. Ours reads them as text.
        return raw if raw is not None else encode_result(_unserializable(record))

    def _write_or_refuse(self, record: dict[str, Any]) -> bytes:
        """By the user's serializer. What it raises is arq's to catch and to log: so it is an Exception, without the
        job's own exception as its context, whose code may raise where it is logged.
        """
        try:
            return self.write(record)
        except BaseException as exc:  # noqa: BLE001  # the values' own `__reduce__`, which may raise anything
            raise arq_jobs.SerializationError(name_exception(exc).line) from None


def _encode_json(record: ResultRecord) -> bytes:
    try:
        return encode_result(record)
    except InvalidPayload as exc:
        log.warning("result_not_json", job_id=record.id, job=record.name, error=str(exc))
        return encode_result(_unserializable(record))


def _unserializable(record: ResultRecord) -> ResultRecord:
    args = [_plain(value) for value in record.args]
    kwargs = {str(key): _plain(value) for key, value in record.kwargs.items()}
    return replace(record, success=False, result=NOT_SERIALIZABLE, args=args, kwargs=kwargs)


def _as_arq_has_it(record: ResultRecord) -> Any:
    """What arq's client raises for a job that ended without its function's doing."""
    match record.reason:
        case DeadLetterReason.EXPIRED | DeadLetterReason.NO_RECORD:
            return JobExecutionFailed("job expired")
        case DeadLetterReason.UNKNOWN_JOB:
            return JobExecutionFailed(f"function {record.name!r} not found")
        case DeadLetterReason.GARBAGE:
            return arq_jobs.DeserializationError("unable to deserialize job")
        case DeadLetterReason.PICKLED | DeadLetterReason.CRASHED:
            return JobExecutionFailed(str(record.result))
        case _:
            return record.result
