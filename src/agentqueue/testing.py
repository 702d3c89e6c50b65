"""For tests of your own agents: a real server, your handlers run until there is nothing to do, a clock to move.

    async def test_offers_are_ranked():
        async with Sandbox(agent) as box:
            job = await box.client.enqueue(search_flights, FlightRequest(...))
            await box.run_until_idle()
            assert (await job.status()).state == "completed"

Needs `agentqueue[embedded]`, and to run handlers `agentqueue-worker`.
"""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, cast

from agentqueue.client import Client, QueueStats
from agentqueue.embedded import EmbeddedServer
from agentqueue.errors import UsageError
from agentqueue.store.shift import make_older

if TYPE_CHECKING:
    from agentqueue.agent import Agent

__all__ = ["Burst", "EmbeddedServer", "Sandbox"]

GROUP: Final = "agentqueue.workers"
BURST: Final = "burst"
RUN_TIMEOUT: Final = 30.0
"""Seconds after which `run_until_idle` gives up: handlers of tests should take far less."""


class Burst(Protocol):
    """What the worker's distribution registers as entry point `burst` of the group `agentqueue.workers`."""

    def __call__(self, target: Any, *, url: str, concurrency: int) -> Awaitable[None]:
        """Serve an Agent's queue in this very process until no job of it is ready or running; delayed ones stay."""
        ...


class Sandbox:
    """A server of the test's own, with a client, and workers when asked for. `async with Sandbox(agent, ...) as box:`

    Args:
        agents: whose queues `run_until_idle` serves.
        url: a server to use instead of an embedded one. It is not emptied.
    """

    client: Client

    def __init__(self, *agents: "Agent", url: str | None = None) -> None:
        self.agents = agents
        self._server = EmbeddedServer() if url is None else None
        self._url = url

    @property
    def url(self) -> str:
        """The server's URL."""
        return self._server.url if self._server is not None else cast("str", self._url)

    async def __aenter__(self) -> Self:
        if self._server is not None:
            self._server.start()
        try:
            self.client = await Client(self.url).__aenter__()
        except BaseException:
            self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        self._stop()

    def _stop(self) -> None:
        if self._server is not None:
            self._server.stop()

    async def run_until_idle(self, *, concurrency: int = 10, timeout: float = RUN_TIMEOUT) -> None:
        """Run the agents' handlers, in this process, until no job of theirs is ready or running.

        Jobs that are enqueued meanwhile are run too, also from one agent to another. Delayed ones (a retry's among
        them) stay until `advance` lets their time come.

        Raises:
            UsageError: `agentqueue-worker` is not installed, or no agents were given.
            TimeoutError: not idle after `timeout` seconds.
        """
        if not self.agents:
            raise UsageError("Sandbox() has no agents to run: pass them, Sandbox(agent, ...)")
        burst = load_burst()
        async with asyncio.timeout(timeout):
            while busy := [agent for agent in self.agents if await self._has_work(agent)]:
                await asyncio.gather(*(burst(agent, url=self.url, concurrency=concurrency) for agent in busy))

    async def _has_work(self, agent: "Agent") -> bool:
        stats: QueueStats = await self.client.stats(agent.queue)
        return not stats.paused and stats.waiting + stats.active > 0

    async def advance(self, by: float | timedelta) -> None:
        """Let time pass (seconds, or a timedelta): delays and retries come due, retention and rate limits end.

        What is stored is made older; the machine's own clock, by which crons tick, stays.
        """
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        if not seconds >= 0:
            raise UsageError(f"time goes forward only: advance({by!r}) must not be negative")
        await make_older(self.client.store, round(seconds * 1000))


def load_burst() -> Burst:
    """How to run an agent in this process, as the installed worker has it.

    Raises:
        UsageError: no worker is installed.
    """
    found = entry_points(group=GROUP, name=BURST)
    if not found:
        raise UsageError("running handlers needs the worker: pip install agentqueue-worker")
    return cast("Burst", next(iter(found)).load())
