"""Durable agents of the OpenAI Agents SDK: each request to the model and each call of a tool is a step of the job.

    result = await Runner.run(durable(ctx, agent), question)

The agent is copied; its model, its tools, its MCP servers and the agents that it hands over to are wrapped by the SDK's
public interfaces. It needs the extra `agentqueue[openai-agents]`.
"""

import copy
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter

from agentqueue.agent.context import Context
from agentqueue.integrations.busy import snooze_when_busy
from agentqueue.integrations.extras import needs_extra
from agentqueue.integrations.runs import next_run, step_name

with needs_extra("openai-agents"):
    from agents import (
        Agent,
        FunctionTool,
        Handoff,
        Model,
        ModelProvider,
        ModelResponse,
        MultiProvider,
        RunContextWrapper,
    )
    from agents.items import TResponseStreamEvent
    from agents.mcp import MCPServer
    from agents.retry import ModelRetryAdvice, ModelRetryAdviceRequest
    from agents.tool import ToolOutputFileContent, ToolOutputImage, ToolOutputText
    from agents.tool_context import ToolContext
    from mcp.types import CallToolResult

ContextT = TypeVar("ContextT")
_RESPONSE: Final = TypeAdapter(ModelResponse)
_EVENTS: Final[TypeAdapter[list[TResponseStreamEvent]]] = TypeAdapter(list[TResponseStreamEvent])
KEPT_EVENTS: Final = (
    "response.output_item.done",
    "response.completed",
    "response.incomplete",
    "response.failed",
    "response.error",
    "error",
)
"""Events of a stream that the journal keeps, and that the runner gets: those that make up the response."""
_OUTPUTS: Final = (ToolOutputText, ToolOutputImage, ToolOutputFileContent)


def durable(
    ctx: Context,
    agent: Agent[ContextT],
    *,
    emit: bool = False,
    inline: Iterable[str] = (),
    provider: ModelProvider | None = None,
) -> Agent[ContextT]:
    """Return a copy of an agent for one run in a job: `await Runner.run(durable(ctx, agent), question)`.

    A request to the model and a call of a tool that have ended are not made again when the job runs again. A provider's
    429 or 5xx makes the job snooze; the runner's own retries (`ModelSettings.retry`) are vetoed. A `model` of
    `RunConfig` replaces the agent's, and is then not durable.

    Args:
        ctx: The context of the job, whose handler is `async def`.
        agent: The agent. The agents that it hands over to are copied too.
        emit: Pass the text of the model's answers to `ctx.emit` while it comes, if the run is streamed
            (`Runner.run_streamed`).
        inline: Names of tools that are no steps, such as one that calls `ctx.wait_for` itself.
        provider: Finds models by name. By default the SDK's `MultiProvider`.
    """
    return _Run(ctx, emit=emit, inline=frozenset(inline), provider=provider).wrap(agent)


class _Run:
    """One run of an agent and of those that it hands over to."""

    def __init__(self, ctx: Context, *, emit: bool, inline: frozenset[str], provider: ModelProvider | None) -> None:
        self.job = ctx
        self.emit = emit
        self.inline = inline
        self.provider = provider
        self._copies: dict[int, Agent[Any]] = {}
        """Copies by the identity of their agents, which may hand over in a circle."""

    def wrap(self, agent: Agent[ContextT]) -> Agent[ContextT]:
        """Return the durable copy of an agent."""
        found = self._copies.get(id(agent))
        if found is not None:
            return found
        calls = _Calls(self, agent.name)
        copied = self._copies[id(agent)] = agent.clone(
            model=_DurableModel(calls, agent.model),
            tools=[self._wrap_tool(calls, tool) for tool in agent.tools],
            mcp_servers=[_wrap_server(calls, server) for server in agent.mcp_servers],
        )
        copied.handoffs = [
            self._wrap_handoff(target) if isinstance(target, Handoff) else self.wrap(target)
            for target in agent.handoffs
        ]
        return copied

    def _wrap_tool(self, calls: "_Calls", tool: Any) -> Any:
        """Return a function tool whose calls are steps. Tools that the provider runs are part of its answer."""
        if not isinstance(tool, FunctionTool) or tool.name in self.inline:
            return tool
        copied = copy.copy(tool)
        invoke = copied.on_invoke_tool

        async def on_invoke_tool(context: ToolContext[Any], arguments: str) -> Any:
            async def call(_: str) -> Any:
                return _json_of(await invoke(context, arguments))

            return await calls.step(("tool", tool.name), call, arguments, context.tool_call_id)

        copied.on_invoke_tool = on_invoke_tool
        return copied

    def _wrap_handoff(self, handoff: Handoff[Any, Any]) -> Handoff[Any, Any]:
        copied = copy.copy(handoff)

        async def on_invoke_handoff(context: RunContextWrapper[Any], arguments: str) -> Any:
            return self.wrap(await handoff.on_invoke_handoff(context, arguments))

        copied.on_invoke_handoff = on_invoke_handoff
        return copied


