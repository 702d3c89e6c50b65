"""Handlers that wait for signals and times: in their slot for a moment, and then without one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from agentqueue import Agent, Client, Context, Fatal
from agentqueue.errors import JobCancelled, JobFailed
from agentqueue.model.job import State
from agentqueue.store import Engine
from agentqueue.store.time_travel import advance_time
from agentqueue_worker.domain.hold import HOLD_S
from tests.support.servers import RunningServer
from tests.support.workers import until, work_off, worker_for, working

HOUR = timedelta(hours=1)


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


class Trail:
    """What handlers of a test have done, in order."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, what: Any) -> Any:
        self.seen.append(what)
        return what


@pytest.fixture
def trail() -> Trail:
    return Trail()


async def suspended(client: Client, job_id: str) -> bool:
    return (await client.status(job_id)).state is State.SUSPENDED


async def test_a_job_waits_for_a_signal_without_a_slot_and_goes_on(
    client: Client, server_url: str, trail: Trail
) -> None:
    agent = Agent("q")

    @agent.job
    async def buy(ctx: Context) -> Any:
        await ctx.step("book", trail, "book")
        try:
            yes = await ctx.wait_for("approval", timeout=48 * HOUR)
        finally:
            trail(ctx.ending)
        await ctx.sleep(HOUR)
        await ctx.step("pay", trail, "pay")
        return [yes.name, yes.data, yes.sender, yes.sent_at is not None]

    job = await client.enqueue(buy, id="j")
    await work_off(agent, server_url)
    status = await job.status()
    assert (status.state, status.waits_for, status.deliveries) == (State.SUSPENDED, "the signal approval", 1)
    assert await job.signal("approval", {"ok": True}, sender="ana")
    await work_off(agent, server_url)
    assert await suspended(client, "j")
    await advance_time(client.store, 3_600_000)
    await work_off(agent, server_url)
    assert await job.result(5) == ["approval", {"ok": True}, "ana", True]
    status = await job.status()
    assert (status.attempts, status.deliveries) == (1, 3)
    assert trail.seen == ["book", "suspended", None, None, "pay"]
    redis = client.server.redis
    assert await redis.keys("aq:journal:*") == await redis.keys("aq:signals:*") == await redis.keys("q:susp*") == []


async def test_a_signal_reaches_a_job_in_its_slot_at_once(client: Client, server_url: str, trail: Trail) -> None:
    agent = Agent("q")

    @agent.job
    async def buy(ctx: Context) -> Any:
        async with ctx.busy():  # it would be suspended otherwise, on a slow machine
            trail("waits")
            return (await ctx.wait_for("approval")).data

    async with working(agent, server_url) as worker:
        job = await client.enqueue(buy)
        await until(lambda: bool(worker.state.waiting_jobs), what="the job waits in its slot")
        await job.signal("approval", 7)
        assert await job.result(10) == 7
    assert (await job.status()).deliveries == 1
    assert trail.seen == ["waits"]


async def test_waiting_jobs_do_not_keep_others_from_the_slots(client: Client, server_url: str) -> None:
    agent = Agent("q")

    @agent.job
    async def wait(ctx: Context) -> None:
        await ctx.wait_for("approval")

    @agent.job
    async def short(ctx: Context) -> str:
        return "done"

    async with working(agent, server_url, concurrency=2):
        for _ in range(10):
            await client.enqueue(wait)
        assert await (await client.enqueue(short)).result(HOLD_S * 4) == "done"
        await until(lambda: all_suspended(client, 10), what="all are suspended")


async def test_a_job_that_runs_alone_after_a_crash_leaves_the_worker_as_soon_as_it_waits(
    client: Client, server_url: str
) -> None:
    """The wait ends before the hold of a worker with free slots does, so only the short hold suspends the job."""
    agent = Agent("q")

    @agent.job
    async def wait(ctx: Context) -> int:
        if ctx.delivery > 1:
            with suppress(TimeoutError):
                await ctx.wait_for("approval", timeout=HOLD_S * 0.9)
            return ctx.delivery
        await asyncio.Event().wait()
        raise AssertionError

    job = await client.enqueue(wait)
    crashing = worker_for(agent, server_url)
    running = asyncio.create_task(crashing.run())
    await until(lambda: bool(crashing.state.running), what="the job runs")
    crashing.crash()
    await running
    engine = Engine(client.server, "q")
    await engine.release_owner_leases(owner=crashing.options.identity.owner, reason="OOMKilled")
    async with working(agent, server_url):
        assert await job.result(20) == 3


