"""Rule 10: what a job costs the server is bounded, however many wait."""

import re
from typing import Any

import pytest

from agentqueue import Client
from agentqueue.store import Server
from agentqueue.store.scripts import read_all
from tests.support.raw_queue import RawQueue

FORBIDDEN = re.compile(r"'(KEYS|SMEMBERS|SORT|LRANGE|HKEYS|HVALS|SCAN|ZUNION\w*|ZINTER\w*)'|'Z(REV)?RANGE'.*-1\)")
WORD = r"(?:'[^']*'|[^()'])"
NESTED = rf"\((?:{WORD}|\((?:{WORD}|\({WORD}*\))*\))*\)"
CALL = re.compile(rf"redis\.p?call({NESTED})")
"""The arguments of a call of Redis, which may hold other calls."""


async def _calls(server: Server) -> dict[str, int]:
    """Commands that scripts and clients ran, by name."""
    stats: dict[str, Any] = await server.redis.info("commandstats")
    ours = {name.removeprefix("cmdstat_"): value["calls"] for name, value in stats.items()}
    return {name: calls for name, calls in ours.items() if name not in ("info", "config|resetstat")}


async def _cost_of_ten_round_trips(server: Server, client: Client, waiting: int) -> dict[str, int]:
    """The first count of a new minute costs an expiry: round trips over the turn of a minute are measured again."""
    while True:
        calls, minutes = await _run_ten_round_trips(server, client, waiting)
        if len(minutes) == 1:
            return calls


async def _run_ten_round_trips(server: Server, client: Client, waiting: int) -> tuple[dict[str, int], set[int]]:
    """Return the commands of ten round trips, and the minutes of the server's clock in which they ran."""
    await server.redis.flushall()
    await client.enqueue_many([{"queue": "q", "name": "job", "data": n} for n in range(waiting)])
    raw_queue = RawQueue(server, "q")
    first = await raw_queue.claim(50)
    began, _ = await server.redis.time()
    await server.redis.config_resetstat()
    for _ in range(10):
        for job in first:
            await raw_queue.complete(job)
        first = await raw_queue.claim(50)
        assert len(first) == 50
    await client.enqueue(
        "q", "job", id="new", force=True
    )  # without a look at the workers' jobs, which is kept for a time
    await client.job("new", queue="q").cancel()
    calls = await _calls(server)
    ended, _ = await server.redis.time()
    calls.pop("time", None)
    return calls, {int(began) // 60, int(ended) // 60}


async def test_a_job_costs_no_more_commands_with_many_waiting(server: Server) -> None:
    async with Client(server.options.url) as client:
        await _cost_of_ten_round_trips(server, client, 600)  # has the scripts loaded
        few = await _cost_of_ten_round_trips(server, client, 1_000)
        many = await _cost_of_ten_round_trips(server, client, 30_000)
    assert many == few


@pytest.mark.parametrize("script", read_all())
def test_no_script_walks_a_set_that_users_fill(script: str) -> None:
    """Ranges have a limit, and nothing asks for all of a key that grows with the jobs."""
    code = re.sub(r"--\[\[.*?\]\]|--[^\n]*", "", read_all()[script], flags=re.DOTALL)
    calls = CALL.findall(code)
    assert len(calls) == code.count("redis.call(") + code.count("redis.pcall(")
    for call in calls:
        assert not FORBIDDEN.search(call), call
        assert "RANGEBYSCORE'" not in call or "'LIMIT'" in call, call
