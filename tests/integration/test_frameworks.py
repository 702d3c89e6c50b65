"""The programs of docs/frameworks (pydantic-ai.md, openai-agents.md, langgraph.md), as they are written.

Workers that run them are killed, and the model server counts the requests. FRAMEWORK_KILLS sets how often.
"""

import functools
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from assistants.services import Server as Services

from agentqueue import Client
from agentqueue.store import Engine
from tests.support.models import model_server
from tests.support.pages import Page
from tests.support.waiting import until
from tests.support.workers import worker_process

DOCS = Path(__file__).parents[2] / "docs" / "frameworks"
KILLS = int(os.environ.get("FRAMEWORK_KILLS", "2"))
PLACES = [f"place-{number}" for number in range(KILLS + 3)]
QUESTION = f"Visit: {', '.join(PLACES)}"
ANSWER = f"I have seen {', '.join(PLACES)}."


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
    with model_server() as server:
        server.records.model_delay = 0.1
        yield server


def has_calls(services: Services, count: int) -> bool:
    return services.records.model_calls >= count


RUNS: Mapping[str, tuple[Any, Any, int]] = {
    "pydantic-ai.md": (QUESTION, ANSWER, len(PLACES) + 1),
    "openai-agents.md": (QUESTION, ANSWER, len(PLACES) + 1),
    "langgraph.md": (PLACES, [f"All about {place}." for place in PLACES], len(PLACES)),
}
"""The page's job: its payload, its result, and how often it asks the model."""


@pytest.mark.parametrize("page", RUNS)
async def test_each_kill_repeats_at_most_one_call_of_the_model(
    services: Services, server_url: str, tmp_path: Path, page: str
) -> None:
    payload, result, calls = RUNS[page]
    Page(DOCS / page).write(tmp_path)
    async with Client(server_url) as client:
        job = await client.enqueue("planner", "plan-trip", payload)
        for kill in range(KILLS):
            count, name = services.records.model_calls + 2, f"w{kill}"
            with worker_process("planner:agent", tmp_path, server_url, WORKER_NAME=name) as worker:
                await until(functools.partial(has_calls, services, count), what="the model is asked", deadline=60)
                worker.send(signal.SIGKILL)
                await worker.exit()
            # As the operator does when it sees the container end. Otherwise the lease would run out first.
            await Engine(client.server, "planner").release_worker_leases(worker=name, reason="it was killed")
        with worker_process("planner:agent", tmp_path, server_url):
            assert await job.result(timeout=60) == result
    assert len(services.records.prompts) == calls
    assert services.records.model_calls <= calls + KILLS


ASKED: Mapping[str, tuple[str, str, str, Any, str]] = {
    "pydantic-ai.md": ("buyer", "buy-tickets", "Visit: Rome", {"approved": True}, "I have seen Rome."),
    "langgraph.md": ("approval", "buy", "desk", "yes, do", "yes, do"),
}
"""The page's agent that asks a person: its name, the job's, the payload, the answer and the result."""


@pytest.mark.parametrize("page", ASKED)
async def test_a_person_is_asked_without_a_slot(services: Services, server_url: str, tmp_path: Path, page: str) -> None:
    name, job_name, payload, answer, result = ASKED[page]
    Page(DOCS / page).write(tmp_path)
    async with Client(server_url) as client:
        job = await client.enqueue(name, job_name, payload)

        async def suspended() -> bool:
            return (await job.status()).state == "suspended"

        with worker_process(f"{name}:agent", tmp_path, server_url):
            await until(suspended, what="the job waits for a person", deadline=60)
            await client.signal(job.id, "approval", answer, sender="ana")
            assert await job.result(timeout=60) == result
        if page == "pydantic-ai.md":
            steps = [step.name for step in (await job.status()).steps]
            assert steps == ["buyer.model/1.1#1", "order/Rome#1", "buyer.model/1.2#1"]
