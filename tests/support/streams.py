"""Readers of streams in tests."""

import asyncio
from typing import Any

from agentqueue import Client
from agentqueue.client import Job, StreamEvent
from tests.support.workers import DEADLINE


class Page:
    """What a reader shows: it follows the rule for rewinds, as a web page does."""

    def __init__(self) -> None:
        self.pieces: list[Any] = []
        self.rewinds: list[int] = []
        self.missing = 0
        self.end: str | None = None
        self.last_id: str | None = None

    def show(self, event: StreamEvent) -> None:
        """Show an event."""
        match event.type:
            case "data":
                self.pieces.append(event.data)
            case "rewind":
                self.rewinds.append(event.data)
                del self.pieces[event.data :]
            case "gap":
                self.missing += event.data
            case "end":
                self.end = event.data
        self.last_id = event.id or None


async def read_all(client: Client, job: Job[Any] | str, page: Page | None = None, *, after: str | None = None) -> Page:
    """Read a job's stream until its end, and return what the reader shows then."""
    page = page or Page()
    job_id = job if isinstance(job, str) else job.id
    async with asyncio.timeout(2 * DEADLINE):
        async for event in client.stream(job_id, after):
            page.show(event)
    return page


async def read_some(client: Client, job: Job[Any], page: Page, count: int) -> None:
    """Read at most that many events behind what the page has, and go away."""
    stream = client.stream(job.id, page.last_id)
    try:
        async for event in stream:
            page.show(event)
            count -= 1
            if count <= 0:
                break
    finally:
        await stream.aclose()
