"""AgentQueue by its public interface alone, so that the same file serves an older commit too.

A commit from before durable work has no `ctx.step`: it runs everything else.
"""

from collections.abc import Sequence
from typing import Any

from benchmarks.throughput.load import URL, Job, ended, started
from benchmarks.throughput.sides.side import Side, handle, main

from agentqueue import Agent, Client, Context

QUEUE = "bench"
agent = Agent(QUEUE)


@agent.job(name="work")
async def work(_ctx: object, data: list[Any]) -> int:
    """Run one job."""
    return await handle(*data)


async def echo(at: int) -> int:
    """Return the argument."""
    return at


@agent.job(name="steps")
async def steps(ctx: Context, data: list[int]) -> int:
    """Run steps one after the other, and record the end of each."""
    n, size = data
    for at in range(size):
        await ctx.step("echo", echo, at)
        started(n * size + at)
    return size


@agent.job(name="wait")
async def wait(ctx: Context, data: list[int]) -> int:
    """Wait for a signal, and record the start of each run."""
    started(data[0])
    await ctx.wait_for("go")
    return data[0]


@agent.job(name="leaf")
async def leaf(_ctx: object, at: int) -> int:
    """Do nothing."""
    return at


@agent.job(name="gather")
async def gather(ctx: Context, data: list[int]) -> int:
    """Wait for children, and record the start of each run and the end."""
    n, size = data
    started(n)
    results = await ctx.gather([ctx.child(leaf, at) for at in range(size)])
    ended(n)
    return len(results)


class AgentQueue(Side):
    """AgentQueue's client."""

    async def open(self) -> None:
        """Connect."""
        self._client = Client(URL)

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()

    async def send(self, job: Job) -> None:
        """Enqueue one job, or send a signal to one."""
        if job.call == "signal":
            await self._client.signal(f"wait-{job.n}", "go", queue=QUEUE)
            return
        await self._client.enqueue(**_request(job), delay=job.delay or None)

    async def send_many(self, jobs: Sequence[Job]) -> None:
        """Enqueue many jobs in one call."""
        await self._client.enqueue_many(map(_request, jobs))


def _request(job: Job) -> dict[str, Any]:
    priority = "urgent" if job.urgent else "low"
    if job.call == "work":
        return {"queue": QUEUE, "name": "work", "data": job.arguments, "priority": priority}
    job_id = f"{job.call}-{job.n}"
    return {"queue": QUEUE, "name": job.call, "data": (job.n, job.size), "priority": priority, "id": job_id}


if __name__ == "__main__":
    main(AgentQueue())
