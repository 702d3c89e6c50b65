"""Claimed jobs that have not started yet: they start when slots are free, or go back."""

from collections.abc import Sequence

from agentqueue.clock import monotonic
from agentqueue.model.outcomes import RUNS_ALONE, SUSPECT_FIELD, Unstarted
from agentqueue.store import Engine, FinishAndClaimReply
from agentqueue_worker.app.runner import Runner
from agentqueue_worker.app.state import WorkerState
from agentqueue_worker.domain.claim_size import STALE_AFTER_S, STALE_MEAN_S
from agentqueue_worker.domain.start_order import MAX_OVERTAKEN, merge_claimed


class UnstartedJobs:
    """Starts the jobs of `WorkerState.claimed` and `WorkerState.suspect`."""

    def __init__(self, engine: Engine, state: WorkerState, runner: Runner) -> None:
        self._engine = engine
        self._state = state
        self._runner = runner
        self._will_start = False
        self._clock_ms = 0.0
        """Time of the clock of Redis minus the monotonic clock, in ms."""
        self.stale_at = float("inf")
        """When the jobs go back unless a slot becomes free before, in monotonic seconds."""

    def take(self, reply: FinishAndClaimReply, now: float) -> None:
        """Take the jobs that a round trip has claimed. Its reply came at `now`, in monotonic seconds."""
        state, jobs = self._state, reply.claimed
        if not jobs:
            return
        self._clock_ms = reply.now_ms - 1000 * now
        state.leases.take(jobs)
        running = state.running
        for job_id in [claimed.id for claimed in jobs if claimed.id in running]:
            self._runner.lose(running[job_id])  # its lease ran out, and this worker claimed it a second time
        state.started += len(jobs)
        if not state.claimed:
            self.stale_at = now + STALE_AFTER_S
        if jobs[-1].is_suspect:
            state.suspect, jobs = jobs[-1], jobs[:-1]
        if reply.aged:
            for job in jobs:
                job.overtaken = MAX_OVERTAKEN  # the script has put those that are old at their places among the others
        state.claimed = merge_claimed(state.claimed, jobs)

    def start_soon(self) -> None:
        """Start jobs in the next turn of the event loop."""
        if not self._will_start:
            self._will_start = True
            self._state.loop.call_soon(self.start)

    def start(self) -> None:
        """Start jobs in the free slots. In a drain, the runner puts all of them back instead."""
        self._will_start = False
        state, claimed = self._state, self._state.claimed
        count = len(claimed) if state.draining else min(state.open_slots, len(claimed))
        if count <= 0:
            return
        jobs = [claimed.popleft() for _ in range(count)]
        now = monotonic()
        if not state.draining:
            state.waits.add(jobs, round(self._clock_ms + 1000 * now))
        for job in jobs:
            self._runner.start(job)
        self.stale_at = now + STALE_AFTER_S

    async def start_suspect(self) -> None:
        """Start the suspect, beside which nothing runs. From then on, a crash of this worker counts for it.

        Raises:
            QueueUnavailable: Redis does not answer, and the suspect waits.
        """
        state, suspect = self._state, self._state.suspect
        if suspect is None:
            return
        if suspect.meta.get(SUSPECT_FIELD) != RUNS_ALONE.encode() and not state.draining:
            notes = {SUSPECT_FIELD: RUNS_ALONE}
            owner = state.options.identity.owner
            if not await self._engine.annotate(owner=owner, job_id=suspect.id, notes=notes):
                state.lose(suspect.id)
        if state.suspect is suspect:  # else its lease was lost
            self._runner.start(suspect)

    def put_back(self) -> None:
        """Put the jobs back, except for a suspect. Other workers may start them sooner."""
        state = self._state
        state.started -= len(state.claimed)
        for claimed in state.claimed:
            state.outbox.add(Unstarted(claimed.id, claimed.level))
        state.claimed.clear()

    def put_back_stale(self, now: float) -> bool:
        """Put the jobs back if no slot has become free for too long, and return whether they went back.

        Then jobs take longer than the worker has expected. `now` is in monotonic seconds.
        """
        state = self._state
        if not state.claimed or now < self.stale_at or state.open_slots > 0:
            return False
        self.put_back()
        state.mean_seconds = max(state.mean_seconds, STALE_MEAN_S)
        return True

    def cancel(self, ids: Sequence[str]) -> None:
        """Mark those of the jobs as cancelled that somebody asked to cancel, so that they end instead of starting."""
        if ids:
            for claimed in self._state.unstarted():
                claimed.cancel = claimed.cancel or claimed.id in ids
