"""An agent of 20 model calls loses its worker again and again: only a call that was cut off runs twice. Rule 13."""

import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentqueue import Client
from agentqueue.client import Job
from agentqueue.model.job import State
from tests.support.workers import final, until, worker_process

HANDLERS = """
import asyncio, os
from agentqueue import Agent, Context

agent = Agent("q")
LOG = os.open("calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

async def ask_model(turn: int) -> str:
    os.write(LOG, f"{turn}\\n".encode())
    await asyncio.sleep(0.3)
    return f"answer {turn}"

@agent.job
async def research(ctx: Context) -> list[str]:
    return [await ctx.step("ask", ask_model, turn) for turn in range(20)]
"""
ANSWERS = [f"answer {turn}" for turn in range(20)]
KILLS = 5


class Calls:
    """The model calls that were made, by all workers together."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "calls"

    def turns(self) -> list[int]:
        return [int(line) for line in self.file.read_text().split()] if self.file.exists() else []

    def repeated(self) -> dict[int, int]:
        return {turn: times for turn, times in Counter(self.turns()).items() if times > 1}


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


async def run_and_end_workers(
    client: Client, url: str, folder: Path, number: signal.Signals, **options: object
) -> tuple[Job, Calls]:
    """Run the agent while a signal ends one worker after another, each after two more calls or more."""
    (folder / "handlers.py").write_text(HANDLERS)
    calls, job = Calls(folder), await client.enqueue("q", "research")
    pod = {
        "WORKER_NAME": "pod",
        "POD_UID": "uid",
        "LOG_LEVEL": "warning",
        **options,
    }  # what it held is released when it is back

    for _ in range(KILLS):
        before = len(calls.turns())
        with worker_process("handlers:agent", folder, url, **pod) as worker:
            await until(lambda n=before: len(calls.turns()) >= n + 2, what="calls are made", deadline=30)  # type: ignore[misc]
            worker.send(number)
            await worker.exit()
    with worker_process("handlers:agent", folder, url, **pod):
        await final(job, deadline=30)
    return job, calls


async def test_five_kills_repeat_at_most_the_call_in_flight_and_do_not_bury_the_job(
    client: Client, server_url: str, tmp_path: Path
) -> None:
    """The limit is three workers that crash: each crash comes after new steps, so none counts."""
    job, calls = await run_and_end_workers(client, server_url, tmp_path, signal.SIGKILL)
    status = await job.status()
    assert (status.state, status.result) == (State.COMPLETED, ANSWERS)
    assert status.deliveries == KILLS + 1
    repeated = calls.repeated()
    assert sum(repeated.values()) - len(repeated) <= KILLS
    assert len(calls.turns()) <= 20 + KILLS


async def test_five_drains_repeat_no_call(client: Client, server_url: str, tmp_path: Path) -> None:
    job, calls = await run_and_end_workers(
        client, server_url, tmp_path, signal.SIGTERM, TERMINATION_GRACE_PERIOD_SECONDS=1
    )
    status = await job.status()
    assert (status.result, status.attempts) == (ANSWERS, 1)
    assert calls.repeated() == {}
