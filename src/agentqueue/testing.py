"""For tests of your own agents: a real server, your handlers run until there is nothing to do, a clock to move.

    async def test_offers_are_ranked():
        async with Sandbox(agent) as box:
            job = await box.client.enqueue(search_flights, FlightRequest(...))
            assert await job.result() == [...]  # runs the handlers, and skips the delays of retries

Needs `agentqueue[embedded]`, and to run handlers `agentqueue-worker`.
"""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, cast

from agentqueue.client import Client, JobStatus, QueueStats
from agentqueue.client.results import check_timeout
from agentqueue.errors import ResultTimeout, UsageError
from agentqueue.local.server import EmbeddedServer
from agentqueue.model.job import State
from agentqueue.model.retry_policy import seconds
from agentqueue.store.time_travel import advance_time, make_due

if TYPE_CHECKING:
    from agentqueue.agent.definition import Agent

__all__ = ["Burst", "EmbeddedServer", "Sandbox"]

GROUP: Final = "agentqueue.workers"
BURST: Final = "burst"
RUN_TIMEOUT: Final = 30.0
"""Seconds after which `run_until_idle` gives up: handlers of tests should take far less."""

POLL: Final = 0.01
"""Seconds between two looks at a job that another task's handlers run."""


class Burst(Protocol):
    """What the worker's distribution registers as entry point `burst` of the group `agentqueue.workers`."""

    def __call__(self, target: Any, *, url: str, concurrency: int) -> Awaitable[None]:
        """Serve an Agent's queue in this very process until no job of it is ready or running; delayed ones stay."""
        ...


class SandboxClient(Client):
    """The client of a Sandbox: waiting for a result there runs the handlers, and no delay of the job is sat out."""

    box: "Sandbox"

    async def result(
        self,
        id: str,  # noqa: A002  # the public name
        timeout: float | timedelta | None = None,
        *,
        queue: str | None = None,
    ) -> Any:
        """Run the handlers until the job ends, and return what its handler returned; see `Client.result`.

        Where the job waits for its time (`delay=`, or a retry's backoff), it is due at once; nothing else gets older.
        In a Sandbox without agents, and for a job that somebody else runs, it only waits.

        Raises:
            UsageError: nothing will ever run the job; the message says what to call.
        """
        if self.box.agents:
            async with asyncio.timeout(check_timeout(timeout)) as limit:
                try:
                    await self.box.run_until_final(id, queue)
                except TimeoutError as exc:
                    if not limit.expired():
                        raise
                    raise ResultTimeout(f"job {id} has not ended yet; it goes on, ask again later") from exc
        return await super().result(id, timeout, queue=queue)


class Sandbox:
    """A server of the test's own, with a client, and workers when asked for. `async with Sandbox(agent, ...) as box:`

    Args:
        agents: whose queues `run_until_idle` serves.
        url: a server to use instead of an embedded one. It is not emptied.
    """

    client: SandboxClient

    def __init__(self, *agents: "Agent", url: str | None = None) -> None:
        self.agents = agents
        self._server = EmbeddedServer() if url is None else None
        self._url = url
        self._driving = asyncio.Lock()

    @property
    def url(self) -> str:
        """The server's URL."""
        return self._server.url if self._server is not None else cast("str", self._url)

    async def __aenter__(self) -> Self:
        if self._server is not None:
            self._server.start()
        try:
            self.client = await SandboxClient(self.url).__aenter__()
            self.client.box = self
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

    async def run_until_final(self, job_id: str, queue: str | None = None) -> None:
        """Run the agents' handlers until this job ends; its delays pass at once. `job.result()` does it.

        It returns early while somebody else runs the job.

        Raises:
            UsageError: nothing will ever run the job; the message says what to call.
        """
        while not (status := await self.client.status(job_id, queue=queue)).is_final:
            if status.state is State.DELAYED:
                await self._check_served(status)
                await make_due(self.client.store, status.queue, job_id)  # nothing else gets older: no result expires
            elif self._driving.locked():  # by another result(), or by the one whose handlers wait for this job
                await asyncio.sleep(POLL)
            elif status.state is State.ACTIVE:
                return
            else:
                await self._check_served(status)
                async with self._driving:
                    await self.run_until_idle()

    async def _check_served(self, status: JobStatus) -> None:
        served = [agent.queue for agent in self.agents]
        if status.queue not in served:
            raise UsageError(
                f"job {status.id} waits in queue {status.queue!r}, which no agent of this Sandbox serves "
                f"(it has {', '.join(served)}): pass its agent too, Sandbox(agent, ...)"
            )
        if (await self.client.stats(status.queue)).paused:
            raise UsageError(
                f"job {status.id} waits in queue {status.queue!r}, which is paused: "
                f"await box.client.resume({status.queue!r}) first"
            )

    async def _has_work(self, agent: "Agent") -> bool:
        stats: QueueStats = await self.client.stats(agent.queue)
        return not stats.paused and stats.waiting + stats.active > 0

    async def advance(self, by: float | timedelta) -> None:
        """Let time pass (seconds, or a timedelta): delays and retries come due, retention and rate limits end.

        What is stored is made older; the machine's own clock, by which crons tick, stays.
        """
        await advance_time(self.client.store, round(seconds(by, "by") * 1000))


def load_burst() -> Burst:
    """How to run an agent in this process, as the installed worker has it.

    Raises:
        UsageError: no worker is installed.
    """
    found = entry_points(group=GROUP, name=BURST)
    if not found:
        raise UsageError("running handlers needs the worker: pip install agentqueue-worker")
    return cast("Burst", next(iter(found)).load())
