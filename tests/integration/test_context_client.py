"""`ctx.client`: a handler's client of the server that its job came from."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agentqueue import Agent, Client, Context
from agentqueue.errors import JobFailed, JobNotFound, UsageError
from agentqueue.testing import Sandbox, context
from tests.support.workers import until, work_off, working


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


async def test_a_handler_asks_and_signals_other_jobs(client: Client, server_url: str) -> None:
    agent, seen = Agent("q"), list[Client]()

    @agent.job
    async def wait(ctx: Context) -> str:
        return str((await ctx.wait_for("go")).data)

    @agent.job
    async def release(ctx: Context, job_id: str) -> bool:
        jobs: Client = ctx.client
        seen.append(jobs)
        with pytest.raises(JobNotFound):
            await jobs.status("nowhere")
        return await jobs.signal(job_id, "go", "now")

    async with working(agent, server_url) as worker:
        assert worker.state.opened_client is None
        waiting = await client.enqueue(wait)
        assert await (await client.enqueue(release, waiting.id)).result(10)
        assert await waiting.result(10) == "now"
        assert await (await client.enqueue(release, (await client.enqueue(wait, id="other")).id)).result(10) is not None
        assert len(set(map(id, seen))) == 1
    connections = [it["addr"] for it in await client.server.redis.client_list() if it["addr"]]
    await until(lambda: len(connections) <= 2, what="the worker has closed its connections")


async def test_a_plain_handler_is_told_to_make_its_own(client: Client, server_url: str) -> None:
    agent = Agent("q")

    @agent.job(attempts=1)
    def blocking(ctx: Context) -> None:
        _ = ctx.client

    job = await client.enqueue(blocking)
    await work_off(agent, server_url)
    with pytest.raises(JobFailed, match="make a SyncClient"):
        await job.result(5)


async def test_in_a_sandbox_a_crash_cuts_the_handlers_client_too(server_url: str) -> None:
    agent, runs = Agent("q"), list[int]()

    @agent.job
    async def send(ctx: Context) -> int:
        runs.append(ctx.delivery)
        await ctx.client.stats("q")
        if ctx.delivery == 1:
            crashing = asyncio.create_task(box.crash())
            await asyncio.sleep(0)
            try:
                await ctx.client.enqueue("q", "never", id="from-the-dead")
            finally:
                await asyncio.shield(crashing)
        return ctx.delivery

    async with Sandbox(agent, url=server_url) as box:
        job = await box.client.enqueue(send)
        assert await job.result(20) == 2
        with pytest.raises(JobNotFound):
            await box.client.status("from-the-dead")
    assert runs == [1, 2]


async def test_a_unit_test_gives_the_client(client: Client) -> None:
    async def handler(ctx: Context) -> int:
        return len(await ctx.client.queues())

    assert await handler(context(client=client)) == 0
    with pytest.raises(UsageError, match=r"context\(client=box.client\)"):
        await handler(context())
