"""The agents of examples/agents in processes that are killed and drained: what their calls of the model cost."""

import functools
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from assistants.essay import Wish, write_essay
from assistants.services import Server as Services

from agentqueue import Client
from agentqueue.store import Engine
from tests.support.workers import until, worker_process

FOLDER = Path(__file__).parents[2] / "examples" / "agents"
PARAGRAPHS = 20
GRACE_S = 10
"""Longer than a call of the model, so that none is cut off when the worker drains."""


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    with Services() as server:
        server.records.model_delay = 0.05
        monkeypatch.setenv("SERVICES_URL", server.url)
        yield server


def has_calls(services: Services, count: int) -> bool:
    return services.records.model_calls >= count


async def write_with_endings(url: str, services: Services, number: signal.Signals, endings: int) -> list[str]:
    """Return the essay of a job whose worker is ended by a signal so often, each time after two more paragraphs."""
    async with Client(url) as client:
        job = await client.enqueue(write_essay, Wish(topic="tea", paragraphs=PARAGRAPHS))
        for ending in range(endings):
            calls = services.records.model_calls + 3
            name = f"w{ending}"
            environment = {"WORKER_NAME": name, "TERMINATION_GRACE_PERIOD_SECONDS": GRACE_S}
            with worker_process("assistants.essay:agent", FOLDER, url, **environment) as worker:
                await until(functools.partial(has_calls, services, calls), what="the model is asked again")
                worker.send(number)
                await worker.exit()
            # As the operator does when it sees the container end. Otherwise the lease would run out first.
            await Engine(client.server, "essay").release_worker_leases(worker=name, reason="it was killed")
        with worker_process("assistants.essay:agent", FOLDER, url):
            return await job.result(timeout=60)


async def test_of_twenty_calls_a_kill_repeats_at_most_the_one_under_way(server_url: str, services: Services) -> None:
    essay = await write_with_endings(server_url, services, signal.SIGKILL, 5)
    assert essay == [f"A report on tea, part {number}" for number in range(1, PARAGRAPHS + 1)]
    prompts = services.records.prompts
    assert len(prompts) == PARAGRAPHS
    assert services.records.model_calls <= PARAGRAPHS + 5


async def test_a_drain_repeats_no_call(server_url: str, services: Services) -> None:
    services.records.model_delay = 0.3
    essay = await write_with_endings(server_url, services, signal.SIGTERM, 2)
    assert len(essay) == PARAGRAPHS
    assert set(services.records.prompts.values()) == {1}
