"""The agents of examples/agents in processes that are killed and drained: what their calls cost.

AGENT_KILLS in the environment is the number of kills of `research` and of `buyer`.
"""

import contextlib
import functools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from assistants.buyer import APPROVAL, Order, buy
from assistants.essay import Wish, write_essay
from assistants.research import Topic, research
from assistants.services import QUERIES
from assistants.services import Server as Services

from agentqueue import Client
from agentqueue.store import Engine
from tests.support.workers import until, worker_process

FOLDER = Path(__file__).parents[2] / "examples" / "agents"
PARAGRAPHS = 20
KILLS = int(os.environ.get("AGENT_KILLS", "2"))
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


async def kill_when(url: str, agents: Sequence[str], is_time: Callable[[], bool]) -> None:
    """Run a worker of each agent, with one slot, and kill them all when it is time."""
    with contextlib.ExitStack() as stack:
        workers = {}
        for agent in agents:
            environment = {"WORKER_NAME": agent.rpartition(":")[2], "CONCURRENCY": 1}
            workers[agent] = stack.enter_context(worker_process(f"assistants.{agent}", FOLDER, url, **environment))
        await until(is_time, what="it is time to kill the workers", deadline=30)
        for worker in workers.values():
            worker.send(signal.SIGKILL)
        for worker in workers.values():
            await worker.exit()
    async with Client(url) as client:
        for queue in await client.queues():
            for agent in agents:  # as the operator does when it sees the container end
                name = agent.rpartition(":")[2]
                await Engine(client.server, queue).release_worker_leases(worker=name, reason="it was killed")


async def test_killed_workers_of_a_parent_and_its_children_repeat_a_call_a_kill_at_most(
    server_url: str, services: Services
) -> None:
    agents, records = ["research:agent", "research:search_agent"], services.records
    records.model_delay = 0.2
    async with Client(server_url) as client:
        job = await client.enqueue(research, Topic(text="tea"))
        for kill in range(KILLS):
            calls = records.model_calls + (2 if kill else 1)  # the call that was cut off, and a new one
            await kill_when(server_url, agents, functools.partial(has_calls, services, calls))
        with contextlib.ExitStack() as stack:
            for agent in agents:
                stack.enter_context(worker_process(f"assistants.{agent}", FOLDER, server_url))
            report = await job.result(timeout=60)
        assert [finding.query for finding in report.findings] == [f"tea {query}" for query in QUERIES]
        assert len(records.prompts) == 2 + len(QUERIES)
        assert records.model_calls == 2 + len(QUERIES) + KILLS
        assert (await job.status()).attempts == 1


async def test_workers_that_are_killed_while_they_pay_pay_each_order_once(server_url: str, services: Services) -> None:
    records = services.records
    records.model_delay, records.payment_delay = 0.01, 0.5
    items = [f"{'laptop' if number % 2 else 'pencil'}" for number in range(KILLS)]
    async with Client(server_url) as client:
        jobs = [await client.enqueue(buy, Order(item=item, limit=500)) for item in items]
        for job in jobs:
            await client.signal(job.id, APPROVAL, {"approved": True}, sender="ana")
        for kill in range(KILLS):
            paying = kill + 1
            await kill_when(server_url, ["buyer:agent"], lambda n=paying: records.payment_calls >= n)  # type: ignore[misc]
        records.payment_delay = 0.0
        with worker_process("assistants.buyer:agent", FOLDER, server_url):
            payments = [await job.result(timeout=60) for job in jobs]
    assert [payment.item for payment in payments] == items
    assert records.payment_calls == len(records.payments) == KILLS
    assert sorted(payment.id for payment in payments) == sorted(each["id"] for each in records.payments.values())
    assert records.model_calls <= 2 * KILLS
