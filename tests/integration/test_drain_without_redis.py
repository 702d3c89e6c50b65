"""A drain while Redis is away: an idle worker waits a lease long for what a lost answer may have brought, no longer.

Rules 1 and 5 of the design: what it may have claimed is given back by others when that lease has run out.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from agentqueue import Client
from agentqueue.clock import monotonic
from agentqueue.model.job import State
from agentqueue.store import Server
from agentqueue.store.scripts import load
from agentqueue_worker.app.worker import Worker
from tests.support.breaker import Breaker, Cut
from tests.support.servers import RunningServer
from tests.support.workers import DEADLINE, Work, final, until, worker_for, working

if TYPE_CHECKING:
    import redis

FINISH_AND_CLAIM = load("finish_and_claim", allow_oom=True).sha
LEASE = 1.0
HOUR = 3_600.0


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


@dataclass
class Network:
    """Between a worker and the server. It breaks at the round trip that takes a waiting job, until it is mended."""

    breaker: Breaker
    plain: "redis.Redis"
    broken: bool = False

    def break_at_claim(self, how: Cut) -> None:
        """Armed from now on."""

        def choose(command: list[Any]) -> Cut | None:
            if self.broken:
                return Cut.BEFORE
            claims = command[0] == b"EVALSHA" and command[1].decode() == FINISH_AND_CLAIM and int(command[20]) > 0
            if not claims or not self.plain.zcount("q", 0, "+inf"):
                return None
            self.broken = True
            return how

        self.breaker.choose = choose

    def break_now(self) -> None:
        """Nothing gets through."""
        self.broken = True
        self.breaker.choose = lambda _: Cut.BEFORE

    def mend(self) -> None:
        """All gets through."""
        self.breaker.choose = None


@pytest.fixture
async def network(shared_server: RunningServer, server_url: str) -> AsyncIterator[Network]:
    async with Breaker(shared_server.port) as breaker:
        with shared_server.client() as plain:
            yield Network(breaker, plain)


@contextlib.asynccontextmanager
async def serving(network: Network, work: Work, lease: float) -> AsyncIterator[tuple[Worker, "asyncio.Task[None]"]]:
    """A worker behind the network; the block ends it."""
    worker = worker_for(work.agent, network.breaker.url, lease=lease)
    running = asyncio.create_task(worker.run())
    try:
        await until(lambda: worker.state.ready and len(network.breaker.seen) > 5, what="it serves")
        yield worker, running
        await asyncio.wait_for(running, DEADLINE)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    ("grace", "span"),
    [pytest.param(HOUR, (LEASE, LEASE + 1.0), id="long"), pytest.param(0.5, (0.0, LEASE), id="shorter-than-a-lease")],
)
async def test_an_idle_worker_gives_up_after_a_lease_and_its_lost_claim_runs_elsewhere(
    client: Client, server: Server, network: Network, grace: float, span: tuple[float, float]
) -> None:
    work = Work()
    work.go.set()
    async with serving(network, work, LEASE) as (worker, running):
        network.break_at_claim(Cut.ANSWERED)
        job = await client.enqueue("q", "job")
        await until(lambda: network.broken, what="the answer is lost")
        began = monotonic()
        worker.stop(grace=grace)
        await until(lambda: not worker.state.ready, what="it gives up")
        assert span[0] <= monotonic() - began <= span[1]
        await asyncio.wait_for(running, DEADLINE)
    assert work.runs == []
    score = await server.redis.zscore("q", job.id)
    assert score is not None, "it is in its queue"
    assert score < 0, "the server did claim it"
    async with working(work.agent, server.options.url, lease=LEASE):
        await final(job)
    status = await job.status()
    assert (status.state, status.attempts, work.runs) == (State.COMPLETED, 1, [job.id])


async def test_nothing_is_claimed_after_the_signal_though_the_round_trip_is_sent_again(
    client: Client, server: Server, network: Network
) -> None:
    """It was on its way when the signal came, and never arrived; its copy only asks what it had brought."""
    work = Work()
    async with serving(network, work, 60.0) as (worker, _):
        network.break_at_claim(Cut.BEFORE)
        job = await client.enqueue("q", "job")
        await until(lambda: network.broken, what="the round trip is lost")
        worker.stop(grace=HOUR)
        network.mend()
    assert not await server.redis.exists(f"aq:meta:{job.id}"), "it was not claimed, and so not handed back"
    assert (await job.status()).state is State.WAITING


async def test_what_a_lost_answer_brought_goes_back_at_once_when_redis_is_there_again(
    client: Client, server: Server, network: Network
) -> None:
    work = Work()
    async with serving(network, work, 60.0) as (worker, _):
        network.break_at_claim(Cut.ANSWERED)
        job = await client.enqueue("q", "job")
        await until(lambda: network.broken, what="the answer is lost")
        worker.stop(grace=HOUR)
        network.mend()
    assert not await server.redis.exists(f"aq:meta:{job.id}"), "it never started, so nothing is counted"
    assert ((await job.status()).state, work.runs) == (State.WAITING, [])


async def test_a_worker_whose_outcome_is_not_recorded_uses_its_grace(client: Client, network: Network) -> None:
    """The job has run: its result is worth the wait."""
    work = Work()
    async with serving(network, work, LEASE) as (worker, running):
        job = await client.enqueue("q", "job")
        await until(lambda: work.runs, what="it runs")
        network.break_now()
        worker.stop(grace=HOUR)
        work.go.set()
        await asyncio.sleep(2.5 * LEASE)
        assert not running.done()
        network.mend()
    status = await job.status()
    assert (status.state, status.attempts, work.runs) == (State.COMPLETED, 1, [job.id])
