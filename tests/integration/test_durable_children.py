"""`ctx.child` and `ctx.gather` in real workers: a parent waits without a slot, and its children run once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from pydantic import BaseModel
from structlog.testing import capture_logs

from agentqueue import Agent, Backoff, ChildFailed, Client, Context, Fatal
from agentqueue.model.job import State, decode_job
from agentqueue.store import Server
from tests.support.workers import final, until, working

FAST = Backoff("fixed", delay=0.05, jitter=0.0)


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


class Found(BaseModel):
    """What a search finds."""

    city: str
    price: int


class Research:
    """An agent that plans, and one that searches, each in its own queue."""

    def __init__(self) -> None:
        self.searched: list[str] = []
        self.go = asyncio.Event()
        self.go.set()
        self.plans, self.searches = Agent("plans"), Agent("searches")

        @self.searches.job(attempts=1)
        async def search(ctx: Context, city: str) -> Found:
            await self.go.wait()
            self.searched.append(city)
            if city == "nowhere":
                raise ValueError("no such city")
            return Found(city=city, price=len(city))

        self.search = search


async def test_results_come_in_the_order_of_the_children_and_as_the_handler_returns_them(
    client: Client, server_url: str, server: Server
) -> None:
    research = Research()

    @research.plans.job(attempts=1)
    async def plan(ctx: Context, cities: list[str]) -> list[str]:
        found = await ctx.gather([ctx.child(research.search, city) for city in cities])
        assert all(type(one) is Found for one in found)
        first = await ctx.child(research.search, "Rome")
        return [*(one.city for one in found), first.city]

    async with working(research.plans, server_url), working(research.searches, server_url):
        job = await client.enqueue(plan, ["Lisbon", "Oslo", "Porto"])
        assert (await final(job)).result == ["Lisbon", "Oslo", "Porto", "Rome"]
    assert sorted(research.searched) == ["Lisbon", "Oslo", "Porto", "Rome"]
    assert await server.redis.keys("aq:[cjmr]*") == []


async def test_a_rerun_sends_nothing_twice_and_gets_the_same_results(client: Client, server_url: str) -> None:
    research = Research()

    @research.plans.job(attempts=3, backoff=FAST)
    async def plan(ctx: Context) -> list[int]:
        found = await ctx.gather([ctx.child(research.search, city) for city in ("Lisbon", "Oslo")])
        if ctx.attempt < 3:
            raise ConnectionError("cut off")
        return [one.price for one in found]

    async with working(research.plans, server_url), working(research.searches, server_url):
        assert (await final(await client.enqueue(plan))).result == [6, 4]
    assert sorted(research.searched) == ["Lisbon", "Oslo"]


async def test_a_failed_child_is_raised_with_its_error_and_may_be_caught(client: Client, server_url: str) -> None:
    research = Research()
    seen: list[ChildFailed] = []

    @research.plans.job(attempts=1)
    async def plan(ctx: Context) -> str:
        try:
            await ctx.gather([ctx.child(research.search, city) for city in ("Lisbon", "nowhere")])
        except ChildFailed as exc:
            seen.append(exc)
        return "gone on"

    async with working(research.plans, server_url), working(research.searches, server_url):
        assert (await final(await client.enqueue(plan))).result == "gone on"
    (failed,) = seen
    assert failed.target == ("searches", "search")
    assert (failed.error, failed.state) == ("ValueError: no such city", "dead")
    status = await client.status(failed.id)
    assert status.state is State.DEAD
    assert status.parent is not None


async def test_failures_are_results_if_they_are_collected(client: Client, server_url: str) -> None:
    research = Research()

    @research.plans.job(attempts=1)
    async def plan(ctx: Context) -> list[str]:
        asked = [ctx.child(research.search, city) for city in ("Lisbon", "nowhere", "Oslo")]
        return [
            found.error if isinstance(found, ChildFailed) else found.city
            for found in await ctx.gather(asked, on_error="collect")
        ]

    async with working(research.plans, server_url), working(research.searches, server_url):
        job = await client.enqueue(plan)
        assert (await final(job)).result == ["Lisbon", "ValueError: no such city", "Oslo"]


async def test_a_failure_that_nobody_catches_is_final_and_a_replay_runs_the_child_again(
    client: Client, server_url: str
) -> None:
    agent, runs = Agent("q"), []

    @agent.job(attempts=1)
    async def flaky(ctx: Context, name: str) -> str:
        runs.append(name)
        if name == "bad" and runs.count("bad") == 1:
            raise ValueError("not yet")
        return name

    @agent.job(attempts=5, backoff=FAST)
    async def plan(ctx: Context) -> list[str]:
        return await ctx.gather([ctx.child(flaky, name) for name in ("good", "bad")])

    async with working(agent, server_url):
        job = await client.enqueue(plan)
        status = await final(job)
        assert (status.state, status.attempts) == (State.DEAD, 1)
        assert "ValueError: not yet" in str(status.error)
        await client.replay("q", job.id)
        await until(lambda: runs.count("bad") == 2, what="the child runs again")
        assert await job.result(timeout=10) == ["good", "bad"]
    assert sorted(runs) == ["bad", "bad", "good"]


async def test_a_collected_failure_stays_the_answer_when_its_dead_parent_is_replayed(
    client: Client, server_url: str
) -> None:
    agent, runs, answers = Agent("q"), list[str](), list[list[str]]()

    @agent.job(attempts=1)
    async def flaky(ctx: Context, name: str) -> str:
        runs.append(name)
        if runs.count(name) == 1:
            raise ValueError("not yet")
        return name

    @agent.job(attempts=1)
    async def plan(ctx: Context) -> str:
        found = await ctx.gather([ctx.child(flaky, name) for name in ("one", "two")], on_error="collect")
        answers.append([one.error if isinstance(one, ChildFailed) else one for one in found])
        if len(answers) == 1:
            raise Fatal("the parent dies for another reason")
        return await ctx.child(flaky, "three")

    async with working(agent, server_url):
        job = await client.enqueue(plan)
        assert "another reason" in str((await final(job)).error)
        await client.replay("q", job.id)
        await until(lambda: runs.count("three") == 1, what="the other child has failed")
        assert "ValueError: not yet" in str((await final(job)).error)
        assert sorted(runs) == ["one", "three", "two"]
        await client.replay("q", job.id)
        assert await job.result(timeout=10) == "three"
    assert sorted(runs) == ["one", "three", "three", "two"]
    assert answers
    assert all(answer == ["ValueError: not yet"] * 2 for answer in answers)


async def test_a_replay_runs_no_children_again_that_an_answer_did_without_until_they_are_asked_for(
    client: Client, server_url: str
) -> None:
    agent, runs, deaths = Agent("q"), list[str](), list[str]()

    @agent.job(attempts=1)
    async def flaky(ctx: Context, name: str) -> str:
        runs.append(name)
        if name == "bad" and runs.count("bad") == 1:
            raise ValueError("not yet")
        return name

    @agent.job(attempts=1)
    async def plan(ctx: Context) -> list[str]:
        bad, good = ctx.child(flaky, "bad"), ctx.child(flaky, "good")
        first = await ctx.gather([bad, good], need=1)
        if len(deaths) < 2:
            deaths.append(str(bad.id))
            raise Fatal("the parent dies for another reason")
        return [*first, await bad]

    async with working(agent, server_url):
        job = await client.enqueue(plan)
        assert "another reason" in str((await final(job)).error)
        await until(lambda: len(runs) == 2, what="both children have run")
        await client.replay("q", job.id)
        await until(lambda: len(deaths) == 2, what="the parent has died again")
        assert "another reason" in str((await final(job)).error)
        assert (await client.status(deaths[0])).state is State.DEAD
        await client.replay("q", job.id)
        assert await job.result(timeout=10) == ["good", "bad"]
    assert sorted(runs) == ["bad", "bad", "good"]


async def test_the_first_results_are_enough_and_the_rest_is_cancelled(client: Client, server_url: str) -> None:
    agent = Agent("q")
    ended: list[str] = []

    @agent.job(attempts=1)
    async def offer(ctx: Context, name: str) -> str:
        if name == "slow":
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(name)
        return name

    @agent.job(attempts=1)
    async def plan(ctx: Context) -> list[str]:
        asked = [ctx.child(offer, name) for name in ("slow", "quick", "fast")]
        return await ctx.gather(asked, need=2, cancel_rest=True)

    async with working(agent, server_url):
        assert (await final(await client.enqueue(plan))).result == ["quick", "fast"]
        await until(lambda: ended == ["slow"], what="the third child is cancelled")


async def test_a_gather_that_takes_too_long_raises_and_does_so_in_each_run(client: Client, server_url: str) -> None:
    research = Research()
    research.go.clear()
    late: list[str] = []

    @research.plans.job(attempts=2, backoff=FAST)
    async def plan(ctx: Context) -> str:
        try:
            await ctx.gather([ctx.child(research.search, "Oslo")], timeout=0.3)
        except TimeoutError as exc:
            late.append(str(exc))
        if ctx.attempt == 1:
            raise ConnectionError("cut off")
        return "late"

    async with working(research.plans, server_url), working(research.searches, server_url):
        assert (await final(await client.enqueue(plan))).result == "late"
        research.go.set()
    assert len(late) == 2
    assert "child searches/search#1" in late[0]


async def test_parents_nested_six_deep_need_one_slot(client: Client, server_url: str) -> None:
    agent = Agent("q")

    @agent.job(attempts=1)
    async def dive(ctx: Context, depth: int) -> int:
        return 0 if depth == 0 else 1 + await ctx.child(dive, depth - 1)

    async with working(agent, server_url, concurrency=1):
        assert (await final(await client.enqueue(dive, 6))).result == 6


async def test_72_children_of_six_parents_need_two_slots(client: Client, server_url: str) -> None:
    agent = Agent("q")
    runs: list[int] = []

    @agent.job(attempts=1)
    async def leaf(ctx: Context, number: int) -> int:
        runs.append(number)
        return number

    @agent.job(attempts=1)
    async def fan(ctx: Context, first: int) -> int:
        return sum(await ctx.gather([ctx.child(leaf, first + offset) for offset in range(12)]))

    async with working(agent, server_url, concurrency=2):
        jobs = [await client.enqueue(fan, 12 * number) for number in range(6)]
        results = [(await final(job)).result for job in jobs]
    assert sum(results) == sum(range(72))
    assert sorted(runs) == [*range(72)]


async def test_a_thousand_children_are_gathered(client: Client, server_url: str) -> None:
    agent = Agent("q")

    @agent.job(attempts=1)
    async def leaf(ctx: Context, number: int) -> int:
        return number

    @agent.job(attempts=1)
    async def fan(ctx: Context, count: int) -> int:
        return len(await ctx.gather([ctx.child(leaf, number) for number in range(count)]))

    async with working(agent, server_url, concurrency=50):
        assert (await final(await client.enqueue(fan, 1_000))).result == 1_000
        too_many = await final(await client.enqueue(fan, 1_001))
    assert too_many.state is State.DEAD
    assert "over the limit of 1,000" in str(too_many.error)


async def test_a_plain_handler_waits_in_its_thread(client: Client, server_url: str) -> None:
    research = Research()

    @research.plans.job(attempts=1)
    def plan(ctx: Context) -> list[str]:
        found: Any = ctx.gather([ctx.child(research.search, city) for city in ("Lisbon", "Oslo")])
        one: Any = ctx.child(research.search, "Rome").result()
        return [*(each.city for each in found), one.city]

    async with working(research.plans, server_url), working(research.searches, server_url):
        assert (await final(await client.enqueue(plan))).result == ["Lisbon", "Oslo", "Rome"]


async def test_children_inherit_priority_tenant_and_trace(client: Client, server_url: str, server: Server) -> None:
    research = Research()
    research.go.clear()

    @research.plans.job(attempts=1)
    async def plan(ctx: Context) -> str:
        return (await ctx.child(research.search, "Oslo")).city

    async with working(research.plans, server_url):
        job = await client.enqueue(plan, priority="high", tenant="acme", trace="00-abc")
        ids: list[bytes] = []

        async def sent() -> bool:
            ids[:] = await server.redis.zrange("searches:high", 0, -1)
            return len(ids) == 1

        await until(sent, what="the child is sent")
        record = decode_job(await server.redis.get(b"arq:job:" + ids[0]) or b"")
        assert (record.tenant, record.trace, record.parent) == ("acme", "00-abc", job.id)
        assert (record.parent_queue, record.depth) == ("plans", 1)


async def wrong_use(client: Client, url: str, body: Any) -> str:
    """Return the error of a job whose handler misuses its children."""
    agent = Agent("q")

    @agent.job(attempts=3, backoff=FAST)
    async def leaf(ctx: Context, value: Any = None) -> Any:
        return value

    @agent.job(attempts=3, backoff=FAST)
    async def parent(ctx: Context) -> Any:
        return await body(ctx, leaf)

    async with working(agent, url):
        status = await final(await client.enqueue(parent))
    assert (status.state, status.attempts) == (State.DEAD, 1)
    return str(status.error)


async def gather_from_two_tasks(ctx: Context, leaf: Any) -> Any:
    async def branch(value: int) -> Any:
        return await ctx.child(leaf, value)

    return await asyncio.gather(branch(1), branch(2))


async def give_an_id(ctx: Context, leaf: Any) -> Any:
    return await ctx.child(leaf, 1, id="mine")


async def give_a_key_of_two_lines(ctx: Context, leaf: Any) -> Any:
    return await ctx.child(leaf, 1, key="a\nb")


async def need_too_many(ctx: Context, leaf: Any) -> Any:
    return await ctx.gather([ctx.child(leaf, 1)], need=2)


async def mistype_on_error(ctx: Context, leaf: Any) -> Any:
    return await ctx.gather([ctx.child(leaf, 1)], on_error="ignore")  # type: ignore[call-overload]


async def ask_for_nothing(ctx: Context, leaf: Any) -> Any:
    return await ctx.child("leaf", 1)  # type: ignore[call-overload]


async def ask_without_end(ctx: Context, leaf: Any) -> Any:
    return await ctx.child(("q", "parent"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (gather_from_two_tasks, "give each call a key="),
        (give_an_id, "give it a key= instead of an id="),
        (give_a_key_of_two_lines, "ctx.child: its key 'a\\nb' must have 1 to 200 printable characters"),
        (need_too_many, "need=2 must be a number from 1"),
        (mistype_on_error, "must be 'raise' or 'collect'"),
        (ask_for_nothing, "is not a job"),
        (ask_without_end, "wait for one another"),
    ],
)
async def test_a_wrong_call_is_a_clear_error_at_once(client: Client, server_url: str, body: Any, message: str) -> None:
    assert message in await wrong_use(client, server_url, body)


async def test_branches_with_keys_get_their_own_children(client: Client, server_url: str) -> None:
    research = Research()

    @research.plans.job(attempts=2, backoff=FAST)
    async def plan(ctx: Context) -> list[str]:
        async def branch(city: str, pause: float) -> str:
            await asyncio.sleep(pause if ctx.attempt == 1 else 0.02 - pause)
            return (await ctx.child(research.search, city, key=city)).city

        found = await asyncio.gather(branch("Lisbon", 0.02), branch("Oslo", 0.0))
        if ctx.attempt == 1:
            raise ConnectionError("cut off")
        return [*found]

    async with working(research.plans, server_url), working(research.searches, server_url):
        assert (await final(await client.enqueue(plan))).result == ["Lisbon", "Oslo"]
    assert sorted(research.searched) == ["Lisbon", "Oslo"]


async def test_other_payloads_in_a_rerun_are_a_named_error(client: Client, server_url: str) -> None:
    research = Research()

    @research.plans.job(attempts=2, backoff=FAST)
    async def plan(ctx: Context) -> Sequence[Found]:
        cities = ("Lisbon", "Oslo") if ctx.attempt == 1 else ("Oslo", "Porto")
        found = await ctx.gather([ctx.child(research.search, city) for city in cities])
        if ctx.attempt == 1:
            raise ConnectionError("cut off")
        return found

    async with working(research.plans, server_url), working(research.searches, server_url):
        status = await final(await client.enqueue(plan))
    assert "another target or payload than in an earlier run" in str(status.error)
    assert sorted(research.searched) == ["Lisbon", "Oslo"]


async def test_a_child_that_nobody_awaits_is_a_warning(client: Client, server_url: str) -> None:
    research = Research()

    @research.plans.job(attempts=1)
    async def plan(ctx: Context) -> str:
        ctx.child(research.search, "Oslo")
        return "done"

    with capture_logs() as logs:
        async with working(research.plans, server_url):
            assert (await final(await client.enqueue(plan))).result == "done"
    assert [log["child"] for log in logs if log["event"] == "child_not_sent"] == ["searches/search#1"]
    assert research.searched == []


async def test_a_cancelled_parent_cancels_its_children(client: Client, server_url: str) -> None:
    agent = Agent("q")
    stopped: list[str] = []
    started = asyncio.Event()

    @agent.job(attempts=1)
    async def work(ctx: Context) -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            stopped.append(ctx.id)

    @agent.job(attempts=1)
    async def plan(ctx: Context) -> None:
        await ctx.child(work)

    async with working(agent, server_url):
        job = await client.enqueue(plan)
        await started.wait()
        await job.cancel()
        assert (await final(job)).state is State.CANCELLED
        await until(lambda: len(stopped) == 1, what="the child is stopped")


async def test_a_result_that_does_not_fit_the_annotation_names_the_child(client: Client, server_url: str) -> None:
    found, asked = Agent("q"), Agent("q")

    @found.job(name="search", attempts=1)
    async def search_of_another_version(ctx: Context) -> dict[str, int]:
        return {"price": 1}

    @asked.job(attempts=1)
    async def search(ctx: Context) -> Found:
        raise Fatal("not this one")

    @found.job(attempts=1)
    async def plan(ctx: Context) -> str:
        return (await ctx.child(search)).city

    async with working(found, server_url):
        status = await final(await client.enqueue(plan))
    assert "child q/search#1" in str(status.error)
    assert "does not fit Found" in str(status.error)
