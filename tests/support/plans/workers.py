"""Workers of plans in the test's own event loop, which drain and crash."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentqueue import Agent
from agentqueue.store import Engine, Server, ServerOptions
from agentqueue_worker.app.worker import Worker
from tests.support.workers import worker_for


@dataclass
class InProcessFleet:
    """One worker for each agent. One that drains or crashes is replaced by another."""

    agents: Mapping[str, Agent]
    url: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    crashes: int = 0
    drains: int = 0
    _running: dict[str, Worker] = field(default_factory=dict)
    _keepers: list[asyncio.Task[None]] = field(default_factory=list)
    _ends: bool = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve the queues while the block runs."""
        self._keepers = [asyncio.create_task(self._keep(queue)) for queue in self.agents]
        try:
            yield
        finally:
            self._ends = True
            for worker in self._running.values():
                worker.stop(grace=0.0)
            await asyncio.gather(*self._keepers)

    async def _keep(self, queue: str) -> None:
        while not self._ends:
            worker = self._running[queue] = worker_for(self.agents[queue], self.url, **self.settings)
            await worker.run()
            if worker.crashed:  # its leases run out now, and not after seconds
                async with Server(ServerOptions(self.url)) as server:
                    engine = Engine(server, queue)
                    await engine.release_owner_leases(owner=worker.options.identity.owner, reason="the test crashed it")

    def crash(self, queue: str) -> None:
        """End the queue's worker as by SIGKILL."""
        worker = self._running.get(queue)
        if worker is not None and worker.state.running and not worker.crashed:
            self.crashes += 1
            worker.crash()

    def drain(self, queue: str, *, grace: float = 0.0) -> None:
        """Drain the queue's worker."""
        worker = self._running.get(queue)
        if worker is not None and worker.state.ready and not worker.state.draining:
            self.drains += 1
            worker.stop(grace=grace)
