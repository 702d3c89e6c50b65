"""Record which jobs run in which pod, as the handlers report to a server of the test, and when pods are removed.

Redis, heartbeats and the operator are not asked: they are what is tested.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from agentqueue.client import Client
from agentqueue.clock import monotonic
from tests.support.cluster.kube import Kube

CODE = """
import asyncio, os

from agentqueue import Agent, Context

agent = Agent("work")


async def record_event(what: str, job: str) -> None:
    reader, writer = await asyncio.open_connection(os.environ["RECORDER_HOST"], int(os.environ["RECORDER_PORT"]))
    writer.write(f"{what} {os.environ['AGENTQUEUE_WORKER_NAME']} {job}\\n".encode())
    assert await reader.readline() == b"noted\\n"
    writer.close()


@agent.job(timeout=600)
async def recorded(ctx: Context, seconds: float) -> None:
    await record_event("start", ctx.id)
    await asyncio.sleep(seconds)
    await record_event("end", ctx.id)
"""


@dataclass
class Removals:
    """Record of jobs and pods."""

    running: dict[str, set[str]] = field(default_factory=dict)
    """Running jobs by pod."""
    starts: dict[str, int] = field(default_factory=dict)
    """Number of starts by job."""
    ends: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    busy: list[str] = field(default_factory=list)
    """Jobs that ran in a pod when its termination began, by pod."""

    def note(self, what: str, pod: str, job: str) -> None:
        """Record a line from a handler."""
        jobs = self.running.setdefault(pod, set())
        if what == "start":
            jobs.add(job)
            self.starts[job] = self.starts.get(job, 0) + 1
        else:
            jobs.discard(job)
            self.ends.add(job)

    def remove(self, pod: str) -> None:
        """Record that a pod's termination has begun."""
        if pod not in self.removed:
            self.removed.add(pod)
            self.busy += [f"{pod} ran {job}" for job in self.running.get(pod, ())]

    @property
    def again(self) -> list[str]:
        """Return the jobs that have started more than once."""
        return [job for job, times in self.starts.items() if times > 1]

    @contextlib.asynccontextmanager
    async def listening(self, host: str) -> AsyncIterator[int]:
        """Serve the handlers' lines. Yields the port."""

        async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            line = (await reader.readline()).decode().split()
            if len(line) == 3:
                self.note(*line)
                writer.write(b"noted\n")
                await writer.drain()
            writer.close()

        async with await asyncio.start_server(hear, host, 0) as server:
            yield server.sockets[0].getsockname()[1]

    async def watch(self, kube: Kube, labels: str) -> None:
        """Record each pod whose termination begins, until cancelled."""
        async for event in kube.watch("pod", labelSelector=labels):
            metadata = event["object"]["metadata"]
            if event["type"] == "DELETED" or "deletionTimestamp" in metadata:
                self.remove(metadata["name"])


async def steady(client: Client, seconds: float, *, seed: int = 1) -> int:
    """Enqueue jobs of two to six seconds at random times, about one per second. Return their number."""
    rng, began, count = random.Random(seed), monotonic(), 0
    while monotonic() - began < seconds:
        await asyncio.sleep(min(rng.expovariate(1.0), 5.0))
        await client.enqueue("work", "recorded", rng.uniform(2.0, 6.0), force=True)  # its code is being rolled out
        count += 1
    return count
