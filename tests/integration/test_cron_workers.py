"""Tests of crons with real workers and in a Sandbox: registration, restarts, outages, and the outcome of a tick."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from agentqueue import Agent, Client, Context, Fatal
from agentqueue.clock import now_ms
from agentqueue.keys import KeySpace
from agentqueue.model.schedule import Schedule
from agentqueue.model.times import from_ms
from agentqueue.store import Registrations, Schedules, Server
from agentqueue.testing import Sandbox
from tests.support.replies import awaited
from tests.support.workers import final, until, work_off, working


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


def agent_with(ran: list[datetime | None], *, cron: str = "0 * * * *", fails: bool = False) -> Agent:
    agent = Agent("q")

    @agent.cron(cron, missed="all")
    async def tidy(ctx: Context) -> None:
        ran.append(ctx.scheduled_for)
        if fails:
            raise Fatal("no")

    @agent.job
    async def greet(ctx: Context, name: str) -> str:
        return name if ctx.scheduled_for is None else f"{name} by schedule"

    return agent


async def test_a_worker_registers_its_jobs_and_crons_before_it_claims(client: Client, server_url: str) -> None:
    job = await client.enqueue("q", "greet", "ana")
    async with working(agent_with([]), server_url, name="w1"):
        assert (await final(job)).result == "ana"
        found = await Registrations(client.server).read("q")
        assert found is not None
        assert (found.worker, dict(found.jobs)) == ("w1", {"tidy": None, "greet": {"type": "string"}})
        assert [cron.cron for cron in found.crons] == ["0 * * * *"]

        async def has_fingerprint() -> bool:
            rows = await awaited(client.server.redis.hgetall(KeySpace("q").workers))
            return any(f'"registration":"{found.fingerprint}"'.encode() in row for row in rows.values())

        await until(has_fingerprint, what="the heartbeat has the registration")
    (listed,) = await client.schedules("q")
    assert listed.next_at is not None
    assert await client.job_names("q") == ["greet", "tidy"]


async def test_the_tick_stays_in_the_queue_when_the_workers_are_gone(client: Client, server_url: str) -> None:
    ran: list[datetime | None] = []
    await work_off(agent_with(ran, cron="* * * * * *"), server_url)
    async with Sandbox(url=server_url) as box:
        await box.advance(5)
    assert (await client.stats("q")).waiting == 1
    before = len(ran)
    await work_off(agent_with(ran, cron="* * * * * *"), server_url)
    assert len(ran) >= before + 5
    due = [moment for moment in ran if moment is not None]
    assert all(later - sooner == timedelta(seconds=1) for sooner, later in pairwise(due))


@pytest.mark.parametrize(("fails", "state"), [(False, "completed"), (True, "dead")])
async def test_the_outcome_of_a_tick_is_kept(client: Client, server_url: str, fails: bool, state: str) -> None:
    async with working(agent_with([], cron="* * * * * *", fails=fails), server_url):

        async def has_ended() -> bool:
            listed = await client.schedules("q")
            return bool(listed and listed[0].last and listed[0].last.ended_at)

        await until(has_ended, what="a tick has ended")
    (listed,) = await client.schedules("q")
    assert listed.last is not None
    assert listed.last.state == state


async def test_a_cron_that_the_code_no_longer_has_is_removed(client: Client, server_url: str) -> None:
    await work_off(agent_with([]), server_url)
    other = Agent("q")

    @other.job
    async def greet(ctx: Context, name: str) -> None: ...

    await work_off(other, server_url)
    assert await client.schedules("q") == []
    assert (await client.stats("q")).delayed == 0


async def test_a_schedule_of_the_resource_runs_with_its_data(client: Client, server_url: str, server: Server) -> None:
    each_second = Schedule("hello", cron="* * * * * *", job="greet", data="ana")
    await Schedules(server).put("q", source="resource", schedules=[each_second])
    async with working(agent_with([]), server_url):

        async def has_ended() -> bool:
            found = {schedule.name: schedule for schedule in await client.schedules("q")}
            last = found["hello"].last
            return last is not None and last.ended_at is not None

        await until(has_ended, what="a tick has ended")
    last = next(schedule.last for schedule in await client.schedules("q") if schedule.name == "hello")
    assert last is not None
    assert (await client.status(last.id)).result == "ana by schedule"


async def test_a_sandbox_fires_ticks_when_time_passes() -> None:
    ran: list[datetime | None] = []
    agent = Agent("q")

    @agent.cron("0 3 * * *", timezone="Europe/Berlin", missed="skip")
    async def nightly(ctx: Context) -> None:
        ran.append(ctx.scheduled_for)

    async with Sandbox(agent) as box:
        await box.run_until_idle()
        assert ran == []
        for _ in range(3):
            (listed,) = await box.client.schedules("q")
            assert listed.next_at is not None
            stats = await box.client.stats("q")
            assert stats.delayed == 1
            status = (await box.client.jobs("q", "delayed"))[0]
            assert status.due_at is not None
            await box.advance(status.due_at - from_ms(now_ms()) + timedelta(seconds=1))
            await box.run_until_idle()
            assert ran[-1] == listed.next_at
    assert len(ran) == 3
    assert all(moment is not None and moment.astimezone().minute == 0 for moment in ran)
