"""Durable agents of pydantic-ai: each request to the model and each call of a tool is a step of the job.

    result = await agent.run(question, capabilities=[AgentQueueDurability(ctx)])

It is built on pydantic-ai's public builder for durable engines (`pydantic_ai.durable_exec`), which wraps models and
toolsets; here is what a unit of work is in AgentQueue. It needs the extra `agentqueue[pydantic-ai]`.
"""

import asyncio
import copy
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar, cast

from agentqueue.agent.context import Context
from agentqueue.agent.durable import StepOptions, current_step
from agentqueue.agent.outcomes import DurableError
from agentqueue.errors import UsageError
from agentqueue.integrations.busy import snooze_if_busy
from agentqueue.integrations.extras import needs_extra
from agentqueue.integrations.runs import next_run, step_name

with needs_extra("pydantic-ai"):
    from pydantic_ai import RunContext
    from pydantic_ai.agent import AbstractAgent
    from pydantic_ai.capabilities import AbstractCapability
    from pydantic_ai.durable_exec import (
        JSON_CODEC,
        BaseDurabilityCapability,
        BoundDurableOperation,
        CapabilityOperationId,
        DurabilityEngineSpec,
        DurableOperation,
        DurableOperationBackend,
        DurableOperationId,
        EventStreamHandlerId,
        ModelCancelSuspendedResponseId,
        ModelCompactMessagesId,
        ModelRequestId,
        ModelRequestParams,
        ToolsetCallToolId,
        ToolsetGetInstructionsId,
        ToolsetGetToolsId,
        ToolsetValidateToolArgumentsId,
        conversation_id_from_run_id,
        durable_unit_scope,
    )
    from pydantic_ai.messages import AgentStreamEvent, PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta
    from pydantic_ai.models import Model
    from pydantic_ai.run import AgentRunResult
    from pydantic_ai.tools import AgentDepsT
    from pydantic_ai.toolsets import ToolsetTool

ParamsT = TypeVar("ParamsT")
WireT = TypeVar("WireT")
ResultT = TypeVar("ResultT")
METADATA_KEY: Final = "agentqueue"
"""Key of a tool's metadata: options of its steps, or False for a tool that runs in the handler itself."""


class AgentQueueDurability(BaseDurabilityCapability[AgentDepsT]):
    """Make a run of a pydantic-ai agent durable: `agent.run(prompt, capabilities=[AgentQueueDurability(ctx)])`.

    A request to the model and a call of a tool that have ended are not made again when the job runs again. A provider's
    429 or 5xx that the run does not handle itself makes the job snooze. The agent's tools get their step options from
    `metadata={"agentqueue": {"once": True}}`; a tool with `metadata={"agentqueue": False}` is no step, so that it may
    call `ctx.wait_for` itself. Inside a step, such as in a tool that runs another agent, this does nothing.

    Args:
        ctx: The context of the job, whose handler is `async def`.
        emit: Pass the text of the model's answers to `ctx.emit` while it comes.
        name: First part of the steps' names. By default the agent's name. Runs of one agent at the same time need one
            each.
        models: Further models by name, for runs that choose another than the agent's.
    """

    engine_spec = DurabilityEngineSpec(
        engine_name="AgentQueue",
        durable_unit_noun="step",
        durable_container_noun="job",
        codec=JSON_CODEC,
        serialization_failure=lambda exc: DurableError(f"a value of the agent is not JSON: {exc}"),
        toolset_lifecycles={"function": "enter-always", "mcp": "enter-in-durable-unit", "dynamic": "enter-never"},
        unsupported_runtime_toolset_kinds=frozenset({"function", "mcp", "dynamic"}),
        tool_config_key=METADATA_KEY,
    )

    def __init__(
        self, ctx: Context, *, emit: bool = False, name: str | None = None, models: Mapping[str, Model] | None = None
    ) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise UsageError(
                "AgentQueueDurability needs an async handler: write `async def`, and `await agent.run(...)`"
            ) from None
        super().__init__(models=models, event_stream_handler=self._emit_text if emit else None, name=name)
        self.job = ctx

    def for_agent(self, agent: AbstractAgent[AgentDepsT, Any]) -> AbstractCapability[AgentDepsT]:
        """Return the capability bound to an agent, which needs no name."""
        named = copy.copy(self)
        named.name = self.name or agent.name or "agent"
        return super(AgentQueueDurability, named).for_agent(agent)

    @property
    def in_durable_context(self) -> bool:
        """Return whether calls become steps: not inside a step, which is repeated as a whole."""
        return current_step.get() is None

    def get_durable_operation_backend(self) -> DurableOperationBackend[StepOptions]:
        """Return the backend that makes steps."""
        return _Steps(self.job, self.name)

    def get_default_run_id(self) -> str | None:
        """Return an ID that is the same when the job runs again: the job's ID and the number of the agent's run."""
        if not self.in_durable_context:
            return None
        return f"{_run_prefix(self.job, self.name)}{next_run(self.job, self.name)}"

    def get_default_conversation_id(self, run_id: str) -> str | None:
        """Return an ID that is the same when the job runs again."""
        return conversation_id_from_run_id(run_id) if self.in_durable_context else None

    async def on_run_error(self, ctx: RunContext[AgentDepsT], *, error: BaseException) -> AgentRunResult[Any]:
        """Let the job snooze if the run fails because a provider is busy."""
        snooze_if_busy(self.job, error)
        return await super().on_run_error(ctx, error=error)

    async def _emit_text(self, ctx: RunContext[AgentDepsT], events: AsyncIterable[AgentStreamEvent]) -> None:  # noqa: ARG002
        """Emit the text of a model's answer, within the step of its request."""
        async for event in events:
            match event:
                case (
                    PartStartEvent(part=TextPart(content=text))
                    | PartDeltaEvent(delta=TextPartDelta(content_delta=text))
                ):
                    if text:
                        await self.job.emit(text)
                case _:
                    pass


