"""Many workers under one limit of a provider, in the provider's own count: full, never over, and no attempt is lost.

LIMITS_WINDOW_S is the length of the provider's window (8 s if absent; 60 is real), LIMITS_JOBS the number of jobs (60;
300), LIMITS_KILLS the number of workers that are killed in the middle of calls (4; 50).
"""

import contextlib
import functools
import json
import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest
from assistants.digest import TOKENS, digest
from assistants.services import Fault, TokenLimit
from assistants.services import Server as Services

from agentqueue import Agent, Client, Context
from agentqueue.client import Job
from agentqueue.clock import monotonic
from agentqueue.model.job import State
from agentqueue.store import Engine
from agentqueue.store.limits import Limits
from tests.support.workers import WorkerProcess, final, until, working

FOLDER = Path(__file__).parents[2] / "examples" / "agents"
WINDOW_S: Final = float(os.environ.get("LIMITS_WINDOW_S", "8"))
JOBS: Final = int(os.environ.get("LIMITS_JOBS", "60"))
KILLS: Final = int(os.environ.get("LIMITS_KILLS", "4"))
MARGIN_S: Final = 0.0 if WINDOW_S >= 60 else 3.0
"""Added to the window of the limit. A call may reach the provider one count later than the limit has room for it: a
second if the window is a minute, and an eighth of one if it is 8 s, which a machine with other work may exceed."""
LEAST_USED: Final = 0.95 if WINDOW_S >= 60 else 0.85
"""Share of the limit that is used at least. In a short window, delays of the machine weigh more."""
WORKERS, SLOTS = 4, 25
LIMIT_TOKENS: Final = 6_000
PER_WINDOW: Final = LIMIT_TOKENS // TOKENS
LONGEST_S: Final = 3 * (JOBS / PER_WINDOW + 2) * WINDOW_S + 60
MARK = pytest.mark.timeout(LONGEST_S)


class Fleet:
    """Workers of the example, each a process."""

    def __init__(self, url: str, client: Client, stack: contextlib.ExitStack) -> None:
        self.url, self.client, self.stack = url, client, stack
        self.number = 0
        self.workers: dict[str, WorkerProcess] = {}

    def start(self) -> None:
        self.number += 1
        name = f"w{self.number}"
        limit = {"name": "gpt-main", "unitsPerMinute": LIMIT_TOKENS, "concurrent": SLOTS}
        limits = [{**limit, "windowSeconds": WINDOW_S + MARGIN_S}]
        environment = {"WORKER_NAME": name, "CONCURRENCY": SLOTS, "RETRY_CRASHES": 1_000, "LIMITS": json.dumps(limits)}
        worker = WorkerProcess("assistants.digest:agent", FOLDER, self.url, **environment)
        self.stack.callback(worker.close)
        self.workers[name] = worker

    async def kill_one(self, chance: random.Random) -> None:
        """Kill a worker, free its jobs as the operator does, and start another one."""
        name = chance.choice(sorted(self.workers))
        worker = self.workers.pop(name)
        worker.process.kill()
        await worker.exit()
        await Engine(self.client.server, "digest").release_worker_leases(worker=name, reason="it was killed")
        self.start()


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    with Services() as server:
        server.records.model_delay = 0.05
        server.records.token_limit = TokenLimit(LIMIT_TOKENS, WINDOW_S)
        monkeypatch.setenv("SERVICES_URL", server.url)
        yield server


@pytest.fixture
async def fleet(server_url: str, services: Services) -> AsyncIterator[Fleet]:
    async with Client(server_url) as client:
        with contextlib.ExitStack() as stack:
            made = Fleet(server_url, client, stack)
            for _ in range(WORKERS):
                made.start()
            yield made


async def enqueue(client: Client, count: int) -> list[Job[str]]:
    return [await client.enqueue(digest, f"topic {number}") for number in range(count)]


def worst_window(limit: TokenLimit) -> int:
    """Return the most tokens in any window, in the provider's own count."""
    return max(sum(tokens for at, tokens in limit.taken if begin <= at < begin + WINDOW_S) for begin, _ in limit.taken)


async def assert_all_completed(jobs: list[Job[str]]) -> None:
    for job in jobs:
        status = await final(job, deadline=LONGEST_S)
        assert (status.state, status.attempts) == (State.COMPLETED, 1), status.error


async def assert_nothing_is_left(client: Client) -> None:
    (view,) = await Limits(client.server).view()
    assert (view.running, view.waiting) == (0, 0)


@MARK
async def test_a_fleet_uses_the_limit_and_never_exceeds_it(
    fleet: Fleet, services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    limit, other = services.records.token_limit, Agent("other")
    assert limit is not None

    @other.job
    async def unrelated(ctx: Context) -> None: ...

    jobs = await enqueue(fleet.client, JOBS)
    async with working(other, fleet.url):
        await until(lambda: len(limit.taken) == PER_WINDOW, what="the window is full", deadline=30)
        sent = monotonic()
        await final(await fleet.client.enqueue("other", "unrelated"))
        waited = monotonic() - sent
    await assert_all_completed(jobs)
    seconds = limit.taken[-1][0] - limit.taken[0][0]
    used = (JOBS - PER_WINDOW) * TOKENS / (LIMIT_TOKENS * seconds / (WINDOW_S + MARGIN_S))
    with capsys.disabled():
        print(f"\nlimits: {JOBS} jobs in {seconds:.1f} s, worst window {worst_window(limit)}, used {used:.1%}")
    assert limit.refused == 0
    assert worst_window(limit) <= LIMIT_TOKENS
    assert used >= LEAST_USED
    assert waited < 0.5
    await assert_nothing_is_left(fleet.client)


@MARK
async def test_refusals_and_an_outage_burn_no_attempt(fleet: Fleet, services: Services) -> None:
    """The provider answers 429 now and then, and 503 for a while."""
    records, chance = services.records, random.Random(7)
    assert records.token_limit is not None
    records.faults.extend(Fault(chance.choice([200, 200, 429]), retry_after=1) for _ in range(PER_WINDOW))
    jobs = await enqueue(fleet.client, JOBS)
    await until(lambda: len(jobs) and not records.faults, what="the refusals are over", deadline=LONGEST_S)
    records.faults.extend([Fault(503, retry_after=2)] * 3)
    await assert_all_completed(jobs)
    assert worst_window(records.token_limit) <= LIMIT_TOKENS
    await assert_nothing_is_left(fleet.client)


@MARK
async def test_kills_in_the_middle_of_calls_never_lead_over_the_limit(fleet: Fleet, services: Services) -> None:
    """The calls of dead workers count, and their places among the running calls come back."""
    records, chance = services.records, random.Random(11)
    limit = records.token_limit
    assert limit is not None
    records.model_delay = WINDOW_S / 20
    jobs = await enqueue(fleet.client, JOBS)
    for _ in range(KILLS):
        begun = records.model_calls
        await until(functools.partial(has_more_calls, services, begun), what="a call runs", deadline=LONGEST_S)
        await fleet.kill_one(chance)
    await assert_all_completed(jobs)
    assert (limit.refused, worst_window(limit) <= LIMIT_TOKENS) == (0, True)
    await assert_nothing_is_left(fleet.client)


def has_more_calls(services: Services, count: int) -> bool:
    return services.records.model_calls > count
