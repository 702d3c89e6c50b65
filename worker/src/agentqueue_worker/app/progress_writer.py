"""Progress and checkpoints of running jobs on their way to Redis."""

import asyncio
from typing import Final

import structlog

from agentqueue.errors import QueueUnavailable, UnsupportedServer
from agentqueue.store import Engine
from agentqueue_worker.app.job import Job

EVERY: Final = 0.5
"""Seconds between two writes of a job's progress."""
AT_A_TIME: Final = 8
"""Connections that notes may take."""

log = structlog.get_logger("agentqueue.worker")


class Notes:
    """Writes notes of running jobs, as long as this worker holds them; what was not written goes with the outcome."""

    def __init__(self, engine: Engine, owner: str) -> None:
        self._engine = engine
        self._owner = owner
        self._dirty: dict[str, Job] = {}
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(AT_A_TIME)

    def later(self, job: Job, name: str, raw: bytes) -> None:
        """Write it within half a second; of several in that time the last."""
        _keep(job, name, raw)
        self._dirty[job.id] = job
        self._wake.set()

    async def now(self, job: Job, name: str, raw: bytes) -> bool:
        """Write it, or leave it for later if Redis is away. False: this worker no longer holds the job."""
        _keep(job, name, raw)
        return await self._write(job)

    async def run(self) -> None:
        """Write what is left for later, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            jobs, self._dirty = self._dirty, {}
            for job in jobs.values():
                await self._write(job)
            await asyncio.sleep(EVERY)

    async def _write(self, job: Job) -> bool:
        if not job.unsaved:
            return True
        notes = dict(job.unsaved)
        try:
            async with self._slots:
                held = await self._engine.annotate(owner=self._owner, job_id=job.id, notes=notes)
        except (QueueUnavailable, UnsupportedServer) as exc:
            log.warning("notes_delayed", job_id=job.id, error=str(exc))
            self._dirty.setdefault(job.id, job)
            self._wake.set()
            return True
        for name, raw in notes.items():
            if job.unsaved.get(name) is raw:
                del job.unsaved[name]
        return held


def _keep(job: Job, name: str, raw: bytes) -> None:
    if job.unsaved is None:
        job.unsaved = {}
    job.unsaved[name] = raw
