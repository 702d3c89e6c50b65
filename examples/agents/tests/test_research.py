"""The agent `research` and its children, on a real server."""

import pytest
from assistants import research
from assistants.research import Finding, Report, Topic
from assistants.services import QUERIES, Fault, Server

from agentqueue.errors import JobFailed
from agentqueue.testing import Sandbox

REPORT = Report(
    title="A report on tea",
    findings=[Finding(query=f"tea {query}", text=f"All about tea {query}.") for query in QUERIES],
)


async def test_the_children_search_and_the_parent_writes(services: Server) -> None:
    async with Sandbox(research.agent, research.search_agent) as box:
        job = await box.client.enqueue(research.research, Topic(text="tea"))
        assert await job.result() == REPORT
        assert (await box.client.stats("search")).completed == len(QUERIES)
    assert services.records.model_calls == 1 + len(QUERIES) + 1
    assert set(services.records.prompts.values()) == {1}


async def test_a_busy_or_broken_model_is_asked_again_for_what_it_did_not_answer(services: Server) -> None:
    services.records.faults.extend([Fault(429), Fault(), Fault(500), Fault(503)])
    async with Sandbox(research.agent, research.search_agent) as box:
        job = await box.client.enqueue(research.research, Topic(text="tea"))
        assert await job.result() == REPORT
    assert services.records.model_calls == 5 + 3, "five answers, and one more request for each of three faults"


async def test_a_model_that_stays_broken_fails_the_report_by_name(services: Server) -> None:
    services.records.faults.extend([Fault(500)] * 3)
    async with Sandbox(research.agent, research.search_agent) as box:
        job = await box.client.enqueue(research.research, Topic(text="tea"))
        with pytest.raises(JobFailed, match="HTTPStatusError"):
            await job.result()
