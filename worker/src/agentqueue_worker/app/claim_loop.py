"""The claim loop of a worker.

Each round trip to Redis records finished jobs and claims new ones. Only one is in flight at a time. Short jobs are
claimed ahead of free slots, so that a slot that becomes free has its next job at once.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from agentqueue.clock import monotonic
from agentqueue.errors import QueueFull, QueueUnavailable, UnsupportedServer
from agentqueue.model.json import MAX_BYTES
from agentqueue.model.outcomes import MAX_BYTES_PER_CALL, Unstarted
from agentqueue.store import Engine, FinishAndClaimReply
from agentqueue.store.limits import Limits
from agentqueue_worker.app.job import Ending
from agentqueue_worker.app.ports import Registry
from agentqueue_worker.app.runner import Runner
from agentqueue_worker.app.state import WorkerState
from agentqueue_worker.app.telemetry import Telemetry
from agentqueue_worker.app.unstarted_jobs import UnstartedJobs
from agentqueue_worker.domain.claim_size import (
    ahead_limit,
    claim_limit,
    interval,
    moving_mean,
)
from agentqueue_worker.domain.gate import RECHECK_S, SETTLING_S, admit_claims
from agentqueue_worker.domain.outbox import Batch
from agentqueue_worker.domain.priority_ageing import AgeCredit

UNAVAILABLE_ERRORS: Final = (QueueUnavailable, UnsupportedServer)
"""Errors after which a command is sent again."""
FIRST_RETRY_DELAY_S: Final = 0.05
"""Seconds until the first retry while Redis is unavailable. A failover often takes less than a second."""
MAX_RETRY_DELAY_S: Final = 2.0
"""Maximum seconds between retries while Redis is unavailable. A worker sends one small command per retry."""
REDIS_FULL_RETRY_DELAY_S: Final = 1.0
"""Seconds until outcomes that a full server refused are sent again. Each try sends up to 4 MiB."""
WAKE_WAIT_S: Final = 5
"""Seconds that one blocking wait for a wake-up token lasts, so that a dead connection is noticed."""
FULL_BATCH: Final = 32
"""Number of outcomes that are sent before the interval between two round trips is over."""
log = structlog.get_logger("agentqueue.worker")


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """Request of one round trip. It is sent until it is answered, with the same number and arguments.

    Once the worker drains, it is resent with `want` 0: it returns the jobs that the first send claimed, and claims
    no new ones.
    """

    seq: int
    want: int
    free: int
    is_idle: bool
    age_credit: int
    batch: Batch
    watch: tuple[str, ...]


class ClaimLoop:
    """Claims the jobs of one queue, and records their outcomes."""

    def __init__(
        self, engine: Engine, state: WorkerState, runner: Runner, registry: Registry, telemetry: Telemetry
    ) -> None:
        self._engine = engine
        self._state = state
        self._runner = runner
        self._registry = registry
        self._telemetry = telemetry
        self._owner = state.options.identity.owner
        self._limits = Limits(engine.server) if state.options.limits else None
        self._credit = AgeCredit()
        self._unstarted = UnstartedJobs(engine, state, runner)
        self._seq = 0
        self._claim_at = 0.0
        """When to claim next, in monotonic seconds. After a full claim or a wake-up that is at once."""
        self._poll_at = 0.0
        self._hold_until = 0.0
        """Before this time there is no round trip while no slot waits for a job, in monotonic seconds."""
        self._is_holding = False
        self._waiter: asyncio.Future[None] | None = None
        self._is_full = True
        """The last claim has filled all slots, so that the worker needs no wake-up."""
        self._may_have_left_jobs = True
        """The last claim may have left jobs that were due. If it has not, no job can have waited for long."""
        self._wants_wakeup = asyncio.Event()
        """Set while the worker listens for wake-ups. See `_listen`."""
        self._queue_is_empty = False
        """The last claim found no job, and none will come by itself."""
        state.wake_loop = self.wake_loop
        state.listen = self._listen

    def wake_loop(self) -> None:
        """Make the loop check its state now, because a job ended or something changed."""
        state, waiter = self._state, self._waiter
        if state.claimed:
            self._unstarted.start_soon()
            if self._is_holding and len(state.outbox) < FULL_BATCH and not state.draining:
                return
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def run(self) -> None:
        """Send round trips until the worker drains, or until the queue is empty in burst mode, and all is recorded."""
        state = self._state
        while not (state.heartbeat_is_fresh or state.draining):
            await self._wait_until_woken()
        while True:
            idle = not (state.running or state.claimed or state.suspect or state.outbox)
            burst_ended = state.options.burst and (self._queue_is_empty or state.start_limit_reached)
            if idle and (state.draining or burst_ended):
                return
            now = monotonic()
            if self._unstarted.put_back_stale(now):
                self._queue_is_empty, self._claim_at = False, now
            if state.suspect_waits:
                await self._start_suspect()
            elif self._is_due(now):
                await self._make_round_trip(now)
            else:
                await self._sleep(now)

    def _is_due(self, now: float) -> bool:
        """Return True if there is a reason for a round trip."""
        state = self._state
        if now >= self._poll_at:
            return True
        if now < self._hold_until and state.claimed and len(state.outbox) < FULL_BATCH and not state.draining:
            return False
        return state.outbox.ready(now) or (now >= self._claim_at and state.want > 0)

    async def _sleep(self, now: float) -> None:
        """Wait until the next round trip is due, or until the loop is woken."""
        state = self._state
        if state.claimed and now < self._hold_until:
            self._is_holding = True
            until, wake = min(self._poll_at, self._hold_until), self._end_hold
        else:
            wake = self.wake_loop
            until = min(self._poll_at, self._claim_at) if state.want else self._poll_at
            if state.outbox and state.outbox.blocked_until is not None:
                until = min(until, state.outbox.blocked_until)
            if state.claimed:
                until = min(until, self._unstarted.stale_at)
        timer = state.loop.call_later(max(until - now, 0.0005), wake)
        try:
            await self._wait_until_woken()
        finally:
            self._is_holding = False
            timer.cancel()

    def _end_hold(self) -> None:
        # uvloop rounds delays to milliseconds. Waiting for the rest of one would turn the event loop without a pause.
        self._is_holding, self._hold_until = False, 0.0
        self.wake_loop()

    async def _wait_until_woken(self) -> None:
        self._waiter = self._state.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # --- one round trip

    async def _make_round_trip(self, now: float) -> None:
        admitted = None
        if self._limits is not None and self._state.want:
            admitted = await self._ask_gate(self._limits)
        trip = self._compose(now, admitted)
        sent_at = monotonic()
        try:
            reply = await self._send(trip)
        except QueueFull as exc:
            # Redis has recorded and claimed nothing. The jobs keep their leases, and their outcomes are sent again.
            self._telemetry.redis_full(exc)
            self._state.claiming = False
            self._state.outbox.refused(trip.batch, retry_at=monotonic() + REDIS_FULL_RETRY_DELAY_S)
            return
        state, seconds = self._state, monotonic() - sent_at
        before = state.round_trip_seconds
        state.round_trip_seconds = moving_mean(before, seconds) if before else seconds
        self._hold_until = sent_at + interval(state.mean_seconds)
        self._telemetry.round_trip_made(seconds, len(trip.batch.outcomes), len(reply.claimed))
        self._handle_reply(trip, reply)

    async def _ask_gate(self, limits: Limits) -> int:
        """Return how many jobs may start as far as the agent's limits have room for those that wait."""
        state = self._state
        recent = monotonic() - SETTLING_S
        starting = len(state.claimed) + sum(
            job.started > recent and not (job.limits is not None and job.limits.has_asked)
            for job in state.running.values()
        )
        try:
            waiting = await limits.count_waiting(state.queue, state.options.limits)
            admitted = admit_claims(state.want, waiting, starting)
        except UNAVAILABLE_ERRORS as exc:
            self._telemetry.redis_failed(exc)
            admitted = 0
        if not admitted:
            self._queue_is_empty, self._claim_at = False, monotonic() + RECHECK_S
        return admitted

    def _compose(self, now: float, admitted: int | None) -> RoundTrip:
        state = self._state
        batch = state.outbox.take(now)
        ahead = state.ahead
        if ahead and not state.holds_ahead:  # readers of the heartbeat must not take these jobs for stalled ones
            state.holds_ahead = ahead_limit(state.options.concurrency)
            state.renew_soon()
        limit = claim_limit(state.options.concurrency, state.mean_seconds, ahead)
        want = 0 if batch.has_children else min(state.want, limit)
        if admitted is not None:
            want = min(want, admitted)
        watch: tuple[str, ...] = ()
        if now >= self._poll_at:
            self._poll_at = now + state.options.poll
            watch = (*state.running, *(claimed.id for claimed in state.unstarted()))
            if not (ahead or state.claimed):
                state.holds_ahead = 0
        self._seq += 1
        state.claiming = want > 0
        is_idle = not (state.running or state.claimed or state.suspect)
        age_credit = self._credit.offer(want, some_may_be_old=self._may_have_left_jobs)
        return RoundTrip(self._seq, want, max(state.free, 0), is_idle, age_credit, batch, watch)

    async def _send(self, trip: RoundTrip) -> FinishAndClaimReply:
        delay, want = FIRST_RETRY_DELAY_S, trip.want
        while True:
            try:
                reply = await self._engine.finish_and_claim(
                    seq=trip.seq,
                    owner=self._owner,
                    want=want,
                    age_credit=trip.age_credit,
                    free=trip.free,
                    is_idle=trip.is_idle,
                    outcomes=trip.batch.outcomes,
                    watch=trip.watch,
                )
            except UNAVAILABLE_ERRORS as exc:
                self._telemetry.redis_failed(exc)
                await asyncio.sleep(delay)
                delay = min(delay * 2, MAX_RETRY_DELAY_S)
                want = 0 if self._state.draining or self._state.drain_requested_ms else want
            else:
                self._telemetry.redis_answered()
                return reply

    async def _start_suspect(self) -> None:
        try:
            await self._unstarted.start_suspect()
        except UNAVAILABLE_ERRORS as exc:
            self._telemetry.redis_failed(exc)
            await asyncio.sleep(FIRST_RETRY_DELAY_S)

    # --- its reply

    def _handle_reply(self, trip: RoundTrip, reply: FinishAndClaimReply) -> None:
        state, now = self._state, monotonic()
        if trip.batch.outcomes:
            self._mark_recorded(trip.batch, reply.lost)
        self._unstarted.take(reply, now)
        state.claiming = False
        if state.drain_requested_ms and (trip.want or trip.batch.outcomes):
            state.renew_soon()
        if reply.wrong_type_keys:
            self._telemetry.wrong_type_keys(reply.wrong_type_keys)
        if self._registry.cancellable:
            for job_id in reply.cancel:  # until the job ends, each poll names it again
                if job_id in state.running and state.running[job_id].ending is None:
                    self._runner.stop(state.running[job_id], Ending.CANCEL)
            self._unstarted.cancel(reply.cancel)
        state.paused = reply.paused
        if reply.paused:
            self._unstarted.put_back()
        self._credit.settle(started=len(reply.claimed), aged=reply.aged)
        if trip.want:
            self._schedule_claim(trip, reply, now)
        elif trip.batch.has_children:  # its jobs may have enqueued some for this very queue
            self._queue_is_empty, self._claim_at = False, now
        if state.want:
            # The next round trip is sent before these jobs start, so that the server works while they run.
            self._unstarted.start_soon()
        else:
            self._unstarted.start()

    def _mark_recorded(self, batch: Batch, lost: Sequence[str]) -> None:
        state, unrecorded = self._state, self._runner.unrecorded
        state.outbox.accepted(batch)
        state.leases.drop([outcome.id for outcome in batch.outcomes])
        state.finished += len([1 for outcome in batch.outcomes if type(outcome) is not Unstarted])
        if lost:
            self._telemetry.lost(lost)
        if unrecorded:
            for outcome in batch.outcomes:
                job = unrecorded.pop(outcome.id, None)
                if job is None:
                    continue
                if self._registry.wants_recorded:
                    state.spawn(self._registry.on_recorded(job))
                if job.record.tick is not None and job.id not in lost:
                    state.tick_ended(job, outcome)

    def _schedule_claim(self, trip: RoundTrip, reply: FinishAndClaimReply, now: float) -> None:
        """Decide when to claim next."""
        claimed = reply.claimed
        full = len(claimed) >= trip.want or self._state.suspect is not None  # beside a suspect, jobs may have gone back
        if not full:  # a claim that ended at the limit of a round trip's bytes may have left jobs in the queue
            full = sum(len(job.record or b"") for job in claimed) > MAX_BYTES_PER_CALL - MAX_BYTES
        awaits_due = self._state.options.burst_delayed and reply.next_due_ms is not None
        self._queue_is_empty = not claimed and reply.retry_after_ms is None and not awaits_due
        if reply.retry_after_ms is not None:
            self._claim_at = now + reply.retry_after_ms / 1000
        elif full:
            self._claim_at = now
        elif reply.next_due_ms is not None:
            self._claim_at = now + max(reply.next_due_ms - reply.now_ms, 1) / 1000
        else:
            self._claim_at = float("inf")
        self._is_full = full
        self._may_have_left_jobs = full or reply.retry_after_ms is not None
        self._listen()

    # --- wake-ups

    def _listen(self) -> None:
        """Listen while slots are free and the queue has no job for them, or while a job waits in its slot."""
        if self._is_full and not self._state.awaits_news:
            self._wants_wakeup.clear()
        else:
            self._wants_wakeup.set()

    async def listen(self) -> None:
        """Wait for wake-up tokens and for news of jobs that wait in their slots, until cancelled."""
        state = self._state
        while True:
            await self._wants_wakeup.wait()
            tokens = state.want > 0 or not state.awaits_news  # a full worker must not take the tokens of others
            try:
                woken = await self._engine.wait_for_wakeup(
                    WAKE_WAIT_S if tokens else state.options.poll, self._owner, tokens=tokens
                )
                if woken is not None and woken.job_id is None and not state.want:
                    await self._engine.wake_another_worker()  # a worker with a free slot needs the token
                    self._is_full = True
                    self._listen()
            except (*UNAVAILABLE_ERRORS, QueueFull):
                await asyncio.sleep(MAX_RETRY_DELAY_S)  # the claim loop reports the error
                continue
            if woken is None:
                self._listen()
            elif woken.job_id is None:
                self._claim_at = 0.0
                self.wake_loop()
            else:
                for job in state.waiting_jobs:
                    if job.id == woken.job_id and job.durable is not None:
                        job.durable.hold.tell_news()
                for job in state.limited_jobs:
                    if job.id == woken.job_id and job.limits is not None:
                        job.limits.ask_now()
