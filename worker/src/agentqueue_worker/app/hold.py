"""Keeps a job that only waits in its slot for a while, and then has it suspended."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from agentqueue.clock import monotonic
from agentqueue_worker.app.job import RunningJob
from agentqueue_worker.app.job_tasks import creator_of
from agentqueue_worker.app.state import WorkerState
from agentqueue_worker.domain.hold import hold_seconds

RECHECK_S: Final = 0.05
"""Seconds between two looks at a job that waits in its slot: the other slots may fill up meanwhile."""


class HeldRun(Protocol):
    """A run that may wait, `agentqueue_worker.app.durable_run.DurableRun`."""

    job: RunningJob
    state: WorkerState
    closed: bool
    last_sign_of_life: float

    @property
    def in_flight(self) -> int:
        """Number of steps and calls that a suspension must not cut."""
        ...


@dataclass(slots=True, eq=False)
class _Wait:
    """A wait of the handler that has no answer yet."""

    fields: Sequence[str]
    until: float | None
    """When it ends by itself, in monotonic seconds."""
    needs_event: bool
    """A signal or a child may end it."""
    ended: asyncio.Future[None]
    task: "asyncio.Task[Any] | None"


class Hold:
    """The waits of one run. When the handler does nothing but wait for as long as the rule says, the run is suspended.

    A run is not suspended while a step runs, a durable call is on its way to Redis, or the handler is in `ctx.busy()`.
    """

    def __init__(self, run: HeldRun) -> None:
        self._run = run
        self._waits: set[_Wait] = set()
        self._busy = 0
        self._timer: asyncio.TimerHandle | None = None
        self.fields: tuple[str, ...] = ()
        """Fields of the journal for which the run was suspended."""

    async def wait(self, fields: Sequence[str], seconds: float | None, *, needs_event: bool) -> None:
        """Wait until there is news of the job, or for some seconds. The run may be suspended meanwhile.

        Args:
            fields: fields of the journal with the waits. If one gets its answer, a suspended job goes on.
            seconds: time until one of them ends by itself; None if none does.
            needs_event: True if a signal or a child may end it earlier.
        """
        run = self._run
        loop, now = run.state.loop, monotonic()
        until = None if seconds is None else now + max(seconds, 0.0)
        wait = _Wait(fields, until, needs_event, loop.create_future(), asyncio.current_task())
        timer = None if until is None else loop.call_later(until - now, _end, wait)
        self._waits.add(wait)
        run.state.waiting_jobs.add(run.job)
        run.state.listen()
        run.last_sign_of_life = now
        self.check()
        try:
            await wait.ended
        finally:
            if timer is not None:
                timer.cancel()
            self._waits.discard(wait)
            if not self._waits:
                run.state.waiting_jobs.discard(run.job)
            run.last_sign_of_life = monotonic()

    def tell_news(self) -> None:
        """Let every wait ask again, since something has come for the job."""
        for wait in self._waits:
            _end(wait)

    def cancel(self) -> None:
        """Cancel every wait. In the thread of a plain handler, the call that waits raises."""
        for wait in self._waits:
            wait.ended.cancel()

    def awaits(self, task: "asyncio.Task[Any]") -> bool:
        """Return whether a task does nothing but wait, or has started tasks that do: it most likely awaits them."""
        waiting = {wait.task for wait in self._waits}
        return task in waiting or any(creator_of(other) is task for other in waiting if other is not None)

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """Keep the run from being suspended."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self._run.last_sign_of_life = monotonic()
            self.check()

    @property
    def is_busy(self) -> bool:
        """True while the handler is in `ctx.busy()`."""
        return self._busy > 0

    # --- the rule

    def check(self) -> None:
        """Look soon whether the run has only waited for long enough. Call it when it may have begun to only wait."""
        if self._timer is None and self._only_waits():
            self._timer = self._run.state.loop.call_later(min(self._left(), RECHECK_S), self._decide)

    def _only_waits(self) -> bool:
        run = self._run
        is_at_work = run.in_flight or self._busy or run.closed or run.job.ending is not None
        return bool(self._waits) and not is_at_work

    def _left(self) -> float:
        """Return the seconds until the run is suspended."""
        run, now = self._run, monotonic()
        state = run.state
        ends = [wait.until - now for wait in self._waits if wait.until is not None]
        is_for_time = bool(ends) and not any(wait.needs_event for wait in self._waits)
        hold = hold_seconds(
            free_slots=state.free,
            has_suspect=state.suspect is not None,
            draining=state.draining or state.drain_requested,
            burst=state.options.burst,
            only_time_from=min(ends) if is_for_time else None,
        )
        return max(run.last_sign_of_life + hold - now, 0.0)

    def _decide(self) -> None:
        self._timer = None
        if not self._only_waits():
            return
        if self._left() > 0.0:
            self.check()
            return
        self.fields = tuple(field for wait in self._waits for field in wait.fields)
        self._run.state.suspend(self._run.job)


def _end(wait: _Wait) -> None:
    if not wait.ended.done():
        wait.ended.set_result(None)
