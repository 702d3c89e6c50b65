"""Outcomes of jobs, as the engine records them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from agentqueue.clock import now_ms
from agentqueue.keys import Level
from agentqueue.model.attempts import AttemptError, attempt_error, errors_of
from agentqueue.model.dead_letter import DeadLetter, DeadLetterReason, dead_letter_to_json, encode_dead_letter
from agentqueue.model.exceptions import clean_text
from agentqueue.model.job import JobRecord, State, child_id, encode_job
from agentqueue.model.new_job import NewJob
from agentqueue.model.outcomes import Bury, Cancel, Claimed, Done, HandBack
from agentqueue.model.result import ResultRecord
from agentqueue_worker.app.job import Job
from agentqueue_worker.app.options import WorkerOptions
from agentqueue_worker.app.ports import Codec
from agentqueue_worker.domain.dead_letter import ERROR_TYPES, Burial
from agentqueue_worker.domain.error_record import describe_failure

NOTIFICATION_ID_PREFIX = "dead-letter:"
"""The ids of jobs that tell of a dead letter begin so, whatever their queue and name."""
MAX_NOTIFICATION_BYTES = 8 * 1024 * 1024
"""A dead letter holds a record of 1 MiB and ten tracebacks: always less."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Makes them for one worker."""

    options: WorkerOptions
    codec: Codec
    hidden: Sequence[str] = ()
    """Folders whose frames are left out at the top of tracebacks."""

    def done(self, job: Job, value: object, seconds: float) -> Done:
        """The handler returned `value`.

        Raises:
            InvalidPayload: the value can't be written.
        """
        raw = self.codec.encode_result(self._result(job, State.COMPLETED, value))
        children = () if job.context is None else job.context.children
        return Done(job.id, job.claimed.level, raw, job.handler.keep_ms, round(seconds * 1000), children)

    def cancelled(self, job: Job) -> Cancel:
        """It was cancelled while it ran."""
        record = self._result(job, State.CANCELLED, asyncio.CancelledError())
        return Cancel(job.id, job.claimed.level, self.codec.encode_result(record), job.handler.keep_ms)

    def hand_back(self, job: Job, after: float | None) -> HandBack:
        """It goes back unfinished."""
        return HandBack(job.id, job.claimed.level, None if after is None else round(after * 1000), job.unsaved or {})

    def describe(self, job: Job, exc: BaseException) -> AttemptError:
        """The attempt's error."""
        return describe_failure(exc, attempt=job.attempt, at_ms=now_ms(), hidden=self.hidden)

    def buried(self, job: Job, exc: BaseException, error: AttemptError, reason: DeadLetterReason) -> Bury:
        """It is dead."""
        burial = Burial(
            job.claimed, job.record, self.options.queue, reason, error, job.attempt, deliveries=job.claimed.delivery
        )
        return self._bury(burial, exc, job.started_ms, job.handler.keep_ms)

    def buried_unrun(
        self, claimed: Claimed, record: JobRecord, reason: DeadLetterReason, message: str, keep_ms: int
    ) -> Bury:
        """It is dead without having run this time."""
        error = attempt_error(claimed.attempts, now_ms(), ERROR_TYPES.get(reason, "Failed"), message)
        queue, deliveries = self.options.queue, claimed.delivery - 1
        burial = Burial(claimed, record, queue, reason, error, claimed.attempts, deliveries=deliveries)
        return self._bury(burial, None, 0, keep_ms)

    def cancelled_unrun(self, claimed: Claimed, record: JobRecord, keep_ms: int) -> Cancel:
        """It was cancelled before it started."""
        result = ResultRecord(
            id=clean_text(claimed.id),
            name=record.name,
            queue=self.options.queue,
            success=False,
            result=asyncio.CancelledError(),
            started_ms=0,
            finished_ms=now_ms(),
            args=record.args,
            kwargs=record.kwargs,
            enqueued_ms=record.enqueued_ms,
            job_try=max(claimed.attempts, 1),
            state=State.CANCELLED,
            priority=record.priority,
            attempts=claimed.attempts,
            deliveries=claimed.delivery - 1,
            errors=errors_of(claimed.meta),
            tags=record.tags,
            parent=record.parent,
            tenant=record.tenant,
            trace=record.trace,
        )
        return Cancel(claimed.id, claimed.level, self.codec.encode_result(result), keep_ms)

    def _result(self, job: Job, state: State, value: object) -> ResultRecord:
        record, claimed, context = job.record, job.claimed, job.context
        completed = state is State.COMPLETED
        return ResultRecord(
            id=job.id,
            name=record.name,
            queue=self.options.queue,
            success=completed,
            result=value,
            started_ms=job.started_ms,
            finished_ms=now_ms(),
            args=record.args,
            kwargs=record.kwargs,
            enqueued_ms=record.enqueued_ms,
            job_try=job.attempt,
            state=state,
            priority=record.priority,
            attempts=job.attempt if completed else claimed.attempts,
            deliveries=claimed.delivery,
            worker=self.options.identity.name,
            progress=None if context is None else context.last_progress,
            errors=errors_of(claimed.meta) if claimed.meta else (),
            tags=record.tags,
            parent=record.parent,
            tenant=record.tenant,
            trace=record.trace,
        )

    def _bury(self, burial: Burial, exc: BaseException | None, started_ms: int, keep_ms: int) -> Bury:
        letter, claimed = burial.letter(), burial.claimed
        result = burial.result(exc, started_ms=started_ms, worker=self.options.identity.name)
        raw, children = self.codec.encode_result(result), self._notification(letter)
        return Bury(claimed.id, claimed.level, raw, keep_ms, letter.fingerprint, encode_dead_letter(letter), children)

    def _notification(self, letter: DeadLetter) -> list[NewJob]:
        """The job that `onDeadLetter` sends. Such a job that dies itself sends none: that might never end."""
        target = self.options.dead_letters
        if target is None or letter.id.startswith(NOTIFICATION_ID_PREFIX):
            return []
        record = JobRecord(
            name=target.job,
            args=(orjson.loads(orjson.dumps(dead_letter_to_json(letter))),),
            enqueued_ms=letter.died_ms,
            queue=target.queue,
            tags=letter.tags,
            parent=letter.id,
            tenant=letter.tenant,
            trace=letter.trace,
        )
        child = NOTIFICATION_ID_PREFIX + child_id(f"{letter.queue}:{letter.id}", str(letter.died_ms), 0)
        return [NewJob(target.queue, child, encode_job(record, max_bytes=MAX_NOTIFICATION_BYTES), Level.NORMAL)]
