"""Turn the server's replies into the results and errors that callers get. Pure."""

import math
from asyncio import CancelledError
from collections.abc import Sequence
from typing import Any

from agentqueue.client.decoding import decode_snapshot
from agentqueue.client.responses import Replayed
from agentqueue.client.status import JobStatus
from agentqueue.errors import InvalidPayload, JobCancelled, JobEnded, JobFailed, JobNotFound, MailboxFull
from agentqueue.model.attempts import returns_of
from agentqueue.model.job import State
from agentqueue.model.result import ResultRecord
from agentqueue.model.retry_policy import Seconds, seconds
from agentqueue.store import Snapshot
from agentqueue.store.signals import MAX_SIGNAL_BYTES, MAX_SIGNALS


def job_not_found(job_id: str) -> JobNotFound:
    """Return the error for an ID that the server does not know."""
    return JobNotFound(
        f"no job {job_id} is known here: it was never enqueued on this server, or its result's retention has passed"
    )


def result_of(status: JobStatus) -> Any:
    """Return the result of a job that has ended.

    Raises:
        JobFailed: The job is dead.
        JobCancelled: The job was cancelled.
        InvalidPayload: The result cannot be read.
    """
    where = f"job {status.id} ({status.queue}, {status.name})"
    match status.state:
        case State.DEAD:
            raise JobFailed(
                f"{where} is dead after {status.attempts} attempt{'s' * (status.attempts != 1)}: {status.error}; "
                f"see `agentqueue dead show {status.queue} {status.id}`"
            )
        case State.CANCELLED:
            raise JobCancelled(f"{where} was cancelled")
        case _ if status.error is not None:
            raise InvalidPayload(f"{where} is completed, but {status.error}")
        case _:
            return status.result


def cancelled_result(found: Snapshot, now_ms: int) -> ResultRecord:
    """Return the result of a job that is cancelled before it starts, or before it starts again."""
    return ResultRecord.of(
        decode_snapshot(found).record,
        id=found.id,
        queue=found.queue,
        state=State.CANCELLED,
        result=CancelledError(),
        finished_ms=now_ms,
        job_try=found.attempts + 1,
        attempts=found.attempts,
        deliveries=found.attempts + returns_of(found.meta),
    )


def signal_counted(job_id: str, name: str, answer: str) -> bool:
    """Return whether a signal counts, by the server's answer. False: one with the same ID was sent before.

    Raises:
        JobNotFound: The job is not known.
        JobEnded: The job has ended.
        MailboxFull: The job can't get more signals.
    """
    match answer:
        case "unknown":
            raise job_not_found(job_id)
        case "final":
            raise JobEnded(
                f"job {job_id} has ended, so the signal {name!r} was not delivered; if it was sent before with the "
                "same ID, that one may have counted"
            )
        case "full":
            raise MailboxFull(
                f"job {job_id} can't get the signal {name!r}: a job gets {MAX_SIGNALS:,} signals at most, and "
                f"{MAX_SIGNAL_BYTES >> 20} MiB of data; send references instead of data, or start another job"
            )
        case _:
            return answer == "sent"


def replayed_of(ids: Sequence[str], answers: Sequence[str]) -> Replayed:
    """Return the outcome of one call. `answers` has one answer for each ID."""
    pairs = list(zip(ids, answers, strict=True))

    def those(answer: str) -> list[str]:
        return [job_id for job_id, said in pairs if said == answer]

    return Replayed(len(those("replayed")), those("unknown"), those("live"), those("bare"), tuple(those("no-step")))


def check_timeout(value: Seconds | None) -> float:
    """Return the seconds to wait for a result, infinite for None.

    Raises:
        UsageError: The timeout is negative, over 10 years, or not a number.
    """
    return math.inf if value is None else seconds(value, "timeout", endless=True)
