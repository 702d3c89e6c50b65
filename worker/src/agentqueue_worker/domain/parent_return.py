"""Decides what a job that ends returns to the parent that waits for it."""

from agentqueue.errors import InvalidPayload
from agentqueue.model.attempts import AttemptError
from agentqueue.model.child_return import ChildEnd, ChildError, encode_error, encode_value
from agentqueue.model.dead_letter import DeadLetterReason
from agentqueue.model.job import JobRecord
from agentqueue.model.outcomes import ParentReturn
from agentqueue.model.result import decode_result


def return_completed(record: JobRecord, result: bytes) -> ParentReturn | None:
    """Return what a completed job returns: the value of its encoded result. None if no parent waits for it."""
    if record.parent_queue is None:
        return None
    try:
        value = encode_value(decode_result(result).result)
    except InvalidPayload as exc:  # the serializer of an arq program
        error = ChildError(ChildEnd.COMPLETED, "InvalidResult", f"its result is not JSON, and can't be given on: {exc}")
        value = encode_error(error)
    return _to_parent(record, record.parent_queue, value)


def return_dead(record: JobRecord, error: AttemptError, reason: DeadLetterReason) -> ParentReturn | None:
    """Return what a dead job returns: its last error. None if no parent waits for it."""
    if record.parent_queue is None:
        return None
    failure = ChildError(ChildEnd.DEAD, error.type, error.message, str(reason))
    return _to_parent(record, record.parent_queue, encode_error(failure))


def return_cancelled(record: JobRecord) -> ParentReturn | None:
    """Return what a cancelled job returns. None if no parent waits for it."""
    if record.parent_queue is None:
        return None
    failure = ChildError(ChildEnd.CANCELLED, "Cancelled", "it was cancelled")
    return _to_parent(record, record.parent_queue, encode_error(failure))


def _to_parent(record: JobRecord, queue: str, value: bytes) -> ParentReturn:
    return ParentReturn(record.parent or "", queue, value)
