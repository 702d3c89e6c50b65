"""Drains a worker, from the signal to the exit (rule 5)."""

import asyncio
from collections.abc import Callable

import structlog

from agentqueue.clock import monotonic
from agentqueue.model.outcomes import Released
from agentqueue_worker.app.job import Ending
from agentqueue_worker.app.runner import Runner
from agentqueue_worker.app.state import WorkerState
from agentqueue_worker.domain.drain_plan import DrainPlan, plan_drain

log = structlog.get_logger("agentqueue.worker")


class Drain:
    """Carries out the drain plan. The first signal starts it, a second one shortens it."""

    def __init__(self, state: WorkerState, runner: Runner, *, began: Callable[[], None]) -> None:
        self._state = state
        self._runner = runner
        self._began = began
        self._plan: DrainPlan | None = None
        self._leases_out_at = float("inf")
        """Time by which leases from a claim with a lost reply have expired, in monotonic seconds."""
        self._changed = asyncio.Event()

    def begin(self, *, grace: float | None = None) -> None:
        """Stop claiming jobs. The second call stops running jobs too.

        Args:
            grace: seconds that running jobs get, by default those of the worker's options.
        """
        state = self._state
        now, options = monotonic(), state.options
        if self._plan is not None:
            self._plan = self._plan.hurry(now)
            log.warning("drain_hurried", running=len(state.running))
        else:
            grace = options.grace if grace is None else grace
            self._plan = plan_drain(now, grace=grace, margin=options.drain_margin)
            self._leases_out_at = now + options.engine.lease_ms / 1000
            state.draining = True
            log.info("drain_started", running=len(state.running), grace_seconds=grace)
            self._began()
        self._changed.set()
        state.wake_loop()

    async def run(self) -> None:
        """Carry out the plan after the signal. Return when the process must exit, whatever is left."""
        state = self._state
        await self._changed.wait()
        await self._reach(lambda plan: min(plan.stop_jobs_at, self._leases_out_at))
        holds_nothing = not (state.running or state.outbox or len(state.leases))
        if monotonic() >= self._leases_out_at and holds_nothing:
            # If Redis answered, the claim loop would have ended by itself.
            log.warning("drain_given_up", reason="Redis does not answer, and nothing that runs or has run waits for it")
            return
        await self._reach(lambda plan: plan.stop_jobs_at)
        for job in list(state.running.values()):
            self._runner.stop(job, Ending.DRAIN)
        await self._reach(lambda plan: plan.abandon_at)
        for job in list(state.running.values()):
            log.warning("job_abandoned", job_id=job.id, job=job.record.name)
            self._runner.abandon(job)
        if state.outbox.blocked_until is not None:
            # A full server does not take children. Their jobs are released, and run again.
            for outcome in state.outbox.take_all_with_children():
                state.outbox.add(Released(outcome.id, outcome.level))
            state.wake_loop()
        await self._reach(lambda plan: plan.exit_at)
        log.error("drain_overdue", held=len(state.leases))

    async def _reach(self, point: Callable[[DrainPlan], float]) -> None:
        """Sleep until that point of the plan. A second signal may move it forward."""
        while True:
            plan = self._plan
            assert plan is not None
            left_s = point(plan) - monotonic()
            if left_s <= 0:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                return
