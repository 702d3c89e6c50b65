"""Registers what the worker's code has, writes its schedules, and keeps the queue's schedules going."""

import asyncio
from typing import Final

import structlog

from agentqueue import __version__
from agentqueue.clock import now_ms
from agentqueue.errors import QueueUnavailable, UnsupportedServer
from agentqueue.model.outcomes import Cancelled, Completed, DeadLettered, Outcome
from agentqueue.store import CodeSet, Registrations, Schedules, Server
from agentqueue_worker.app.job import RunningJob

REGISTRATION_INTERVAL_S: Final = 30.0
"""Seconds between two registrations. They bring the set back after a rollback, or if Redis has lost it."""
UNAVAILABLE: Final = (QueueUnavailable, UnsupportedServer)
log = structlog.get_logger("agentqueue.worker")


class Registrar:
    """The registration and the schedules of a worker's queue.

    Args:
        server: the worker's server.
        queue: the worker's queue.
        worker: name of the worker.
        code: what the worker's code has.
    """

    def __init__(self, server: Server, queue: str, worker: str, code: CodeSet) -> None:
        self._registrations = Registrations(server)
        self._schedules = Schedules(server)
        self._queue = queue
        self._worker = worker
        self._code = code
        self._is_registered: bool | None = None
        self._is_tending = False
        self.fingerprint: Final = code.fingerprint
        """Fingerprint of the worker's set, for its heartbeat."""

    async def register(self, *, starts: bool) -> None:
        """Register the worker's set and write its schedules, unless a newer set stands."""
        was_registered = self._is_registered
        self._is_registered = await self._registrations.register(
            self._queue, self._code, worker=self._worker, version=__version__, time_ms=now_ms(), starts=starts
        )
        if not self._is_registered:
            if was_registered is not False:
                reason = "a newer version of the code has registered its jobs and crons, and has a live worker"
                log.warning("registration_replaced", queue=self._queue, reason=reason)
            return
        reply = await self._schedules.put(self._queue, source="code", schedules=self._code.crons)
        if reply.written or reply.removed:
            log.info("schedules_written", queue=self._queue, written=reply.written, removed=reply.removed)
        if reply.shadowed and starts:
            reason = "the resource has schedules of these names"
            log.warning("schedules_shadowed", queue=self._queue, schedules=reply.shadowed, reason=reason)

    async def run(self) -> None:
        """Register again and again, until cancelled."""
        while True:
            await asyncio.sleep(REGISTRATION_INTERVAL_S)
            try:
                await self.register(starts=False)
            except UNAVAILABLE:
                continue  # the claim loop reports it

    async def tend(self) -> None:
        """Compute due times for schedules that hold few."""
        if self._is_tending:
            return
        self._is_tending = True
        try:
            missed = await self._schedules.tend(self._queue)
        except UNAVAILABLE:
            return  # the next renewal asks again
        finally:
            self._is_tending = False
        if missed:
            log.warning("ticks_missed", queue=self._queue, ticks=missed, reason="they were due in an outage")

    async def note_end(self, job: RunningJob, outcome: Outcome) -> None:
        """Write how the job of a tick has ended. A job that runs again has not."""
        states: dict[type[Outcome], str] = {Completed: "completed", DeadLettered: "dead", Cancelled: "cancelled"}
        state = states.get(type(outcome))
        if state is None or job.record.tick is None:
            return
        try:
            await self._schedules.note_end(self._queue, job.record.tick[0], job.id, state, now_ms())
        except UNAVAILABLE as exc:
            log.warning("tick_end_not_noted", job_id=job.id, schedule=job.record.tick[0], error=str(exc))
