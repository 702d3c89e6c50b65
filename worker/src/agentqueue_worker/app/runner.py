"""Runs claimed jobs, each in a task of its own, and turns the way each ends into an outcome."""

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
from agentqueue.model.job import JobRecord
from agentqueue.model.outcomes import Again, Claimed, HandBack, Outcome
from agentqueue.model.retry_policy import Backoff
from agentqueue_worker.app.forks import end_child
from agentqueue_worker.app.job import Ending, Handler, Job
from agentqueue_worker.app.log_context import JobContexts, bind_job
from agentqueue_worker.app.outcome_factory import Outcomes
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
from agentqueue_worker.domain.dead_letter import UNREADABLE_RECORD
from agentqueue_worker.domain.error_record import add_error
from agentqueue_worker.domain.retry import GiveUp, TryAgain, decide_retry
from agentqueue_worker.domain.verdict import Cancelled, Failed, Hopeless, Verdict, Yielded

AGAIN_AFTER = 5.0
"""Seconds after which a handler that swallowed its cancellation is cancelled once more."""
NEVER_AWAITABLE = frozenset((type(None), bool, int, float, str, dict, list))
"""What most handlers return; asking others whether they can be awaited takes longer."""
log = structlog.get_logger("agentqueue.worker")


class Ended(Protocol):
    """What is told of every end of a job: metrics and logs."""

    def __call__(self, job: Job, outcome: Outcome | None, seconds: float, error: AttemptError | None) -> None:
        """`outcome` None: the lease was lost, nothing is recorded."""
        ...


