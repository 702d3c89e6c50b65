"""The connection breaks at every command of a run in turn, in each way it can: nothing is lost, run or recorded twice.

Rules 1, 2, 3, 5 and 12 of the design, and point 5 of the engine's notes.
"""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from agentqueue import Agent, Backoff, Client, Context, Fatal
from agentqueue.client import Job
from agentqueue.errors import QueueUnavailable
from agentqueue.model.job import State
from agentqueue.model.outcomes import Released, Rescheduled
from agentqueue.store import Engine, Server
from tests.support.breaker import Breaker, Cut
from tests.support.servers import RunningServer
from tests.support.workers import final, until, working

AT_ONCE = Backoff("fixed", delay=0.01, jitter=0.0)
RUNS = Counter({"plain": 1, "parent": 1, "flaky": 2, "hopeless": 1, "held": 1})
"""Number of runs of each handler, the same with and without cuts."""


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


@pytest.fixture
async def breaker(shared_server: RunningServer) -> AsyncIterator[Breaker]:
    async with Breaker(shared_server.port) as started:
        yield started


def make_agent(runs: Counter[str]) -> Agent:
    """Jobs that end in every way, with notes and children."""
    agent = Agent("q")

    @agent.job
    async def plain(ctx: Context) -> int:
        runs["plain"] += 1
        await ctx.checkpoint({"page": 1})
        await ctx.progress(50)
        return 1

    @agent.job
    async def parent(ctx: Context) -> None:
        runs["parent"] += 1
        for number in (1, 2):
            ctx.enqueue(("children", "child"), number)

    @agent.job(attempts=2, backoff=AT_ONCE)
    async def flaky(ctx: Context) -> int:
        runs["flaky"] += 1
        if ctx.attempt == 1:
            raise ConnectionError("no luck")
        return ctx.attempt

    @agent.job
    async def hopeless(ctx: Context) -> None:
        runs["hopeless"] += 1
        raise Fatal("no such airport")

    @agent.job
    async def held(ctx: Context) -> None:
        runs["held"] += 1
        await asyncio.sleep(60)

    return agent


async def run_once(client: Client, url: str, runs: Counter[str]) -> dict[str, Job]:
    """A worker serves five jobs; four end, one is handed back by the drain."""
    jobs = {name: await client.enqueue("q", name, priority="high") for name in RUNS}
    async with working(make_agent(runs), url, concurrency=3, on_dead_letter_queue="letters"):
        for name in ("plain", "parent", "flaky", "hopeless"):
            await final(jobs[name])
        await until(lambda: runs["held"], what="the last one runs")
    return jobs


async def check(client: Client, jobs: dict[str, Job], runs: Counter[str]) -> None:
    """Check the state after a run, whatever was cut."""
    ends = {name: (await job.status()) for name, job in jobs.items()}
    assert {name: (end.state, end.attempts) for name, end in ends.items()} == {
        "plain": (State.COMPLETED, 1),
        "parent": (State.COMPLETED, 1),
        "flaky": (State.COMPLETED, 2),
        "hopeless": (State.DEAD, 1),
        "held": (State.WAITING, 0),
    }
    assert runs == RUNS, "nothing ran twice"
    stats = await client.stats("q")
    counters = {name: stats.counters.get(name, 0) for name in ("completed", "dead", "retried", "crashed", "lost")}
    assert counters == {"completed": 3, "dead": 1, "retried": 1, "crashed": 0, "lost": 0}, "recorded once"
    assert (await client.stats("children")).waiting == 2
    assert (await client.stats("letters")).waiting == 1


@pytest.mark.timeout(600)
@pytest.mark.parametrize("cut", Cut)
async def test_a_cut_at_any_command_of_a_worker_loses_and_repeats_nothing(
    client: Client, shared_server: RunningServer, breaker: Breaker, cut: Cut
) -> None:
    """A run sends some thirty commands; which ones varies a little, so it goes on until a run ends uncut."""
    for number in itertools.count(1):
        with shared_server.client() as plain:
            plain.flushall()
            plain.script_flush()
        breaker.arm(number, cut)
        runs: Counter[str] = Counter()
        try:
            await check(client, await run_once(client, breaker.url, runs), runs)
        except BaseException as exc:
            exc.add_note(f"cut {cut.name} at {number} of {breaker.seen}")
            raise
        if not breaker.is_spent:
            break
    assert number > 15, "it cut something"


@contextlib.asynccontextmanager
async def _closing(client: Client) -> AsyncIterator[None]:
    """Not checked at first, as `async with` does: a cut there would just end the test's turn."""
    try:
        yield
    finally:
        await client.close()


@pytest.mark.parametrize("cut", Cut)
async def test_a_producer_that_sends_again_after_a_cut_has_its_jobs_once(
    client: Client, shared_server: RunningServer, breaker: Breaker, cut: Cut
) -> None:
    for number in itertools.count(1):
        with shared_server.client() as plain:
            plain.flushall()
            plain.script_flush()
        breaker.arm(number, cut)
        producer = Client(breaker.url)
        async with Client(shared_server.url) as beside, _closing(producer):
            for _ in range(2):  # the cut raises an error, or the client's retry hides it; nothing is cut after it
                try:
                    await producer.enqueue("q", "one", 1, id="one")
                    await producer.enqueue_many([{"queue": "q", "name": "many", "id": f"m{n}"} for n in range(1_200)])
                    break
                except QueueUnavailable:
                    assert breaker.is_spent
            else:
                raise AssertionError("two cuts")
            stats = await beside.stats("q")
            assert (stats.waiting, stats.counters["enqueued"]) == (1_201, 1_201)
        if not breaker.is_spent:
            break
    assert number > 4


async def test_a_round_trip_that_comes_late_after_the_next_one_does_nothing(server: Server, client: Client) -> None:
    """A copy, held back by the network, of a round trip that was sent again over a new connection and answered."""
    job = await client.enqueue("q", "job", priority="urgent")
    await client.enqueue("q", "another")
    engine, owner = Engine(server, "q"), "worker/1"
    (first,) = (await engine.finish_and_claim(seq=1, owner=owner, want=1)).claimed
    failed = [Rescheduled(first.id, first.level, 0, {"errors": b"[]"})]
    (second,) = (await engine.finish_and_claim(seq=2, owner=owner, want=1, outcomes=failed)).claimed
    assert second.id == job.id
    await engine.finish_and_claim(seq=3, owner=owner, want=0, outcomes=[Released(second.id, second.level)])
    (third,) = (await engine.finish_and_claim(seq=4, owner=owner, want=1)).claimed
    assert third.id == job.id
    late = await engine.finish_and_claim(seq=2, owner=owner, want=1, outcomes=failed)
    assert (late.lost, late.claimed) == ([first.id], [])
    status = await job.status()
    assert (status.state, status.attempts) == (State.ACTIVE, 1), "the run that began since then goes on"
    assert (await client.stats("q")).waiting == 1, "and nobody holds a job that nobody runs"
