"""Agents of pydantic-ai as jobs: what is a step, what is not made again, and what a busy provider does."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from assistants.services import Fault
from assistants.services import Server as Services
from pydantic import BaseModel
from pydantic_ai import Agent as Assistant
from pydantic_ai import ModelRetry, RunContext
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.toolsets import FunctionToolset

from agentqueue import Agent, Context
from agentqueue.errors import JobFailed, UsageError
from agentqueue.integrations.pydantic_ai import AgentQueueDurability
from agentqueue.testing import Sandbox, context
from tests.support.models import MODEL, model_server, openai_client, planner, read_text


@pytest.fixture
def services() -> Iterator[Services]:
    with model_server() as server:
        yield server


@pytest.fixture
async def model(services: Services) -> AsyncIterator[OpenAIChatModel]:
    async with openai_client() as client:
        yield OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client))


def assistant_with(model: OpenAIChatModel, looked: list[str]) -> Assistant[None, str]:
    """An assistant whose tool records its calls."""
    assistant = Assistant(model, name="assistant")

    @assistant.tool_plain
    async def look_up(place: str) -> str:
        looked.append(place)
        return f"{place} is nice"

    return assistant


@pytest.mark.parametrize(
    "prompt", ["Visit: Rome, Bonn, Lima", "Compare: Rome, Bonn, Lima"], ids=["in a row", "parallel"]
)
async def test_no_request_and_no_tool_call_is_made_again(
    services: Services, model: OpenAIChatModel, prompt: str
) -> None:
    looked: list[str] = []

    async def run(ctx: Context, prompt: str) -> str:
        return (await assistant_with(model, looked).run(prompt, capabilities=[AgentQueueDurability(ctx)])).output

    agent, plan = planner(run)
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(plan, prompt)
        assert await job.result() == "I have seen Rome, Bonn, Lima."
        status = await job.status()
    assert sorted(looked) == ["Bonn", "Lima", "Rome"]
    assert set(services.records.prompts.values()) == {1}
    assert {step.delivery for step in status.steps} == {1}
    names = [step.name for step in status.steps]
    assert names[0] == "assistant.model/1.1#1"
    assert "assistant.tool.look_up/1.1.call_1#1" in names


async def test_runs_of_one_agent_in_a_row_and_at_the_same_time_have_their_own_steps(
    services: Services, model: OpenAIChatModel
) -> None:
    looked: list[str] = []

    async def run(ctx: Context, prompt: str) -> list[str]:
        assistant = assistant_with(model, looked)
        first = await assistant.run(prompt, capabilities=[AgentQueueDurability(ctx)])
        second = await assistant.run(
            "Compare: Oslo", message_history=first.all_messages(), capabilities=[AgentQueueDurability(ctx)]
        )
        both = await asyncio.gather(
            assistant.run("Visit: Nice", capabilities=[AgentQueueDurability(ctx, name="left")]),
            assistant.run("Visit: Cork", capabilities=[AgentQueueDurability(ctx, name="right")]),
        )
        return [first.output, second.output, *(one.output for one in both)]

    agent, plan = planner(run)
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(plan, "Visit: Rome")
        assert await job.result() == [f"I have seen {place}." for place in ("Rome", "Oslo", "Nice", "Cork")]
    assert sorted(looked) == ["Cork", "Nice", "Oslo", "Rome"]
    assert set(services.records.prompts.values()) == {1}


class Offer(BaseModel):
    item: str
    price: int


async def test_structured_output_comes_back_as_it_was(services: Services, model: OpenAIChatModel) -> None:
    async def run(ctx: Context, prompt: str) -> Offer:
        assistant = Assistant(model, output_type=Offer)
        return (await assistant.run(prompt, capabilities=[AgentQueueDurability(ctx)])).output

    agent, plan = planner(run)
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(plan, "Choose: laptop")
        assert await job.result() == {"item": "laptop", "price": 1_900}
        assert [step.name for step in (await job.status()).steps] == ["assistant.model/1.1#1"]
    assert services.records.model_calls == 1


async def test_a_tool_that_asks_for_another_try_and_its_arguments_come_back_as_they_were(
    services: Services, model: OpenAIChatModel
) -> None:
    asked: list[str] = []

    async def run(ctx: Context, prompt: str) -> int:
        assistant = Assistant(TestModel(), name="assistant")

        @assistant.tool_plain(retries=2)
        async def look_up(place: str) -> str:
            asked.append(place)
            if len(asked) == 1:
                raise ModelRetry("once more")
            return place

        result = await assistant.run(prompt, capabilities=[AgentQueueDurability(ctx)])
        return len(result.all_messages())

    agent, plan = planner(run)
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(plan, "x")
        assert await job.result() == 6
    assert len(asked) == 2


async def test_a_busy_provider_lets_the_job_snooze_and_what_is_done_stays(
    services: Services, model: OpenAIChatModel
) -> None:
    looked: list[str] = []
    agent = Agent("planner")

    @agent.job(timeout=60, attempts=1)
    async def plan(ctx: Context, prompt: str) -> str:
        return (await assistant_with(model, looked).run(prompt, capabilities=[AgentQueueDurability(ctx)])).output

    services.records.faults.extend([Fault(), Fault(429, retry_after=1), Fault(500), Fault(503)])
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(plan, "Visit: Rome")
        assert await job.result() == "I have seen Rome."
        status = await job.status()
    assert (status.attempts, status.deliveries) == (1, 4)
    assert looked == ["Rome"]
    assert services.records.prompts == {"Visit: Rome": 1, "Visit: Rome #1": 4}


async def test_another_error_of_the_provider_fails_the_attempt(services: Services, model: OpenAIChatModel) -> None:
    agent = Agent("planner")

    @agent.job(timeout=60, attempts=1)
    async def plan(ctx: Context, prompt: str) -> str:
        return (await assistant_with(model, []).run(prompt, capabilities=[AgentQueueDurability(ctx)])).output

    services.records.faults.append(Fault(400))
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(plan, "Visit: Rome")
        with pytest.raises(JobFailed, match="400"):
            await job.result()


async def test_a_fallback_model_answers_within_the_step(services: Services, model: OpenAIChatModel) -> None:
    async def run(ctx: Context, prompt: str) -> str:
        assistant = Assistant(FallbackModel(model, model, fallback_on=(ModelHTTPError,)), name="assistant")
        return (await assistant.run(prompt, capabilities=[AgentQueueDurability(ctx)])).output

    services.records.faults.append(Fault(503))
    agent, plan = planner(run)
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(plan, "Search: tea")
        assert await job.result() == "All about tea."
    assert services.records.model_calls == 2


async def test_a_tool_takes_the_options_of_steps_and_one_that_is_no_step_may_wait(
    services: Services, model: OpenAIChatModel
) -> None:
    looked: list[str] = []

    async def run(ctx: Context, prompt: str) -> str:
        assistant = Assistant(model, name="assistant", deps_type=Context)
        metadata: Any = {"agentqueue": {"once": True}} if prompt.startswith("Visit") else {"agentqueue": False}

        @assistant.tool(metadata=metadata)
        async def look_up(run: RunContext[Context], place: str) -> str:
            looked.append(place)
            if prompt.startswith("Visit"):
                raise ValueError(f"{place} is closed")
            return str((await run.deps.wait_for("go", key=place)).data)

        result = await assistant.run(prompt, deps=ctx, capabilities=[AgentQueueDurability(ctx)])
        return result.output

    agent, plan = planner(run)
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(plan, "Visit: Rome")
        with pytest.raises(JobFailed, match="StepFailed"):
            await job.result()
        assert looked == ["Rome"], "at most once"
        waiting = await box.client.enqueue(plan, "Compare: Bonn")
        await box.run_until_idle()
        assert (await waiting.status()).state == "suspended"
        await box.signal(waiting, "go", "yes", sender="ana")
        assert await waiting.result() == "I have seen Bonn."
        assert "assistant.tool" not in " ".join(step.name for step in (await waiting.status()).steps)


async def test_an_agent_that_a_tool_runs_is_part_of_the_tool_s_step(services: Services, model: OpenAIChatModel) -> None:
    async def run(ctx: Context, prompt: str) -> str:
        assistant = Assistant(model, name="outer")

        @assistant.tool_plain
        async def look_up(place: str) -> str:
            inner = Assistant(model, name="inner")
            return (await inner.run(f"Search: {place}", capabilities=[AgentQueueDurability(ctx)])).output

        return (await assistant.run(prompt, capabilities=[AgentQueueDurability(ctx)])).output

    agent, plan = planner(run)
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(plan, "Visit: Rome")
        assert await job.result() == "I have seen Rome."
        names = [step.name for step in (await job.status()).steps]
    assert names == ["outer.model/1.1#1", "outer.tool.look_up/1.1.call_1#1", "outer.model/1.2#1"]
    assert services.records.prompts["Search: Rome"] == 1


async def test_another_prompt_under_a_known_step_is_an_error(services: Services, model: OpenAIChatModel) -> None:
    async def run(ctx: Context, prompt: str) -> str:
        prompt = f"{prompt} {ctx.delivery}"
        return (await assistant_with(model, []).run(prompt, capabilities=[AgentQueueDurability(ctx)])).output

    agent, plan = planner(run)
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(plan, "Search: tea")
        with pytest.raises(JobFailed, match="has other arguments than in delivery 1"):
            await job.result()


async def test_a_stream_gets_the_answer_once_it_is_whole(services: Services, model: OpenAIChatModel) -> None:
    looked: list[str] = []

    async def run(ctx: Context, prompt: str) -> str:
        async with assistant_with(model, looked).run_stream(prompt, capabilities=[AgentQueueDurability(ctx)]) as result:
            return "".join([text async for text in result.stream_text(delta=True)])

    agent, plan = planner(run)
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(plan, "Visit: Rome")
        assert (await job.result()).strip() == "I have seen Rome."
    assert set(services.records.prompts.values()) == {1}
    assert looked == ["Rome"]


@pytest.mark.parametrize(
    "prompt", ["Visit: Rome, Bonn, Lima", "Compare: Rome, Bonn, Lima"], ids=["in a row", "parallel"]
)
async def test_a_drain_ends_the_run_between_its_steps_and_repeats_none(
    services: Services, model: OpenAIChatModel, prompt: str
) -> None:
    services.records.model_delay = 0.3
    looked: list[str] = []
    agent = Agent("planner")

    @agent.job(timeout=60, attempts=1)
    async def plan(ctx: Context, prompt: str) -> str:
        return (await assistant_with(model, looked).run(prompt, capabilities=[AgentQueueDurability(ctx)])).output

    async with Sandbox(agent) as box:
        job = await box.client.enqueue(plan, prompt)
        result = asyncio.create_task(job.result())
        while services.records.model_calls == 0:
            await asyncio.to_thread(services.records.wait)
        await box.drain(grace=10)
        assert await result == "I have seen Rome, Bonn, Lima."
        assert (await job.status()).deliveries == 2
    assert sorted(looked) == ["Bonn", "Lima", "Rome"]
    assert set(services.records.prompts.values()) == {1}


async def test_the_text_is_emitted_while_it_comes_and_once(services: Services, model: OpenAIChatModel) -> None:
    services.records.word_delay = 0.05

    async def run(ctx: Context, prompt: str) -> str:
        assistant = assistant_with(model, [])
        return (await assistant.run(prompt, capabilities=[AgentQueueDurability(ctx, emit=True)])).output

    agent, plan = planner(run)
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(plan, "Visit: Rome")
        reader = asyncio.create_task(read_text(job.stream()))
        assert (await job.result()).strip() == "I have seen Rome."
        assert await reader == await read_text(job.stream()) == "I have seen Rome. "
    assert set(services.records.prompts.values()) == {1}


async def test_a_worker_that_is_killed_in_the_middle_of_a_text_doubles_none(
    services: Services, model: OpenAIChatModel
) -> None:
    services.records.word_delay = 0.2
    agent = Agent("planner")

    @agent.job(timeout=60, attempts=3)
    async def plan(ctx: Context, prompt: str) -> str:
        assistant = assistant_with(model, [])
        return (await assistant.run(prompt, capabilities=[AgentQueueDurability(ctx, emit=True)])).output

    async with Sandbox(agent) as box:
        job = await box.client.enqueue(plan, "Write: tea, coffee and water")
        result = asyncio.create_task(job.result())
        async for event in job.stream():
            if event.type == "data":
                break
        await box.crash()
        assert (await result).strip() == "A report on tea, coffee and water"
        assert await read_text(job.stream()) == "A report on tea, coffee and water "
    assert services.records.prompts == {"Write: tea, coffee and water": 2}


async def test_toolsets_of_a_run_are_refused_since_their_calls_would_be_no_steps(
    services: Services, model: OpenAIChatModel
) -> None:
    async def run(ctx: Context, prompt: str) -> str:
        toolset = FunctionToolset[None](id="late")
        assistant = assistant_with(model, [])
        result = await assistant.run(prompt, toolsets=[toolset], capabilities=[AgentQueueDurability(ctx)])
        return result.output

    agent, plan = planner(run)
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(plan, "Search: tea")
        with pytest.raises(JobFailed, match="cannot be added at runtime with AgentQueue"):
            await job.result()


async def test_the_handler_alone_runs_in_a_unit_test(monkeypatch: pytest.MonkeyPatch) -> None:
    assistant = Assistant("openai-chat:gpt-5-mini", defer_model_check=True)
    monkeypatch.setattr(assistant, "model", TestModel(custom_output_text="hello"))
    result = await assistant.run("x", capabilities=[AgentQueueDurability(context())])
    assert result.output == "hello"


def test_a_plain_handler_is_refused() -> None:
    with pytest.raises(UsageError, match="needs an async handler"):
        AgentQueueDurability(context())
