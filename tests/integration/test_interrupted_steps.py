"""A step whose end can be awaited is not cut: its value is kept, so the next run does not call it again. Rule 13."""

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from agentqueue import Agent, Backoff, Client, Context, Retry, Snooze
from agentqueue.client import Job
from agentqueue.model.job import State
from agentqueue_worker.app.worker import Worker
from tests.support.workers import final, until, work_off, working

FAST = Backoff("fixed", delay=0.05, jitter=0.0)


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


class Call:
    """A function of a step that takes until the test lets it end."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.left: list[str] = []
        self.started = threading.Event()
        self.go = threading.Event()

    def plain(self) -> str:
        """Block a thread."""
        self.entered.append("plain")
        self.started.set()
        self.go.wait(10)
        self.left.append("plain")
        return "paid"

    async def awaited(self) -> str:
        """Wait in the event loop."""
        self.entered.append("awaited")
        self.started.set()
        await until(self.go.is_set, what="the test lets it end")
        self.left.append("awaited")
        return "paid"

    async def is_under_way(self) -> None:
        """Wait until it has been called."""
        await until(self.started.is_set, what="the function is called")


@pytest.fixture
def call() -> Call:
    return Call()


KINDS: list[tuple[str, dict[str, Any]]] = [("plain", {}), ("plain", {"once": True}), ("awaited", {"once": True})]
"""Functions that run to their end whatever happens, or must: those in threads, and all of steps with once=True."""
kinds = pytest.mark.parametrize(("function", "options"), KINDS, ids=["plain", "plain-once", "async-once"])


async def fail_once_under_way(call: Call) -> None:
    """Raise while the step runs, and let it end a moment later."""
    await call.is_under_way()
    asyncio.get_running_loop().call_later(0.1, call.go.set)
    raise ConnectionError("cut off")


@kinds
@pytest.mark.parametrize("way", ["TaskGroup", "gather"])
async def test_a_step_ends_and_is_kept_although_a_sibling_fails(
    client: Client, server_url: str, call: Call, *, way: str, function: str, options: dict[str, Any]
) -> None:
    agent = Agent("q")

    async def pay(ctx: Context) -> str:
        return await ctx.step("pay", getattr(call, function), **options)

    @agent.job(backoff=FAST)
    async def buy(ctx: Context) -> str:
        if ctx.attempt > 1:
            return await pay(ctx)
        if way == "gather":
            return str(await asyncio.gather(pay(ctx), fail_once_under_way(call)))
        async with asyncio.TaskGroup() as group:
            group.create_task(pay(ctx))
            group.create_task(fail_once_under_way(call))
        return "never"

    job = await client.enqueue(buy)
    async with working(agent, server_url):
        status = await final(job)
    assert (status.result, status.attempts) == ("paid", 2)
    assert (call.entered, call.left) == ([function], [function])


def make_agent(call: Call, function: str, options: dict[str, Any], handler: str) -> Agent:
    """Return an agent whose one job makes the step, in a plain handler or an async one."""
    agent = Agent("q")

    async def buy(ctx: Context) -> str:
        return await ctx.step("pay", getattr(call, function), **options)

    def buy_in_thread(ctx: Context) -> str:
        return ctx.step("pay", getattr(call, function), **options)  # type: ignore[return-value]

    agent.job(name="buy", backoff=FAST)(buy if handler == "async" else buy_in_thread)
    return agent


async def stop_under_way(client: Client, url: str, agent: Agent, call: Call, stop: Callable[[Worker, Job], Any]) -> Job:
    """Stop the worker or the job while the step runs, and return the job once it has left its slot."""
    job = await client.enqueue("q", "buy")
    async with working(agent, url) as worker:
        await call.is_under_way()
        if (stopping := stop(worker, job)) is not None:
            await stopping
        (running,) = worker.state.running.values()
        await until(lambda: running.ending is not None, what="the run is being ended")
        call.go.set()
        await until(lambda: not worker.state.running, what="the job has left its slot")
    return job


@kinds
@pytest.mark.parametrize("handler", ["async", "plain"])
async def test_a_step_ends_and_is_kept_although_its_worker_stops_jobs(
    client: Client, server_url: str, call: Call, *, function: str, options: dict[str, Any], handler: str
) -> None:
    agent = make_agent(call, function, options, handler)
    job = await stop_under_way(client, server_url, agent, call, lambda worker, _: worker.stop(grace=0.0))
    assert (await job.status()).state is State.WAITING
    await work_off(agent, server_url)
    status = await job.status()
    assert (status.result, status.attempts) == ("paid", 1)
    assert call.entered == [function]


async def test_an_async_step_is_cut_when_its_worker_stops_jobs(client: Client, server_url: str, call: Call) -> None:
    agent = make_agent(call, "awaited", {}, "async")
    job = await stop_under_way(client, server_url, agent, call, lambda worker, _: worker.stop(grace=0.0))
    await work_off(agent, server_url)
    assert (await job.status()).result == "paid"
    assert (call.entered, call.left) == (["awaited", "awaited"], ["awaited"])


async def test_a_thread_that_does_not_end_in_time_is_left_behind(client: Client, server_url: str, call: Call) -> None:
    agent = make_agent(call, "plain", {}, "async")
    job = await client.enqueue("q", "buy")
    async with working(agent, server_url) as worker:
        await call.is_under_way()
        worker.stop(grace=0.0)
        await until(lambda: not worker.state.running, what="the job is released")
    assert (await job.status()).state is State.WAITING
    call.go.set()
    await work_off(agent, server_url)
    assert (await job.status()).result == "paid"
    assert call.entered == ["plain", "plain"]


async def test_a_plain_step_that_fails_while_it_is_awaited_is_recorded_as_failed(
    client: Client, server_url: str, call: Call
) -> None:
    agent, calls = Agent("q"), list[int]()

    def fail() -> str:
        calls.append(1)
        call.plain()
        if len(calls) == 1:
            raise ConnectionError("no answer")
        return "paid"

    @agent.job(name="buy", backoff=FAST)
    async def buy(ctx: Context) -> str:
        return await ctx.step("pay", fail, attempts=3)

    job = await stop_under_way(client, server_url, agent, call, lambda worker, _: worker.stop(grace=0.0))
    (step,) = (await job.status()).steps
    assert (step.outcome, step.error) == ("failed", "ConnectionError: no answer")
    await work_off(agent, server_url)
    assert (await job.status()).result == "paid"
    assert len(calls) == 2


# --- cancellations


@kinds
async def test_a_cancelled_job_ends_its_step_and_may_clean_up(
    client: Client, server_url: str, call: Call, function: str, options: dict[str, Any]
) -> None:
    """Each poll says again that somebody asked to cancel it. Its handler is cancelled once, and 5 s later again."""
    agent, undone = Agent("q"), list[str]()

    @agent.job(name="cancelled")
    async def cancelled(ctx: Context) -> None:
        try:
            await ctx.step("pay", getattr(call, function), **options)
        except asyncio.CancelledError:
            await ctx.step("undo", asyncio.sleep, 0.2)
            undone.append(str(ctx.ending))
            raise

    job = await client.enqueue("q", "cancelled")
    async with working(agent, server_url) as worker:
        worker.state.options = dataclasses.replace(worker.state.options, poll=0.01)
        await call.is_under_way()
        await job.cancel()
        (running,) = worker.state.running.values()
        await until(lambda: running.ending is not None, what="the job is being cancelled")
        await asyncio.sleep(0.2)  # polls, which must not cut the call
        call.go.set()
        assert (await final(job)).state is State.CANCELLED
    assert (call.left, undone) == ([function], ["cancelled"])


@pytest.mark.parametrize("error", [Retry("not now", after=60), Snooze("busy", after=60), ConnectionError("no answer")])
async def test_a_cancelled_job_that_fails_before_its_next_call_is_cancelled(
    client: Client, server_url: str, error: Exception
) -> None:
    """It is delivered once more, so that it can undo its steps. It is not tried again, whatever it raises there."""
    agent, runs = Agent("q"), list[int]()

    @agent.job(name="job", backoff=60)
    async def fail(ctx: Context) -> None:
        runs.append(ctx.delivery)
        await ctx.step("first", asyncio.sleep, 0)
        raise error

    job = await client.enqueue("q", "job")

    async def is_put_off() -> bool:
        return (await job.status()).state is State.DELAYED

    async with working(agent, server_url):
        await until(is_put_off, what="the job waits for its next attempt")
        await job.cancel()
        assert (await final(job)).state is State.CANCELLED
    assert runs == [1, 2]
