"""The other figures: how soon a job starts, how well 50 ms jobs fill the slots, what long queues and idling cost.

`python -m benchmarks.throughput.figures [--rounds N]`, after the comparison in `make bench`. Each figure is the median
of its rounds, with the least and the most: on a busy machine the best round is the one to believe.
"""

import argparse
import asyncio
import contextlib
import logging
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import structlog
import uvloop
from redis import Redis

from agentqueue import Agent, Client
from agentqueue.clock import monotonic
from agentqueue.local.server import EmbeddedServer
from agentqueue.store import ServerOptions
from agentqueue_worker.app.worker import Worker
from agentqueue_worker.process import make_worker, program_of
from agentqueue_worker.settings import Settings

QUEUE = "bench"
IDLE_SECONDS = 5
DEMO = Path(__file__).parents[2] / "examples" / "travel" / "demo.py"
agent = Agent(QUEUE)
_started: "asyncio.Queue[float]"


@agent.job(name="noop")
async def noop(_ctx: object, n: int = 0) -> int:
    """No work."""
    return n


@agent.job(name="nap")
async def nap(_ctx: object) -> None:
    """50 ms, as a call to a near service takes."""
    await asyncio.sleep(0.05)


@agent.job(name="note")
async def note(_ctx: object) -> None:
    """Tell when it has started."""
    _started.put_nowait(monotonic())


def _worker(url: str, concurrency: int, *, burst: bool) -> Worker:
    settings = Settings().override(redis=ServerOptions(url), concurrency=concurrency, burst=burst)
    return make_worker(program_of(agent, settings))


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # a worker has no event for it
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def _working(url: str) -> AsyncIterator[None]:
    worker = _worker(url, 5, burst=False)
    running = asyncio.create_task(worker.run())
    await _until(lambda: worker.state.ready)
    await asyncio.sleep(0.5)  # until it is idle
    yield
    worker.stop(grace=0.0)
    await running


async def _drain(url: str, name: str, jobs: int, concurrency: int) -> float:
    """Seconds to work so many jobs off."""
    async with Client(url) as client:
        await client.enqueue_many([{"queue": QUEUE, "name": name} for _ in range(jobs)])
    began = monotonic()
    await _worker(url, concurrency, burst=True).run()
    return monotonic() - began


async def efficiency(url: str) -> float:
    """Percent of the ideal 2,000/s that 50 ms jobs reach at concurrency 100, over 10 s: starting counts little."""
    return 100 * 20_000 / await _drain(url, "nap", 20_000, 100) / 2_000


async def start_latency(url: str) -> float:
    """Milliseconds from enqueue to start on an idle worker, the median of 100."""
    global _started  # noqa: PLW0603  # the handler's way to tell
    _started = asyncio.Queue()
    waits = []
    async with Client(url) as client, _working(url):
        for _ in range(100):
            await asyncio.sleep(0.02)
            began = monotonic()
            await client.enqueue(QUEUE, "note")
            waits.append(1000 * (await _started.get() - began))
    return statistics.median(waits)


async def idle_commands(url: str) -> float:
    """Commands a second that an idle worker's connections send."""
    async with _working(url):
        with Redis.from_url(url) as client:
            client.config_resetstat()
            await asyncio.sleep(IDLE_SECONDS)
            stats = client.info("commandstats")
        assert isinstance(stats, dict)
        sent = ("evalsha", "blpop", "lpush", "info", "ping")
        return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in sent) / IDLE_SECONDS


