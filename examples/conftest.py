"""The jobs that a handler enqueues, a data folder of the test's own, and the services of the agents."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from assistants.services import Server

from agentqueue.agent.context import Context
from agentqueue.model.job import decode_job

# Without it, pytest-asyncio creates an event loop (Python < 3.14) that nobody closes.
asyncio.set_event_loop(None)


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
