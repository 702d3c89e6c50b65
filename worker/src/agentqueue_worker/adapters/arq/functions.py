"""Handlers that run arq functions, with arq's hooks, tries and timeouts."""

import asyncio
from typing import TYPE_CHECKING, Any, Final

from arq import jobs as arq_jobs
from arq.cron import CronJob
from arq.worker import Function, JobExecutionFailed, Retry, RetryJob

from agentqueue.agent.outcomes import Snooze
from agentqueue.model.dead_letter import DeadLetterReason
from agentqueue.model.exceptions import is_a, name_exception
from agentqueue.model.retry_policy import Backoff
from agentqueue_worker.adapters.arq.records import UNREADABLE_JOB_NAME, ArqRecord
from agentqueue_worker.adapters.arq.worker import keep_ms_of
from agentqueue_worker.app.job import RunningJob
from agentqueue_worker.domain.verdict import Failed, Hopeless, Snoozed, Verdict

if TYPE_CHECKING:
    from agentqueue_worker.adapters.arq.worker import ArqWorker

NO_DELAY: Final = Backoff(type="fixed", delay=0.0, jitter=0.0)
"""Backoff of arq's retries, which start at once unless the function asks for a delay."""


class ArqHandler:
    """Handler of one function, or of the function of a cron."""

    backoff = NO_DELAY
    timeout = None  # arq's timeout is final and does not cover the hooks, so `call` applies it

    def __init__(self, worker: "ArqWorker", function: Function | CronJob) -> None:
        self.worker = worker
        self.name = function.name
        self.coroutine = function.coroutine
        own_tries, own_timeout = function.max_tries, function.timeout_s
        self.attempts: int = worker.max_tries if own_tries is None else own_tries
        self.limit: float | None = worker.job_timeout_s if own_timeout is None else own_timeout
        self.keep_ms = keep_ms_of(worker, function)

    async def call(self, job: RunningJob) -> Any:
        """Run the function between its hooks, all with the job's own context."""
        worker = self.worker
        worker.tasks[job.id] = job.task  # type: ignore[assignment]  # the job's task runs this code
        try:
            value = await self._between_hooks(job)
        except BaseException as exc:
            worker.count_failure(self.judge(exc, job), job)
            raise
        finally:
            worker.tasks.pop(job.id, None)
        worker.jobs_complete += 1
        return value

    async def _between_hooks(self, job: RunningJob) -> Any:
        tries = job.record.options.attempts or self.attempts
        if job.attempt > tries:
            raise _exceeded(tries)
        worker = self.worker
        ctx = job.extra = worker.context_of(job)
        if worker.on_job_start is not None:
            await worker.on_job_start(ctx)
        try:
            return await self._run(ctx, job)
        except BaseException as exc:
            if job.ending is None and job.attempt >= tries and isinstance(self.judge(exc, job), Failed):
                # arq defers such a job and fails it at its next start. Here it ends at once.
                worker.jobs_retried += 1
                raise _exceeded(tries) from exc
            raise
        finally:
            if worker.on_job_end is not None:
                await worker.on_job_end(ctx)

    async def _run(self, ctx: dict[Any, Any], job: RunningJob) -> Any:
        record = job.record
        limit = self.limit if record.options.timeout is None else None  # the runner applies the record's own
        try:
            async with asyncio.timeout(limit) as scope:
                return await self.coroutine(ctx, *record.args, **record.kwargs)
        except TimeoutError as exc:
            if scope.expired():
                raise TimeoutError(f"the job took longer than its timeout of {limit:g} s") from exc
            raise

    def judge(self, exc: BaseException, job: RunningJob) -> Verdict:  # noqa: ARG002  # the port's shape
        """Return how an exception counts in arq. Only Retry, RetryJob and CancelledError cause another try."""
        if is_a(exc, Snooze):  # a program may use it without leaving arq
            return Snoozed(exc.after, name_exception(exc).message)  # type: ignore[attr-defined]  # see is_a
        if self.worker.retry_jobs and is_a(exc, Retry):
            return Failed(after=(exc.defer_score or 0) / 1000)  # type: ignore[attr-defined]  # see is_a
        if self.worker.retry_jobs and is_a(exc, (RetryJob, asyncio.CancelledError)):
            return Failed(after=0.0)
        return Hopeless(DeadLetterReason.FAILED if is_a(exc, JobExecutionFailed) else DeadLetterReason.FATAL)


def _exceeded(tries: int) -> JobExecutionFailed:
    return JobExecutionFailed(f"max {tries} retries exceeded")


class UnreadableHandler:
    """Handler of jobs whose record the user's deserializer refused. It ends them with arq's own error."""

    name = UNREADABLE_JOB_NAME
    backoff = NO_DELAY
    timeout = None
    attempts = 1

    def __init__(self, worker: "ArqWorker") -> None:
        self.worker = worker
        self.keep_ms = keep_ms_of(worker)

    async def call(self, job: RunningJob) -> Any:
        """Raise arq's DeserializationError."""
        self.worker.jobs_failed += 1
        problem = job.record.problem if isinstance(job.record, ArqRecord) else None
        raise arq_jobs.DeserializationError(problem or "unable to deserialize job")

    def judge(self, exc: BaseException, job: RunningJob) -> Verdict:  # noqa: ARG002  # the port's shape
        """Return the verdict that the job is dead."""
        return Hopeless(DeadLetterReason.GARBAGE)
