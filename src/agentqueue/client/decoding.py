"""Decode a job's snapshot: every record once, with a stand-in for a record that is missing or cannot be read. Pure."""

from dataclasses import dataclass, replace

from agentqueue.errors import InvalidPayload
from agentqueue.keys import PRIORITY_NUMBERS, Level
from agentqueue.model.attempts import AttemptError
from agentqueue.model.dead_letter import DeadLetter, DeadLetterReason, decode_dead_letter
from agentqueue.model.exceptions import clean_text
from agentqueue.model.job import OMITTED, UNREADABLE_RECORD, JobRecord, State, decode_job, is_pickle
from agentqueue.model.record_heads import decode_dead_letter_head, decode_job_head, decode_result_head
from agentqueue.model.result import ResultRecord, decode_result
from agentqueue.store import Snapshot, StoredDeadLetter


@dataclass(frozen=True, slots=True)
class DecodedJob:
    """A job's snapshot and the records that its state has."""

    snapshot: Snapshot
    record: JobRecord
    """Record of a job that has not ended. `UNREADABLE_RECORD` otherwise."""
    problem: str | None = None
    """Reason why the record of a job that has not ended cannot be read."""
    dead_letter: DeadLetter | None = None
    """Dead letter of a dead job."""
    result: ResultRecord | None = None
    """Result of a job that has ended. A dead job may have none."""


def decode_snapshot(snapshot: Snapshot) -> DecodedJob:
    """Return the snapshot with its records decoded.

    A live record goes before the remains of an earlier run with the same ID.

    Raises:
        Cut: The snapshot holds the heads of records only, and the job must be read whole.
    """
    match snapshot.state:
        case State.WAITING | State.DELAYED | State.SUSPENDED | State.ACTIVE:
            return _decode_live(snapshot)
        case State.DEAD:
            stored = StoredDeadLetter(snapshot.id, snapshot.queue, snapshot.dead["dead_letter"])
            dead_letter = dead_letter_of(stored, whole_errors=False, is_head=snapshot.is_truncated)
            return DecodedJob(snapshot, UNREADABLE_RECORD, dead_letter=dead_letter, result=_decode_result(snapshot))
        case _:
            return DecodedJob(snapshot, UNREADABLE_RECORD, result=_decode_result(snapshot) or _stand_in(snapshot, None))


def dead_letter_of(stored: StoredDeadLetter, *, whole_errors: bool = True, is_head: bool = False) -> DeadLetter:
    """Return the dead letter. One that cannot be read has the reason `garbage` and an error that explains why.

    Args:
        stored: The dead letter as the server keeps it.
        whole_errors: Return all errors. Otherwise a head gives the last error without its traceback.
        is_head: Read the beginning of the record only.

    Raises:
        Cut: The head does not hold all that is needed, and the dead letter must be read whole.
    """
    try:
        if stored.raw is None:
            raise InvalidPayload(stored.problem or "there is none")
        if is_head:
            return decode_dead_letter_head(stored.raw, whole_errors=whole_errors)
        return decode_dead_letter(stored.raw)
    except InvalidPayload as exc:
        why = AttemptError(0, 0, "InvalidPayload", f"its dead letter can't be read: {clean_text(str(exc))}")
        return DeadLetter(
            id=clean_text(stored.id),
            queue=stored.queue,
            name="",
            data=OMITTED if is_head else None,
            priority=PRIORITY_NUMBERS[Level.NORMAL],
            reason=DeadLetterReason.GARBAGE,
            errors=(why,),
            fingerprint="",
            attempts=0,
            deliveries=0,
            enqueued_ms=0,
            died_ms=0,
        )


def _decode_live(snapshot: Snapshot) -> DecodedJob:
    raw = snapshot.record
    if raw is None:
        return DecodedJob(snapshot, UNREADABLE_RECORD, problem="its record is missing")
    try:
        return DecodedJob(snapshot, decode_job_head(raw) if snapshot.is_truncated else decode_job(raw))
    except InvalidPayload as exc:
        problem = "its record is a pickle, which is not read here" if is_pickle(raw) else str(exc)
        return DecodedJob(snapshot, UNREADABLE_RECORD, problem=problem)


def _decode_result(snapshot: Snapshot) -> ResultRecord | None:
    raw = snapshot.result
    if raw is None:
        return None
    try:
        decode = decode_result_head if snapshot.is_truncated else decode_result
        return decode(raw, job_id=snapshot.id)
    except InvalidPayload as exc:
        return _stand_in(snapshot, "its result is a pickle, which is not read here" if is_pickle(raw) else str(exc))


def _stand_in(snapshot: Snapshot, problem: str | None) -> ResultRecord:
    """Return a result for a job of which only the time of its end is known, and why its own cannot be read."""
    result = ResultRecord.of(
        UNREADABLE_RECORD,
        id=snapshot.id,
        queue=snapshot.queue,
        state=State.COMPLETED,
        result=problem,
        finished_ms=snapshot.done_ms or 0,
    )
    return replace(result, success=problem is None)
