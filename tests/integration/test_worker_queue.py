"""Claiming of jobs: wake-ups, order, pause, rate, cron, drain requests, a server that is full or unavailable."""

import asyncio
import contextlib
import itertools
import statistics
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from agentqueue import Agent, Backoff, Client, Context
from agentqueue.clock import monotonic, now_ms
from agentqueue.errors import QueueFull, UnsupportedServer
from agentqueue.model.job import State
from agentqueue.model.times import from_ms
from agentqueue.store import Server, Store
from tests.support.replies import awaited
from tests.support.servers import RunningServer
from tests.support.workers import final, until, work_off, worker_for, working


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


async def commands(server: Server) -> int:
    """Commands that clients sent, not those of scripts."""
    stats: dict[str, Any] = await server.redis.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "blpop", "lpush"))


# --- waking up


async def test_an_idle_worker_starts_a_job_at_once_and_not_at_its_next_look(client: Client, server_url: str) -> None:
    agent, started = Agent("q"), asyncio.Queue[float]()

    @agent.job
    async def now(ctx: Context) -> None:
        started.put_nowait(monotonic())

    waits = []
    async with working(agent, server_url):
        for _ in range(60):
            began = monotonic()
            await client.enqueue(now)
            waits.append(await started.get() - began)
            await asyncio.sleep(0.01)  # the worker is idle again
    assert statistics.median(waits) < 0.1, "it looks every 0.5 s by itself; `make bench` measures the 2 ms"


@pytest.mark.slow
async def test_an_idle_worker_sends_under_3_commands_a_second(server: Server, server_url: str) -> None:
    agent = Agent("q")

    @agent.job
    async def never(ctx: Context) -> None: ...

    async with working(agent, server_url):
        await until(lambda: _has_beat(server), what="the worker is live")
        await server.redis.config_resetstat()
        await asyncio.sleep(4)  # what is measured is time itself
        calls = await commands(server)
    assert 8 <= calls <= 12, "a poll every 0.5 s, a renewal every 2 s, a wait of 5 s"


async def _has_beat(server: Server) -> bool:
    return bool(await awaited(server.redis.hlen("q:workers")))


async def test_a_burst_ends_after_what_its_last_job_enqueued(client: Client, server: Server, server_url: str) -> None:
    agent = Agent("q")

    @agent.job
    async def parent(ctx: Context) -> None:
        base = await commands(server)
        await until(lambda: _has_sent(server, base + 3), what="the queue was found empty")
        ctx.enqueue(child, 7)

    @agent.job
    async def child(ctx: Context, n: int) -> int:
        return n

    await client.enqueue(parent)
    await work_off(agent, server_url)
    stats = await client.stats("q")
    assert (stats.completed, stats.waiting) == (2, 0)


async def _has_sent(server: Server, least: int) -> bool:
    return await commands(server) >= least


async def test_a_delayed_job_starts_at_its_time(client: Client, server_url: str) -> None:
    agent, started = Agent("q"), asyncio.Queue[float]()

    @agent.job
    async def later(ctx: Context) -> None:
        started.put_nowait(monotonic())

    async with working(agent, server_url):
        began = monotonic()
        for delay in (0.3, 0.65, 0.8):
            await client.enqueue(later, delay=delay)
        waits = [await started.get() - began for _ in range(3)]
    late = [wait - delay for wait, delay in zip(waits, (0.3, 0.65, 0.8), strict=True)]
    assert all(0 <= seconds < 0.3 for seconds in late), "never early, and not as late as a poll would find it"


async def test_a_plain_arq_clients_job_is_found_without_a_wake_up(server: Server, server_url: str) -> None:
    agent, started = Agent("q"), asyncio.Event()

    @agent.job
    async def found(ctx: Context) -> None:
        started.set()

    async with working(agent, server_url):
        await until(lambda: _has_beat(server), what="the worker is live")
        await server.redis.set("arq:job:a1", b'{"t":null,"f":"found","a":[],"k":{},"et":%d}' % now_ms())
        await server.redis.zadd("q", {"a1": now_ms()})
        await asyncio.wait_for(started.wait(), 1.0)


async def test_burst_ends_when_no_job_is_ready_though_one_is_delayed(client: Client, server_url: str) -> None:
    agent = Agent("q")

    @agent.job
    async def job(ctx: Context) -> None: ...

    await client.enqueue(job, delay=60)
    done = [await client.enqueue(job) for _ in range(7)]
    worker = await work_off(agent, server_url, concurrency=2)
    assert worker.state.finished == 7
    assert {(await it.status()).state for it in done} == {State.COMPLETED}
    assert (await client.stats("q")).workers == (), "it has said goodbye"


# --- order


async def test_priorities_are_strict_among_ready_jobs(client: Client, server_url: str) -> None:
    agent, order = Agent("q"), []

    @agent.job
    async def note(ctx: Context, name: str) -> None:
        order.append(name)

    for level in ("low", "normal", "urgent", "high"):
        for number in (1, 2):
            await client.enqueue(note, f"{level} {number}", priority=level)
    await work_off(agent, server_url, concurrency=1)
    assert order == [f"{level} {n}" for level in ("urgent", "high", "normal", "low") for n in (1, 2)]