async def all_suspended(client: Client, count: int) -> bool:
    return (await client.stats("q")).suspended == count


async def test_a_short_wait_suspends_nothing(client: Client, server_url: str) -> None:
    agent = Agent("q")

    @agent.job
    async def nap(ctx: Context) -> int:
        await ctx.sleep(0.05)
        return ctx.delivery

    async with working(agent, server_url):
        assert await (await client.enqueue(nap)).result(20) == 1


async def test_a_step_in_flight_is_not_cut_by_a_wait_beside_it(client: Client, server_url: str, trail: Trail) -> None:
    agent, go = Agent("q"), asyncio.Event()

    async def write() -> str:
        trail("write")
        await go.wait()
        return "text"

    @agent.job
    async def both(ctx: Context) -> list[Any]:
        found = await asyncio.gather(ctx.wait_for("approval"), ctx.step("write", write))
        return [found[0].data, found[1]]

    job = await client.enqueue(both)
    running = asyncio.create_task(work_off(agent, server_url))
    await until(lambda: trail.seen == ["write"], what="the step runs")
    for _ in range(50):
        await asyncio.sleep(0.002)  # a burst's hold is 0: without the step it would be suspended by now
    assert (await job.status()).state is State.ACTIVE
    go.set()
    await running
    assert await suspended(client, job.id)
    await job.signal("approval", 1)
    await work_off(agent, server_url)
    assert await job.result(5) == [1, "text"]
    assert trail.seen == ["write"]


async def test_a_timeout_is_kept_before_it_is_raised(client: Client, server_url: str, trail: Trail) -> None:
    agent = Agent("q")

    @agent.job
    async def ask(ctx: Context) -> Any:
        try:
            await ctx.wait_for("approval", timeout=HOUR)
        except TimeoutError as exc:
            trail(str(exc))
        return (await ctx.wait_for("approval")).data

    job = await client.enqueue(ask)
    await work_off(agent, server_url)
    await advance_time(client.store, 3_600_001)
    await work_off(agent, server_url)
    assert await suspended(client, job.id)
    await job.signal("approval", "late")
    await work_off(agent, server_url)
    assert await job.result(5) == "late"
    assert trail.seen == ['no signal "approval" came within 3600 s'] * 2


async def test_first_takes_the_earliest_and_keeps_the_choice(client: Client, server_url: str) -> None:
    agent = Agent("q")

    @agent.job
    async def race(ctx: Context) -> list[Any]:
        chosen = await ctx.first(yes=ctx.wait_for("yes"), late=ctx.sleep(HOUR))
        await ctx.sleep(HOUR)
        again = await ctx.first(yes=ctx.wait_for("yes"), late=ctx.sleep(HOUR))
        return [chosen.name, chosen.value, again.name, again.value.data]

    job = await client.enqueue(race)
    await work_off(agent, server_url)
    assert (await job.status()).waits_for == "the signal yes or a time"
    await advance_time(client.store, 3_600_000)
    await work_off(agent, server_url)
    await job.signal("yes", 1)  # too late for the first choice
    await advance_time(client.store, 3_600_000)
    await work_off(agent, server_url)
    assert await job.result(5) == ["late", None, "yes", 1]


@pytest.mark.parametrize("reaction", ["returns", "raises", "steps"])
async def test_what_a_handler_does_while_it_is_suspended_counts_for_nothing(
    client: Client, server_url: str, trail: Trail, reaction: str
) -> None:
    agent = Agent("q")

    @agent.job
    async def odd(ctx: Context) -> Any:
        try:
            return (await ctx.wait_for("approval")).data
        except BaseException:  # noqa: BLE001  # what such a handler does is the subject
            if reaction == "steps":
                await ctx.step("release", trail, "released")
            if reaction == "raises":
                raise Fatal("no") from None
            return "fallback"

    job = await client.enqueue(odd)
    await work_off(agent, server_url)
    assert await suspended(client, job.id)
    assert trail.seen == []
    await job.signal("approval", 7)
    await work_off(agent, server_url)
    assert await job.result(5) == 7


