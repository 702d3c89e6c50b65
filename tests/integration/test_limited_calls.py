"""`ctx.limit` in handlers: room and waiting, refusals of a provider, threads, cancels, and the end of a worker."""

import asyncio
import time
from typing import Any

import pytest

from agentqueue import Agent, Client, Context, Throttled
from agentqueue.keys import LIMIT_CALLS
from agentqueue.model.job import State
from agentqueue.model.limits import WAITERS_AT_GATE, Limit, LimitList, parse_limits
from agentqueue.store import Server
from agentqueue.store.limits import Limits, LimitView
from agentqueue.testing import Sandbox
from tests.support.replies import fields
from tests.support.workers import final, until, work_off, working

GPT = LimitList({}, ("gpt",))
PROVIDER = {"name": "gpt", "requestsPerMinute": 100, "unitsPerMinute": 1_000}


class Provider:
    """A provider with one limit, and an agent that calls it."""

    def __init__(self, server: Server) -> None:
        self.server, self.limits = server, Limits(server)
        self.agent = Agent("q")
        self.client = Client(server.options.url)
        self.go = asyncio.Event()
        self.most = self.running = 0
        self.most_started = self.started = 0
        self.calls: list[str] = []

        @self.agent.job
        async def call(ctx: Context) -> None:
            self.started += 1
            self.most_started = max(self.most_started, self.started)
            async with ctx.limit("gpt", units=10):
                self.calls.append(ctx.id)
                self.running += 1
                self.most = max(self.most, self.running)
                await self.go.wait()
                self.running -= 1
            self.started -= 1

    async def define(self, **limits: Any) -> None:
        await self.limits.define("q", "test", {"gpt": Limit(**limits)})

    async def view(self) -> LimitView:
        (view,) = await self.limits.view()
        return view

    async def enqueue(self, count: int) -> list[str]:
        return [(await self.client.enqueue("q", "call", id=f"call-{number}")).id for number in range(count)]

    async def ended(self, job_id: str) -> State:
        return (await final(self.client.job(job_id))).state


@pytest.fixture
async def provider(server: Server) -> Any:
    made = Provider(server)
    yield made
    await made.client.close()


async def test_calls_wait_in_their_slots_and_go_on_when_one_ends(provider: Provider) -> None:
    await provider.define(concurrent=2)
    ids = await provider.enqueue(5)
    async with working(provider.agent, provider.server.options.url) as worker:
        await until(lambda: provider.running == 2, what="two calls run")
        await until(lambda: len(worker.state.limited_jobs) == 3, what="three calls wait")
        started = time.monotonic()
        provider.go.set()
        for job_id in ids:
            assert await provider.ended(job_id) is State.COMPLETED
        assert time.monotonic() - started < 1.5  # nobody waits for its next look at the line
        assert worker.state.limited_jobs == set()
    assert provider.most == 2
    assert (await provider.view()).running == 0
    assert await fields(provider.server.redis, f"{LIMIT_CALLS}gpt") == {}


async def test_what_a_call_took_is_what_counts() -> None:
    agent = Agent("q")

    @agent.job
    async def call(ctx: Context) -> int | None:
        async with ctx.limit("gpt", units=600) as use:
            use.units = 100
        async with ctx.limit("gpt", units=900) as more:
            pass
        return more.reserved

    async with Sandbox(agent, limits=[PROVIDER]) as box:
        assert await (await box.client.enqueue(call)).result() == 900
        (view,) = await Limits(box.client.store.server).view()
        assert (view.units, view.requests) == (1_000, 2)


async def test_a_plain_handler_and_a_step_use_limits_too() -> None:
    agent = Agent("q")

    def ask(ctx: Context) -> str:
        with ctx.limit("gpt", units=10) as use:
            use.units = 20
        return "step"

    @agent.job
    def plain(ctx: Context) -> int | None:
        with ctx.limit("gpt", units=10) as use:
            return use.reserved

    @agent.job
    async def durable(ctx: Context) -> str:
        return await ctx.step("ask", ask, ctx)

    @agent.job
    async def blocking(ctx: Context) -> None:
        with ctx.limit("gpt"):
            pass

    async with Sandbox(agent, limits=[PROVIDER]) as box:
        assert await (await box.client.enqueue(plain)).result() == 10
        assert await (await box.client.enqueue(durable)).result() == "step"
        (view,) = await Limits(box.client.store.server).view()
        assert (view.units, view.requests) == (30, 2)
        job = await box.client.enqueue(blocking)
        await box.run_until_idle()
        status = await job.status()
        assert status.state is State.DEAD
        assert 'needs "async with"' in (status.error or "")


@pytest.mark.parametrize(
    ("names", "units", "message"),
    [
        (["none"], None, "limit 'none' is not defined"),
        (["gpt"], 1_001, "a call of 1,001 units is larger than limit 'gpt', which has 1,000"),
        ([], None, "takes 1 to 10 names"),
        (["GPT"], None, "limit name 'GPT'"),
        (["gpt"], -1, "units=-1 must be a whole number"),
    ],
)
async def test_a_call_that_can_never_start_is_a_dead_letter_at_once(
    names: list[str], units: int | None, message: str
) -> None:
    agent = Agent("q")

    @agent.job
    async def call(ctx: Context) -> None:
        async with ctx.limit(*names, units=units):
            pass

    async with Sandbox(agent, limits=[PROVIDER]) as box:
        job = await box.client.enqueue(call)
        await box.run_until_idle()
        status = await job.status()
        assert status.state is State.DEAD
        assert message in (status.error or "")


