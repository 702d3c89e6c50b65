"""Random plans of steps, signals, sleeps and children over two queues, while workers crash and drain.

Rules 13 to 15. PLAN_JOBS in the environment is the number of jobs at least, for each server; PLAN_SEED the first seed.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from agentqueue import Client
from agentqueue.model.job import State
from tests.support.plans.agents import make_agents
from tests.support.plans.checks import Report, check
from tests.support.plans.driver import Driver
from tests.support.plans.plan import QUEUES, Die, Plan, random_plan
from tests.support.plans.recorder import Recorder
from tests.support.plans.workers import InProcessFleet
from tests.support.servers import RunningServer
from tests.support.waiting import until

JOBS: Final = int(os.environ.get("PLAN_JOBS", "60"))
SEED: Final = int(os.environ.get("PLAN_SEED", random.SystemRandom().randrange(1_000_000)))
ROOTS: Final = 10
BLOWS: Final = 5


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


@pytest.mark.timeout(60 + 2 * JOBS)
async def test_random_plans_repeat_and_lose_nothing_whatever_crashes_or_drains(
    client: Client, shared_server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed, reports = SEED, list[Report]()
    while sum(report.jobs for report in reports) < JOBS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            reports.append(await run_plans(client, shared_server, folder, random.Random(seed)))
        except BaseException as exc:
            exc.add_note(f"PLAN_SEED={seed}")
            raise
        seed += 1
    with capsys.disabled():
        print(f"\nrandom plans on {shared_server.kind}, seeds {SEED} to {seed - 1}: {Report.sum(reports)}")


async def test_a_plan_that_dies_just_before_it_is_cancelled_is_replayed_as_if_nobody_had_cancelled_it(
    client: Client, shared_server: RunningServer, tmp_path: Path
) -> None:
    class AtOnce(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return a

    driver = Driver(client, Recorder(tmp_path), AtOnce(1))
    async with InProcessFleet(make_agents(tmp_path), shared_server.url, {}).running():
        await driver.send([Plan(path="r0", queue="plans", parts=[Die(name="r0.0")])], cancels=1.0)
        await until(lambda: is_dead(client, "r0"), what="the plan is dead")
        await driver.run(deadline=60)
    assert driver.cancelled == {"r0"}
    assert driver.ended["r0"].state is State.COMPLETED
    with shared_server.client() as plain:
        check(driver, plain)


async def is_dead(client: Client, job_id: str) -> bool:
    """Return whether the job is a dead letter."""
    return (await client.status(job_id)).state is State.DEAD


async def run_plans(client: Client, server: RunningServer, folder: Path, chance: random.Random) -> Report:
    """Carry out some plans while workers crash and drain, and check what they have done."""
    with server.client() as plain:
        plain.flushall()
        settings = {"concurrency": chance.choice((1, 2, 5, 10)), "crashes": 1_000}
        fleet = InProcessFleet(make_agents(folder), server.url, settings)
        driver = Driver(client, Recorder(folder), chance)
        async with fleet.running():
            blows = asyncio.create_task(deal_blows(fleet, chance))
            await driver.send([random_plan(chance, f"r{number}") for number in range(ROOTS)], cancels=0.1)
            await driver.run(deadline=60)
            await blows
        return check(driver, plain)


async def deal_blows(fleet: InProcessFleet, chance: random.Random) -> None:
    """Let workers crash and drain."""
    for _ in range(BLOWS):
        await asyncio.sleep(chance.uniform(0.05, 0.6))
        queue = chance.choice(QUEUES)
        if chance.random() < 0.5:
            fleet.crash(queue)
        else:
            fleet.drain(queue, grace=chance.choice((0.0, 1.0)))
