"""Agents of the OpenAI Agents SDK as jobs: what is a step, what is not made again, and what a busy provider does."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from agents import Agent as Assistant
from agents import (
    FunctionTool,
    ModelRetrySettings,
    ModelSettings,
    OpenAIChatCompletionsModel,
    RunContextWrapper,
    Runner,
    ToolOutputText,
    function_tool,
    handoff,
    retry_policies,
    set_tracing_disabled,
)
from agents.mcp import MCPServer
from assistants.services import Fault
from assistants.services import Server as Services
from mcp.types import CallToolResult, TextContent, Tool

from agentqueue import Agent, Context
from agentqueue.errors import JobFailed
from agentqueue.integrations.openai_agents import durable
from agentqueue.testing import Sandbox, context
from tests.support.models import MODEL, model_server, openai_client, planner, read_text

set_tracing_disabled(True)


@pytest.fixture
def services() -> Iterator[Services]:
    with model_server() as server:
        yield server


@pytest.fixture
async def model(services: Services) -> AsyncIterator[OpenAIChatCompletionsModel]:
    async with openai_client() as client:
        yield OpenAIChatCompletionsModel(MODEL, client)


def look_up_in(looked: list[str]) -> FunctionTool:
    """A tool that records its calls."""

    @function_tool
    async def look_up(place: str) -> str:
        looked.append(place)
        return f"{place} is nice"

    return look_up


@pytest.mark.parametrize(
    "prompt", ["Visit: Rome, Bonn, Lima", "Compare: Rome, Bonn, Lima"], ids=["in a row", "parallel"]
)
@pytest.mark.parametrize("streamed", [False, True], ids=["at once", "streamed"])
async def test_no_request_and_no_tool_call_is_made_again(
    services: Services, model: OpenAIChatCompletionsModel, prompt: str, streamed: bool
) -> None:
    looked: list[str] = []

    async def run(ctx: Context, prompt: str) -> str:
        assistant = durable(ctx, Assistant("assistant", model=model, tools=[look_up_in(looked)]))
        if not streamed:
            return str((await Runner.run(assistant, prompt)).final_output)
        result = Runner.run_streamed(assistant, prompt)
        kinds = [event.type async for event in result.stream_events()]
        assert "run_item_stream_event" in kinds
        return str(result.final_output).strip()

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


@pytest.mark.parametrize("streamed", [False, True], ids=["at once", "streamed"])
async def test_a_busy_provider_lets_the_job_snooze_and_the_runner_s_retries_are_vetoed(
    services: Services, model: OpenAIChatCompletionsModel, streamed: bool
) -> None:
    looked: list[str] = []
    agent = Agent("planner")
    retries = ModelSettings(retry=ModelRetrySettings(max_retries=3, policy=retry_policies.http_status([429, 500, 503])))

    @agent.job(timeout=60, attempts=1)
    async def plan(ctx: Context, prompt: str) -> str:
        tools: list[Any] = [look_up_in(looked)]
        assistant = durable(ctx, Assistant("assistant", model=model, tools=tools, model_settings=retries))
        if not streamed:
            return str((await Runner.run(assistant, prompt)).final_output)
        result = Runner.run_streamed(assistant, prompt)
        async for _ in result.stream_events():
            pass
        return str(result.final_output).strip()

    services.records.faults.extend([Fault(), Fault(429, retry_after=1), Fault(500), Fault(503)])
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(plan, "Visit: Rome")
        assert await job.result() == "I have seen Rome."
        status = await job.status()
    assert (status.attempts, status.deliveries) == (1, 4)
    assert looked == ["Rome"]
    assert services.records.prompts == {"Visit: Rome": 1, "Visit: Rome #1": 4}


@pytest.mark.parametrize(
    "prompt", ["Visit: Rome, Bonn, Lima", "Compare: Rome, Bonn, Lima"], ids=["in a row", "parallel"]
)
async def test_a_drain_ends_the_run_between_its_steps_and_repeats_none(
    services: Services, model: OpenAIChatCompletionsModel, prompt: str
) -> None:
    services.records.model_delay = 0.3
    looked: list[str] = []
    agent = Agent("planner")

    @agent.job(timeout=60, attempts=1)
    async def plan(ctx: Context, prompt: str) -> str:
        assistant = Assistant("assistant", model=model, tools=[look_up_in(looked)])
        return str((await Runner.run(durable(ctx, assistant), prompt)).final_output)

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


async def test_the_text_is_emitted_while_it_comes_and_once(
    services: Services, model: OpenAIChatCompletionsModel
) -> None:
    services.records.word_delay = 0.05

    async def run(ctx: Context, prompt: str) -> str:
        assistant = Assistant("assistant", model=model, tools=[look_up_in([])])
        result = Runner.run_streamed(durable(ctx, assistant, emit=True), prompt)
        async for _ in result.stream_events():
            pass
        return str(result.final_output).strip()

    agent, plan = planner(run)
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(plan, "Visit: Rome")
        reader = asyncio.create_task(read_text(job.stream()))
        assert await job.result() == "I have seen Rome."
        assert await reader == await read_text(job.stream()) == "I have seen Rome. "
    assert set(services.records.prompts.values()) == {1}


async def test_the_agents_that_it_hands_over_to_are_durable_too(
    services: Services, model: OpenAIChatCompletionsModel
) -> None:
    looked: list[str] = []

    async def run(ctx: Context, prompt: str) -> str:
        guide = Assistant[Any]("guide", model=model, tools=[look_up_in(looked)])
        desk = Assistant[Any]("desk", model=model, handoffs=[handoff(guide)])
        guide.handoffs.append(desk)  # a circle
        copied = durable(ctx, desk)
        ((target),) = copied.handoffs
        assert not isinstance(target, Assistant)
        second = await target.on_invoke_handoff(RunContextWrapper(None), "")
        assert second.handoffs[0] is copied
        return str((await Runner.run(second, prompt)).final_output)

    agent, plan = planner(run)
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(plan, "Visit: Rome")
        assert await job.result() == "I have seen Rome."
        assert (await job.status()).steps[0].name == "guide.model/1.1#1"
    assert looked == ["Rome"]
    assert set(services.records.prompts.values()) == {1}


async def test_a_tool_that_is_no_step_may_wait(services: Services, model: OpenAIChatCompletionsModel) -> None:
    async def run(ctx: Context, prompt: str) -> str:
        @function_tool
        async def look_up(place: str) -> str:
            return str((await ctx.wait_for("go", key=place)).data)

        assistant = Assistant("assistant", model=model, tools=[look_up])
        return str((await Runner.run(durable(ctx, assistant, inline=["look_up"]), prompt)).final_output)

    agent, plan = planner(run)
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(plan, "Visit: Bonn")
        await box.run_until_idle()
        assert (await job.status()).state == "suspended"
        await box.signal(job, "go", "yes", sender="ana")
        assert await job.result() == "I have seen Bonn."


@pytest.mark.parametrize(
    "output",
    [
        "text",
        7,
        ToolOutputText(text="seen"),
        [ToolOutputText(text="a"), ToolOutputText(text="b")],
        ["a", {"b": 1}],
        {"a": 1},
        None,
        Path("/odd"),
    ],
)
async def test_the_model_gets_what_it_would_get_without_a_job(
    services: Services, model: OpenAIChatCompletionsModel, output: Any
) -> None:
    @function_tool
    async def look_up(place: str) -> Any:
        return output

    assistant = Assistant("assistant", model=model, tools=[look_up])
    plain = await Runner.run(assistant, "Visit: Rome")
    kept = await Runner.run(durable(context(), assistant), "Visit: Rome")
    ids = {"chatcmpl-3": "chatcmpl-1", "chatcmpl-4": "chatcmpl-2"}
    items = orjson.dumps(kept.to_input_list()).decode()
    for mine, other in ids.items():
        items = items.replace(mine, other)
    assert orjson.loads(items) == plain.to_input_list()


class Server(MCPServer):
    """An MCP server in this process, which records its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[Any] = []

    @property
    def name(self) -> str:
        return "maps"

    async def connect(self) -> None: ...

    async def cleanup(self) -> None: ...

    async def list_tools(self, run_context: Any = None, agent: Any = None) -> list[Tool]:
        schema = {"type": "object", "properties": {"place": {"type": "string"}}}
        return [Tool.model_validate({"name": "look_up", "inputSchema": schema})]

    async def call_tool(
        self, tool_name: str, arguments: dict[str, Any] | None, meta: dict[str, Any] | None = None
    ) -> CallToolResult:
        self.called.append((tool_name, arguments))
        return CallToolResult(content=[TextContent(type="text", text="nice")])

    async def list_prompts(self) -> Any: ...

    async def get_prompt(self, name: str, arguments: Any = None) -> Any: ...


