"""Decides what is kept of a job that will not run again by itself."""

from collections.abc import Sequence

from agentqueue.keys import PRIORITY_NUMBERS
from agentqueue.model.attempts import AttemptError
from agentqueue.model.dead_letter import DeadLetter, DeadLetterReason, fingerprint
from agentqueue.model.exceptions import clean_text
from agentqueue_worker.domain.claimed_job import ClaimedJob

ERROR_TYPES: dict[DeadLetterReason, str] = {
    DeadLetterReason.CRASHED: "Crashed",
    DeadLetterReason.EXPIRED: "Expired",
    DeadLetterReason.NO_RECORD: "NoRecord",
    DeadLetterReason.GARBAGE: "Garbage",
    DeadLetterReason.PICKLED: "PickledRecord",
    DeadLetterReason.INVALID_PAYLOAD: "InvalidPayload",
    DeadLetterReason.UNKNOWN_JOB: "UnknownJob",
}
"""Error types of jobs that were rejected before they started, so that no exception has a type."""


def dead_letter_of(
    job: ClaimedJob[object], queue: str, reason: DeadLetterReason, errors: Sequence[AttemptError]
) -> DeadLetter:
    """Return the dead letter of a job.

    Args:
        job: the job, started or not.
        queue: the queue that the worker serves.
        reason: why the job does not run again.
        errors: errors of all attempts. The last one is the cause of death, and gives the time and the fingerprint.
    """
    claimed, record, cause = job.claimed, job.record, errors[-1]
    return DeadLetter(
        id=clean_text(claimed.id),  # other clients may write IDs that are not valid text
        queue=queue,
        name=record.name,
        data=record.data,
        priority=record.priority or PRIORITY_NUMBERS[claimed.level],
        reason=reason,
        errors=errors,
        fingerprint=fingerprint(reason, record.name, cause.type, cause.message),
        attempts=job.attempts,
        deliveries=job.deliveries,
        enqueued_ms=record.enqueued_ms,
        died_ms=cause.at_ms,
        replayable=claimed.record is not None,
        tags=list(record.tags),
        parent=record.parent,
        tenant=record.tenant,
        trace=record.trace,
    )
