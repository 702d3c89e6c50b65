"""Writes the progress and the checkpoints of running jobs to Redis."""

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog

from agentqueue.errors import QueueUnavailable, UnsupportedServer
from agentqueue.store import Engine
from agentqueue_worker.app.job import RunningJob

WRITE_INTERVAL_S: Final = 0.5
"""Seconds between two writes of progress. Handlers may report it in a tight loop, and readers poll about this fast."""
FIRST_RETRY_DELAY_S: Final = 0.05
"""Seconds until a checkpoint is sent again while Redis is unavailable. A failover often takes less than a second."""
MAX_RETRY_DELAY_S: Final = 2.0
"""Maximum seconds between these retries."""
MAX_CONNECTIONS: Final = 8
"""Maximum connections that writes use at a time, so that many checkpoints leave connections for claiming jobs."""

log = structlog.get_logger("agentqueue.worker")


class ProgressWriter:
    """Writes the fields of running jobs while this worker holds their leases.

    A field that could not be written is kept in `job.unsaved` and is recorded together with the job's outcome.
    """

    def __init__(self, engine: Engine, owner: str) -> None:
        self._engine = engine
        self._owner = owner
        self._pending: dict[str, RunningJob] = {}
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)

    def schedule(self, job: RunningJob, field: str, raw: bytes) -> None:
        """Write the field with the next round of writes. Only the last of several values is written."""
        _keep(job, {field: raw})
        self._pending[job.id] = job
        self._wake.set()

    async def write(self, job: RunningJob, fields: Mapping[str, bytes], *, strict: bool) -> bool:
        """Write the fields, and return when they are kept. While Redis is unavailable this tries again and again.

        Returns:
            False if another worker holds the job.

        Raises:
            QueueUnavailable, UnsupportedServer: `strict` is set, and Redis did not take the fields.
        """
        _keep(job, fields)
        delay = FIRST_RETRY_DELAY_S
        while True:
            try:
                return await self._write_unsaved(job)
            except (QueueUnavailable, UnsupportedServer):
                if strict:
                    raise
                await asyncio.sleep(delay)
                delay = min(delay * 2, MAX_RETRY_DELAY_S)

    async def run(self) -> None:
        """Write scheduled fields until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            jobs, self._pending = self._pending, {}
            for job in jobs.values():
                try:
                    await self._write_unsaved(job)
                except (QueueUnavailable, UnsupportedServer):
                    self._pending.setdefault(job.id, job)
                    self._wake.set()
            await asyncio.sleep(WRITE_INTERVAL_S)

    async def _write_unsaved(self, job: RunningJob) -> bool:
        if not job.unsaved:
            return True
        fields = dict(job.unsaved)
        try:
            async with self._slots:
                held = await self._engine.annotate(owner=self._owner, job_id=job.id, notes=fields)
        except (QueueUnavailable, UnsupportedServer) as exc:
            log.warning("progress_write_delayed", job_id=job.id, error=str(exc))
            raise
        for field, raw in fields.items():
            if job.unsaved.get(field) is raw:
                del job.unsaved[field]
        return held


def _keep(job: RunningJob, fields: Mapping[str, bytes]) -> None:
    job.unsaved = {**(job.unsaved or {}), **fields}