async def test_tools_of_an_mcp_server_are_steps(services: Services, model: OpenAIChatCompletionsModel) -> None:
    server = Server()

    async def run(ctx: Context, prompt: str) -> str:
        assistant = Assistant("assistant", model=model, mcp_servers=[server])
        return str((await Runner.run(durable(ctx, assistant), prompt)).final_output)

    agent, plan = planner(run)
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(plan, "Visit: Rome, Bonn")
        assert await job.result() == "I have seen Rome, Bonn."
    assert server.called == [("look_up", {"place": "Rome"}), ("look_up", {"place": "Bonn"})]
    assert set(services.records.prompts.values()) == {1}


async def test_a_model_is_found_by_its_name_and_another_prompt_is_an_error(services: Services) -> None:
    async def run(ctx: Context, prompt: str) -> str:
        from agents import OpenAIProvider

        async with openai_client() as client:
            provider = OpenAIProvider(openai_client=client, use_responses=False)
            assistant = durable(ctx, Assistant("assistant", model=MODEL), provider=provider)
            return str((await Runner.run(assistant, f"{prompt} {ctx.delivery}")).final_output)

    agent, plan = planner(run)
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(plan, "Search: tea")
        with pytest.raises(JobFailed, match="has other arguments than in delivery 1"):
            await job.result()
    assert services.records.prompts == {"Search: tea 1": 1}
