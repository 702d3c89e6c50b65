"""AgentQueue by its public interface alone, so that the same file serves an older commit too."""

from collections.abc import Sequence
from typing import Any

from benchmarks.throughput.load import URL, Job
from benchmarks.throughput.sides.side import Side, handle, main

from agentqueue import Agent, Client

QUEUE = "bench"
agent = Agent(QUEUE)


@agent.job(name="work")
async def work(_ctx: object, data: list[Any]) -> int:
    """Run one job."""
    return await handle(*data)


class AgentQueue(Side):
    """AgentQueue's client."""

    async def open(self) -> None:
        """Connect."""
        self._client = Client(URL)

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()

    async def send(self, job: Job) -> None:
        """Enqueue one job."""
        await self._client.enqueue(
            QUEUE, "work", job.arguments, priority="urgent" if job.urgent else "low", delay=job.delay or None
        )

    async def send_many(self, jobs: Sequence[Job]) -> None:
        """Enqueue many jobs in one call."""
        await self._client.enqueue_many(
            {"queue": QUEUE, "name": "work", "data": job.arguments, "priority": "urgent" if job.urgent else "low"}
            for job in jobs
        )


if __name__ == "__main__":
    main(AgentQueue())