class _Calls:
    """The steps of one agent in a run."""

    def __init__(self, run: _Run, agent: str) -> None:
        self.run = run
        self._agent = agent
        self._number = next_run(run.job, agent)
        self.turn = 0
        """Number of the agent's requests to the model."""

    async def step(
        self, name: tuple[str, ...], call: Callable[[Any], Coroutine[Any, Any, Any]], argument: Any, place: str = ""
    ) -> Any:
        """Return the JSON value of a step, whose key is the number of the run, the turn and the place in the turn."""
        key = ".".join(filter(None, (str(self._number), str(self.turn), place)))
        async with snooze_when_busy(self.run.job):
            return await self.run.job.step(step_name(self._agent, *name), call, argument, key=key)


class _DurableModel(Model):
    """A model whose requests are steps."""

    def __init__(self, calls: _Calls, model: str | Model | None) -> None:
        self._calls = calls
        self._model = model

    def _found(self) -> Model:
        if isinstance(self._model, Model):
            return self._model
        run = self._calls.run
        if run.provider is None:
            run.provider = MultiProvider()
        return run.provider.get_model(self._model)

    async def get_response(self, system_instructions: Any, input: Any, *more: Any, **options: Any) -> ModelResponse:  # noqa: A002
        """Return the model's answer, from the journal if it has one."""

        async def call(_: object) -> Any:
            response = await self._found().get_response(system_instructions, input, *more, **options)
            return _RESPONSE.dump_python(response, mode="json", exclude_unset=True)

        self._calls.turn += 1
        return _RESPONSE.validate_python(await self._calls.step(("model",), call, _prompts_of(input)))

    async def stream_response(
        self,
        system_instructions: Any,
        input: Any,  # noqa: A002  # the SDK's name
        *more: Any,
        **options: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        """Yield the events that make up the model's answer, once it is whole. Its text is emitted while it comes."""

        async def call(_: object) -> Any:
            kept: list[TResponseStreamEvent] = []
            async for event in self._found().stream_response(system_instructions, input, *more, **options):
                if event.type in KEPT_EVENTS:
                    kept.append(event)
                elif event.type == "response.output_text.delta" and self._calls.run.emit:
                    await self._calls.run.job.emit(event.delta)
            return _EVENTS.dump_python(kept, mode="json", exclude_unset=True)

        self._calls.turn += 1
        for event in _EVENTS.validate_python(await self._calls.step(("model",), call, _prompts_of(input))):
            yield event

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice:  # noqa: ARG002
        """Veto the runner's retries: a second request of a turn would have another place in the journal."""
        return ModelRetryAdvice(suggested=False, replay_safety="unsafe", reason="the job is tried again instead")

    async def close(self) -> None:
        """Close the model."""
        if isinstance(self._model, Model):
            await self._model.close()


def _wrap_server(calls: _Calls, server: MCPServer) -> MCPServer:
    """Return an MCP server, which is connected, whose tool calls are steps. Its tools are listed in each run."""
    copied = copy.copy(server)
    numbers = itertools.count(1)

    async def call_tool(tool_name: str, arguments: dict[str, Any] | None, *more: Any, **options: Any) -> Any:
        async def call(_: object) -> Any:
            return (await server.call_tool(tool_name, arguments, *more, **options)).model_dump(
                mode="json", exclude_unset=True
            )

        payload = await calls.step(("tool", tool_name), call, arguments, f"mcp{next(numbers)}")
        return CallToolResult.model_validate(payload)

    copied.call_tool = call_tool  # type: ignore[method-assign]
    return copied


def _prompts_of(items: Any) -> object:
    """Return what must be the same when the job runs again: what users have said, in a request to the model."""
    if isinstance(items, str):
        return items
    return [item.get("content") for item in items if isinstance(item, dict) and item.get("role") == "user"]


def _json_of(output: Any) -> Any:
    """Return a tool's output as JSON that the SDK passes to the model as it would pass the output."""
    if isinstance(output, _OUTPUTS):
        return output.model_dump(mode="json", exclude_none=True)
    if isinstance(output, list | tuple) and any(isinstance(item, _OUTPUTS) for item in output):
        return [_json_of(item) for item in output]
    return output if isinstance(output, str | int | float | dict | list | None) else str(output)
