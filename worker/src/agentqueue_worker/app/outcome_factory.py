"""Makes the outcomes of jobs, as the engine records them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from agentqueue.clock import now_ms
from agentqueue.keys import Level
from agentqueue.model.attempts import (
    SNOOZE_REASON,
    SNOOZES,
    AttemptError,
    Progress,
    attempt_error,
    decode_progress,
    errors_of,
)
from agentqueue.model.dead_letter import DeadLetter, DeadLetterReason, dead_letter_to_json, encode_dead_letter
from agentqueue.model.exceptions import clean_text
from agentqueue.model.job import JobRecord, State, child_id, encode_job
from agentqueue.model.journal import StepRecord
from agentqueue.model.new_job import NewJob
from agentqueue.model.outcomes import (
    ENDED_ALONE,
    SUSPECT_FIELD,
    Cancelled,
    Completed,
    DeadLettered,
    Released,
    Rescheduled,
    Suspended,
)
from agentqueue.model.result import ResultRecord
from agentqueue_worker.app.job import Handler, RunningJob
from agentqueue_worker.app.options import WorkerOptions
from agentqueue_worker.app.ports import Codec
from agentqueue_worker.domain.claimed_job import ClaimedJob
from agentqueue_worker.domain.dead_letter import ERROR_TYPES, dead_letter_of
from agentqueue_worker.domain.error_record import add_error, describe_failure
from agentqueue_worker.domain.parent_return import return_cancelled, return_completed, return_dead
from agentqueue_worker.domain.retry import snooze_ms

NOTIFICATION_ID_PREFIX = "dead-letter:"
"""Prefix of the IDs of dead letter notifications, in all queues. It keeps a notification from causing another one."""
MAX_NOTIFICATION_BYTES = 8 * 1024 * 1024
"""Size limit of a notification, in bytes. A dead letter (a record of 1 MiB and ten tracebacks) is always smaller."""


@dataclass(frozen=True, slots=True)
class OutcomeFactory:
    """Makes the outcomes of one worker's jobs."""

    options: WorkerOptions
    codec: Codec
    hidden: Sequence[str] = ()
    """Folders whose frames are left out at the top of tracebacks."""

    def completed(self, job: RunningJob, value: object, seconds: float) -> Completed:
        """Return the outcome of a job whose handler returned `value` after that many seconds.

        Raises:
            InvalidPayload: the value can't be encoded.
        """
        context, options, meta = job.context, self.options, job.claimed.meta
        progress = None if context is None else context.last_progress
        raw: bytes | None = None
        steps = () if job.durable is None else job.durable.steps
        if not meta and progress is None and not steps:
            raw = self.codec.encode_completed(job, value, queue=options.queue, worker=options.identity.name)
        if raw is None:
            errors = errors_of(meta) if meta else ()
            result = self._result(
                job, State.COMPLETED, value, attempts=job.attempt, errors=errors, progress=progress, steps=steps
            )
            raw = self.codec.encode_result(result)
        children = () if context is None else context.children
        returns = None if job.record.parent_queue is None else return_completed(job.record, raw)
        has_stream = (job.durable is not None or bool(meta)) and job.has_stream
        return Completed(
            job.id,
            job.claimed.level,
            raw,
            job.handler.keep_ms,
            round(seconds * 1000),
            children,
            job.has_journal,
            returns,
            has_stream,
        )

    def cancelled(self, job: ClaimedJob[Handler | None]) -> Cancelled:
        """Return the outcome of a job that was cancelled, before or while it ran."""
        claimed, context = job.claimed, job.context if isinstance(job, RunningJob) else None
        result = self._result(
            job,
            State.CANCELLED,
            asyncio.CancelledError(),
            attempts=claimed.attempts,
            errors=errors_of(claimed.meta),
            progress=None if context is None else context.last_progress,
        )
        raw, returns = self.codec.encode_result(result), return_cancelled(job.record)
        return Cancelled(job.id, claimed.level, raw, self._keep_ms(job), job.has_journal, returns, job.has_stream)

    def released(self, job: RunningJob, after: float | None) -> Released:
        """Return the outcome of an unfinished job that goes back to the queue. `after`: delay in seconds, or None."""
        if after is None:  # a drain ends it before it has ended by itself: a suspect remains one
            return Released(job.id, job.claimed.level, None, job.unsaved or {})
        return Released(job.id, job.claimed.level, round(after * 1000), {**(job.unsaved or {}), **_ended(job)})

    def snoozed(self, job: RunningJob, after: float, reason: str) -> Released:
        """Return the outcome of a job that snoozes: it goes back for `after` seconds, and the snooze is counted."""
        claimed = job.claimed
        notes: dict[str, bytes | str | int] = {
            **(job.unsaved or {}),
            **_ended(job),
            SNOOZES: claimed.count(SNOOZES) + 1,
            SNOOZE_REASON: clean_text(reason)[:500],
        }
        delay_ms = snooze_ms(after, now_ms=now_ms(), expires_ms=claimed.count("expires"))
        return Released(job.id, claimed.level, delay_ms, notes)

    def suspended(self, job: RunningJob, seconds: float) -> Suspended:
        """Return the outcome of a run whose handler only waits, after that many seconds. It counts as progress."""
        waits = () if job.durable is None else job.durable.hold.fields
        notes: dict[str, bytes | str | int] = {**(job.unsaved or {}), **job.progress_fields()}
        return Suspended(job.id, job.claimed.level, round(seconds * 1000), waits, notes)

    def rescheduled(self, job: RunningJob, delay_ms: int, error: AttemptError) -> Rescheduled:
        """Return the outcome of a failed attempt that is followed by another one after `delay_ms`."""
        notes: dict[str, bytes | str | int] = {
            **(job.unsaved or {}),
            **_ended(job),
            "errors": add_error(job.claimed.meta, error),
        }
        return Rescheduled(job.id, job.claimed.level, delay_ms, notes)

    def rejected(self, job: ClaimedJob[Handler | None], reason: DeadLetterReason, message: str) -> DeadLettered:
        """Return the outcome of a job that becomes a dead letter before it starts."""
        error = attempt_error(job.claimed.attempts, now_ms(), ERROR_TYPES.get(reason, "Failed"), message)
        return self.dead_lettered(job, error, reason, RuntimeError(error.line))

    def dead_lettered(
        self, job: ClaimedJob[Handler | None], error: AttemptError, reason: DeadLetterReason, exc: BaseException
    ) -> DeadLettered:
        """Return the outcome of a job that becomes a dead letter.

        Args:
            job: the job, started or not.
            error: the error of its last attempt.
            reason: why it is not tried again.
            exc: the exception that waiting clients get.
        """
        claimed = job.claimed
        errors = [*errors_of(claimed.meta), error]
        dead_letter = dead_letter_of(job, self.options.queue, reason, errors)
        result = self._result(
            job,
            State.DEAD,
            exc,
            attempts=job.attempts,
            errors=errors,
            progress=decode_progress(claimed.meta.get("progress")),
            finished_ms=error.at_ms,
            reason=reason,
        )
        context = job.context if isinstance(job, RunningJob) else None
        checkpoint = claimed.meta.get("checkpoint") if context is None else context.last_checkpoint
        kept: dict[str, bytes | str | int] = {} if checkpoint is None else {"checkpoint": checkpoint}
        if job.has_journal:
            kept["journal"] = 1
        return DeadLettered(
            job.id,
            claimed.level,
            self.codec.encode_result(result),
            self._keep_ms(job),
            dead_letter.fingerprint,
            encode_dead_letter(dead_letter),
            self._notifications(dead_letter),
            kept,
            return_dead(job.record, error, reason),
        )

    def describe_error(self, job: RunningJob, exc: BaseException) -> AttemptError:
        """Return the error of an attempt as it is recorded and logged."""
        return describe_failure(exc, attempt=job.attempt, at_ms=now_ms(), hidden=self.hidden)

    def _keep_ms(self, job: ClaimedJob[Handler | None]) -> int:
        return self.options.keep_ms if job.handler is None else job.handler.keep_ms

    def _result(
        self,
        job: ClaimedJob[Handler | None],
        state: State,
        value: object,
        *,
        attempts: int,
        errors: Sequence[AttemptError],
        progress: Progress | None,
        steps: Sequence[StepRecord] = (),
        finished_ms: int | None = None,
        reason: DeadLetterReason | None = None,
    ) -> ResultRecord:
        cancelled_unstarted = state is State.CANCELLED and not job.started_ms
        return ResultRecord.of(
            job.record,
            id=clean_text(job.id),  # other clients may write IDs that are not valid text
            queue=self.options.queue,
            state=state,
            result=value,
            started_ms=job.started_ms,
            finished_ms=finished_ms or now_ms(),
            job_try=max(job.attempts, 1),
            attempts=attempts,
            deliveries=job.deliveries,
            worker=None if cancelled_unstarted else self.options.identity.name,
            reason=reason,
            progress=progress,
            errors=errors,
            steps=steps,
        )

    def _notifications(self, dead_letter: DeadLetter) -> list[NewJob]:
        """Return the job that `onDeadLetter` sends, if any. A dead notification sends none, or it might never end."""
        target = self.options.dead_letters
        if target is None or dead_letter.id.startswith(NOTIFICATION_ID_PREFIX):
            return []
        record = JobRecord(
            name=target.job,
            args=(orjson.loads(orjson.dumps(dead_letter_to_json(dead_letter))),),
            enqueued_ms=dead_letter.died_ms,
            queue=target.queue,
            tags=dead_letter.tags,
            parent=dead_letter.id,
            tenant=dead_letter.tenant,
            trace=dead_letter.trace,
        )
        child = NOTIFICATION_ID_PREFIX + child_id(f"{dead_letter.queue}:{dead_letter.id}", str(dead_letter.died_ms), 0)
        return [NewJob(target.queue, child, encode_job(record, max_bytes=MAX_NOTIFICATION_BYTES), Level.NORMAL)]


def _ended(job: RunningJob) -> dict[str, str]:
    """Return the notes of a job that ends and runs again later. If it was a suspect, it no longer is one."""
    return {SUSPECT_FIELD: ENDED_ALONE} if job.claimed.is_suspect else {}
