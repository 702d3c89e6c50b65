"""Graphs of LangGraph as jobs: what a graph goes on with after a failure, a wait, a drain and a busy provider."""

import operator
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Annotated, Any, TypedDict

import pytest
from assistants.services import Fault
from assistants.services import Server as Services
from langgraph.channels import DeltaChannel
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt
from openai import AsyncOpenAI

from agentqueue import Agent, Context, Retry
from agentqueue.errors import JobFailed, UsageError
from agentqueue.integrations.langgraph import AgentQueueSaver
from agentqueue.testing import Sandbox, context
from tests.support.models import MODEL, model_server, openai_client


class Log(TypedDict):
    log: Annotated[list[str], operator.add]


class Nodes:
    """Nodes that record their runs; some fail, or ask a person, in their first run."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def node(self, name: str, *, fails: int = 0, asks: bool = False) -> Callable[[Log], Any]:
        async def run(state: Log) -> dict[str, list[str]]:
            self.ran.append(name)
            if self.ran.count(name) <= fails:
                raise RuntimeError(f"{name} fails")
            return {"log": [f"{name} {interrupt(name)}" if asks else name]}

        return run

    def row(self, *names: str, **nodes: Any) -> Any:
        """The builder of a graph of nodes one after the other."""
        builder: Any = StateGraph(Log)
        before = START
        for name in names:
            builder.add_node(name, nodes.get(name) or self.node(name))
            builder.add_edge(before, name)
            before = name
        return builder


def job_of(run: Callable[[Context], Any], **options: Any) -> tuple[Agent, Any]:
    agent = Agent("graph")

    @agent.job(**{"timeout": 60, "attempts": 3, "backoff": 0.1} | options)
    async def handle(ctx: Context) -> Any:
        return await run(ctx)

    return agent, handle


async def test_a_node_that_has_ended_is_not_run_again() -> None:
    nodes = Nodes()
    builder = nodes.row("a", "b", "e", b=nodes.node("b", fails=2))
    builder.add_node("c", nodes.node("c"))  # beside b
    builder.add_edge("a", "c")

    async def run(ctx: Context) -> Any:
        saver = AgentQueueSaver(ctx)
        return (await saver.run(builder.compile(checkpointer=saver), {"log": ["start"]}))["log"]

    agent, handle = job_of(run)
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(handle)
        assert await job.result() == ["start", "a", "b", "c", "e"]
        assert (await job.status()).deliveries == 3
    assert sorted(nodes.ran) == ["a", "b", "b", "b", "c", "e"]


async def test_a_graph_that_has_ended_is_not_run_again() -> None:
    nodes = Nodes()
    builder = nodes.row("a", "b")

    async def run(ctx: Context) -> Any:
        saver = AgentQueueSaver(ctx)
        state = await saver.run(builder.compile(checkpointer=saver), {"log": []})
        if ctx.delivery < 3:
            raise RuntimeError("again")
        return state["log"]

    agent, handle = job_of(run)
    async with Sandbox(agent) as box:
        assert await (await box.client.enqueue(handle)).result() == ["a", "b"]
    assert nodes.ran == ["a", "b"]


async def test_an_interrupt_waits_without_a_slot_and_the_graphs_in_nodes_go_on_too() -> None:
    nodes = Nodes()
    inner = nodes.row("x", "ask", "z", ask=nodes.node("ask", asks=True), z=nodes.node("z", fails=1))
    builder = nodes.row("a", "inner", "b", inner=inner.compile())

    async def run(ctx: Context) -> Any:
        saver = AgentQueueSaver(ctx)
        graph = builder.compile(checkpointer=saver)
        state = await saver.run(graph, {"log": []}, config={"configurable": {"own": 1}})
        while "__interrupt__" in state:
            (question,) = state["__interrupt__"]
            answer = await ctx.wait_for("answer", timeout=timedelta(days=1))
            state = await saver.run(graph, Command(resume=f"{question.value}: {answer.data}"))
        assert len(saver._states) == 1, "the states of graphs in nodes that have ended are gone"
        return state["log"][-3:]

    agent, handle = job_of(run)
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(handle)
        await box.run_until_idle()
        assert (await job.status()).state == "suspended"
        await box.signal(job, "answer", "yes", sender="ana")
        assert await job.result() == ["ask ask: yes", "z", "b"]
    assert nodes.ran.count("a") == nodes.ran.count("x") == nodes.ran.count("b") == 1
    assert nodes.ran.count("z") == 2


async def test_a_node_that_always_fails_uses_up_the_attempts() -> None:
    nodes = Nodes()
    builder = nodes.row("a", "b", b=nodes.node("b", fails=99))

    async def run(ctx: Context) -> Any:
        saver = AgentQueueSaver(ctx)
        return await saver.run(builder.compile(checkpointer=saver), {"log": []})

    agent, handle = job_of(run)
    async with Sandbox(agent) as box:
        with pytest.raises(JobFailed, match="b fails"):
            await (await box.client.enqueue(handle)).result()
    assert nodes.ran == ["a", "b", "b", "b"]


@pytest.fixture
def services() -> Iterator[Services]:
    with model_server() as server:
        yield server


@pytest.fixture
async def client(services: Services) -> AsyncIterator[AsyncOpenAI]:
    async with openai_client() as client:
        yield client


async def test_a_busy_provider_lets_the_job_snooze(services: Services, client: AsyncOpenAI) -> None:
    nodes = Nodes()

    async def ask(state: Log) -> dict[str, list[str]]:
        answer = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Search: tea"}]
        )
        return {"log": [str(answer.choices[0].message.content)]}

    builder = nodes.row("a", "ask", ask=ask)

    async def run(ctx: Context) -> Any:
        saver = AgentQueueSaver(ctx)
        return (await saver.run(builder.compile(checkpointer=saver), {"log": []}))["log"]

    services.records.faults.extend([Fault(429, retry_after=1), Fault(503)])
    agent, handle = job_of(run, attempts=1)
    async with Sandbox(agent) as box:
        job = await box.client.enqueue(handle)
        assert await job.result() == ["a", "All about tea."]
        assert (await job.status()).deliveries == 3
    assert nodes.ran == ["a"]


async def test_a_worker_that_drains_releases_the_job_between_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes, ctx = Nodes(), context()
    saver = AgentQueueSaver(ctx)
    graph = nodes.row("a", "b").compile(checkpointer=saver)
    ctx.stopping = True
    with pytest.raises(Retry, match="the worker drains"):
        await saver.run(graph, {"log": []})
    after = context(resume=saver_value(ctx))
    again = AgentQueueSaver(after)
    graph = nodes.row("a", "b").compile(checkpointer=again)
    assert (await again.run(graph, {"log": ["ignored, since the graph has begun"]}))["log"] == ["a", "b"]
    assert nodes.ran == ["a", "b"]


def saver_value(ctx: Context) -> Any:
    import orjson

    assert ctx.last_checkpoint is not None
    return orjson.loads(ctx.last_checkpoint)


async def test_the_newest_state_can_be_read_and_forgotten() -> None:
    nodes, ctx = Nodes(), context()
    saver = AgentQueueSaver(ctx)
    graph = nodes.row("a", "b").compile(checkpointer=saver)
    await saver.run(graph, {"log": []})
    history = [state async for state in graph.aget_state_history(saver.config)]
    assert [state.values for state in history] == [{"log": ["a", "b"]}]
    older = {"configurable": {"thread_id": ctx.id, "checkpoint_id": "0"}}
    assert await saver.aget_tuple(older) is None  # type: ignore[arg-type]
    newest = history[0].config
    assert list(saver.list(saver.config, before=newest)) == []
    assert list(saver.list(None, limit=0)) == []
    assert list(saver.list(None, filter={"source": "input"})) == []
    assert len(list(saver.list(None, filter={"source": "loop"}))) == 1
    await saver.adelete_thread(ctx.id)
    assert await saver.aget_tuple(saver.config) is None


def test_a_plain_handler_runs_a_graph_too() -> None:
    nodes, ctx = Nodes(), context()
    builder = StateGraph(Log)
    builder.add_node("a", lambda state: {"log": ["a"]})
    builder.add_edge(START, "a")
    saver = AgentQueueSaver(ctx)
    graph = builder.compile(checkpointer=saver)
    assert graph.invoke({"log": []}, saver.config, durability="sync") == {"log": ["a"]}
    again = AgentQueueSaver(context(resume=saver_value(ctx)))
    assert builder.compile(checkpointer=again).invoke(None, again.config) == {"log": ["a"]}
    assert nodes.ran == []


async def test_an_async_handler_is_told_to_run_it_asynchronously() -> None:
    saver = AgentQueueSaver(context())
    builder = StateGraph(Log)
    builder.add_node("a", lambda state: {"log": ["a"]})
    builder.add_edge(START, "a")
    with pytest.raises(UsageError, match=re.escape("by `await saver.run(graph, input)`")):
        saver.put(saver.config | {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}, empty(), {}, {})


def empty() -> Any:
    from langgraph.checkpoint.base import empty_checkpoint

    return empty_checkpoint()


async def test_channels_that_need_the_history_are_refused() -> None:
    class History(TypedDict):
        log: Annotated[list[str], DeltaChannel(lambda state, writes: [*state, *(w for one in writes for w in one)])]

    async def node(state: History) -> dict[str, list[str]]:
        return {"log": ["a"]}

    ctx = context()
    saver = AgentQueueSaver(ctx)
    builder = StateGraph(History)
    builder.add_node("a", node)
    builder.add_edge(START, "a")
    graph = builder.compile(checkpointer=saver)

    async def run_and_read() -> None:
        await saver.run(graph, {"log": ["start"]})  # where LangGraph 1.2.0 asks for the history
        await graph.aget_state(saver.config)  # where newer ones do

    with pytest.raises(UsageError, match="AgentQueueSaver keeps the newest state"):
        await run_and_read()
