"""A worker that runs a suspended job again reads of its journal only what has changed."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from agentqueue import Agent, Client, Context
from agentqueue.store import Server
from agentqueue.store.journal import Journals
from tests.support.workers import until, working

STEPS = 300
WAKES = 10
VALUE = "x" * 2_000
DONE = b'{"is":"done","at":1,"v":null}'
WAITS = b'{"wait":"signal","for":"go","since":1}'


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


async def test_ten_wakes_do_not_move_the_values_of_earlier_steps(client: Client, server_url: str) -> None:
    agent, calls = Agent("q"), list[int]()

    async def write(number: int) -> str:
        calls.append(number)
        return VALUE

    @agent.job
    async def wait_often(ctx: Context) -> int:
        size = 0
        for number in range(STEPS):
            size += len(await ctx.step("write", write, number))
        for number in range(WAKES):
            assert (await ctx.wait_for("go")).data == number
        return size

    async def sent_bytes() -> int:
        return int((await client.server.redis.info("stats"))["total_net_output_bytes"])

    job, sent = await client.enqueue(wait_often), list[int]()
    async with working(agent, server_url, concurrency=1):
        for number in range(WAKES):
            await until_suspended(client, job.id, number + 1)
            sent.append(await sent_bytes())
            await job.signal("go", number)
        assert await job.result(10) == STEPS * len(VALUE)
    assert calls == list(range(STEPS))
    assert (await job.status()).deliveries == WAKES + 1
    assert sent[-1] - sent[0] < STEPS * len(VALUE) / 2


async def until_suspended(client: Client, job_id: str, times: int) -> None:
    async def is_suspended() -> bool:  # a status would read the journal
        redis: Any = client.server.redis
        count = await redis.hget(f"aq:meta:{job_id}", "suspensions")
        return int(count or 0) == times

    await until(is_suspended, what=f"suspension {times}")


@pytest.mark.parametrize(
    ("journal", "expected"),
    [
        ({"step:a#1": b"CHANGED", "wait:go#1": DONE}, {"step:a#1": DONE, "wait:go#1": DONE}),
        ({"step:a#1": DONE, "wait:go#1": WAITS}, {"step:a#1": DONE, "wait:go#1": WAITS}),
        ({"step:a#1": DONE, "wait:go#1": DONE, "step:b#1": DONE}, None),
        ({"step:a#1": DONE, "step:b#1": DONE}, None),
        ({}, None),
    ],
    ids=["answered", "not answered", "an entry more", "the wait is gone", "no journal"],
)
async def test_a_known_journal_is_read_again_if_its_entries_are_others(
    server: Server, journal: Mapping[str, bytes], expected: Mapping[str, bytes] | None
) -> None:
    redis: Any = server.redis
    await redis.set("arq:in-progress:j", "w/1|3|1|5")
    if journal:
        await redis.hset("aq:journal:j", mapping=journal)
    known = {"step:a#1": DONE, "wait:go#1": WAITS}
    opened = await Journals(server, "q").open(owner="w/1", job_id="j", known=known)
    assert opened is not None
    assert opened.lease == b"w/1|3|1|5"
    assert opened.entries == (journal if expected is None else expected)
    assert await Journals(server, "q").open(owner="w/2", job_id="j", known=known) is None
