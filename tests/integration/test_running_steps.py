"""The status and `agentqueue explain` name the step that runs, since when, and in which attempt."""

import asyncio
from typing import Any

import pytest

from agentqueue import Agent, Backoff, Client, Context, Snooze
from agentqueue.cli.main import run as run_command
from tests.support.workers import until, work_off, working

FAST = Backoff("fixed", delay=0.0, jitter=0.0)


async def output_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert await asyncio.to_thread(run_command, [*words]) == 0
    return capsys.readouterr().out


async def test_a_step_that_runs_for_a_moment_is_named_until_it_ends(
    server_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("agentqueue_worker.app.durable_run.NOTED_AFTER_S", 0.01)
    agent, goes_on, calls = Agent("q"), asyncio.Event(), list[str]()

    async def ask(question: str) -> str:
        calls.append(question)
        if calls == ["first", "second"]:
            raise ConnectionError("the model answers 500")
        if question == "second":
            await goes_on.wait()
        return question

    @agent.job
    async def research(ctx: Context) -> None:
        await ctx.step("ask", ask, "first")
        await ctx.step("ask", ask, "second", attempts=3, backoff=FAST)

    async with Client(server_url) as client, working(agent, server_url):
        job = await client.enqueue(research)

        async def running() -> list[tuple[str, int]]:
            return [(step.name, step.attempt) for step in (await job.status()).running_steps]

        async def is_noted() -> bool:
            return await running() == [("ask#2", 2)]

        await until(is_noted, what="the step is noted")
        said = await output_of(capsys, "explain", "q", job.id, "--redis", server_url)
        assert "It has done 1 step; the last, ask#1," in said
        assert "Step ask#2 has run for" in said
        assert "attempt 2 of the step" in said
        assert "ask#2: since" in await output_of(capsys, "status", job.id, "--redis", server_url)
        goes_on.set()
        await job.result(60)
        assert not (await job.status()).running_steps


async def test_a_short_step_is_not_noted(server_url: str) -> None:
    agent = Agent("q")

    @agent.job
    async def quick(ctx: Context) -> None:
        await ctx.step("quick", lambda: None)
        await ctx.wait_for("go")

    async with Client(server_url) as client:
        job = await client.enqueue(quick)
        await work_off(agent, server_url)
        redis: Any = client.server.redis
        assert not await redis.hexists(f"aq:meta:{job.id}", "running")


async def test_explain_says_until_when_and_why_a_job_has_snoozed(
    server_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = Agent("q")

    @agent.job
    async def ask(ctx: Context) -> None:
        raise Snooze("the model answers 429", after=300)

    async with Client(server_url) as client:
        job = await client.enqueue(ask)
        await work_off(agent, server_url)
    said = await output_of(capsys, "explain", "q", job.id, "--redis", server_url)
    assert "is delayed: it becomes ready in" in said
    assert "It has snoozed once, the last time because: the model answers 429." in said