class Runner:
    """Starts jobs and collects their outcomes in the outbox."""

    def __init__(self, state: WorkerState, registry: Registry, *, ended: Ended, hidden: Sequence[str] = ()) -> None:
        self._state = state
        self._registry = registry
        self._queue = state.options.queue
        self._contexts = JobContexts(self._queue)
        self._decode = registry.codec.decode_job
        self._find = registry.find
        self._ended = ended
        self._make = Outcomes(state.options, registry.codec, hidden)
        self._rules = AdmissionRules(state.options.crash_limit, registry.unknown_grace_ms, registry.cancellable)
        self._wants_recorded = registry.wants_recorded
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = float("inf")
        self.unrecorded: dict[str, Job] = {}
        """Ended jobs whose registry wants to know when they are recorded."""
        state.lost = self.lose

    # --- starting

    def start(self, claimed: Claimed) -> None:
        """Run a claimed job, whose lease is taken, or say at once why it doesn't run."""
        try:
            self._start(claimed)
        except BaseException as exc:  # noqa: BLE001
            # Must not happen: but one job must not keep those that were claimed with it from starting.
            self._put(HandBack(claimed.id, claimed.level, round(AGAIN_AFTER * 1000)))
            _report("job_not_started", exc, job_id=claimed.id)

    def _start(self, claimed: Claimed) -> None:
        if self._state.draining:  # claimed by a step that was on its way when the signal came
            self._put(HandBack(claimed.id, claimed.level))
            return
        try:
            record = self._decode(claimed.record or b"")
        except InvalidPayload as exc:
            unreadable = reject_unreadable(claimed, str(exc), now_ms=now_ms())
            self._put(self._unrun_outcome(claimed, UNREADABLE_RECORD, unreadable))
            return
        handler = self._find(record.name)
        if handler is None or claimed.meta or claimed.cancel:
            verdict = self._screen(claimed, record, handler)
            if handler is None or not isinstance(verdict, Start):
                self._put(self._unrun_outcome(claimed, record, verdict))
                return
        self._launch(claimed, record, handler)

    def _screen(self, claimed: Claimed, record: JobRecord, handler: Handler | None) -> Admission:
        known, names = handler is not None, self._registry.names
        return admit(claimed, record.name, known=known, names=names, rules=self._rules, now_ms=now_ms())

    def _launch(self, claimed: Claimed, record: JobRecord, handler: Handler) -> None:
        state, started = self._state, monotonic()
        if claimed.id in state.running:  # its lease ran out, and it came back to this very worker
            self.lose(state.running[claimed.id])
        attempt = claimed.attempts + max(record.job_try or 1, 1)  # arq's `_job_try` is where counting starts
        job = Job(claimed, record, handler, attempt=attempt, started=started, started_ms=now_ms())
        timeout = record.options.timeout or handler.timeout
        if timeout is not None:
            job.deadline = started + timeout
            if job.deadline < self._alarm_at:
                self._set_alarm(job.deadline)
        state.running[claimed.id] = job
        job.task = state.loop.create_task(self._run(job), context=self._contexts.context_of(job))

    async def _run(self, job: Job) -> None:
        bind_job(job)
        try:
            value = await job.handler.call(job)
            while type(value) not in NEVER_AWAITABLE and hasattr(type(value), "__await__"):
                value = await value  # of a plain function that gives a coroutine, say
        except BaseException as exc:  # noqa: BLE001  # what the user's code raises (sys.exit too) ends this job alone
            end_child(exc)
            self._failed(job, exc)
        else:
            end_child()
            self._returned(job, value)

    # --- stopping

    def _set_alarm(self, when: float) -> None:
        """One timer for all jobs, at the earliest deadline: one for each would cost more than a short job does."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = when
        self._alarm = self._state.loop.call_later(max(when - monotonic(), 0.0), self._ring)

    def _ring(self) -> None:
        now, self._alarm, self._alarm_at = monotonic(), None, float("inf")
        jobs = list(self._state.running.values())
        for job in jobs:
            if job.deadline is not None and job.deadline <= now:
                job.deadline = now + AGAIN_AFTER
                self.stop(job, Ending.TIMEOUT)
        first = min((job.deadline for job in jobs if job.deadline is not None), default=None)
        if first is not None:
            self._set_alarm(first)

    def stop(self, job: Job, ending: Ending) -> None:
        """Stop a running job; `ending` tells how that counts. Of several the first one counts."""
        job.ending = job.ending or ending
        if job.context is not None:
            job.context.stopping = True
        if job.task is not None:
            job.task.cancel()
            # A task that is cancelled before its first step never gets into `_run`.
            job.task.add_done_callback(lambda _: self._failed(job, asyncio.CancelledError()))

    def lose(self, job: Job) -> None:
        """Another worker has the job: it is stopped, and what it comes to is dropped."""
        if self._leave(job):
            self.stop(job, Ending.LOST)
            self._stray(job)
            self._state.nudge()
            self._ended(job, None, monotonic() - job.started, None)

    def abandon(self, job: Job) -> None:
        """Hand back a job that does not end: the process is about to."""
        if self._leave(job):
            self._stray(job)
            self._finish(job, self._make.hand_back(job, None), monotonic() - job.started, None)

    def _stray(self, job: Job) -> None:
        task, orphaned_tasks = job.task, self._state.orphaned_tasks
        if task is not None and not task.done():
            orphaned_tasks.add(task)
            task.add_done_callback(orphaned_tasks.discard)

    # --- ending

    def _leave(self, job: Job) -> bool:
        """Free the job's slot. False: it has left already."""
        running = self._state.running
        if running.get(job.id) is not job:
            return False
        del running[job.id]
        return True

    def _returned(self, job: Job, value: Any) -> None:
        if not self._leave(job):
            return
        seconds = monotonic() - job.started
        job.success, job.result = True, value
        try:
            outcome = self._make.done(job, value, seconds)
        except BaseException as exc:  # noqa: BLE001  # the value's own way of being written, or that it has none
            job.success, job.result = False, exc
            self._conclude(job, exc, Hopeless(), seconds)
        else:
            self._finish(job, outcome, seconds, None)

    def _failed(self, job: Job, exc: BaseException) -> None:
        if not self._leave(job):
            return
        seconds = monotonic() - job.started
        if job.ending is Ending.TIMEOUT:
            limit = job.record.options.timeout or job.handler.timeout or 0.0
            late = TimeoutError(f"the job took longer than its timeout of {limit:g} s")
            exc = late.with_traceback(traceback_of(exc))
        job.result = exc
        self._conclude(job, exc, self._judge(job, exc), seconds)

    def _judge(self, job: Job, exc: BaseException) -> Verdict:
        match job.ending:
            case None | Ending.LOST:
                return self._ask(job, exc)
            case Ending.TIMEOUT:
                return Failed()
            case Ending.CANCEL:
                return Cancelled()
            case Ending.DRAIN:
                return Yielded()
            case _ as other:
                assert_never(other)

    def _ask(self, job: Job, exc: BaseException) -> Verdict:
        try:
            return job.handler.judge(exc, job)
        except BaseException as problem:  # noqa: BLE001
            # The exception's own attributes: but a job that ended and is never recorded would hold its lease for ever.
            _report("judge_failed", problem, job_id=job.id, job=job.record.name)
            return Failed()

    def _conclude(self, job: Job, exc: BaseException, verdict: Verdict, seconds: float) -> None:
        outcome, error = self._outcome(job, exc, verdict)
        self._finish(job, outcome, seconds, error)

    def _outcome(self, job: Job, exc: BaseException, verdict: Verdict) -> tuple[Outcome, AttemptError | None]:
        """What is recorded. A job that ended and is never recorded would hold its slot and its lease for ever."""
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
        return self._make.hand_back(job, AGAIN_AFTER), self._make.describe(job, plain)

    def _decide(self, job: Job, exc: BaseException, verdict: Verdict) -> tuple[Outcome, AttemptError | None]:
        match verdict:
            case Failed(after):
                return self._retry(job, exc, after)
            case Hopeless(reason):
                error = self._make.describe(job, exc)
                return self._make.buried(job, exc, error, reason), error
            case Yielded(after):
                return self._make.hand_back(job, after), None
            case Cancelled():
                return self._make.cancelled(job), None
            case _ as other:
                assert_never(other)

    def _retry(self, job: Job, exc: BaseException, after: float | None) -> tuple[Outcome, AttemptError]:
        options, error = job.record.options, self._make.describe(job, exc)
        backoff = (
            job.handler.backoff if options.backoff is None else parse_backoff(options.backoff, job.handler.backoff)
        )
        attempts = options.attempts or job.handler.attempts
        roll = random.random()  # noqa: S311  # spreads retries, keeps no secret
        match decide_retry(backoff, attempt=job.attempt, attempts=attempts, after=after, roll=roll):
            case GiveUp():
                return self._make.buried(job, exc, error, DeadLetterReason.FAILED), error
            case TryAgain(delay_ms):
                notes = {**(job.unsaved or {}), "errors": add_error(job.claimed.meta, error)}
                return Again(job.id, job.claimed.level, delay_ms, notes), error

    def _finish(self, job: Job, outcome: Outcome, seconds: float, error: AttemptError | None) -> None:
        self._state.mean_seconds = moving_mean(self._state.mean_seconds, seconds)
        if self._wants_recorded:
            self.unrecorded[job.id] = job
        self._put(outcome)
        self._ended(job, outcome, seconds, error)  # last: what goes wrong with the telling must not keep it from Redis

    def _put(self, outcome: Outcome) -> None:
        self._state.outbox.add(outcome)
        self._state.nudge()

    # --- jobs that don't run

    def _unrun_outcome(self, claimed: Claimed, record: JobRecord, verdict: Admission) -> Outcome:
        handler = self._find(record.name)
        keep_ms = self._state.options.keep_ms if handler is None else handler.keep_ms
        match verdict:
            case DropCancelled():
                log.info("job_cancelled", job_id=claimed.id, job=record.name, queue=self._queue)
                return self._make.cancelled_unrun(claimed, record, keep_ms)
            case Defer(delay_ms, since_ms):
                log.warning("job_unknown", job_id=claimed.id, job=record.name, queue=self._queue, again_in_ms=delay_ms)
                return HandBack(claimed.id, claimed.level, delay_ms, {UNKNOWN_SINCE_FIELD: since_ms})
            case Reject(reason, message):
                facts = {"job_id": claimed.id, "job": record.name, "queue": self._queue}
                log.error("job_dead", **facts, reason=str(reason), error=message)
                return self._make.buried_unrun(claimed, record, reason, message, keep_ms)
            case Start():
                raise AssertionError("a job that may run was not started")
            case _ as other:
                assert_never(other)


def _report(event: str, exc: BaseException, **facts: object) -> None:
    """Log it, as far as that is possible: the user's code may have set up logs of its own, which must stop no job."""
    with contextlib.suppress(BaseException):
        log.error(event, **facts, error=name_exception(exc).line, exception=describe_traceback(exc))


def parse_backoff(wire: Any, base: Backoff) -> Backoff:
    """The backoff of a job's record; the handler's, where another client wrote what can't be read."""
    try:
        return Backoff.parse(wire, base)
    except (UsageError, TypeError, AttributeError):
        return base
