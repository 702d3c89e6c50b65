"""Dead letters: what is kept of a job that will not run again by itself."""

from dataclasses import dataclass

from agentqueue.keys import PRIORITY_NUMBERS
from agentqueue.model.attempts import AttemptError, decode_progress, errors_of
from agentqueue.model.dead_letter import DeadLetter, DeadLetterReason, fingerprint
from agentqueue.model.exceptions import clean_text
from agentqueue.model.job import JobRecord, State
from agentqueue.model.outcomes import Claimed
from agentqueue.model.result import ResultRecord

ERROR_TYPES: dict[DeadLetterReason, str] = {
    DeadLetterReason.CRASHED: "Crashed",
    DeadLetterReason.EXPIRED: "Expired",
    DeadLetterReason.NO_RECORD: "NoRecord",
    DeadLetterReason.GARBAGE: "Garbage",
    DeadLetterReason.PICKLED: "PickledRecord",
    DeadLetterReason.INVALID_PAYLOAD: "InvalidPayload",
    DeadLetterReason.UNKNOWN_JOB: "UnknownJob",
}
"""The error's type where no exception has one."""
UNREADABLE_RECORD = JobRecord(name="")
"""Stands for a record that is missing or can't be read."""


@dataclass(frozen=True, slots=True)
class Burial:
    """A job's end as a dead letter."""

    claimed: Claimed
    record: JobRecord
    queue: str
    reason: DeadLetterReason
    error: AttemptError
    attempts: int
    """Attempts that ended by the handler's own doing."""
    deliveries: int

    @property
    def errors(self) -> list[AttemptError]:
        """Every error of the job, the last one last."""
        return [*errors_of(self.claimed.meta), self.error]

    @property
    def fingerprint(self) -> str:
        """Equal for failures of one kind."""
        return fingerprint(self.reason, self.record.name, self.error.type, self.error.message)

    def letter(self) -> DeadLetter:
        """What is kept."""
        return DeadLetter(
            id=clean_text(self.claimed.id),  # a set may hold any bytes
            queue=self.queue,
            name=self.record.name,
            data=self.record.data,
            priority=priority_of(self.claimed, self.record),
            reason=self.reason,
            errors=self.errors,
            fingerprint=self.fingerprint,
            attempts=self.attempts,
            deliveries=self.deliveries,
            enqueued_ms=self.record.enqueued_ms,
            died_ms=self.error.at_ms,
            replayable=self.claimed.record is not None,
            tags=list(self.record.tags),
            parent=self.record.parent,
            tenant=self.record.tenant,
            trace=self.record.trace,
        )

    def result(self, exc: BaseException | None, *, started_ms: int, worker: str) -> ResultRecord:
        """What waiting clients read. `exc`: what the handler raised; None: the error as text stands for it."""
        return ResultRecord(
            id=clean_text(self.claimed.id),
            name=self.record.name,
            queue=self.queue,
            success=False,
            result=exc if exc is not None else RuntimeError(self.error.line),
            started_ms=started_ms,
            finished_ms=self.error.at_ms,
            args=self.record.args,
            kwargs=self.record.kwargs,
            enqueued_ms=self.record.enqueued_ms,
            job_try=max(self.attempts, 1),
            state=State.DEAD,
            priority=self.record.priority,
            attempts=self.attempts,
            deliveries=self.deliveries,
            worker=worker,
            reason=self.reason,
            progress=decode_progress(self.claimed.meta.get("progress")),
            errors=self.errors,
            tags=self.record.tags,
            parent=self.record.parent,
            tenant=self.record.tenant,
            trace=self.record.trace,
        )


def priority_of(claimed: Claimed, record: JobRecord) -> int:
    """The number it was enqueued with, or its level's."""
    return record.priority or PRIORITY_NUMBERS[claimed.level]
