"""Fake of a worker as handlers and registries see it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from agentqueue.agent.durable import Durable
from agentqueue.agent.limit import LimitCalls
from agentqueue.model.attempts import Progress


class FakeRuntime:
    """Keeps the values that handlers report. Tests whose handlers use `loop` set it."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, queue: str = "q", *, draining: bool = False) -> None:
        self.queue = self.declared_queue = queue
        self.worker = "w"
        self.state: Any = SimpleNamespace()
        self.client: Any = None
        self.draining = draining
        self.thread = threading.get_ident()
        self.reported: list[tuple[str, Progress]] = []
        self.checkpoints: list[tuple[str, bytes]] = []

    def progress(self, job_id: str, progress: Progress) -> None:
        """Keep the progress."""
        self.reported.append((job_id, progress))

    async def checkpoint(self, job_id: str, raw: bytes, *, strict: bool) -> None:
        """Keep the checkpoint."""
        self.checkpoints.append((job_id, raw))

    def limits(self, job_id: str) -> LimitCalls:
        raise AssertionError("the job makes no call under a limit")

    def durable(self, job_id: str) -> Durable:
        """Refuse durable calls, which need a worker."""
        raise NotImplementedError

    def run_in_thread(self, function: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        """Run the function in a thread of the event loop's executor."""
        return asyncio.to_thread(function, *args)
