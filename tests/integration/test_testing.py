"""The sandbox for users' own tests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import redis

from agentqueue.agent.context import Context
from agentqueue.agent.definition import Agent
from agentqueue.agent.outcomes import Retry
from agentqueue.client import Client
from agentqueue.errors import JobFailed, QueueUnavailable, ResultTimeout, UsageError
from agentqueue.model.job import State
from agentqueue.store import Server, ServerOptions
from agentqueue.testing import Sandbox
from agentqueue.testing import sandbox as testing
from tests.support.raw_queue import RawQueue

first, second = Agent("first"), Agent("second")


@first.job
async def hop(ctx: Context, n: int) -> int:
    return n


@pytest.fixture
async def box() -> AsyncIterator[Sandbox]:
    async with Sandbox(first, second) as running:
        yield running


@pytest.fixture
def burst(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """A worker that completes each job and passes a smaller number on to the other agent; its runs."""
    runs: list[tuple[str, int]] = []

    async def run(agent: Agent, *, url: str, concurrency: int, **_: Any) -> None:
        runs.append((agent.name, concurrency))
        async with Server(ServerOptions(url)) as server, Client(url) as client:
            raw_queue = RawQueue(server, agent.queue)
            for job in await raw_queue.claim(concurrency):
                n = (await client.status(job.id)).data
                if n > 0:
                    other = "second" if agent.name == "first" else "first"
                    await client.enqueue(other, "hop", n - 1)
                await raw_queue.complete(job, n)

    monkeypatch.setattr(testing, "load_burst", lambda: run)
    return runs


async def test_it_runs_until_no_agent_has_anything_to_do(box: Sandbox, burst: list[tuple[str, int]]) -> None:
    job = await box.client.enqueue(hop, 3)
    await box.run_until_idle(concurrency=2)
    assert await job.result(timeout=1) == 3
    assert burst == [("first", 2), ("second", 2), ("first", 2), ("second", 2)]
    assert [stats.completed for stats in await box.client.stats()] == [2, 2]


greeter = Agent("greeter")
greeted: list[str] = []


@greeter.job(attempts=2)
async def greet(ctx: Context, name: str) -> str:
    ctx.enqueue(("greeter", "note"), name)
    if ctx.attempt == 1:
        raise Retry(after=timedelta(minutes=10))
    return f"hello {name}"


@greeter.job
def note(ctx: Context, name: str) -> None:
    greeted.append(name)


async def test_real_handlers_run_with_their_retries_and_what_they_enqueue() -> None:
    greeted.clear()
    async with Sandbox(greeter) as box:
        job = await box.client.enqueue(greet, "Ada")
        await box.run_until_idle()
        status = await job.status()
        assert (status.state, status.attempts, greeted) == (State.DELAYED, 1, [])
        await box.advance(timedelta(minutes=10))
        await box.run_until_idle()
        assert await job.result(timeout=1) == "hello Ada"
        assert greeted == ["Ada"]


flaky = Agent("flaky")


@flaky.job(attempts=3)
async def always_fails(ctx: Context) -> None:
    raise ValueError(f"attempt {ctx.attempt}")


@flaky.job(attempts=3)
async def fails_once(ctx: Context) -> int:
    if ctx.attempt == 1:
        raise Retry(after=timedelta(hours=2))
    return ctx.attempt


@flaky.job(timeout=600)
async def waits_for_another(ctx: Context, other: str) -> int:
    found: int = await boxes[0].client.result(other)
    return found + 1


boxes: list[Sandbox] = []


class TestResult:
    """`await job.result()` in a test: nobody else runs the handlers, and nobody sits a backoff out."""

    async def test_a_failing_handler_fails_at_once(self) -> None:
        async with Sandbox(flaky) as box:
            job = await box.client.enqueue(always_fails)
            with pytest.raises(JobFailed, match="attempt 3"):
                await asyncio.wait_for(job.result(), 30)
            assert (await job.status()).attempts == 3

    async def test_delays_and_retries_pass_at_once(self) -> None:
        async with Sandbox(flaky) as box:
            job = await box.client.enqueue(fails_once, delay=timedelta(days=1))
            assert await asyncio.wait_for(job.result(), 30) == 2

    async def test_several_at_once_and_one_that_waits_for_another(self) -> None:
        async with Sandbox(flaky) as box:
            boxes[:] = [box]
            jobs = [await box.client.enqueue(fails_once, delay=n) for n in range(3)]
            jobs.append(await box.client.enqueue(waits_for_another, jobs[0].id))
            results = asyncio.gather(*(job.result() for job in jobs))
            assert await asyncio.wait_for(results, 60) == [2, 2, 2, 3]

    async def test_a_job_that_can_not_end_raises_with_the_missing_call(self) -> None:
        async with Sandbox(flaky) as box:
            other = await box.client.enqueue("other", "job")
            with pytest.raises(UsageError, match=r"no agent of this Sandbox serves .it has flaky.: pass its agent too"):
                await other.result()
            await box.client.pause("flaky")
            paused = await box.client.enqueue(fails_once)
            with pytest.raises(UsageError, match=r"is paused: await box.client.resume\('flaky'\) first"):
                await paused.result()

    async def test_a_timeout_is_kept(self) -> None:
        async with Sandbox(flaky) as box:
            job = await box.client.enqueue("flaky", "job")
            raw_queue = RawQueue(box.client.server, "flaky")
            await raw_queue.claim_one()  # somebody else runs it
            with pytest.raises(ResultTimeout):
                await job.result(0.05)

    async def test_a_sandbox_without_agents_only_waits(self, server_url: str) -> None:
        async with Sandbox(url=server_url) as box:
            job = await box.client.enqueue("flaky", "job")
            with pytest.raises(ResultTimeout):
                await job.result(0.05)


async def test_delayed_jobs_stay_until_their_time_has_come(box: Sandbox, burst: list[tuple[str, int]]) -> None:
    job = await box.client.enqueue(hop, 0, delay=timedelta(hours=1))
    await box.run_until_idle()
    assert (await job.status()).state is State.DELAYED
    await box.advance(timedelta(minutes=59))
    await box.run_until_idle()
    assert (await job.status()).state is State.DELAYED
    await box.advance(60)
    await box.run_until_idle()
    assert (await job.status()).state is State.COMPLETED


async def test_a_paused_queue_is_idle(box: Sandbox, burst: list[tuple[str, int]]) -> None:
    await box.client.enqueue(hop, 0)
    await box.client.pause("first")
    await box.run_until_idle()
    assert burst == []


async def test_what_never_gets_idle_is_given_up(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    async def idler(agent: Agent, **_: Any) -> None: ...

    monkeypatch.setattr(testing, "load_burst", lambda: idler)
    await box.client.enqueue(hop, 0)
    with pytest.raises(TimeoutError):
        await box.run_until_idle(timeout=0.1)


async def test_time_ends_retention_and_rate_limits(box: Sandbox) -> None:
    raw_queue = RawQueue(box.client.server, "first")
    job = await box.client.enqueue(hop, 1)
    await raw_queue.complete(await raw_queue.claim_one(), 1)
    dead = await box.client.enqueue(hop, 2)
    kind = await raw_queue.add_dead_letter(await raw_queue.claim_one())
    waiting = await box.client.enqueue(hop, 3)
    running = await box.client.enqueue(hop, 4, priority="urgent")
    await raw_queue.note_progress(await raw_queue.claim_one(), 1, "taxiing")
    with redis.Redis.from_url(box.url) as raw:
        raw.rpush("first:limit", 5_000)
        raw.hset(f"aq:meta:{waiting.id}", "expires", "9000")
        before = raw.zscore("first:dead", dead.id), raw.zscore("first", waiting.id)
        assert await job.result(timeout=1) == 1
        await box.advance(2)
        after = raw.zscore("first:dead", dead.id), raw.zscore("first", waiting.id)
        assert [round(a - b) for a, b in zip(before, after, strict=True)] == [2_000, 2_000]
        assert raw.lrange("first:limit", 0, -1) == [b"3000"]
        assert raw.hget(f"aq:meta:{waiting.id}", "expires") == b"7000"
        assert 0 < raw.pttl(f"arq:result:{job.id}") <= 3_598_000
        await box.advance(3_600)
        assert not raw.exists(f"arq:result:{job.id}")
    assert (await running.status()).state is State.ACTIVE
    assert (await box.client.dead_groups("first"))[0].fingerprint == kind


async def test_a_server_of_ones_own_may_be_used(server_url: str) -> None:
    async with Sandbox(url=server_url) as box:
        assert box.url == server_url
        await box.client.enqueue("first", "hop")
        with pytest.raises(UsageError, match="no agents to run"):
            await box.run_until_idle()
        with pytest.raises(UsageError, match="`by` must be a number of seconds from 0"):
            await box.advance(-1)


async def test_a_server_that_is_away_is_said() -> None:
    with pytest.raises(QueueUnavailable):
        async with Sandbox(url="redis://127.0.0.1:1"):
            raise AssertionError("connected")


def test_without_a_worker_installed_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "entry_points", lambda **_: ())
    with pytest.raises(UsageError, match="pip install agentqueue-worker"):
        testing.load_burst()


# --- signals


async def test_a_suspended_job_that_nothing_wakes_is_named_and_goes_on_with_its_signal(box: Sandbox) -> None:
    job = await box.client.enqueue(hop, 3)
    queue = RawQueue(box.client.server, "first")
    await queue.suspend(await queue.claim_one(), "approval")
    with pytest.raises(UsageError, match=rf"^job {job.id} waits without a slot for the signal approval: .*box.signal"):
        await job.result(timeout=5)
    assert await box.signal(job, "approval", {"approved": True}, sender="ana", id="s1")
    assert not await box.signal(job.id, "approval", {"approved": True}, id="s1")
    assert await job.result(timeout=30) == 3


async def test_a_wait_ends_when_its_time_has_come(box: Sandbox) -> None:
    job = await box.client.enqueue(hop, 3)
    queue = RawQueue(box.client.server, "first")
    await queue.suspend(await queue.claim_one(), "approval", ends_ms=3_600_000)
    with pytest.raises(UsageError, match=r"box\.advance"):
        await job.result(timeout=5)
    await box.advance(timedelta(hours=2))
    assert await job.result(timeout=30) == 3


# --- crashes and drains


@pytest.mark.parametrize("end", [Sandbox.crash, Sandbox.drain])
async def test_a_job_whose_worker_ends_runs_again_and_what_it_has_kept_is_there(
    end: Callable[[Sandbox], Awaitable[None]],
) -> None:
    agent, calls = Agent("q"), list[str]()

    async def plan() -> str:
        calls.append("plan")
        return "the plan"

    async def write(text: str) -> str:
        calls.append("write")
        if calls.count("write") == 1:
            await end(sandbox)
        return f"written from {text}"

    @agent.job(attempts=1)
    async def report(ctx: Context) -> tuple[str, int]:
        text = await ctx.step("plan", plan)
        return await ctx.step("write", write, text), ctx.delivery

    async with Sandbox(agent) as sandbox:
        job = await sandbox.client.enqueue(report)
        assert await job.result(timeout=30) == ("written from the plan", 2)
        assert calls == ["plan", "write", "write"]
        await sandbox.run_until_idle()


async def test_a_worker_is_ended_from_outside_too_and_nothing_of_it_reaches_the_server() -> None:
    agent, started, cleaned = Agent("q"), asyncio.Queue[int](), list[str]()

    @agent.job
    async def slow(ctx: Context) -> int:
        started.put_nowait(ctx.delivery)
        try:
            await ctx.checkpoint(ctx.delivery)
            if ctx.delivery < 3:
                await asyncio.Event().wait()
        finally:
            cleaned.append(f"{ctx.delivery}")
        return int(ctx.resume)

    async with Sandbox(agent) as sandbox:
        job = await sandbox.client.enqueue(slow)
        result = asyncio.create_task(job.result(timeout=30))
        assert await started.get() == 1
        await sandbox.crash()
        assert await started.get() == 2
        await sandbox.drain()
        assert await result == 2
    assert cleaned == ["1", "2", "3"]


async def test_a_job_that_crashes_its_workers_is_dead_after_three() -> None:
    agent = Agent("q")

    @agent.job
    async def deadly(ctx: Context) -> None:
        await sandbox.crash()

    async with Sandbox(agent) as sandbox:
        job = await sandbox.client.enqueue(deadly)
        with pytest.raises(JobFailed, match="3 workers died while they ran it"):
            await job.result(timeout=30)
        assert [error.type for error in (await sandbox.client.dead_letter(job.id)).errors][:3] == ["Crashed"] * 3


async def test_without_a_running_worker_nothing_can_crash(box: Sandbox) -> None:
    for end in (box.crash, box.drain):
        with pytest.raises(UsageError, match="no worker of this Sandbox runs now"):
            await end()
