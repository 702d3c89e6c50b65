"""Runs claimed jobs, each in its own task, and turns the end of each into an outcome."""

import asyncio
import contextlib
import random
from collections.abc import Sequence
from typing import Any, Protocol, assert_never

import structlog

from agentqueue.clock import monotonic, now_ms
from agentqueue.errors import InvalidPayload, UsageError
from agentqueue.model.attempts import AttemptError
from agentqueue.model.dead_letter import DeadLetterReason
from agentqueue.model.exceptions import class_name, describe_traceback, name_exception, traceback_of
from agentqueue.model.job import UNREADABLE_RECORD
from agentqueue.model.outcomes import Claimed, Outcome, Released, Unstarted
from agentqueue.model.retry_policy import Backoff
from agentqueue_worker.app.forks import end_child
from agentqueue_worker.app.job import Ending, Handler, RunningJob
from agentqueue_worker.app.log_context import JobContexts, bind_job
from agentqueue_worker.app.outcome_factory import OutcomeFactory
from agentqueue_worker.app.ports import Registry
from agentqueue_worker.app.state import WorkerState
from agentqueue_worker.domain.admission import (
    UNKNOWN_SINCE_FIELD,
    Admission,
    AdmissionRules,
    Defer,
    DropCancelled,
    Reject,
    Start,
    admit,
    reject_unreadable,
)
from agentqueue_worker.domain.claim_size import moving_mean
from agentqueue_worker.domain.claimed_job import ClaimedJob
from agentqueue_worker.domain.retry import GiveUp, TryAgain, decide_retry
from agentqueue_worker.domain.verdict import CancelledOnRequest, Failed, Hopeless, Snoozed, Verdict, Yielded

CANCEL_AGAIN_AFTER_S = 5.0
"""Seconds between two cancellations of a handler that does not end. Cleaning up after one may take a moment."""
ABANDON_SUSPENDED_AFTER_S = 5.0
"""Seconds after which a run that does not end for its suspension is left behind, and its job is suspended anyway."""
CANCEL_STANDING_AFTER_S = 5.0
"""Seconds after which a run that began with a request to cancel is cancelled, although it makes no new durable call."""
FLUSH_AT_END_S = 1.0
"""Seconds for which the end of a run that failed or was stopped waits until its last events are written."""
FAULT_DELAY_S = 5.0
"""Seconds until a job is claimable again that could not be started or recorded, so that a fault does not spin."""
NEVER_AWAITABLE = frozenset((type(None), bool, int, float, str, dict, list))
"""Types of most results. Results of other types are checked for being awaitable, which takes longer."""
log = structlog.get_logger("agentqueue.worker")


class OnEnded(Protocol):
    """Callback for every job that left its slot. Metrics and logs use it."""

    def __call__(self, job: RunningJob, outcome: Outcome | None, seconds: float, error: AttemptError | None) -> None:
        """Handle the end of a job. `outcome` is None if the lease was lost, and nothing is recorded."""
        ...


