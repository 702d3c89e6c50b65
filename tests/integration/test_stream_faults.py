"""Streams under faults: killed workers, cuts at every command, random crashes. No text is lost or doubled. Rule 15.

STREAM_CRASHES in the environment is the number of random jobs, and CUT_EVERY=1 cuts at each command. By default there
are few of both, so that the tests take seconds.
"""

import asyncio
import itertools
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from agentqueue import Agent, Backoff, Client, Context
from agentqueue.model.job import State
from agentqueue.store import Engine, Server, ServerOptions
from tests.support.breaker import Breaker, Cut
from tests.support.servers import RunningServer
from tests.support.streams import Page, read_all, read_some
from tests.support.workers import final, until, worker_for, worker_process, working

JOBS: Final = int(os.environ.get("STREAM_CRASHES", "4"))
EVERY: Final = int(os.environ.get("CUT_EVERY", "6"))
AT_ONCE = Backoff("fixed", delay=0.01, jitter=0.0)
HANDLERS = """
import asyncio
from agentqueue import Agent, Context

agent = Agent("q")

async def think(ctx: Context, part: int) -> int:
    for number in range(50):
        await ctx.emit(f"{part}.{number} ")
        await asyncio.sleep(0.01)
    return part

@agent.job
async def talk(ctx: Context) -> None:
    for part in range(2):
        await ctx.step("think", think, ctx, part, key=part)
    for number in range(100):
        await ctx.emit(f"{number} " if number < 50 else f"{number}@{ctx.delivery} ")
        await asyncio.sleep(0.01)
"""


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


@pytest.mark.parametrize("at", [70, 130, 170], ids=["in a step", "between", "where the run differs"])
async def test_200_events_with_a_kill_in_the_middle_reach_every_reader_once(
    client: Client, server_url: str, tmp_path: Path, at: int
) -> None:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    pod = {"WORKER_NAME": "pod", "POD_UID": "uid", "LOG_LEVEL": "warning"}  # what it held is released when it is back
    job = await client.enqueue("q", "talk")
    first, coming_back = Page(), Page()
    reading = asyncio.create_task(read_all(client, job, first))

    async def reconnect() -> Page:
        while coming_back.end is None:
            await read_some(client, job, coming_back, 7)
        return coming_back

    reconnecting = asyncio.create_task(reconnect())
    with worker_process("handlers:agent", tmp_path, server_url, **pod) as worker:
        await until(lambda: len(first.pieces) >= at, what="events arrive", deadline=60)
        worker.send(signal.SIGKILL)
        await worker.exit()
    with worker_process("handlers:agent", tmp_path, server_url, **pod):
        assert (await final(job, deadline=60)).deliveries == 2
    await asyncio.wait_for(asyncio.gather(reading, reconnecting), 30)
    late = await read_all(client, job)
    text = [f"{part}.{number} " for part in range(2) for number in range(50)]
    text += [f"{number} " if number < 50 else f"{number}@2 " for number in range(100)]
    assert late.pieces == text
    assert (first.pieces, coming_back.pieces) == (text, text)
    assert [page.end for page in (first, coming_back, late)] == ["completed"] * 3
    assert len(first.rewinds) <= 1


def make_agent() -> Agent:
    """A job with events of each kind, whose first attempt fails."""
    agent = Agent("q")

    async def think(ctx: Context, name: str) -> str:
        await ctx.emit(f"{name}1 ")
        await asyncio.sleep(0.06)
        await ctx.emit(f"{name}2 ")
        return name

    @agent.job(attempts=2, backoff=AT_ONCE)
    async def talk(ctx: Context) -> None:
        await ctx.emit("begins ")
        await asyncio.gather(*[ctx.step("think", think, ctx, name, key=name) for name in "xy"])
        await ctx.emit(f"attempt {ctx.attempt} ")
        if ctx.attempt == 1:
            raise ConnectionError("no luck")
        await ctx.emit("ends")

    return agent


@pytest.mark.timeout(600)
@pytest.mark.parametrize("cut", Cut)
async def test_a_cut_at_any_command_loses_and_doubles_no_event(
    client: Client, shared_server: RunningServer, cut: Cut
) -> None:
    async with Breaker(shared_server.port) as breaker:
        for number in itertools.count(1 + cut.value % EVERY, EVERY):
            with shared_server.client() as plain:
                plain.flushall()
                plain.script_flush()
            breaker.arm(number, cut)
            job = await client.enqueue("q", "talk")
            reading = asyncio.create_task(read_all(client, job))
            try:
                async with working(make_agent(), breaker.url):
                    status = await final(job)
                page, late = await reading, await read_all(client, job)
                assert (status.state, status.attempts) == (State.COMPLETED, 2), status.error
                assert page.pieces == late.pieces
                steps = [piece for piece in late.pieces if piece[0] in "xy"]
                assert sorted(steps) == ["x1 ", "x2 ", "y1 ", "y2 "]
                assert [piece for piece in late.pieces if piece not in steps] == ["begins ", "attempt 2 ", "ends"]
            except BaseException as exc:
                exc.add_note(f"cut {cut.name} at {number} of {breaker.seen}")
                raise
            if not breaker.is_spent:
                break
    assert number > 12, "it cut something"


