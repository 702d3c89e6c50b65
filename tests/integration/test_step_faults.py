"""Steps under faults: cuts at every command, a full or absent server, workers that are killed. Rules 13 and 15."""

import asyncio
import itertools
import json
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agentqueue import Agent, Backoff, Client, Context
from agentqueue.model.job import State
from agentqueue.store import Server, ServerOptions
from tests.support.breaker import Breaker, Cut
from tests.support.servers import RunningServer
from tests.support.workers import final, until, worker_process, working

AT_ONCE = Backoff("fixed", delay=0.01, jitter=0.0)


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


@pytest.fixture
async def breaker(shared_server: RunningServer) -> AsyncIterator[Breaker]:
    async with Breaker(shared_server.port) as started:
        yield started


def make_agent(runs: Counter[str]) -> Agent:
    """A job with steps of each kind, which fails once between them."""
    agent = Agent("q")

    async def call(name: str) -> str:
        runs[name] += 1
        return name

    @agent.job(attempts=2, backoff=AT_ONCE)
    async def buyer(ctx: Context) -> list[str]:
        found = await asyncio.gather(*[ctx.step("search", call, f"search-{n}", key=n) for n in range(2)])
        paid = await ctx.step("pay", call, "pay", once=True)
        if ctx.attempt == 1:
            raise ConnectionError("no luck")
        return [*found, paid, await ctx.step("mail", call, "mail")]

    return agent


@pytest.mark.timeout(600)
@pytest.mark.parametrize("cut", Cut)
async def test_a_cut_at_any_command_repeats_no_step(
    client: Client, shared_server: RunningServer, breaker: Breaker, cut: Cut
) -> None:
    for number in itertools.count(1):
        with shared_server.client() as plain:
            plain.flushall()
            plain.script_flush()
        breaker.arm(number, cut)
        runs: Counter[str] = Counter()
        job = await client.enqueue("q", "buyer", priority="high")
        try:
            async with working(make_agent(runs), breaker.url):
                status = await final(job)
            assert (status.result, status.attempts) == (["search-0", "search-1", "pay", "mail"], 2), status.error
            assert runs == Counter({"search-0": 1, "search-1": 1, "pay": 1, "mail": 1})
            with shared_server.client() as plain:
                assert plain.keys("aq:journal:*") == plain.keys("aq:meta:*") == []
        except BaseException as exc:
            exc.add_note(f"cut {cut.name} at {number} of {breaker.seen}")
            raise
        if not breaker.is_spent:
            break
    assert number > 15, "it cut something"


async def test_a_step_that_ends_while_the_server_is_full_is_kept_and_an_intent_waits(
    start_server: Callable[..., RunningServer],
) -> None:
    running = start_server()
    agent, runs, go = Agent("q"), Counter[str](), asyncio.Event()

    async def call(name: str) -> str:
        runs[name] += 1
        await go.wait()
        return name

    @agent.job
    async def job(ctx: Context) -> str:
        first = await ctx.step("first", call, "first")
        return first + await ctx.step("second", call, "second", once=True)

    async with Client(running.url) as client, Server(ServerOptions(running.url)) as server:
        sent = await client.enqueue(job)
        async with working(agent, running.url) as worker:
            await until(lambda: runs["first"], what="the first step runs")
            await server.redis.config_set("maxmemory", "1mb")
            go.set()
            await until(lambda: worker.state.blocked_calls, what="the intent of the second step waits")
            assert await server.redis.hexists(f"aq:journal:{sent.id}", "step:first#1")  # type: ignore[misc]  # redis-py's union
            assert json.loads(worker.heartbeat())["blocked"] == "redis full"
            assert runs == Counter(first=1)
            await server.redis.config_set("maxmemory", "0")
            assert (await final(sent)).result == "firstsecond"
            assert worker.state.blocked_calls == 0
    assert runs == Counter(first=1, second=1)


async def test_a_step_that_ends_while_the_server_is_away_is_not_run_again(
    start_server: Callable[..., RunningServer],
) -> None:
    running = start_server(appendonly="yes", appendfsync="always")
    agent, runs, go = Agent("q"), Counter[str](), asyncio.Event()

    async def call() -> str:
        runs["call"] += 1
        await go.wait()
        return "value"

    @agent.job
    async def job(ctx: Context) -> str:
        return await ctx.step("call", call)

    async with Client(running.url) as client:
        sent = await client.enqueue(job)
        async with working(agent, running.url) as worker:
            await until(lambda: runs["call"], what="the step runs")
            running.kill()
            go.set()
            await until(lambda: worker.state.blocked_calls, what="the value waits for Redis")
            running.start()
            assert (await final(sent)).result == "value"
    assert runs == Counter(call=1)


TURNS = 12
PROGRAM = f"""
import asyncio
from pathlib import Path
from agentqueue import Agent, Context

agent = Agent("q")
log = Path(__file__).with_name("turns.log")

async def turn(number: int) -> int:
    with log.open("a") as file:
        file.write(f"{{number}}\\n")
    await asyncio.sleep(0.1)
    return number

@agent.job(attempts=1, timeout=None)
async def talk(ctx: Context) -> list[int]:
    return [await ctx.step("turn", turn, number) for number in range({TURNS})]
"""


@pytest.mark.timeout(240)
async def test_an_agent_that_is_killed_five_times_repeats_one_call_a_kill_at_most(
    client: Client, server_url: str, tmp_path: Path
) -> None:
    (tmp_path / "talker.py").write_text(PROGRAM)
    log, kills, dice = tmp_path / "turns.log", 0, random.Random(5)
    job = await client.enqueue("q", "talk")

    def turns() -> list[str]:
        return log.read_text().split() if log.exists() else []

    async def has_come_to(goal: int) -> bool:
        return len(turns()) >= goal or (await job.status()).is_final

    while not (await job.status()).is_final:
        with worker_process("talker:agent", tmp_path, server_url) as worker:
            seen = len(turns())
            goal = seen + dice.randint(2, 3) if kills < 5 else 10**6
            await until(lambda goal=goal: has_come_to(goal), what=f"turn {goal}, or the end", deadline=60)  # type: ignore[misc]
            if kills < 5:
                worker.send(signal.SIGKILL)
                kills += 1
    status = await job.status()
    assert (status.state, status.result) == (State.COMPLETED, list(range(TURNS))), status.error
    repeated = sum(count - 1 for count in Counter(turns()).values())
    assert repeated <= kills <= 5
    assert status.deliveries == kills + 1
