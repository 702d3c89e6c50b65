"""Workers, Redis and `agentqueue up` are killed at random under a load of plans: nothing is lost, repeated or stuck.

Rules 13 and 14. STORM_MINUTES (1 if absent) and STORM_SEED (any if absent; the report has it) come from the
environment.
"""

import asyncio
import contextlib
import itertools
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import pytest

from agentqueue import Client
from agentqueue.clock import monotonic
from tests.support.plans.checks import check
from tests.support.plans.driver import Driver
from tests.support.plans.fleet import LocalUp, ProcessFleet
from tests.support.plans.plan import QUEUES, random_plan
from tests.support.plans.recorder import Recorder
from tests.support.servers import RunningServer
from tests.support.workers import until

MINUTES: Final = float(os.environ.get("STORM_MINUTES", "1"))
SEED: Final = int(os.environ.get("STORM_SEED", random.SystemRandom().randrange(1_000_000)))
OPEN: Final = 12
"""Plans that have not ended, while the storm lasts."""
SETTLE_S: Final = 120.0
"""After the last blow, all jobs have ended within this."""
DURABLE: Final = {"appendonly": "yes", "appendfsync": "always"}


@pytest.fixture
def server(start_server: Callable[..., RunningServer]) -> RunningServer:
    return start_server(**DURABLE)


@pytest.fixture
async def client(server: RunningServer) -> AsyncIterator[Client]:
    async with Client(server.url) as connected:
        yield connected


@pytest.mark.timeout(MINUTES * 60 + SETTLE_S + 120)
async def test_a_storm_of_kills_repeats_and_loses_nothing(
    client: Client, server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print(f"STORM_SEED={SEED}")  # pytest shows it if the test fails
    chance, record = random.Random(SEED), tmp_path / "record"
    record.mkdir()
    driver = Driver(client, Recorder(record), chance, has_more=True)
    with contextlib.ExitStack() as stack:
        fleet = ProcessFleet(tmp_path, record, server.url, stack, chance)
        for queue in (*QUEUES, *QUEUES):
            fleet.start(queue)
        local = LocalUp(tmp_path / "up", record, server.url)
        stack.callback(local.close)
        local.start()
        await local.runs()
        ends = monotonic() + MINUTES * 60
        running = asyncio.create_task(driver.run(deadline=MINUTES * 60 + SETTLE_S))
        feeding = asyncio.create_task(feed(driver, ends))
        restarts = ups = 0
        while monotonic() < ends and not running.done():
            await asyncio.sleep(chance.uniform(0.5, 3.0))
            if chance.random() < 0.1:
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(chance.choice((0.0, 0.5)))
                await asyncio.to_thread(server.start)
                restarts += 1
            elif chance.random() < 0.1:
                await local.end(chance.choice((signal.SIGKILL, signal.SIGTERM)))
                local.start()
                await local.runs()
                ups += 1
            else:
                await fleet.end_one()
        if running.done():
            running.result()
        await feeding
        driver.has_more = False
        await running
    with server.client() as plain:
        report = check(driver, plain)
    with capsys.disabled():
        blows = ", ".join(f"{number} x {name}" for name, number in fleet.dealt.most_common())
        print(
            f"\ndurable storm of {MINUTES:g} min on {server.kind}, seed {SEED}: {blows}, {restarts} x Redis killed, "
            f"{ups} x up killed or drained; {report}, parents stuck 0"
        )


async def feed(driver: Driver, ends: float) -> None:
    """Send plans for so long."""
    for number in itertools.count(1):
        await until(lambda: len(driver.roots) - len(driver.ended) < OPEN, what="a plan has ended", deadline=SETTLE_S)
        if monotonic() > ends:
            return
        await driver.send([random_plan(driver.chance, f"r{number}")], cancels=0.1)