async def test_jobs_over_their_levels_limit_get_one_start_in_four(
    client: Client, server_url: str, server: Server
) -> None:
    agent, order = Agent("q"), []

    @agent.job
    async def note(ctx: Context, name: str) -> None:
        order.append(name)

    for number in range(4):
        old = await client.enqueue(note, f"old {number}", priority="low")
        await server.redis.zadd("q:low", {old.id: now_ms() - 3_600_000 + number})
    for number in range(40):
        await client.enqueue(note, f"urgent {number}", priority="urgent")
    await work_off(agent, server_url, concurrency=1)
    places = [order.index(f"old {number}") for number in range(4)]
    assert places == sorted(places)
    assert all(place >= 4 * (number + 1) - 1 for number, place in enumerate(places)), "never more than one in four"
    assert places[-1] < 20, "and never starved"


# --- pause, rate


async def test_a_paused_queue_starts_nothing_and_running_jobs_go_on(client: Client, server_url: str) -> None:
    agent, go = Agent("q"), asyncio.Event()

    @agent.job
    async def job(ctx: Context, wait: bool) -> None:
        if wait:
            await go.wait()

    running = await client.enqueue(job, True)
    async with working(agent, server_url) as worker:
        await until(lambda: worker.state.running, what="it runs")
        await client.pause("q")
        waiting = await client.enqueue(job, False)
        await until(lambda: worker.state.paused, what="the worker knows")
        go.set()
        assert (await final(running)).state is State.COMPLETED
        assert (await waiting.status()).state is State.WAITING
        resumed = monotonic()
        await client.resume("q")
        assert (await final(waiting)).state is State.COMPLETED
        assert monotonic() - resumed < 1.0


async def test_ten_a_second_means_ten_with_five_workers(client: Client, server_url: str, server: Server) -> None:
    agent, starts = Agent("q"), []

    @agent.job
    async def tick(ctx: Context) -> None:
        held = await server.redis.get(f"arq:in-progress:{ctx.id}")
        starts.append(int(held.rpartition(b"|")[2]))  # when the server gave it out, ms

    for _ in range(25):
        await client.enqueue(tick)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(working(agent, server_url, rate_max=10, rate_duration=1.0))
        await until(lambda: len(starts) == 25, what="all have started")
    starts.sort()
    for first, eleventh in zip(starts, starts[10:], strict=False):
        assert eleventh - first >= 1_000, "at most 10 in any window of a second"
    assert starts[-1] - starts[0] < 6_000, "25 take 2 s where nothing else runs, and not 25"


# --- cron


async def test_a_cron_ticks_once_over_all_workers(client: Client, server_url: str) -> None:
    agent, ticks, due = Agent("q"), [], []

    @agent.cron("* * * * * *", missed="all")
    async def tidy(ctx: Context) -> None:
        ticks.append(ctx.id)
        due.append(ctx.scheduled_for)

    async with working(agent, server_url), working(agent, server_url):
        await until(lambda: len(ticks) >= 3, what="three ticks")
    assert len(ticks) == len(set(ticks))
    seconds = sorted(int(tick.removeprefix("tick:q:tidy:")) for tick in ticks)
    assert set(due) == {from_ms(ms) for ms in seconds}
    assert [later - sooner for sooner, later in itertools.pairwise(seconds)] == [1000] * (len(ticks) - 1)


async def test_crons_of_one_name_in_two_queues_have_their_own_ticks(client: Client, server_url: str) -> None:
    ticks: dict[str, list[str]] = {"billing": [], "mail": []}

    def agent_of(queue: str) -> Agent:
        agent = Agent(queue)

        @agent.cron("* * * * * *", missed="all")
        async def tidy(ctx: Context) -> None:
            ticks[ctx.queue].append(ctx.id.removeprefix(f"tick:{queue}:tidy:"))

        return agent

    async with working(agent_of("billing"), server_url), working(agent_of("mail"), server_url):
        await until(lambda: len(set(ticks["billing"]) & set(ticks["mail"])) >= 2, what="two ticks in both")


# --- scale-in


async def test_a_marked_worker_claims_no_more_and_says_so_until_the_mark_is_taken_back(
    client: Client, server_url: str, server: Server
) -> None:
    agent, store = Agent("q"), Store(server)

    @agent.job
    async def job(ctx: Context) -> None: ...

    async with working(agent, server_url, name="victim", pod_uid="1") as worker:
        await until(lambda: _has_beat(server), what="the worker is live")
        await store.request_drain("q", "victim", at_ms=now_ms())
        await until(lambda: worker.state.drain_requested, what="the worker knows", deadline=3)

        async def drained() -> bool:
            (beat,) = (await client.stats("q")).workers
            return beat.draining and beat.busy == 0

        await until(drained, what="it says so", deadline=1)
        waiting = await client.enqueue(job)
        await asyncio.sleep(0.6)  # longer than it looks at its queue
        assert (await waiting.status()).state is State.WAITING
        await store.cancel_drain("q", "victim")
        assert (await final(waiting)).state is State.COMPLETED


