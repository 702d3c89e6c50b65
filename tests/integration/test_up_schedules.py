"""`agentqueue up`: agents without jobs register when they start, and schedules start their workers from zero.

The size of the proof is in the environment: AGENTQUEUE_TICKS (number of ticks) and AGENTQUEUE_TICK_S (period in
seconds, a divisor of 60).
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from agentqueue.client import Client, JobStatus
from agentqueue.client.responses import Page
from agentqueue.clock import monotonic
from agentqueue.local.server import EmbeddedServer
from agentqueue.service import environment
from agentqueue.spec import load_file, resolve
from agentqueue.store import Server, ServerOptions, connection_environment
from agentqueue_operator.autoscaling.estimates import Estimates
from agentqueue_operator.autoscaling.model import ScalingTiming
from agentqueue_operator.autoscaling.observer import AgentObserver
from agentqueue_operator.local.agent import DEFAULT_START_S, LocalAgent
from agentqueue_operator.local.agent_runs import agent_runs
from agentqueue_operator.local.ports import Row
from agentqueue_operator.local.processes import LocalProcesses
from agentqueue_operator.local.supervisor import LocalSupervisor
from agentqueue_operator.queues.reader import QueueReader

COMMAND = str(Path(sys.executable).parent / "agentqueue")
TICKS = int(os.environ.get("AGENTQUEUE_TICKS", "2"))
PERIOD_S = int(os.environ.get("AGENTQUEUE_TICK_S", "15"))
HANDLERS = """
from agentqueue import Agent, Context

agent = Agent("work")


@agent.job
async def report(ctx: Context, topic: str) -> str:
    return topic
"""
CRON = """
import pathlib

from agentqueue import Agent, Context

agent = Agent("work")


@agent.cron("*/2 * * * * *")
async def tick(ctx: Context) -> None:
    with pathlib.Path("ticks").open("a") as file:
        file.write("tick\\n")
"""
RESOURCE = """
apiVersion: agentqueue.dev/v1alpha1
kind: AgentQueue
metadata: {name: tried}
spec:
  redis: {managed: {}}
  agents:
    - name: work
      handler: handlers:agent
      scaling: {scaleToZeroAfterSeconds: 1}
      schedules:
        - {name: often, cron: "*/%d * * * * *", job: report, data: prices}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    (tmp_path / "agentqueue.yaml").write_text(RESOURCE % PERIOD_S)
    return tmp_path


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """Start `up` in the folder, and return the file with its output. It is stopped after the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def start() -> Path:
        log = tmp_path / "up.log"
        with log.open("wb") as out:
            processes.append(subprocess.Popen([COMMAND, "up", "agentqueue.yaml"], cwd=tmp_path, stdout=out, stderr=out))
        return log

    yield start
    for process in processes:
        process.send_signal(signal.SIGINT)
        process.wait(30)


async def until(holds: Callable[[], object], *, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_cron_in_the_code_ticks_without_any_job(folder: Path, started: Callable[[], Path]) -> None:
    (folder / "handlers.py").write_text(CRON)
    (folder / "agentqueue.yaml").write_text((RESOURCE % PERIOD_S).partition("      scaling:")[0])
    log, ticks = started(), folder / "ticks"
    await until(lambda: ticks.exists() and len(ticks.read_text().splitlines()) >= 3)
    assert "scaled to 1 (Registering)" in log.read_text()


async def test_code_that_cannot_be_imported_shows_at_once_without_any_job(
    folder: Path, started: Callable[[], Path]
) -> None:
    (folder / "handlers.py").write_text("import no_such_library\n")
    log = started()
    await until(lambda: "No module named 'no_such_library'" in log.read_text())
    await until(lambda: "another one in" in log.read_text())


class Lines:
    """A screen that keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def print_line(self, source: str, text: str, *, error: bool = False) -> None:
        del error
        self.lines.append(f"{source}: {text}")

    def show(self, rows: Iterable[Row]) -> None: ...


@pytest.mark.timeout(120 + 2 * TICKS * PERIOD_S)
async def test_schedules_of_the_file_start_a_worker_for_each_tick(folder: Path) -> None:
    stop, wake, screen = asyncio.Event(), asyncio.Event(), Lines()
    with EmbeddedServer(folder / "data") as embedded:
        options = ServerOptions(embedded.url)
        base = {**os.environ, **connection_environment(options), environment.PROBE_PORT: "0"}
        loaded = load_file(folder / "agentqueue.yaml")
        (run,) = agent_runs(resolve(loaded.one()), loaded, code=folder, data=folder)
        observer = AgentObserver(timing=ScalingTiming(learning_s=1.0), estimates=Estimates(startup_s=DEFAULT_START_S))
        agent = LocalAgent(run, observer=observer)
        processes = LocalProcesses(folder, base=base, cwd=folder, print_output=lambda *_: None, wake=wake.set)
        async with Server(options) as server, Client(embedded.url) as client:
            up = LocalSupervisor([agent], QueueReader(server), processes, screen, clock=monotonic, wake=wake)
            running = asyncio.create_task(up.run(stop, asyncio.Event()))
            numbers = [0]

            async def watch() -> None:
                while True:
                    if numbers[-1] != len(agent.workers):
                        numbers.append(len(agent.workers))
                    await asyncio.sleep(0.02)

            watching, done = asyncio.create_task(watch()), Page[JobStatus]()
            try:
                async with asyncio.timeout(60 + TICKS * PERIOD_S):
                    while len(done) < TICKS or agent.workers:
                        await asyncio.sleep(0.1)
                        done = await client.jobs("work", "completed", fields=["data"])
            finally:
                stop.set()
                await running
                watching.cancel()
        ran = sorted(done, key=lambda job: job.id)[:TICKS]
        due_s = [int(job.id.rpartition(":")[2]) / 1000 for job in ran]
        late_s = [job.started_at.timestamp() - due for job, due in zip(ran, due_s, strict=True) if job.started_at]
        print(f"{TICKS} ticks, {PERIOD_S} s apart, {[round(s, 2) for s in late_s]} s late; workers {numbers}")
        assert [due - due_s[0] for due in due_s] == [float(number * PERIOD_S) for number in range(TICKS)]
        assert {(job.deliveries, job.data) for job in ran} == {(1, "prices")}
        assert numbers.count(0) >= TICKS
        assert max(late_s) < PERIOD_S