async def test_a_handler_that_ignores_its_suspension_loses_its_slot(
    client: Client, server_url: str, monkeypatch: pytest.MonkeyPatch, trail: Trail
) -> None:
    monkeypatch.setattr("agentqueue_worker.app.runner.ABANDON_SUSPENDED_AFTER_S", 0.3)
    agent = Agent("q")

    @agent.job
    async def stubborn(ctx: Context) -> None:
        for _ in range(1_000_000):
            try:
                await ctx.wait_for("approval")
            except asyncio.CancelledError:
                trail("again")

    job = await client.enqueue(stubborn)
    with capture_logs() as logs:
        await work_off(agent, server_url)
    assert "job_ignores_suspension" in [line["event"] for line in logs]
    assert await suspended(client, job.id)
    assert 20 <= len(trail.seen) <= 25


async def test_a_plain_handler_waits_too(client: Client, server_url: str, trail: Trail) -> None:
    agent = Agent("q")

    @agent.job
    def plain(ctx: Context) -> Any:
        ctx.step("book", trail, "book")
        try:
            signal: Any = ctx.wait_for("approval", timeout=HOUR)
        except Exception:  # noqa: BLE001  # the same
            return "an error that is none"
        finally:
            trail(ctx.ending)
        ctx.sleep(0.001)
        return signal.data

    job = await client.enqueue(plain)
    await work_off(agent, server_url)
    assert await suspended(client, job.id)
    await job.signal("approval", 7)
    await work_off(agent, server_url)
    await advance_time(client.store, 1_000)
    await work_off(agent, server_url)
    assert await job.result(5) == 7
    assert trail.seen == ["book", "suspended", None, None]


async def test_tasks_that_a_handler_has_forgotten_end_with_the_run(
    client: Client, server_url: str, trail: Trail
) -> None:
    agent, tasks = Agent("q"), list[asyncio.Task[None]]()

    async def heartbeat() -> None:
        await asyncio.Event().wait()

    @agent.job
    async def forgetful(ctx: Context) -> None:
        tasks.append(asyncio.create_task(heartbeat()))
        await ctx.wait_for("approval")

    job = await client.enqueue(forgetful)
    with capture_logs() as logs:
        await work_off(agent, server_url)
    (line,) = [line for line in logs if line["event"] == "suspended_with_tasks"]
    assert "heartbeat" in line["tasks"][0]
    await job.signal("approval")
    await work_off(agent, server_url)
    assert (await job.status()).state is State.COMPLETED
    assert [task.cancelled() for task in tasks] == [True, True]


async def test_tasks_of_a_plain_job_live_on(client: Client, server_url: str) -> None:
    agent, tasks = Agent("q"), list[asyncio.Task[None]]()

    @agent.job
    async def plain(ctx: Context) -> None:
        tasks.append(asyncio.create_task(asyncio.sleep(3_600)))

    await client.enqueue(plain)
    await work_off(agent, server_url)
    assert not tasks[0].done()
    tasks[0].cancel()


@pytest.mark.parametrize("by", ["client", "arq"])
async def test_a_cancelled_job_undoes_what_its_steps_have_done(
    client: Client, server_url: str, shared_server: RunningServer, trail: Trail, by: str
) -> None:
    agent = Agent("q")

    @agent.job
    async def buy(ctx: Context) -> None:
        await ctx.step("book", trail, "book")
        try:
            await ctx.wait_for("approval")
        except asyncio.CancelledError:
            if ctx.ending == "cancelled":
                await ctx.step("undo", trail, "undo")
            raise

    job = await client.enqueue(buy)
    await work_off(agent, server_url)
    if by == "client":
        assert str(await job.cancel()) == "requested"
    else:
        with shared_server.client() as redis:
            redis.zadd("q", {job.id: 1})
            redis.zadd("arq:abort", {job.id: 1})
    await work_off(agent, server_url)
    with pytest.raises(JobCancelled):
        await job.result(5)
    assert trail.seen == ["book", "undo"]
    assert await client.server.redis.keys("aq:*:" + job.id) == []


