"""A worker as handlers and registries see it, for tests without one."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from agentqueue.model.attempts import Progress


class FakeRuntime:
    """Keeps what handlers report. `loop` is set by tests whose handlers use it."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, queue: str = "q", *, draining: bool = False) -> None:
        self.queue = self.declared_queue = queue
        self.worker = "w"
        self.state: Any = SimpleNamespace()
        self.draining = draining
        self.thread = threading.get_ident()
        self.reported: list[tuple[str, Progress]] = []
        self.checkpoints: list[tuple[str, bytes]] = []

    def progress(self, job_id: str, progress: Progress) -> None:
        """Keep it."""
        self.reported.append((job_id, progress))

    async def checkpoint(self, job_id: str, raw: bytes) -> None:
        """Keep it."""
        self.checkpoints.append((job_id, raw))

    def run_in_thread(self, function: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        """Run it in a thread of the event loop's own."""
        return asyncio.to_thread(function, *args)
