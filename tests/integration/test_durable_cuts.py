"""The connection breaks at a command of jobs with steps, signals, sleeps and children: nothing is lost or repeated.

Rules 13 and 14. CUT_EVERY=1 in the environment cuts at each command, which takes minutes; by default it is one of
CUT_EVERY commands, and another one for each way to cut.
"""

import itertools
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from agentqueue import Client
from tests.support.breaker import Breaker, Cut
from tests.support.plans.agents import make_agents
from tests.support.plans.checks import Report, check
from tests.support.plans.driver import Driver
from tests.support.plans.plan import Children, Die, Fail, Once, Plan, Remind, Signal, Sleep, Step, Together
from tests.support.plans.recorder import Recorder
from tests.support.plans.workers import InProcessFleet
from tests.support.servers import RunningServer

EVERY: Final = int(os.environ.get("CUT_EVERY", "32"))


def make_plans() -> list[Plan]:
    """Return plans that have all of it, in both queues."""
    leaf = Plan(path="buyer.2_0.1_0", queue="plans", parts=[Step(name="leaf.0", is_plain=True)])
    search = Plan(path="buyer.2_0", queue="deep:work", parts=[Step(name="search.0", fails=1), Children(plans=[leaf])])
    lost = Plan(path="buyer.2_1", queue="deep:work", parts=[Die(name="lost.0", always=True)])
    return [
        Plan(
            path="buyer",
            queue="plans",
            parts=[
                Step(name="buyer.0"),
                Signal(name="buyer.1", release=Step(name="buyer.1.release")),
                Children(plans=[search, lost], on_error="collect"),
                Once(name="buyer.3"),
                Fail(name="buyer.4"),
                Once(name="buyer.5", raises=True),
            ],
        ),
        Plan(
            path="waiter",
            queue="deep:work",
            parts=[
                Remind(name="waiter.0", count=2, every_ms=150),
                Together(steps=[Step(name="waiter.1.0"), Step(name="waiter.1.1", ms=5)], wait=Signal(name="waiter.1")),
                Die(name="waiter.2"),
                Sleep(ms=30),
            ],
        ),
        Plan(path="plain", queue="plans", is_plain=True, parts=[Step(name="plain.0"), Sleep(ms=10)]),
    ]


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("cut", Cut)
async def test_a_cut_at_any_command_of_durable_jobs_loses_and_repeats_nothing(
    client: Client, shared_server: RunningServer, cut: Cut, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports: list[Report] = []
    first = 1 + (cut.value * EVERY) // len(Cut) % EVERY
    async with Breaker(shared_server.port) as breaker:
        for number in itertools.count(first, EVERY):
            folder = tmp_path / str(number)
            folder.mkdir()
            with shared_server.client() as plain:
                plain.flushall()
                plain.script_flush()
                breaker.arm(number, cut)
                try:
                    driver = Driver(client, Recorder(folder), random.Random(number))
                    fleet = InProcessFleet(make_agents(folder), breaker.url)
                    async with fleet.running():
                        await driver.send(make_plans())
                        await driver.run(deadline=60)
                    reports.append(check(driver, plain, kills=0))
                except BaseException as exc:
                    exc.add_note(f"cut {cut.name} at {number} of {breaker.seen}")
                    raise
            if not breaker.is_spent:
                break
    assert number > first, "it cut something"
    with capsys.disabled():
        print(
            f"\ncuts {cut.name} on {shared_server.kind}, at {len(reports) - 1} of {number - 1} commands: "
            f"{Report.sum(reports)}, parents stuck 0"
        )
