"""A person who approves the proposals of the travel example that wait for one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from agentqueue.client import Client
from agentqueue.errors import AgentQueueError

LOOK_EVERY_S = 0.5


@contextlib.asynccontextmanager
async def approving(client: Client) -> AsyncIterator[None]:
    """Approve every proposal that waits, while the block runs."""
    task = asyncio.create_task(_approve(client))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _approve(client: Client) -> None:
    while True:
        with contextlib.suppress(AgentQueueError):  # Redis does not answer, or the job has ended meanwhile
            for job in await client.jobs("communication", "suspended", limit=1_000):
                await client.signal(job.id, "approval", {"approved": True}, sender="a test", id="once")
        await asyncio.sleep(LOOK_EVERY_S)