async def long_queue(url: str) -> float:
    """How many times more a job costs with 1,000,000 waiting than with 1,000: claims and finishes of 10,000."""

    async def rate(waiting: int) -> float:
        with Redis.from_url(url) as client:
            client.flushall()
        async with Client(url) as client_:
            for _ in range(waiting // 50_000):
                await client_.enqueue_many([{"queue": QUEUE, "name": "noop"} for _ in range(50_000)])
        if waiting < 50_000:  # the short queue is kept short: ten times 1,000
            return sum([await _drain(url, "noop", 1_000, 100) for _ in range(10)]) / 10_000
        worker = _worker(url, 100, burst=True)
        began, run = monotonic(), asyncio.create_task(worker.run())
        await _until(lambda: worker.state.finished >= 10_000)
        seconds = (monotonic() - began) / worker.state.finished
        worker.stop(grace=0.0)
        await run
        return seconds

    many = await rate(1_000_000)
    return many / await rate(1_000)


async def memory(url: str) -> float:
    """MB resident of a worker process that has run one job."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "mine.py").write_text(
            "from agentqueue import Agent, Context\nagent = Agent('small')\n@agent.job\nasync def job(ctx: Context):\n"
            "    from pathlib import Path\n"
            "    return next(x for x in Path('/proc/self/status').read_text().splitlines() if x.startswith('VmRSS'))\n"
        )
        async with Client(url) as client:
            job = await client.enqueue("small", "job")
            command = [sys.executable, "-m", "agentqueue_worker", "mine:agent"]
            environment = {"AGENTQUEUE_REDIS_URL": url, "AGENTQUEUE_LOG_LEVEL": "error", "PYTHONPATH": folder}
            process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=environment)
            try:
                return int((await job.result(timeout=60)).split()[1]) / 1000
            finally:
                process.terminate()
                await process.wait()


def _seconds_of(command: Sequence[str]) -> float:
    began = monotonic()
    _output_of(command)
    return monotonic() - began


def _output_of(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def import_time(_url: str) -> float:
    """Milliseconds of `import agentqueue`, the interpreter's own start taken off."""
    bare = _seconds_of([sys.executable, "-c", "pass"])
    return 1000 * (_seconds_of([sys.executable, "-c", "import agentqueue"]) - bare)


async def help_time(_url: str) -> float:
    """Milliseconds of `agentqueue --help`."""
    return 1000 * _seconds_of([str(Path(sys.executable).parent / "agentqueue"), "--help"])


async def first_proposal(_url: str) -> float:
    """Seconds from the start of the demo's `agentqueue up` to its first proposal, as the demo itself tells."""
    told = _output_of([sys.executable, str(DEMO)])
    found = re.search(r"first proposal ([\d.]+) s after", told)
    if found is None:
        raise RuntimeError(f"the demo told of no first proposal:\n{told}")
    return float(found[1])


Measure = Callable[[str], Coroutine[Any, Any, float]]
FIGURES: dict[str, tuple[Measure, str, str]] = {
    "50 ms jobs at concurrency 100": (efficiency, "% of 2,000/s", "96 or more"),
    "enqueue to start, idle": (start_latency, "ms", "under 2"),
    "idle worker": (idle_commands, "commands/s", "3 at most"),
    "1,000,000 waiting for 1,000": (long_queue, "times the cost", "1.15 at most"),
    "worker's resident memory": (memory, "MB", "under 60"),
    "import agentqueue": (import_time, "ms", "under 150"),
    "agentqueue --help": (help_time, "ms", "under 300"),
    "first proposal of the demo": (first_proposal, "s", "under 5"),
}


def main() -> None:
    """Measure each, a few times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="figures whose name has this in it")
    given = parser.parse_args()
    for name, (measure, unit, aim) in FIGURES.items():
        if given.only and given.only not in name:
            continue
        rounds = 1 if measure is long_queue else given.rounds  # that one takes a minute
        with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder), appendfsync="everysec") as server:
            values = sorted(_once(measure, server.url) for _ in range(rounds))
        median = statistics.median(values)
        print(f"{name:<31} {median:>8.2f} {unit} ({values[0]:.2f} to {values[-1]:.2f}); aim: {aim}", flush=True)


def _once(measure: Measure, url: str) -> float:
    with Redis.from_url(url) as client:
        client.flushall()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measure(url))


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    main()