async def test_a_plain_handler_undoes_too(client: Client, server_url: str, trail: Trail) -> None:
    agent = Agent("q")

    @agent.job
    def buy(ctx: Context) -> None:
        ctx.step("book", trail, "book")
        try:
            ctx.wait_for("approval")
        except asyncio.CancelledError:
            if ctx.ending == "cancelled":
                ctx.step("undo", trail, "undo")
            raise

    job = await client.enqueue(buy)
    await work_off(agent, server_url)
    await job.cancel()
    await work_off(agent, server_url)
    with pytest.raises(JobCancelled):
        await job.result(5)
    assert trail.seen == ["book", "undo"]


async def test_a_drain_suspends_a_waiting_job_at_once(client: Client, server_url: str) -> None:
    agent = Agent("q")

    @agent.job
    async def wait(ctx: Context) -> None:
        await ctx.wait_for("approval")

    async with working(agent, server_url) as worker:
        job = await client.enqueue(wait)
        await until(lambda: bool(worker.state.waiting_jobs), what="the job waits in its slot")
        worker.stop(grace=60.0)
        await until(lambda: suspended(client, job.id), what="the job is suspended")


async def test_the_timeout_of_a_job_counts_each_run(client: Client, server_url: str) -> None:
    agent = Agent("q")

    @agent.job(timeout=5.0)
    async def wait(ctx: Context) -> int:
        await ctx.wait_for("approval")
        return ctx.attempt

    job = await client.enqueue(wait)
    await work_off(agent, server_url)
    await advance_time(client.store, 3_600_000)
    await job.signal("approval")
    await work_off(agent, server_url)
    assert await job.result(5) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ctx: ctx.wait_for("no good"), "signal name 'no good'"),
        (lambda ctx: ctx.wait_for("x", timeout=-1), "`timeout` must be"),
        (lambda ctx: ctx.wait_for("x", key=""), "ctx.wait_for: its key '' must have 1 to 200 printable characters"),
        (lambda ctx: ctx.sleep(1, key="x" * 201), "ctx.sleep: its key"),
        (lambda ctx: ctx.first(a=ctx.sleep(1), key="\n"), "ctx.first: its key"),
        (lambda ctx: ctx.sleep("soon"), "`duration` must be"),
        (lambda ctx: ctx.first(), "1 to 100 waits by name"),
        (lambda ctx: ctx.first(now=7), "now is no wait"),
    ],
)
async def test_a_wait_that_can_not_be_kept_is_fatal(client: Client, server_url: str, call: Any, message: str) -> None:
    agent = Agent("q")

    @agent.job(attempts=3)
    async def wrong(ctx: Context) -> None:
        await call(ctx)

    job = await client.enqueue(wrong)
    await work_off(agent, server_url)
    with pytest.raises(JobFailed, match="after 1 attempt"):
        await job.result(5)
    assert message in str((await job.status()).error)


async def test_waits_for_one_name_from_two_tasks_need_a_key(client: Client, server_url: str) -> None:
    agent = Agent("q")

    @agent.job
    async def wrong(ctx: Context) -> None:
        async def branch() -> None:
            await ctx.wait_for("approval")

        await asyncio.gather(branch(), branch())

    @agent.job
    async def right(ctx: Context) -> list[Any]:
        async def branch(name: str) -> Any:
            return (await ctx.wait_for("approval", key=name)).data

        return list(await asyncio.gather(branch("a"), branch("b")))

    bad, good = await client.enqueue(wrong), await client.enqueue(right)
    await work_off(agent, server_url)
    assert 'wait_for("approval") is called from two tasks' in str((await bad.status()).error)
    await good.signal("approval", 1)
    await work_off(agent, server_url)
    await good.signal("approval", 2)
    await work_off(agent, server_url)
    assert sorted(await good.result(5)) == [1, 2]


async def test_a_suspended_job_causes_no_command(client: Client, server_url: str, shared_server: RunningServer) -> None:
    agent = Agent("q")

    @agent.job
    async def wait(ctx: Context) -> None:
        await ctx.wait_for("approval")

    for _ in range(20):
        await client.enqueue(wait)
    await work_off(agent, server_url)
    with shared_server.client() as redis:
        redis.config_resetstat()
        await work_off(agent, server_url)
        calls = {name: entry["calls"] for name, entry in redis.info("commandstats").items()}
    assert calls["cmdstat_hgetall"] <= 2  # the registration of the worker; no job's meta hash or journal is read
    assert calls["cmdstat_evalsha"] <= 6  # of an idle worker's start and end