@pytest.mark.parametrize("cut", Cut)
async def test_a_reader_whose_connection_breaks_at_any_command_loses_and_doubles_no_event(
    client: Client, shared_server: RunningServer, server_url: str, cut: Cut
) -> None:
    job = await client.enqueue("q", "talk")
    async with working(make_agent(), server_url):
        await final(job)
    expected = (await read_all(client, job)).pieces
    async with Breaker(shared_server.port) as breaker:
        for number in itertools.count(1):
            breaker.arm(number, cut)
            reader = Client(breaker.url)
            assert (await read_all(reader, job)).pieces == expected
            await reader.close()
            if not breaker.is_spent:
                break
    assert number > 3, "it cut something"


Part = tuple[str, int, bool]
"""A step's name, or an empty one; a number of events; and whether they differ from run to run."""


def make_program(rng: random.Random) -> list[list[Part]]:
    """Return what a job does: groups of parts, of which those of one group run at the same time."""
    numbers = itertools.count()

    def part() -> Part:
        name = rng.choice(["", "s"])
        return f"{name}{next(numbers)}" if name else "", rng.randint(0, 6), rng.random() < 0.2

    return [[part() for _ in range(rng.randint(1, 3))] for _ in range(rng.randint(1, 4))]


async def test_jobs_that_crash_at_random_places_have_the_text_of_their_last_run(
    client: Client, server_url: str
) -> None:
    rng = random.Random(15)
    for number in range(JOBS):
        program = make_program(rng)
        crashes = [rng.randint(0, 25) for _ in range(rng.randint(1, 2))]  # the third one would make the job dead
        try:
            await check_random_job(client, server_url, program, crashes, rng)
        except BaseException as exc:
            exc.add_note(f"job {number}: {program}, crashes after {crashes}")
            raise


async def check_random_job(
    client: Client, url: str, program: list[list[Part]], crashes: list[int], rng: random.Random
) -> None:
    """Run a job whose workers crash after so many events each, and compare what its readers show."""
    agent, emitted = Agent("q"), list[Any]()
    crash_at: asyncio.Future[Any] | None = None
    left = 0

    async def emit(ctx: Context, scope: str, count: int, differs: bool) -> None:
        nonlocal left
        for index in range(count):
            event = [scope, index, ctx.delivery if differs else 0]
            emitted.append(event)
            await ctx.emit(event)
            left -= 1
            if left == 0 and crash_at is not None:
                crash_at.set_result(None)
            await asyncio.sleep(rng.choice([0, 0, 0.01, 0.06]))

    @agent.job
    async def talk(ctx: Context) -> None:
        for number, group in enumerate(program):
            calls = []
            for position, (name, count, differs) in enumerate(group):
                scope = name or f"body {number}.{position}"
                part = emit(ctx, scope, count, differs)
                if name:
                    part.close()
                    calls.append(ctx.step(name, emit, ctx, scope, count, differs))
                else:
                    calls.append(part)
            await asyncio.gather(*calls)

    job = await client.enqueue(talk)
    reading = asyncio.create_task(read_all(client, job))
    for events in crashes:
        if (await job.status()).is_final:
            break
        emitted.clear()
        left, crash_at = events, asyncio.get_running_loop().create_future()
        worker = worker_for(agent, url)
        running = asyncio.create_task(worker.run())
        done: asyncio.Future[Any] = asyncio.ensure_future(final(job))
        await asyncio.wait({crash_at, done}, return_when=asyncio.FIRST_COMPLETED, timeout=1.0)
        worker.crash()
        worker.stop(grace=0.0)
        done.cancel()
        await asyncio.gather(running, done, return_exceptions=True)
        async with Server(ServerOptions(url)) as admin:
            await Engine(admin, "q").release_worker_leases(worker=worker.options.identity.name, reason="test")
    crash_at, left = None, 0
    if not (await job.status()).is_final:
        async with working(agent, url):
            await final(job)
    assert (await job.status()).state is State.COMPLETED
    page, late = await reading, await read_all(client, job)
    assert page.pieces == late.pieces
    expected = {
        (name or f"body {n}.{p}"): count for n, group in enumerate(program) for p, (name, count, _) in enumerate(group)
    }
    for scope, count in expected.items():
        assert [index for name, index, _ in late.pieces if name == scope] == list(range(count)), scope
    assert len(late.pieces) == sum(expected.values())
