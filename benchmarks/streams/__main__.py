"""How much a job that emits 10,000 events a second slows the other jobs of its worker.

`python -m benchmarks.streams [--seconds 5] [--turns 6] [--rate 10000]` starts a Valkey, and runs short jobs in a worker
in turns with and without a job beside them that emits. It prints the jobs per second of each turn and the ratio of the
medians. The goal is a ratio over 0.9 on an idle machine.
"""

import argparse
import asyncio
import statistics
from typing import Final

import uvloop

from agentqueue import Agent, Client, Context
from agentqueue.clock import monotonic
from agentqueue.local.server import EmbeddedServer
from agentqueue.store import ServerOptions
from agentqueue_worker.process import make_worker, program_of
from agentqueue_worker.settings import Settings

TICK_S: Final = 0.01
"""Pause between two bursts of events, as tokens of many models arrive together."""
JOB_S: Final = 0.01
"""Duration of a short job, in seconds."""
SLOTS: Final = 50
agent = Agent("streams")


@agent.job(timeout=600)
async def short(_ctx: Context) -> None:
    await asyncio.sleep(JOB_S)


@agent.job(timeout=600)
async def talk(ctx: Context, given: tuple[int, float]) -> int:
    rate, seconds = given
    began, emitted = monotonic(), 0
    while (passed := monotonic() - began) < seconds:
        while emitted < rate * passed:
            await ctx.emit("token ")
            emitted += 1
        await asyncio.sleep(TICK_S)
    return emitted


async def turn(client: Client, options: ServerOptions, *, rate: int, seconds: float) -> tuple[float, float]:
    """Return the short jobs and the events per second of one turn."""
    await client.enqueue_many({"function": short} for _ in range(round(SLOTS / JOB_S * seconds)))
    talking = await client.enqueue(talk, (rate, seconds), priority="urgent") if rate else None
    worker = make_worker(program_of(agent, Settings(redis=options, concurrency=SLOTS)))
    before = (await client.stats("streams")).completed
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(seconds)
    jobs = (await client.stats("streams")).completed - before
    events = await talking.result() if talking is not None else 0
    worker.stop(grace=0.0)
    await running
    await client.server.redis.flushall()
    return jobs / seconds, events / seconds


async def measure(*, rate: int, seconds: float, turns: int) -> None:
    """Run the turns, and print what they come to."""
    with EmbeddedServer() as server:
        async with Client(server.url) as client:
            alone, beside = list[float](), list[float]()
            for _ in range(turns):
                jobs, _ = await turn(client, client.server.options, rate=0, seconds=seconds)
                alone.append(jobs)
                jobs, events = await turn(client, client.server.options, rate=rate, seconds=seconds)
                beside.append(jobs)
                print(
                    f"alone {alone[-1]:8,.0f} jobs/s   beside {events:8,.0f} events/s: {jobs:8,.0f} jobs/s", flush=True
                )
            print(f"ratio of the medians: {statistics.median(beside) / statistics.median(alone):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=10_000, help="events per second")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a turn")
    parser.add_argument("--turns", type=int, default=6)
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(rate=given.rate, seconds=given.seconds, turns=given.turns))


if __name__ == "__main__":
    main()