async def test_a_refusal_burns_no_attempt_and_rests_the_limit() -> None:
    agent = Agent("q")
    refusals = [30, None]

    @agent.job(attempts=1)
    async def call(ctx: Context) -> int:
        async with ctx.limit("gpt", units=10):
            if refusals:
                raise Throttled("gpt", retry_after=refusals.pop(0))
        return ctx.attempt

    async with Sandbox(agent, limits=[PROVIDER]) as box:
        job = await box.client.enqueue(call)
        await box.run_until_idle()
        status = await job.status()
        assert (status.state, status.attempts) == (State.DELAYED, 0)
        (view,) = await Limits(box.client.store.server).view()
        assert view.rest_why == "429"
        for _ in range(2):
            await box.advance(31)
            await box.run_until_idle()
        assert await job.result() == 1


async def test_a_handler_may_go_on_after_a_refusal() -> None:
    agent = Agent("q")
    tries: list[float] = []

    @agent.job
    async def call(ctx: Context) -> int:
        while True:
            async with ctx.limit("gpt", units=10) as use:
                tries.append(time.monotonic())
                if len(tries) > 1:
                    break
                use.throttled(0.4)
        return len(tries)

    async with Sandbox(agent, limits=[PROVIDER]) as box:
        assert await (await box.client.enqueue(call)).result() == 2
        assert tries[1] - tries[0] >= 0.4


async def test_a_provider_that_always_refuses_makes_a_dead_letter_in_the_end() -> None:
    agent = Agent("q")

    @agent.job
    async def call(ctx: Context) -> None:
        async with ctx.limit("gpt", units=10):
            raise Throttled("gpt", retry_after=40, message="insufficient_quota")

    async with Sandbox(agent, limits=[{**PROVIDER, "maxThrottledSeconds": 100}]) as box:
        job = await box.client.enqueue(call)
        for number in range(4):
            await box.run_until_idle()
            status = await job.status()
            assert status.state is (State.DELAYED if number < 3 else State.DEAD)
            await box.advance(41)
        (letter,) = await box.client.dead_letters("q")
        assert (letter.reason, status.attempts) == ("throttled", 1)
        assert "insufficient_quota" in (status.error or "")


async def test_a_cancelled_call_leaves_the_line_and_takes_nothing(provider: Provider) -> None:
    await provider.define(concurrent=1, requests_per_minute=10)
    ids = await provider.enqueue(2)
    async with working(provider.agent, provider.server.options.url) as worker:
        await until(lambda: len(worker.state.limited_jobs) == 1, what="one call waits")
        (waiting,) = set(ids) - set(provider.calls)
        await provider.client.cancel(waiting)
        assert await provider.ended(waiting) is State.CANCELLED
        provider.go.set()
        await provider.ended(provider.calls[0])
    view = await provider.view()
    assert (view.waiting, view.requests, view.running) == (0, 1, 0)


async def test_a_call_that_is_cut_off_is_settled(provider: Provider) -> None:
    await provider.define(concurrent=1, requests_per_minute=10)
    (job_id,) = await provider.enqueue(1)
    async with working(provider.agent, provider.server.options.url):
        await until(lambda: provider.running == 1, what="the call runs")
        await provider.client.cancel(job_id)
        assert await provider.ended(job_id) is State.CANCELLED
    view = await provider.view()
    assert (view.requests, view.running) == (1, 0)


async def test_a_durable_job_leaves_its_slot_while_its_limit_rests_for_long() -> None:
    agent = Agent("q")
    runs: list[str] = []

    async def ask(ctx: Context, name: str) -> str:
        async with ctx.limit("gpt", units=10) as use:
            runs.append(name)
            if len(runs) == 2:
                use.throttled(300)
        return name

    @agent.job
    async def chat(ctx: Context) -> str:
        return "".join([await ctx.step("ask", ask, ctx, name) for name in "abc"])

    async with Sandbox(agent, limits=[PROVIDER]) as box:
        job = await box.client.enqueue(chat)
        await box.run_until_idle(timeout=10)
        status = await job.status()
        assert (status.state, status.attempts) == (State.DELAYED, 0)
        await box.advance(301)
        await box.run_until_idle()
        assert await job.result() == "abc"
        assert runs == ["a", "b", "c"]


async def test_an_agent_with_a_limit_starts_no_job_while_many_calls_wait(provider: Provider) -> None:
    await provider.define(concurrent=1)
    await provider.enqueue(60)
    async with working(provider.agent, provider.server.options.url, limits=GPT, concurrency=60) as worker:
        await until(lambda: len(worker.state.limited_jobs) == WAITERS_AT_GATE, what="the line is full")
        urgent = await provider.client.enqueue("q", "call", priority="urgent")
        provider.go.set()
        await final(urgent)
        assert provider.calls.index(urgent.id) < 50  # it has not waited for all the others
        for number in range(60):
            await provider.ended(f"call-{number}")
    assert provider.most_started == WAITERS_AT_GATE + 1
    assert (await provider.view()).waiting == 0


async def test_a_worker_defines_its_limits_before_it_starts_jobs(provider: Provider) -> None:
    await provider.enqueue(1)
    limits = parse_limits([PROVIDER, "other"])
    provider.go.set()
    async with working(provider.agent, provider.server.options.url, limits=limits):
        assert await provider.ended("call-0") is State.COMPLETED
    view = await provider.view()
    assert (view.name, view.source, view.requests) == ("gpt", "worker q", 1)


async def test_jobs_without_limits_send_no_command_more(provider: Provider) -> None:
    """A limit that is defined costs those nothing that do not use it."""
    await provider.define(concurrent=1)
    agent = Agent("q")

    @agent.job
    async def plain(ctx: Context) -> None: ...

    await provider.client.enqueue("q", "plain")
    await provider.server.redis.config_resetstat()
    await work_off(agent, provider.server.options.url)
    stats = await provider.server.redis.info("commandstats")
    assert "cmdstat_hexists" not in stats