async def test_two_workers_of_one_name_are_two(client: Client, server_url: str) -> None:
    agent = Agent("q")

    @agent.job
    async def job(ctx: Context) -> None: ...

    async def names() -> list[str]:
        return [worker.name for worker in (await client.stats("q")).workers]

    async def both() -> bool:
        return await names() == ["twin", "twin"]

    async def one() -> bool:
        return await names() == ["twin"]

    async with working(agent, server_url, name="twin", concurrency=2):
        async with working(agent, server_url, name="twin", concurrency=3):
            await until(both, what="both are seen")
            stats = await client.stats("q")
            assert stats.slots == 5
            assert len({worker.incarnation for worker in stats.workers}) == 2
        await until(one, what="only the one that left is gone")
    assert await names() == []


# --- a server that is full, away, or unfit


async def test_a_full_server_lets_running_jobs_finish_and_children_wait(
    start_server: Callable[..., RunningServer],
) -> None:
    server = start_server()
    agent, go = Agent("q"), asyncio.Event()

    @agent.job
    async def plain(ctx: Context) -> str:
        await go.wait()
        return "done"

    @agent.job
    async def parent(ctx: Context) -> None:
        ctx.enqueue(("children", "child"), 1)
        await go.wait()

    async with Client(server.url) as client:
        jobs = [await client.enqueue(plain) for _ in range(2)]
        with_child = await client.enqueue(parent)
        async with working(agent, server.url) as worker:
            await until(lambda: len(worker.state.running) == 3, what="they run")
            with server.client() as plain_client:
                plain_client.config_set("maxmemory", "1mb")
            with pytest.raises(QueueFull):
                await client.enqueue(plain)
            go.set()
            assert [(await final(job)).state for job in jobs] == [State.COMPLETED] * 2
            await until(lambda: worker.state.outbox.blocked_until is not None, what="the parent is blocked")
            assert b'"blocked":"redis full"' in worker.heartbeat()
            status = await with_child.status()
            assert (status.state, (await client.stats("children")).waiting) == (State.ACTIVE, 0)
            with server.client() as plain_client:
                plain_client.config_set("maxmemory", 0)
            assert (await final(with_child)).state is State.COMPLETED
            assert (await client.stats("children")).waiting == 1


async def test_jobs_go_on_while_the_server_is_away_and_are_recorded_when_it_is_back(
    start_server: Callable[..., RunningServer],
) -> None:
    server = start_server(appendonly="yes", appendfsync="always")
    agent, go, runs = Agent("q"), asyncio.Event(), []

    @agent.job
    async def job(ctx: Context) -> int:
        runs.append(ctx.id)
        await go.wait()
        await ctx.progress(50)
        return 7

    async with Client(server.url) as client, working(agent, server.url) as worker:
        running = await client.enqueue(job)
        await until(lambda: worker.state.running, what="it runs")
        server.kill()
        go.set()
        await until(lambda: not worker.state.running, what="it has ended without the server")
        assert len(worker.state.leases) == 1
        server.start()
        assert (await final(running)).result == 7
        assert runs == [running.id]
        after = await client.enqueue(job)
        assert (await final(after)).state is State.COMPLETED


async def test_a_worker_waits_for_a_server_that_is_not_there_yet(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(appendonly="yes", appendfsync="always")
    agent = Agent("q")

    @agent.job
    async def job(ctx: Context) -> int:
        return 1

    async with Client(server.url) as client:
        waiting = await client.enqueue(job)
        server.kill()
        async with working(agent, server.url) as worker:
            assert worker.state.ready, "its handlers are loaded: readiness never means that Redis answers"
            server.start()
            assert (await final(waiting)).result == 1


async def test_a_worker_that_is_stopped_before_the_server_is_there_just_ends(server_url: str) -> None:
    agent = Agent("q")

    @agent.job
    async def job(ctx: Context) -> None: ...

    worker = worker_for(agent, "redis://127.0.0.1:1")
    running = asyncio.create_task(worker.run())
    await until(lambda: worker.state.ready, what="it is ready")
    worker.stop()
    await asyncio.wait_for(running, 3)


async def test_a_server_that_would_lose_jobs_is_refused(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(maxmemory="10mb", maxmemory_policy="allkeys-lru")
    agent = Agent("q")

    @agent.job
    async def job(ctx: Context) -> None: ...

    with pytest.raises(UnsupportedServer, match="noeviction"):
        await worker_for(agent, server.url).run()
    await work_off(agent, server.url, allow_eviction=True)


async def test_a_script_that_the_server_forgot_is_loaded_again(client: Client, server: Server, server_url: str) -> None:
    agent = Agent("q")

    @agent.job(backoff=Backoff("fixed", delay=0.05))
    async def job(ctx: Context, n: int) -> int:
        await server.redis.script_flush()
        return n

    jobs = [await client.enqueue(job, n) for n in range(5)]
    async with working(agent, server_url) as worker:
        await until(lambda: worker.state.finished == 5, what="all are recorded")
    assert [await it.result() for it in jobs] == [0, 1, 2, 3, 4]