class Runner:
    """Starts jobs and collects their outcomes in the outbox.

    Args:
        state: the state of the worker.
        registry: the user's code.
        ended: called for every job that left its slot.
        hidden: folders whose frames are left out at the top of tracebacks.
    """

    def __init__(self, state: WorkerState, registry: Registry, *, ended: OnEnded, hidden: Sequence[str] = ()) -> None:
        self._state = state
        self._queue = state.options.queue
        self._contexts = JobContexts(self._queue)
        self._decode = registry.codec.decode_job
        self._find = registry.find
        self._ended = ended
        self._outcomes = OutcomeFactory(state.options, registry.codec, hidden)
        self._rules = AdmissionRules(
            state.options.crash_limit, registry.unknown_grace_ms, registry.cancellable, registry.names
        )
        self._wants_recorded = registry.wants_recorded
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self.unrecorded: dict[str, RunningJob] = {}
        """Ended jobs that need a call once their outcome is recorded: the registry's, or that of a schedule's tick."""
        state.on_lost = self.lose
        state.suspend = self.suspend
        state.end_between_calls = self.end_between_calls

    # --- starting

    def start(self, claimed: Claimed) -> None:
        """Start a claimed job, or put the outcome of one that does not start into the outbox."""
        state = self._state
        try:
            self._start(claimed)
        except BaseException as exc:  # noqa: BLE001
            # Must not happen. Even so, one job must not keep the jobs that were claimed with it from starting.
            self._put(Released(claimed.id, claimed.level, round(FAULT_DELAY_S * 1000)))
            _report("job_not_started", exc, job_id=claimed.id)
        if claimed is state.suspect and claimed.id not in state.running:
            state.suspect = None

    def _start(self, claimed: Claimed) -> None:
        if self._state.draining:  # it was claimed before the signal, or by a round trip that was in flight
            self._put(Unstarted(claimed.id, claimed.level))
            return
        time_ms = now_ms()
        try:
            record = self._decode(claimed.record or b"")
        except InvalidPayload as exc:
            unreadable: ClaimedJob[Handler | None] = ClaimedJob(claimed, UNREADABLE_RECORD, None)
            self._put(self._outcome_of_unstarted(unreadable, reject_unreadable(claimed, str(exc), now_ms=time_ms)))
            return
        handler = self._find(record.name)
        if handler is None or claimed.meta or claimed.cancel:  # else nothing speaks against it, as for most jobs
            job = ClaimedJob(claimed, record, handler)
            decision = admit(job, self._rules, time_ms)
            if handler is None or not isinstance(decision, Start):
                self._put(self._outcome_of_unstarted(job, decision))
                return
        self._launch(RunningJob(claimed, record, handler, started=monotonic(), started_ms=time_ms))

    def _launch(self, job: RunningJob) -> None:
        state = self._state
        if job.id in state.running:  # its lease ran out, and this worker claimed it a second time
            self.lose(state.running[job.id])
        timeout = job.record.options.timeout or job.handler.timeout
        if timeout is not None:
            self._set_deadline(job, job.started + timeout)
        state.running[job.id] = job
        # Not the loop's `create_task`, which would ask the task factory: the job's own task is not one of its tasks.
        job.task = asyncio.Task(self._run(job), loop=state.loop, context=self._contexts.context_of(job))
        if job.claimed.cancel and self._rules.cancellable:
            state.loop.call_later(CANCEL_STANDING_AFTER_S, self.end_between_calls, job, Ending.CANCEL)

    def _outcome_of_unstarted(self, job: ClaimedJob[Handler | None], decision: Admission) -> Outcome:
        facts: dict[str, Any] = {"job_id": job.id, "job": job.record.name, "queue": self._queue}
        match decision:
            case DropCancelled():
                log.info("job_cancelled", **facts)
                return self._outcomes.cancelled(job)
            case Defer(delay_ms, since_ms):
                log.warning("job_unknown", **facts, again_in_ms=delay_ms)
                return Released(job.id, job.claimed.level, delay_ms, {UNKNOWN_SINCE_FIELD: since_ms})
            case Reject(reason, message):
                log.error("job_dead", **facts, reason=str(reason), error=message)
                return self._outcomes.rejected(job, reason, message)
            case Start():
                raise AssertionError("an admitted job was not started")
            case _ as other:
                assert_never(other)

    async def _run(self, job: RunningJob) -> None:
        bind_job(job)
        job.started = monotonic()  # tasks of jobs that were claimed together come one after the other
        try:
            value = await job.handler.call(job)
            while type(value) not in NEVER_AWAITABLE and hasattr(type(value), "__await__"):
                value = await value  # a plain function may return a coroutine
            if job.durable is not None or job.claimed.meta:
                await self._finish_stream(job)
        except BaseException as exc:  # noqa: BLE001  # what the user's code raises (sys.exit too) ends this job alone
            end_child(exc)
            if job.durable is not None:
                await self._flush_stream(job)
                with contextlib.suppress(asyncio.CancelledError):  # a second cancellation cuts the waiting
                    await job.durable.settle()
                await self._flush_stream(job)  # what a step has emitted that was waited for
            self._failed(job, exc)
        else:
            end_child()
            self._returned(job, value)

    async def _finish_stream(self, job: RunningJob) -> None:
        """Complete the stream of a job whose handler has returned, before its outcome."""
        if job.durable is None and job.has_stream:  # an earlier run has emitted, and this one has made no durable call
            self._state.open_durable(job)
        durable = job.durable
        if durable is None or durable.emitter is None or durable.closed:
            return
        if job.ending is None:
            await durable.emitter.finish()
        else:
            await self._flush_stream(job)

    async def _flush_stream(self, job: RunningJob) -> None:
        """Write what a job has emitted whose run ends early, if Redis takes it at once: nothing may delay the end."""
        durable = job.durable
        if durable is None or durable.emitter is None or durable.closed:
            return
        with contextlib.suppress(Exception, asyncio.CancelledError):
            async with asyncio.timeout(FLUSH_AT_END_S):
                await durable.emitter.flush()

    # --- stopping

    def _set_deadline(self, job: RunningJob, when: float) -> None:
        job.deadline = when
        if when < self._timer_at:
            self._set_timer(when)

    def _set_timer(self, when: float) -> None:
        """Set the timer to the earliest deadline. All jobs share it: one for each would cost more than a short job."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._state.loop.call_later(max(when - monotonic(), 0.0), self._stop_late_jobs)

    def _stop_late_jobs(self) -> None:
        now, self._timer, self._timer_at = monotonic(), None, float("inf")
        jobs = list(self._state.running.values())
        for job in jobs:
            if job.deadline is not None and job.deadline <= now:
                job.deadline = now + CANCEL_AGAIN_AFTER_S
                self.stop(job, Ending.TIMEOUT)
        first = min((job.deadline for job in jobs if job.deadline is not None), default=None)
        if first is not None:
            self._set_timer(first)

    def stop(self, job: RunningJob, ending: Ending) -> None:
        """Stop a running job. If it is stopped several times, the first reason counts."""
        self._note_ending(job, ending)
        if job.task is not None:
            job.task.cancel()
            # A task that is cancelled before it first runs never enters `_run`.
            job.task.add_done_callback(lambda _: self._failed(job, asyncio.CancelledError()))

    def end_between_calls(self, job: RunningJob, ending: Ending) -> None:
        """Stop a running job, unless it is being ended already.

        A plain handler that makes durable calls gets the cancellation from the call that it makes.
        """
        if self._state.running.get(job.id) is not job or job.ending is not None:
            return
        durable = job.durable
        if durable is not None and durable.in_thread:
            self._note_ending(job, ending)
            durable.hold.cancel()
        else:
            self.stop(job, ending)

    def suspend(self, job: RunningJob) -> None:
        """End a run whose handler only waits. Whatever it does then, its job waits without a slot."""
        if self._state.running.get(job.id) is not job or job.ending is not None:
            return
        durable = job.durable
        assert durable is not None
        self._note_ending(job, Ending.SUSPEND)
        others = [task for task in job.tasks or () if not task.done() and not durable.hold.awaits(task)]
        if others:
            log.warning(
                "suspended_with_tasks",
                job_id=job.id,
                job=job.record.name,
                tasks=[str(getattr(task.get_coro(), "__qualname__", task.get_name())) for task in others],
                reason="these tasks of the job are cut off and run again; make steps of them, or use ctx.busy()",
            )
        if durable.in_thread:
            durable.hold.cancel()
        elif job.task is not None:
            job.task.cancel()
        self._state.loop.call_later(ABANDON_SUSPENDED_AFTER_S, self._abandon_suspended, job)

    def _abandon_suspended(self, job: RunningJob) -> None:
        if self._state.running.get(job.id) is job:
            log.warning("job_ignores_suspension", job_id=job.id, job=job.record.name)
            if job.task is not None:
                job.task.cancel()
            self.abandon(job)

    def _note_ending(self, job: RunningJob, ending: Ending) -> None:
        if ending is Ending.CANCEL and job.ending is None:
            again = monotonic() + CANCEL_AGAIN_AFTER_S
            self._set_deadline(job, again if job.deadline is None else min(job.deadline, again))
        job.ending = job.ending or ending
        if job.context is not None:
            job.context.stopping = True
            job.context.ending = job.ending.value

    def lose(self, job: RunningJob) -> None:
        """Stop the job and discard its result, because another worker owns it now."""
        if self._free_slot(job):
            self.stop(job, Ending.LOST)
            self._track_orphan(job)
            self._state.wake_loop()
            self._ended(job, None, monotonic() - job.started, None)

    def abandon(self, job: RunningJob) -> None:
        """Release a job that does not end, because the process is about to exit."""
        if self._free_slot(job):
            self._track_orphan(job)
            seconds = monotonic() - job.started
            make = self._outcomes
            is_suspended = job.ending is Ending.SUSPEND
            outcome = make.suspended(job, seconds) if is_suspended else make.released(job, None)
            self._finish(job, outcome, seconds, None)

    def _track_orphan(self, job: RunningJob) -> None:
        task, orphans = job.task, self._state.orphaned_tasks
        if task is not None and not task.done():
            orphans.add(task)
            task.add_done_callback(orphans.discard)

    # --- ending

    def _free_slot(self, job: RunningJob) -> bool:
        """Take the job out of the running ones. Return False if it has left them before."""
        running = self._state.running
        if running.get(job.id) is not job:
            return False
        del running[job.id]
        if job.context is not None:
            job.context.ended = True
        if job.durable is not None:
            job.durable.close()
            for task in tuple(job.tasks or ()):
                task.cancel()
        if job.limits is not None:
            job.limits.close()
        if job.claimed is self._state.suspect:
            self._state.suspect = None
        return True

    def _returned(self, job: RunningJob, value: Any) -> None:
        if not self._free_slot(job):
            return
        seconds = monotonic() - job.started
        if job.ending is Ending.SUSPEND:
            self._finish(job, self._outcomes.suspended(job, seconds), seconds, None)
            return
        try:
            outcome = self._outcomes.completed(job, value, seconds)
        except BaseException as exc:  # noqa: BLE001  # the value can't be encoded, or its own code raised this
            self._fail(job, exc, Hopeless(), seconds)
        else:
            self._finish(job, outcome, seconds, None)

    def _failed(self, job: RunningJob, exc: BaseException) -> None:
        if not self._free_slot(job):
            return
        seconds = monotonic() - job.started
        if job.ending is Ending.SUSPEND:
            self._finish(job, self._outcomes.suspended(job, seconds), seconds, None)
            return
        if job.ending is Ending.TIMEOUT:
            limit = job.record.options.timeout or job.handler.timeout or 0.0
            late = TimeoutError(f"the job took longer than its timeout of {limit:g} s")
            exc = late.with_traceback(traceback_of(exc))
        self._fail(job, exc, self._judge(job, exc), seconds)

    def _judge(self, job: RunningJob, exc: BaseException) -> Verdict:
        match job.ending:
            case Ending.TIMEOUT:
                return Failed()
            case Ending.CANCEL:
                return CancelledOnRequest()
            case Ending.DRAIN:
                return Yielded()
            case None | Ending.LOST | Ending.SUSPEND:
                pass
            case _ as other:
                assert_never(other)
        if job.claimed.cancel and self._rules.cancellable:  # it was delivered so that it can undo its steps
            return CancelledOnRequest()
        try:
            return job.handler.judge(exc, job)
        except BaseException as problem:  # noqa: BLE001
            # The exception's own code may raise. A job that ended and is never recorded would hold its lease forever.
            _report("judge_failed", problem, job_id=job.id, job=job.record.name)
            return Failed()

    def _fail(self, job: RunningJob, exc: BaseException, verdict: Verdict, seconds: float) -> None:
        outcome, error = self._outcome_of_failed(job, exc, verdict)
        self._finish(job, outcome, seconds, error)

    def _outcome_of_failed(
        self, job: RunningJob, exc: BaseException, verdict: Verdict
    ) -> tuple[Outcome, AttemptError | None]:
        """Return the outcome and the error of a job that raised, whatever the user's serializers do.

        A job that ended and is never recorded would hold its slot and its lease forever.
        """
        try:
            return self._decide(job, exc, verdict)
        except BaseException as problem:  # noqa: BLE001  # the user's serializers; what describes `exc` never raises
            _report("job_not_concluded", problem, job_id=job.id, job=job.record.name)
            plain = RuntimeError(f"{class_name(exc)}, whose record could not be made: {name_exception(problem).line}")
        if isinstance(verdict, Failed | Hopeless):
            try:
                return self._decide(job, plain, Failed() if isinstance(verdict, Failed) else verdict)
            except BaseException as problem:  # noqa: BLE001  # the serializers refuse our own exceptions too
                _report("job_not_concluded", problem, job_id=job.id, job=job.record.name)
        return self._outcomes.released(job, FAULT_DELAY_S), self._outcomes.describe_error(job, plain)

    def _decide(self, job: RunningJob, exc: BaseException, verdict: Verdict) -> tuple[Outcome, AttemptError | None]:
        make = self._outcomes
        match verdict:
            case Yielded(after):
                return make.released(job, after), None
            case Snoozed(after, reason):
                return make.snoozed(job, after, reason), None
            case CancelledOnRequest():
                return make.cancelled(job), None
            case Hopeless(reason):
                error = make.describe_error(job, exc)
                return make.dead_lettered(job, error, reason, exc), error
            case Failed(after):
                error, options, handler = make.describe_error(job, exc), job.record.options, job.handler
            case _ as other:
                assert_never(other)
        own = options.backoff
        backoff = handler.backoff if own is None else parse_backoff(own, handler.backoff)
        attempts = options.attempts or handler.attempts
        roll = random.random()  # noqa: S311  # spreads retries, keeps no secret
        match decide_retry(
            backoff, attempt=job.attempt, attempts=attempts, after=after, roll=roll, past=job.past_attempts
        ):
            case GiveUp():
                return make.dead_lettered(job, error, DeadLetterReason.FAILED, exc), error
            case TryAgain(delay_ms):
                return make.rescheduled(job, delay_ms, error), error

    def _finish(self, job: RunningJob, outcome: Outcome, seconds: float, error: AttemptError | None) -> None:
        mean = self._state.mean_seconds
        self._state.mean_seconds = moving_mean(mean, seconds) if mean else seconds
        if self._wants_recorded or job.record.tick is not None:
            self.unrecorded[job.id] = job
        self._state.outbox.add(outcome)
        self._state.wake_loop()
        self._ended(job, outcome, seconds, error)  # last, since a log that fails must not keep the outcome from Redis

    def _put(self, outcome: Outcome) -> None:
        self._state.outbox.add(outcome)
        self._state.wake_loop()


def _report(event: str, exc: BaseException, **facts: object) -> None:
    """Log an error, if that is possible. The user's code may have set up logging that raises, which stops no job."""
    with contextlib.suppress(BaseException):
        log.error(event, **facts, error=name_exception(exc).line, exception=describe_traceback(exc))


def parse_backoff(wire: Any, base: Backoff) -> Backoff:
    """Return the backoff of a job's record, or `base` if another client wrote one that can't be read."""
    try:
        return Backoff.parse(wire, base)
    except (UsageError, TypeError, AttributeError):
        return base