class _Steps(DurableOperationBackend[StepOptions]):
    """Makes a step of each operation of an agent."""

    def __init__(self, job: Context, agent: str) -> None:
        self.job = job
        self.agent = agent

    def bind(
        self, operation: DurableOperation[ParamsT, WireT, ResultT]
    ) -> BoundDurableOperation[ParamsT, WireT, ResultT]:
        """Return the function that makes an operation a step."""
        return _Step(self, operation)

    def config_for_tool(
        self,
        operation: DurableOperation[ParamsT, WireT, ResultT],
        *,
        tool: object | None,
        tool_name: str,  # noqa: ARG002
    ) -> Any:
        """Return the step options that a tool's metadata has, or False if the tool is to run outside of a step."""
        metadata = tool.tool_def.metadata if isinstance(tool, ToolsetTool) else None
        options = (metadata or {}).get(METADATA_KEY, {})
        if isinstance(operation.operation_id, ToolsetCallToolId) or options is False:
            return options
        return {}

    def registrations(self) -> Sequence[Callable[..., object]]:
        """Return nothing: steps need no registration."""
        return ()


class _Step(BoundDurableOperation[ParamsT, WireT, ResultT], Generic[ParamsT, WireT, ResultT]):
    """One kind of operation of an agent, such as its requests to the model, each call of which is a step."""

    def __init__(self, steps: _Steps, operation: DurableOperation[ParamsT, WireT, ResultT]) -> None:
        self._steps = steps
        self._operation = operation

    @property
    def operation(self) -> DurableOperation[ParamsT, WireT, ResultT]:
        """Return what is done in a step."""
        return self._operation

    async def __call__(self, params: ParamsT, *, config: object | None = None) -> ResultT:
        """Return the operation's result, from the journal if it has one."""
        operation = self._operation
        if isinstance(operation.operation_id, EventStreamHandlerId):
            return cast("ResultT", None)  # events between steps; those of the model are emitted within its step

        async def call(*_: object) -> Any:
            with durable_unit_scope():
                return operation.result_codec.dump(await operation.handler(params))

        job, agent = self._steps.job, self._steps.agent
        name = _name_of(agent, operation.operation_id, params)
        options = cast("StepOptions", {**cast("StepOptions", config or {}), "key": _key_of(job, agent, params)})
        payload = await job.step(name, call, _identity_of(params), **options)
        try:
            return operation.result_codec.load(payload)
        except ValueError as exc:
            raise DurableError(
                f'step "{name}": this version of pydantic-ai cannot read the recorded value: {exc}; '
                f"`agentqueue dead replay --from-step {name}` runs it again"
            ) from exc


def _run_prefix(job: Context, agent: str) -> str:
    return f"{job.id}:{agent}:"


def _name_of(agent: str, operation: DurableOperationId, params: Any) -> str:
    """Return the name of an operation's steps, such as `planner.model` and `planner.tool.search`."""
    match operation:
        case ModelRequestId():
            return step_name(agent, "model")
        case ToolsetCallToolId():
            return step_name(agent, "tool", params.name)
        case ToolsetValidateToolArgumentsId():
            return step_name(agent, "validate", params.name)
        case ToolsetGetToolsId(toolset_id=toolset_id):
            return step_name(agent, "tools", toolset_id)
        case ToolsetGetInstructionsId(toolset_id=toolset_id):
            return step_name(agent, "instructions", toolset_id)
        case ModelCompactMessagesId():
            return step_name(agent, "compact")
        case ModelCancelSuspendedResponseId():
            return step_name(agent, "cancel")
        case CapabilityOperationId(capability_id=capability_id, operation=method):
            return step_name(agent, capability_id, method)
        case _:  # pydantic-ai may add kinds in a minor release
            return step_name(agent, type(operation).__name__)


def _key_of(job: Context, agent: str, params: Any) -> str | None:
    """Return the place of a call in the job: the number of the agent's run, of the run's step, and the tool call.

    Tools run in tasks of their own, so that the order of the calls alone would not distinguish them.
    """
    context = getattr(params, "ctx", None) or getattr(params, "run_context", None)
    if not isinstance(context, RunContext):
        return None
    run = (context.run_id or "").removeprefix(_run_prefix(job, agent))
    return ".".join(filter(None, (run, str(context.run_step), context.tool_call_id)))


def _identity_of(params: Any) -> object:
    """Return what must be the same when the job runs again: a tool's arguments, or the prompts of a model's request.

    Messages as a whole are not: they have times, and instructions may have the date.
    """
    if isinstance(params, ModelRequestParams):
        parts = [part for message in params.messages for part in message.parts]
        return [part.content for part in parts if part.part_kind == "user-prompt"]
    return getattr(params, "tool_args", None)
