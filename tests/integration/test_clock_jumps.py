"""The server's clock jumps, as after a wrong NTP answer or a failover: nothing is lost, run or recorded twice."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentqueue import Client
from agentqueue.client import Job
from agentqueue.model.job import State
from agentqueue_operator.queues.housekeeper import Housekeeper
from agentqueue_operator.queues.ports import Retention
from agentqueue_operator.queues.reader import QueueReader
from tests.support.clocks import Clock, run_server_with_clock
from tests.support.raw_queue import RawQueue
from tests.support.replies import awaited, fields
from tests.support.servers import KINDS, RunningServer
from tests.support.workers import Work, final, until, working

HOUR = 3_600
Given = tuple[RunningServer, Clock]


@pytest.fixture(params=KINDS)
def given(request: pytest.FixtureRequest, tmp_path: Path, _redis_installed: None) -> Iterator[Given]:
    with run_server_with_clock(request.param, tmp_path) as made:
        yield made


async def all_done(jobs: list[Job]) -> None:
    for job in jobs:
        status = await final(job)
        assert (status.state, status.attempts, status.deliveries) == (State.COMPLETED, 1, 1)


async def renewed(client: Client, workers: int) -> None:
    """Until each worker has renewed its leases, twice so that the second time began from now on."""
    for _ in range(2):
        before = await _heartbeats(client)

        async def seen(before: set[bytes] = before) -> bool:
            return len(await _heartbeats(client) - before) == workers

        await until(seen, what="the workers renew their leases")


async def _heartbeats(client: Client) -> set[bytes]:
    beats = await fields(client.server.redis, "q:workers")
    return {name + value.split(b"|")[0] for name, value in beats.items()}


@pytest.mark.parametrize("seconds", [pytest.param(HOUR, id="forward"), pytest.param(-HOUR, id="back")])
async def test_running_jobs_are_neither_taken_away_nor_run_again(given: Given, seconds: int) -> None:
    """Two workers, so that one could take what the other holds; every lease has run out by the clock that jumped."""
    server, clock = given
    work = Work()
    async with (
        Client(server.url) as client,
        working(work.agent, server.url, concurrency=2),
        working(work.agent, server.url, concurrency=2),
    ):
        running = [await client.enqueue(work.job) for _ in range(4)]
        await until(lambda: len(work.runs) == 4, what="all run")
        await asyncio.to_thread(clock.jump, seconds)
        later = [await client.enqueue(work.job) for _ in range(2)]
        for _ in range(2):  # 8 s: for half of it nothing is reaped after a jump
            await renewed(client, workers=2)
        assert len(work.runs) == 4
        work.go.set()
        await all_done(running + later)
        stats = await client.stats("q")
        assert (stats.completed, stats.counters.get("crashed", 0), stats.counters.get("lost", 0)) == (6, 0, 0)


async def test_a_jump_forward_makes_delayed_jobs_due(given: Given) -> None:
    server, clock = given
    work = Work()
    work.go.set()
    async with Client(server.url) as client, working(work.agent, server.url):
        delayed = await client.enqueue(work.job, delay=HOUR / 2)
        await asyncio.to_thread(clock.jump, HOUR)
        await all_done([delayed])


async def test_after_a_jump_back_new_jobs_run_and_older_ones_once_the_clock_has_caught_up(given: Given) -> None:
    """Scores are times: what was enqueued before the jump is due when the clock is there again. Nothing is lost."""
    server, clock = given
    work = Work()
    work.go.set()
    async with Client(server.url) as client:
        older = [await client.enqueue(work.job) for _ in range(3)]
        await asyncio.to_thread(clock.jump, -HOUR)
        async with working(work.agent, server.url):
            newer = [await client.enqueue(work.job) for _ in range(3)]
            await all_done(newer)
            assert {(await job.status()).state for job in older} == {State.DELAYED}
            await asyncio.to_thread(clock.jump, 0)
            await all_done(older)


async def test_a_jump_back_does_not_make_a_dead_workers_lease_an_hour_longer(given: Given) -> None:
    """Nobody is left who would renew it, and no other worker comes."""
    server, clock = given
    async with Client(server.url) as client:
        job = await client.enqueue("q", "job", id="held")
        raw_queue = RawQueue(client.server, "q")
        await raw_queue.claim_one()
        await raw_queue.heartbeat(b'{"busy": 1, "slots": 1, "draining": false}')
        await asyncio.to_thread(clock.jump, -HOUR)
        reader = QueueReader(client.server)
        assert (await reader.read({"q": 1.0}))["q"].heartbeats == {}
        housekeeper = Housekeeper(lambda: reader, lambda _: None)
        housekeeper.retentions = {"q": Retention()}
        visits = asyncio.create_task(housekeeper.run())

        async def is_ready() -> bool:
            return (await job.status()).state is State.WAITING

        try:
            await until(is_ready, what="the job is ready again", deadline=30)
        finally:
            visits.cancel()
        assert await awaited(client.server.redis.hlen("q:workers")) == 0
