"""Steps: each runs once, and its value comes from the journal when the job runs again. Rule 13."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agentqueue import Agent, Backoff, Client, Context, Fatal
from agentqueue.errors import UsageError
from agentqueue.model.job import State
from agentqueue.store import Server
from tests.support.replies import field
from tests.support.workers import final, work_off, working

FAST = Backoff("fixed", delay=0.05, jitter=0.0)


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


async def test_a_step_runs_once_over_failed_attempts(client: Client, server_url: str, server: Server) -> None:
    agent, calls = Agent("q"), []

    async def plan(topic: str) -> list[str]:
        calls.append(topic)
        return [topic, "and more"]

    def write(parts: list[str], end: str) -> str:
        calls.append("write")
        return " ".join(parts) + end

    @agent.job(attempts=3, backoff=FAST)
    async def research(ctx: Context, topic: str) -> str:
        parts = await ctx.step("plan", plan, topic)
        if ctx.attempt == 1:
            raise ConnectionError("cut off")
        text = await ctx.step("write", write, parts, end=".")
        if ctx.attempt == 2:
            raise ConnectionError("cut off")
        return text

    job = await client.enqueue(research, "sea")
    async with working(agent, server_url):
        assert (await final(job)).result == "sea and more."
    assert calls == ["sea", "write"]
    assert await server.redis.exists(f"aq:journal:{job.id}", f"aq:meta:{job.id}") == 0


async def test_a_dead_letter_keeps_its_journal_and_a_replay_goes_on_after_the_last_good_step(
    client: Client, server_url: str, server: Server
) -> None:
    agent, calls = Agent("q"), []

    @agent.job
    async def book(ctx: Context) -> str:
        await ctx.step("search", lambda: calls.append("search"))
        await ctx.checkpoint({"page": 3})
        if len(calls) == 1:
            calls.append("dead")
            raise Fatal("no seat")
        return str(ctx.resume)

    job = await client.enqueue(book)
    await work_off(agent, server_url)
    assert (await job.status()).state is State.DEAD
    assert await server.redis.exists(f"aq:journal:{job.id}") == 1
    await client.replay("q", ids=[job.id])
    assert await field(server.redis, f"aq:meta:{job.id}", "journal") == b"1"
    await work_off(agent, server_url)
    assert (await job.status()).result == "{'page': 3}"
    assert calls == ["search", "dead"]
    assert await server.redis.exists(f"aq:journal:{job.id}") == 0


async def test_a_name_that_two_tasks_use_is_refused_with_advice(client: Client, server_url: str) -> None:
    agent = Agent("q")

    async def branch(ctx: Context) -> None:
        await ctx.step("fetch", asyncio.sleep, 0)

    @agent.job(attempts=3, backoff=FAST)
    async def both(ctx: Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(branch(ctx))
            group.create_task(branch(ctx))

    job = await client.enqueue(both)
    await work_off(agent, server_url)
    status = await job.status()
    assert (status.state, status.attempts) == (State.DEAD, 1)


async def test_a_context_refuses_steps_once_its_job_has_ended(client: Client, server_url: str) -> None:
    agent, kept = Agent("q"), []

    @agent.job
    async def quick(ctx: Context) -> None:
        kept.append(ctx)

    await client.enqueue(quick)
    await work_off(agent, server_url)
    with pytest.raises(UsageError, match="has ended"):
        await kept[0].step("late", asyncio.sleep, 0)
