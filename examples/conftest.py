"""A context for calling handlers by hand, a data folder of the test's own, and the services of the agents."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from assistants.services import Server

from agentqueue.agent.context import Context
from agentqueue.agent.durable import Durable
from agentqueue.model.attempts import Progress
from agentqueue.model.job import JobRecord, decode_job

# Without it, pytest-asyncio creates an event loop (Python < 3.14) that nobody closes.
asyncio.set_event_loop(None)


class Bench:
    """A fake of the worker that records the progress of handlers."""

    queue = declared_queue = "bench"
    draining = False

    def __init__(self) -> None:
        self.state = SimpleNamespace()
        self.thread = threading.get_ident()
        self.loop = asyncio.get_running_loop()
        self.recorded: list[Progress] = []

    def progress(self, job_id: str, progress: Progress) -> None:
        self.recorded.append(progress)

    def checkpoint(self, job_id: str, raw: bytes, *, strict: bool) -> Coroutine[Any, Any, None]:
        raise AssertionError("no handler of the example keeps checkpoints")

    def durable(self, job_id: str) -> Durable:
        raise AssertionError("no handler of the example has steps")


@pytest.fixture
async def context() -> Callable[..., Context]:
    bench = Bench()
    return lambda job_id="job-1": Context(bench, JobRecord(name="a-job"), id=job_id)


@pytest.fixture
def children() -> Callable[[Context], list[tuple[str, str, Any]]]:
    """What a handler enqueued: (queue, job name, data)."""
    return lambda ctx: [(job.queue, decode_job(job.record).name, decode_job(job.record).data) for job in ctx.children]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAVEL_DATA", str(tmp_path))
    monkeypatch.delenv("SMTP_URL", raising=False)
    return tmp_path


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The model and the shop that the agents of `examples/agents` call."""
    with Server() as server:
        monkeypatch.setenv("SERVICES_URL", server.url)
        yield server
