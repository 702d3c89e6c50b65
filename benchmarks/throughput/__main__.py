"""AgentQueue beside arq and BullMQ: no-op jobs through one worker process, in turns, as ratios with their spread.

`python -m benchmarks.throughput [--jobs N] [--rounds N] [--fsync everysec|always]`, or `make bench`. All sides use the
same embedded Valkey with an append-only file. AgentQueue runs with everything on (leases, results, retries, counters,
metrics). arq runs twice: as it comes (asyncio's own loop, pickles, its default poll), and tuned as far as its settings
go (uvloop, orjson, no pause between polls); its logging is off. BullMQ (where Node is) runs as it comes, but keeps the
last 1,000 results as AgentQueue does. AgentQueue and BullMQ enqueue in bulk, which arq can't. A round is a fresh
process for each side; the time is from the worker's first claim to its last finish, without the process's start.
"""

import argparse
import asyncio
import functools
import itertools
import logging
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import orjson
import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker as ArqWorker
from benchmarks.throughput import bullmq
from redis import Redis

from agentqueue import Agent, Client
from agentqueue.clock import monotonic
from agentqueue.local.server import EmbeddedServer
from agentqueue_worker.testing import burst

QUEUE = "bench"
ARQS = {"arq": "arq as it comes", "tuned-arq": "arq tuned"}
TUNED: dict[str, Any] = {"poll_delay": 0, "job_serializer": orjson.dumps, "job_deserializer": orjson.loads}
ARQ_JOBS = 1_000
"""arq is so much slower that its share is kept small; its rate does not depend on it."""
agent = Agent(QUEUE)


@agent.job(name="noop")
async def noop(_ctx: object, n: int) -> int:
    """No work."""
    return n


async def arq_noop(ctx: dict[Any, Any], n: int) -> int:  # noqa: ARG001  # arq names it so
    """No work."""
    return n


async def ours(url: str, jobs: int, concurrency: int) -> tuple[float, float]:
    """Jobs per second enqueued and run by AgentQueue."""
    async with Client(url) as client:
        started = monotonic()
        await client.enqueue_many([{"queue": QUEUE, "name": "noop", "data": n} for n in range(jobs)])
        sent = jobs / (monotonic() - started)
    started = monotonic()
    await burst(agent, url=url, concurrency=concurrency)
    return sent, jobs / (monotonic() - started)


async def theirs(url: str, jobs: int, concurrency: int, **settings: Any) -> tuple[float, float]:
    """The same of arq, with what goes over its defaults."""
    serializers = {name: value for name, value in settings.items() if name.startswith("job_")}
    pool = await create_pool(RedisSettings.from_dsn(url), **serializers)
    started = monotonic()
    for n in range(jobs):
        await pool.enqueue_job("arq_noop", n)
    sent = jobs / (monotonic() - started)
    worker = ArqWorker(
        [arq_noop],
        redis_pool=pool,
        burst=True,
        max_jobs=concurrency,
        handle_signals=False,
        **settings,
    )
    started = monotonic()
    await worker.async_run()
    ran = jobs / (monotonic() - started)
    await worker.close()
    return sent, ran


def python_side(side: str, url: str, jobs: int, concurrency: int) -> Sequence[str]:
    """The process that prints its jobs per second enqueued and run."""
    command = [sys.executable, "-m", "benchmarks.throughput", "--side", side, "--url", url]
    return [*command, "--jobs", str(jobs), "--concurrency", str(concurrency)]


def one_round(url: str, command: Sequence[str]) -> tuple[float, float]:
    """One side in a process of its own, on an empty server: jobs per second enqueued and run."""
    with Redis.from_url(url) as client:
        client.flushall()
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    sent, ran = map(float, out.split()[-2:])
    return sent, ran


def one_turn(url: str, jobs: int, concurrency: int, node: Path | None) -> dict[str, tuple[float, float]]:
    """A round of each side."""
    sides = {"ours": python_side("ours", url, jobs, concurrency)}
    sides |= {peer: python_side(peer, url, ARQ_JOBS, concurrency) for peer in ARQS}
    if node is not None:
        sides["bullmq"] = bullmq.side(node, url, concurrency)
    return {name: one_round(url, command) for name, command in sides.items()}


def compare(url: str, *, jobs: int, rounds: int, concurrency: int, node: Path | None) -> None:
    """Rounds in turns; the ratio is taken pair by pair."""
    turns = [one_turn(url, jobs, concurrency, node) for _ in range(rounds)]
    peers = ARQS | ({"bullmq": "BullMQ"} if node is not None else {})
    for (index, what), (peer, name) in itertools.product(enumerate(("enqueue", "run")), peers.items()):
        mine, other = [turn["ours"][index] for turn in turns], [turn[peer][index] for turn in turns]
        ratios = sorted(a / b for a, b in zip(mine, other, strict=True))
        print(
            f"concurrency {concurrency:>3}, {what:<7}: AgentQueue {statistics.median(mine):>7,.0f}/s, "
            f"{name} {statistics.median(other):>6,.0f}/s, ratio {statistics.median(ratios):.1f} "
            f"({ratios[0]:.1f} to {ratios[-1]:.1f})",
            flush=True,
        )


def main() -> None:
    """Run one side, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fsync", choices=("everysec", "always"), default="everysec")
    parser.add_argument("--side", choices=("ours", *ARQS), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--concurrency", type=int, default=100, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        logging.disable()
        tuned = functools.partial(theirs, **TUNED)
        sides: dict[str, Callable[[str, int, int], Coroutine[Any, Any, tuple[float, float]]]]
        sides = {"ours": ours, "arq": theirs, "tuned-arq": tuned}
        with asyncio.Runner(loop_factory=None if given.side == "arq" else uvloop.new_event_loop) as runner:
            print(*runner.run(sides[given.side](given.url, given.jobs, given.concurrency)))
        return
    node = bullmq.install()
    if node is None:
        print("Node is not here: without BullMQ")
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder), appendfsync=given.fsync) as server:
        print(f"one worker process, no-op jobs, appendfsync {given.fsync}, {given.rounds} rounds in turns")
        for concurrency in (100, 10):
            compare(server.url, jobs=given.jobs, rounds=given.rounds, concurrency=concurrency, node=node)


if __name__ == "__main__":
    main()
