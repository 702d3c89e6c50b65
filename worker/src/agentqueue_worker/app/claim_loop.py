"""The claim loop: one step in flight, which takes along what ended and brings what fits."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from agentqueue.clock import monotonic
from agentqueue.errors import QueueFull, QueueUnavailable, UnsupportedServer
from agentqueue.model.json import MAX_BYTES
from agentqueue.model.outcomes import MAX_BYTES_PER_CALL, Claimed
from agentqueue.store import Engine, FinishAndClaimReply
from agentqueue_worker.app.job import Ending
from agentqueue_worker.app.ports import Registry
from agentqueue_worker.app.runner import Runner
from agentqueue_worker.app.state import WorkerState
from agentqueue_worker.app.telemetry import Telemetry
from agentqueue_worker.domain.claim_size import claim_limit
from agentqueue_worker.domain.outbox import Batch
from agentqueue_worker.domain.priority_ageing import AgeCredit

UNAVAILABLE_ERRORS: Final = (QueueUnavailable, UnsupportedServer)
FIRST_RETRY_DELAY_S: Final = 0.05
MAX_RETRY_DELAY_S: Final = 2.0
"""Seconds between tries while Redis is away: short, since every worker sends one small command per try."""
REDIS_FULL_RETRY_DELAY_S: Final = 1.0
"""Seconds until outcomes that a full server refused are tried again."""
WAKE_WAIT_S: Final = 5
log = structlog.get_logger("agentqueue.worker")


@dataclass(frozen=True, slots=True)
class Step:
    """What one round trip asks. It is sent until it is answered, with the same number and arguments.

    But no job is wanted any more once the worker drains, by a signal or a mark: a copy brings what an earlier one took
    and takes none.
    """

    seq: int
    want: int
    aged: int
    batch: Batch
    watch: tuple[str, ...]


class ClaimLoop:
    """Drives one queue. `run` ends when the worker drains and all is recorded, or in burst mode the queue is empty."""

    def __init__(
        self, engine: Engine, state: WorkerState, runner: Runner, registry: Registry, telemetry: Telemetry
    ) -> None:
        self._engine = engine
        self._state = state
        self._runner = runner
        self._registry = registry
        self._telemetry = telemetry
        self._owner = state.options.identity.owner
        self._credit = AgeCredit()
        self._seq = 0
        self._claim_at = 0.0
        """When to claim next, monotonic: at once after a full claim or a wake-up, else when a job comes due."""
        self._poll_at = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._hungry = asyncio.Event()
        """Set while slots are free and the queue had no job for them."""
        self._dry = False
        state.wake_loop = self.wake_loop

    def wake_loop(self) -> None:
        """Look at once: something ended, or changed."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def run(self) -> None:
        """Step whenever there is reason to."""
        while not (self._state.admitted or self._state.draining):
            await self._woken()
        while not self._is_over():
            now = monotonic()
            if self._due(now):
                await self._step(now)
            else:
                await self._wait(now)

    def _is_over(self) -> bool:
        state = self._state
        if state.running or state.claimed or state.outbox:
            return False
        return state.draining or (state.options.burst and (self._dry or state.start_limit_reached))

    def _due(self, now: float) -> bool:
        state = self._state
        return state.outbox.ready(now) or now >= self._poll_at or (now >= self._claim_at and state.want > 0)

    async def _wait(self, now: float) -> None:
        state = self._state
        until = min(self._poll_at, self._claim_at) if state.want else self._poll_at
        if state.outbox and state.outbox.blocked_until is not None:
            until = min(until, state.outbox.blocked_until)
        timer = state.loop.call_later(max(until - now, 0.0005), self.wake_loop)
        try:
            await self._woken()
        finally:
            timer.cancel()

    async def _woken(self) -> None:
        self._waiter = self._state.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # --- one step

    async def _step(self, now: float) -> None:
        step = self._compose(now)
        sent = monotonic()
        try:
            reply = await self._send(step)
        except QueueFull as exc:
            self._blocked(step, exc)
            return
        self._telemetry.stepped(monotonic() - sent, len(step.batch.outcomes), len(reply.claimed))
        self._absorb(step, reply)

    def _compose(self, now: float) -> Step:
        state = self._state
        batch = state.outbox.take(now)
        want = 0 if batch.has_children else min(state.want, claim_limit(state.options.concurrency, state.mean_seconds))
        watch: tuple[str, ...] = ()
        if now >= self._poll_at:
            self._poll_at = now + state.options.poll
            watch = tuple(state.running)
        self._seq += 1
        state.claiming = want > 0
        return Step(self._seq, want, self._credit.offer(want), batch, watch)

    async def _send(self, step: Step) -> FinishAndClaimReply:
        wait, want = FIRST_RETRY_DELAY_S, step.want
        while True:
            try:
                reply = await self._engine.finish_and_claim(
                    seq=step.seq,
                    owner=self._owner,
                    want=want,
                    aged=step.aged,
                    outcomes=step.batch.outcomes,
                    watch=step.watch,
                )
            except UNAVAILABLE_ERRORS as exc:
                self._telemetry.redis_failed(exc)
                await asyncio.sleep(wait)
                wait = min(wait * 2, MAX_RETRY_DELAY_S)
                want = 0 if self._state.draining or self._state.mark else want
            else:
                self._telemetry.redis_answered()
                return reply

    def _blocked(self, step: Step, exc: QueueFull) -> None:
        """Nothing was done: the jobs keep their leases, and their outcomes are tried again."""
        self._telemetry.blocked(exc)
        self._state.claiming = False
        self._state.outbox.refused(step.batch, retry_at=monotonic() + REDIS_FULL_RETRY_DELAY_S)

    # --- its answer

    def _absorb(self, step: Step, reply: FinishAndClaimReply) -> None:
        state, now = self._state, monotonic()
        if step.batch.outcomes:
            self._settle(step.batch, reply.lost)
        if reply.claimed:
            self._take(reply.claimed, reply.now_ms)
        state.claiming = False
        if state.mark and (step.want or step.batch.outcomes):
            state.renew_soon()
        if reply.wrong_type_keys:
            self._telemetry.wrong_type_keys(reply.wrong_type_keys)
        for job_id in reply.cancel:
            self._cancel(job_id)
        state.paused = reply.paused
        self._credit.settle(offered=step.aged, started=len(reply.claimed))
        if step.want:
            self._plan(step, reply, now)
        elif step.batch.has_children:  # its jobs may have enqueued some for this very queue
            self._dry, self._claim_at = False, now

    def _take(self, jobs: Sequence[Claimed], now_ms: int) -> None:
        """Hold the jobs from now on, and start them as soon as the loop comes round.

        By then the next step is on its way, if one is due: the server works on it while these jobs run.
        """
        state = self._state
        for claimed in jobs:
            state.leases.take(claimed)
        state.waits.add(jobs, now_ms)
        state.started += len(jobs)
        state.claimed += jobs
        state.loop.call_soon(self._start)

    def _start(self) -> None:
        jobs, self._state.claimed = self._state.claimed, []
        for claimed in jobs:
            self._runner.start(claimed)

    def _settle(self, batch: Batch, lost: Sequence[str]) -> None:
        state = self._state
        state.outbox.accepted(batch)
        state.finished += len(batch.outcomes)
        leases = state.leases
        for outcome in batch.outcomes:
            leases.drop(outcome.id)
        if lost:
            self._telemetry.lost(lost)
        if self._runner.unrecorded:
            self._tell_recorded(batch)

    def _tell_recorded(self, batch: Batch) -> None:
        for outcome in batch.outcomes:
            job = self._runner.unrecorded.pop(outcome.id, None)
            if job is not None:
                self._state.spawn(self._registry.recorded(job))

    def _cancel(self, job_id: str) -> None:
        job = self._state.running.get(job_id)
        if job is not None and self._registry.cancellable:
            self._runner.stop(job, Ending.CANCEL)

    def _plan(self, step: Step, reply: FinishAndClaimReply, now: float) -> None:
        """When to claim next."""
        got = len(reply.claimed)
        full = got >= step.want or (got > 0 and _is_cut_short(reply.claimed))
        self._dry = got == 0 and reply.retry_after_ms is None and not self._awaits(reply)
        if reply.retry_after_ms is not None:
            self._claim_at = now + reply.retry_after_ms / 1000
        elif full:
            self._claim_at = now
        elif reply.next_due_ms is not None:
            self._claim_at = now + max(reply.next_due_ms - reply.now_ms, 1) / 1000
        else:
            self._claim_at = float("inf")
        if full:
            self._hungry.clear()
        else:
            self._hungry.set()

    def _awaits(self, reply: FinishAndClaimReply) -> bool:
        return self._state.options.burst_delayed and reply.next_due_ms is not None

    # --- waking up

    async def listen(self) -> None:
        """Wait for wake-up tokens while the queue is empty and slots are free, until cancelled."""
        while True:
            await self._hungry.wait()
            try:
                woken = await self._engine.wait_for_wakeup(WAKE_WAIT_S)
                if woken and not self._state.want:
                    await self._engine.wake_another_worker()  # the token was for somebody who can take a job
                    self._hungry.clear()
            except (*UNAVAILABLE_ERRORS, QueueFull):
                await asyncio.sleep(MAX_RETRY_DELAY_S)  # the loop itself tells of it
                continue
            if woken:
                self._claim_at = 0.0
                self.wake_loop()


def _is_cut_short(claimed: Sequence[Claimed]) -> bool:
    """The claim ended at the limit of a step's bytes: there may be more."""
    return sum(len(job.record or b"") for job in claimed) > MAX_BYTES_PER_CALL - MAX_BYTES
