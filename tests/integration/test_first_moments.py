"""SIGTERM in the first moments of a container, where the program is process 1: no job is claimed after it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agentqueue import Client
from agentqueue_operator.resources.render.console import COMMAND as CONSOLE
from tests.support.first_process import first_process
from tests.support.servers import RunningServer, run_server
from tests.support.workers import final, until

ROOT = Path(__file__).parents[2]
JOBS = 15
HANDLERS = """
import pathlib, subprocess, time
from agentqueue import Agent, Context

agent = Agent("q")

@agent.job
async def work(ctx: Context) -> None: ...

@agent.job
def signals(ctx: Context) -> str:
    pathlib.Path("begun").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    return next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk"))
"""
SLOW_IMPORT = """
import pathlib, time
while not pathlib.Path("go").exists():
    time.sleep(0.01)
"""
ARQ = """
from agentqueue_worker.arq import RedisSettings, run_worker

async def work(ctx): ...

if __name__ == "__main__":
    run_worker({"functions": [work], "queue_name": "q", "redis_settings": RedisSettings.from_dsn(URL)})
"""


def entry_point(part: str) -> list[str]:
    """Return the entry point of the image, from its Dockerfile."""
    (found,) = re.findall(r"^ENTRYPOINT (\[.*\])$", (ROOT / part / "Dockerfile").read_text(), re.MULTILINE)
    command: list[str] = json.loads(found)
    return command


STARTS = {
    "image": ([*entry_point("worker"), "handlers:agent"], 0),
    "command": (["env", "--block-signal=TERM", "agentqueue", "worker", "handlers:agent"], 143),
}
"""How a container may start a worker, and its exit code if SIGTERM comes before the worker is there."""


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with run_server("valkey") as running:
        yield running


@pytest.fixture
async def client(server: RunningServer) -> AsyncIterator[Client]:
    with server.client() as plain:
        plain.flushall()
    async with Client(server.url) as connected:
        yield connected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    return tmp_path


@pytest.mark.parametrize("delay_ms", [0, 5, 30, 100, 200, 400, 800])
@pytest.mark.parametrize("start", STARTS)
async def test_nothing_is_claimed_after_a_sigterm_however_early_it_comes(
    start: str, delay_ms: int, server: RunningServer, client: Client, folder: Path
) -> None:
    command, code = STARTS[start]
    (folder / "handlers.py").write_text(SLOW_IMPORT + HANDLERS)  # the worker is not ready before it may be
    jobs = await client.enqueue_many([{"queue": "q", "name": "work"}] * JOBS)
    with first_process(command, folder, REDIS_URL=server.url) as worker:
        await worker.python_has_begun()
        await asyncio.sleep(delay_ms / 1000)
        worker.terminate()
        (folder / "go").touch()  # a worker that did not get the signal would claim now

        async def over() -> bool:
            return worker.exit_code is not None or (await client.stats("q")).completed == JOBS

        await until(over, what="the worker has ended, or has run all jobs")
        deliveries = sum([(await job.status()).deliveries for job in jobs])
        stats = await client.stats("q")
        assert (deliveries, stats.waiting, stats.counters.get("crashed", 0)) == (0, JOBS, 0)
        assert await worker.exit() == code, worker.output


async def test_an_arq_program_gets_the_sigterm_that_came_before_it_could_handle_it(
    server: RunningServer, client: Client, folder: Path
) -> None:
    (folder / "program.py").write_text(f"URL = {server.url!r}\n{SLOW_IMPORT}{ARQ}")
    await client.enqueue_many([{"queue": "q", "name": "work"}] * JOBS)
    with first_process(["env", "--block-signal=TERM", "python", "program.py"], folder) as program:
        await program.python_has_begun()
        program.terminate()
        (folder / "go").touch()
        await program.exit()
        stats = await client.stats("q")
        assert (stats.waiting, stats.active, stats.counters.get("crashed", 0)) == (JOBS, 0, 0), program.output


async def test_process_1_drains_and_its_childrens_signals_are_not_blocked(
    server: RunningServer, client: Client, folder: Path
) -> None:
    with first_process([*entry_point("worker"), "handlers:agent"], folder, REDIS_URL=server.url) as worker:
        job = await client.enqueue("q", "signals")
        await until((folder / "begun").exists, what="the job runs")
        assert "sigterm_can_be_lost" not in worker.output
        worker.terminate()
        await until(lambda: '"drain' in worker.output, what="the worker drains")
        (folder / "go").touch()
        status = await final(job)
        assert (status.deliveries, status.result) == (1, f"{0:016x}")
        assert await worker.exit() == 0, worker.output


@pytest.mark.parametrize(
    "command", [pytest.param(entry_point("operator"), id="operator"), pytest.param(CONSOLE, id="console")]
)
async def test_operator_and_console_get_a_sigterm_that_comes_before_python_is_up(
    command: list[str], server: RunningServer, tmp_path: Path
) -> None:
    with first_process(command, tmp_path, REDIS_URL=server.url, CONSOLE_PORT=0) as program:
        await program.python_has_begun()
        program.terminate()
        assert await program.exit() == 0, program.output


@pytest.mark.parametrize("program", [["python", "-m", "agentqueue_worker"], ["agentqueue", "worker"]], ids=" ".join)
async def test_a_worker_that_is_process_1_unprotected_says_how_to_protect_it(
    program: list[str], server: RunningServer, folder: Path
) -> None:
    command = [*program, "handlers:agent"]
    with first_process(command, folder, REDIS_URL=server.url) as worker:
        await until(lambda: "sigterm_can_be_lost" in worker.output, what="the worker warns")
        assert "--block-signal=TERM" in worker.output
        worker.terminate()
        assert await worker.exit() == 0, worker.output
