"""A steady stream of jobs, and whether all of them came to their end."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentqueue.client import Client, Job
from agentqueue.clock import monotonic
from agentqueue.errors import QueueFull, QueueUnavailable

FINAL = frozenset({"completed", "dead", "cancelled"})


@dataclass
class Load:
    """Enqueues one job after another; what the server has accepted is counted, what it refused is tried again."""

    client: Client
    queue: str
    name: str
    every: float
    data: Any = None
    prefix: str = "load"
    jobs: list[Job] = field(default_factory=list)
    refused: int = 0
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Until `end`."""
        while not self._ended.is_set():
            job_id = f"{self.prefix}-{len(self.jobs)}"
            try:
                job = await self.client.enqueue(self.queue, self.name, self.payload(job_id), id=job_id)
                self.jobs.append(job)
            except (QueueUnavailable, QueueFull):
                self.refused += 1
            await self._pause()

    def payload(self, job_id: str) -> object:
        """Of the next job."""
        return self.data

    def end(self) -> None:
        """No more jobs."""
        self._ended.set()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self.every):
                await self._ended.wait()
        except TimeoutError:
            return


async def all_final(client: Client, ids: Sequence[str], *, timeout: float) -> Mapping[str, str]:
    """The states of jobs once all are final. Fails with those that are not, after `timeout` seconds."""
    deadline = monotonic() + timeout
    states: dict[str, str] = {}
    open_ = list(ids)
    while open_:
        with contextlib.suppress(QueueUnavailable):  # it may come back in time
            for job_id in open_:
                states[job_id] = (await client.job(job_id).status()).state
        open_ = [job_id for job_id in ids if states.get(job_id) not in FINAL]
        if open_ and monotonic() > deadline:
            shown = {job_id: states.get(job_id) for job_id in open_[:10]}
            raise AssertionError(f"{len(open_)} of {len(ids)} jobs are not final after {timeout:g} s: {shown}")
        if open_:
            await asyncio.sleep(0.2)
    return states
