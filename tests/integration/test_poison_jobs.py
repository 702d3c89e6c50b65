"""A job that kills its worker among innocent ones: it is dead as crashed, and the others complete.

AGENTQUEUE_POISON_JOBS and AGENTQUEUE_POISON_RUNS set the number of jobs, and how many times each case runs.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agentqueue import Client
from agentqueue.model.dead_letter import DeadLetterReason
from tests.support.servers import RunningServer
from tests.support.workers import WorkerProcess, until, worker_process

JOBS = int(os.environ.get("AGENTQUEUE_POISON_JOBS", "400"))
RUNS = int(os.environ.get("AGENTQUEUE_POISON_RUNS", "1"))
WORKERS = 2
MAX_DEATHS = 4
"""Workers that die by the poison: three that count, and one if it was claimed ahead of the free slots."""
HANDLERS = """
import asyncio, os, signal
from agentqueue import Agent, Context

agent = Agent("q")

@agent.job
async def innocent(ctx: Context) -> None:
    await asyncio.sleep(0.001)

@agent.job
async def poison(ctx: Context) -> None:
    os.kill(os.getpid(), signal.SIGKILL)

@agent.job
async def culprit(ctx: Context, milliseconds: int) -> None:
    await asyncio.sleep(milliseconds / 1000)
    os.kill(os.getpid(), signal.SIGKILL)

@agent.job
async def nap(ctx: Context) -> None:
    await asyncio.sleep(0.5)
"""


class Pods:
    """Worker processes, each of which is started again in its own pod when it dies."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path, url: str, concurrency: int) -> None:
        self.deaths = 0

        def start(pod: str) -> WorkerProcess:
            return stack.enter_context(
                worker_process(
                    "handlers:agent",
                    folder,
                    url,
                    CONCURRENCY=concurrency,
                    LOG_LEVEL="warning",
                    WORKER_NAME=pod,
                    POD_UID=pod,
                )
            )

        self._start = start
        self._workers: dict[str, WorkerProcess] = {f"pod-{n}": self._start(f"pod-{n}") for n in range(WORKERS)}

    def restart_dead(self) -> None:
        """Start those again that have died."""
        for pod, worker in self._workers.items():
            if worker.process.poll() is not None:
                self.deaths += 1
                self._workers[pod] = self._start(pod)


async def run_until_final(client: Client, pods: Pods, jobs: int) -> None:
    async def all_are_final() -> bool:
        pods.restart_dead()
        stats = await client.stats("q")
        return stats.completed + stats.dead >= jobs

    await until(all_are_final, what=f"{jobs} jobs are final", deadline=240)


@pytest.fixture
def server(start_server: Callable[..., RunningServer], tmp_path: Path) -> RunningServer:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    return start_server()


@pytest.mark.timeout(300 * RUNS)
@pytest.mark.parametrize("concurrency", [1, 5])
async def test_a_job_that_kills_its_workers_is_dead_and_no_innocent_is(
    server: RunningServer, tmp_path: Path, concurrency: int
) -> None:
    for run in range(RUNS):
        await asyncio.to_thread(server.client().flushall)
        async with Client(server.url) as client:
            place = JOBS // 2 + run
            names = ["poison" if number == place else "innocent" for number in range(JOBS)]
            await client.enqueue_many(
                [{"queue": "q", "name": name, "id": f"{name}-{n}"} for n, name in enumerate(names)]
            )
            with contextlib.ExitStack() as stack:
                pods = Pods(stack, tmp_path, server.url, concurrency)
                await run_until_final(client, pods, JOBS)
            stats = await client.stats("q")
            dead = [letter.id for letter in await client.dead_letters("q")]
            assert (dead, stats.completed) == ([f"poison-{place}"], JOBS - 1), f"run {run}"
            assert (await client.dead_letter(dead[0])).reason is DeadLetterReason.CRASHED
            assert pods.deaths <= MAX_DEATHS


async def test_long_jobs_beside_one_that_kills_its_workers_complete(server: RunningServer, tmp_path: Path) -> None:
    """As when one of them exceeds the memory of the container."""
    async with Client(server.url) as client:
        culprit = await client.enqueue("q", "culprit", 100)
        innocents = [await client.enqueue("q", "nap") for _ in range(5)]
        with contextlib.ExitStack() as stack:
            pods = Pods(stack, tmp_path, server.url, 3)
            await run_until_final(client, pods, 6)
        (letter,) = await client.dead_letters("q")
        assert (letter.id, letter.reason) == (culprit.id, DeadLetterReason.CRASHED), letter.error
        assert [(await job.status()).state.value for job in innocents] == ["completed"] * 5
        assert pods.deaths == 3
