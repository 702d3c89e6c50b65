"""Rule 5: from the signal to the exit."""

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
    """Begun by the first signal, hurried by the second."""

    def __init__(self, state: WorkerState, runner: Runner, *, began: Callable[[], None]) -> None:
        self._state = state
        self._runner = runner
        self._began = began
        self._plan: DrainPlan | None = None
        self._leases_out_at = float("inf")
        """What a claim whose answer is lost may have taken before the signal is given back by others from then on."""
        self._changed = asyncio.Event()

    def begin(self, *, grace: float | None = None) -> None:
        """No claim from this instant. The second time: running jobs are stopped now."""
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
        """After the signal, do each thing at its time. Returns when the process must exit, whatever is left."""
        await self._changed.wait()
        await self._reach(lambda plan: min(plan.stop_jobs_at, self._leases_out_at))
        if monotonic() >= self._leases_out_at and self._holds_nothing():
            log.warning("drain_given_up", reason="Redis does not answer, and nothing that runs or has run waits for it")
            return
        await self._reach(lambda plan: plan.stop_jobs_at)
        for job in list(self._state.running.values()):
            self._runner.stop(job, Ending.DRAIN)
        await self._reach(lambda plan: plan.abandon_at)
        for job in list(self._state.running.values()):
            log.warning("job_abandoned", job_id=job.id, job=job.record.name)
            self._runner.abandon(job)
        self._give_up_children()
        await self._reach(lambda plan: plan.exit_at)
        log.error("drain_overdue", held=len(self._state.leases))

    def _holds_nothing(self) -> bool:
        """With Redis there the claim loop would have ended: it waits for an answer."""
        state = self._state
        return not (state.running or state.outbox or len(state.leases))

    def _give_up_children(self) -> None:
        """A full server would not take them: the jobs go back, and run again."""
        if self._state.outbox.blocked_until is None:
            return
        for outcome in self._state.outbox.take_all_with_children():
            self._state.outbox.add(Released(outcome.id, outcome.level))
        self._state.wake_loop()

    async def _reach(self, point: Callable[[DrainPlan], float]) -> None:
        """Sleep until that point of the plan, which a second signal may bring nearer."""
        while True:
            plan = self._plan
            assert plan is not None
            left = point(plan) - monotonic()
            if left <= 0:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                return
