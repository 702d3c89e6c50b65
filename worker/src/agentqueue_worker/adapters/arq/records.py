"""Records of jobs and results of arq programs, as JSON or in the form of the user's serializers."""

import pickle  # noqa: TID251  # arq's default, used only if the program asks for it
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
"""Name of jobs whose record the user's deserializer refused."""
NOT_SERIALIZABLE: Final = "unable to serialize result"
"""arq's own message. Its client raises SerializationError with it."""
log = structlog.get_logger("agentqueue.arq")


@dataclass(slots=True)
class ArqRecord(JobRecord):
    """Record that the user's deserializer read. Its arguments may be any Python objects."""

    problem: str | None = None
    """Reason why the record could not be read, or None."""

    @property
    def data(self) -> Any:
        """The arguments as a dead letter shows them. Values that JSON can't express are shown by their repr."""
        args = [_plain(value) for value in self.args]
        if self.kwargs:
            return {"args": args, "kwargs": {str(key): _plain(value) for key, value in self.kwargs.items()}}
        return args[0] if len(args) == 1 else (args or None)


def _plain(value: Any) -> Any:
    return value if find_problem(value) is None else describe_value(value, repr, limit=1_000)


@dataclass(frozen=True, slots=True)
class Serializers:
    """Functions that write and read a program's records. JSON unless the user asked for another form (rule 9)."""

    write: Serializer = dumps
    read: Deserializer = loads

    @classmethod
    def choose(cls, write: Serializer | None, read: Deserializer | None, *, pickled: bool) -> "Serializers":
        """Return arq's defaults (pickle) if pickle or a deserializer was asked for, else JSON."""
        if pickled or read is not None:
            return cls(write or pickle.dumps, read or pickle.loads)
        return cls(write or dumps, loads)

    def decode_job(self, raw: bytes) -> JobRecord:
        """Return the job's record. Records with our prefix are JSON, the user's deserializer reads the others.

        Raises:
            InvalidPayload: the record is not JSON, and the program reads JSON.
        """
        if self.read is loads or raw.startswith(RECORD_PREFIX):
            return decode_job(raw)
        try:
            fields: tuple[Any, ...] = arq_jobs.deserialize_job_raw(raw, deserializer=self.read)
        except arq_jobs.DeserializationError as exc:
            reason = name_exception(exc.__cause__ or exc).line
            return ArqRecord(name=UNREADABLE_JOB_NAME, problem=f"the job_deserializer refuses its record: {reason}")
        name, args, kwargs, job_try, enqueued_ms = fields
        has_job_types = (
            type(name) is str
            and isinstance(args, list | tuple)
            and isinstance(kwargs, dict)
            and (job_try is None or type(job_try) is int)
            and type(enqueued_ms) is int
        )
        if not has_job_types:
            return ArqRecord(name=UNREADABLE_JOB_NAME, problem="its record is not a job's")
        return ArqRecord(name=name, args=args, kwargs=kwargs, job_try=job_try, enqueued_ms=enqueued_ms)

    def encode_job(self, name: str) -> bytes:
        """Return the encoded job of a cron, which plain arq workers on the same queue can read."""
        if self.write is dumps:
            return encode_job(JobRecord(name=name, enqueued_ms=now_ms()))
        return arq_jobs.serialize_job(name, (), {}, None, now_ms(), serializer=self.write)

    def encode_result(self, record: ResultRecord) -> bytes:
        """Return the encoded result. If it can't be encoded, return that of a failure with this reason, as arq does."""
        if not record.success:
            record = replace(record, result=_exception_of_arq(record))
        if self.write is not dumps:
            return self._encode_own(record)
        try:
            return encode_result(record)
        except InvalidPayload as exc:
            log.warning("result_not_json", job_id=record.id, job=record.name, error=str(exc))
            return encode_result(_unserializable(record))

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
        # If it is refused twice, the serializer can't write the arguments either. Our record has them as text.
        return raw if raw is not None else encode_result(_unserializable(record))

    def _write_or_refuse(self, record: dict[str, Any]) -> bytes:
        """Call the user's serializer, and raise an Exception that arq catches and logs if it fails.

        The error has no context. The job's own exception would be it, and its code may raise when it is logged.
        """
        try:
            return self.write(record)
        except BaseException as exc:  # noqa: BLE001  # the `__reduce__` of a value may raise anything
            raise arq_jobs.SerializationError(name_exception(exc).line) from None


def _unserializable(record: ResultRecord) -> ResultRecord:
    args = [_plain(value) for value in record.args]
    kwargs = {str(key): _plain(value) for key, value in record.kwargs.items()}
    return replace(record, success=False, result=NOT_SERIALIZABLE, args=args, kwargs=kwargs)


def _exception_of_arq(record: ResultRecord) -> Any:
    """Return the exception that arq's client raises for a job that its function did not end."""
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
