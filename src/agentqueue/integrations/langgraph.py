"""Graphs of LangGraph that go on where they were: a checkpointer that keeps the state of a graph with its job.

    saver = AgentQueueSaver(ctx)
    state = await saver.run(builder.compile(checkpointer=saver), {"messages": [question]})

The state is kept by `ctx.checkpoint`, so that it goes with the job: no other database, and nothing to clean up. It
needs the extra `agentqueue[langgraph]`.
"""

import asyncio
import base64
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn

from agentqueue.agent.context import Context
from agentqueue.agent.outcomes import Retry
from agentqueue.errors import UsageError
from agentqueue.integrations.busy import snooze_when_busy
from agentqueue.integrations.extras import needs_extra

with needs_extra("langgraph"):
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        WRITES_IDX_MAP,
        BaseCheckpointSaver,
        ChannelVersions,
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
        get_checkpoint_id,
        get_checkpoint_metadata,
    )
    from langgraph.checkpoint.serde.types import ERROR
    from langgraph.types import Command

KEPT: Final = "langgraph"
"""Key of the graph's state in the job's checkpoint."""
SUBGRAPH: Final = "|"
"""Separates the namespaces of a graph and of the graphs in its nodes."""


class AgentQueueSaver(BaseCheckpointSaver[int]):
    """Keep the state of a graph as the checkpoint of a job.

    A node that has ended is not run again when the job runs again. The newest state is kept, and not the history: it
    may have 1 MiB, and `get_state_history` returns one. The job cannot use `ctx.checkpoint` itself.

    Args:
        ctx: The context of the job.
    """

    def __init__(self, ctx: Context) -> None:
        super().__init__()
        self.job = ctx
        resume = ctx.resume
        self._states: dict[str, dict[str, Any]] = resume.get(KEPT, {}) if isinstance(resume, dict) else {}
        """State by thread and namespace: the encoded checkpoint, and what its nodes have written since."""
        self._lock = asyncio.Lock()

    @property
    def config(self) -> RunnableConfig:
        """Return the configuration for the graph, whose thread is the job."""
        return {"configurable": {"thread_id": self.job.id}}

    async def run(self, graph: Any, input: Any, **options: Any) -> Any:  # noqa: A002  # LangGraph's name
        """Run a graph with this checkpointer, from where it was if the job has run before, and return its state.

        A provider's 429 or 5xx makes the job snooze. A worker that drains releases the job after the nodes that run.

        Args:
            graph: The compiled graph.
            input: Its input. A `Command`, such as the answer to an interrupt, is passed on in each run.
            options: Of the graph's `ainvoke`. The configuration is added to `config`.
        """
        config: dict[str, Any] = options.pop("config", None) or {}
        configurable = {**config.get("configurable", {}), **self.config["configurable"]}
        goes_on = not isinstance(input, Command) and _place_of(self.config) in self._states
        async with snooze_when_busy(self.job):
            return await graph.ainvoke(
                None if goes_on else input,
                {**config, "configurable": configurable},
                **{"durability": "sync"} | options,
            )

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the newest state, None if there is none or the configuration asks for an older one."""
        state = self._states.get(_place_of(config))
        asked = get_checkpoint_id(config)
        if state is None or (asked is not None and asked != state["id"]):
            return None
        writes = [(task, channel, self._load(value)) for task, _, channel, value, _ in state["writes"]]
        return CheckpointTuple(
            config=_config_of(config, state["id"]),
            checkpoint=self._load(state["checkpoint"]),
            metadata=self._load(state["metadata"]),
            parent_config=_config_of(config, state["parent"]) if state["parent"] else None,
            pending_writes=writes,
        )

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  # LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield the newest state, if it is asked for."""
        found = self.get_tuple(config or self.config)
        if found is None or limit == 0:
            return
        older = (
            before is not None and (asked := get_checkpoint_id(before)) is not None and found.checkpoint["id"] >= asked
        )
        if not older and all(dict(found.metadata).get(key) == value for key, value in (filter or {}).items()):
            yield found

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,  # noqa: ARG002  # all channels are kept
    ) -> RunnableConfig:
        """Keep a state in place of the one before. For graphs that a plain `def` handler runs."""
        kept = self._put(config, checkpoint, metadata)
        self._keep()
        return kept

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep what a node has written. For graphs that a plain `def` handler runs."""
        if self._put_writes(config, writes, task_id, task_path):
            self._keep()

    def delete_thread(self, thread_id: str) -> None:
        """Forget a thread's state, when the next one is kept."""
        for place in [place for place in self._states if place.partition(SUBGRAPH)[0] == thread_id]:
            del self._states[place]

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the newest state. See `get_tuple`."""
        return self.get_tuple(config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  # LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yield the newest state, if it is asked for."""
        for found in self.list(config, filter=filter, before=before, limit=limit):
            yield found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,  # noqa: ARG002  # all channels are kept
    ) -> RunnableConfig:
        """Keep a state in place of the one before.

        Raises:
            Retry: The worker drains. The job goes on elsewhere from here; no attempt is counted.
        """
        kept = self._put(config, checkpoint, metadata)
        await self._akeep()
        if self.job.should_yield:
            raise Retry("the worker drains, and the graph goes on elsewhere")
        return kept

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep what a node has written, so that it is not run again if another node of its step fails."""
        if self._put_writes(config, writes, task_id, task_path):
            await self._akeep()

    async def adelete_thread(self, thread_id: str) -> None:
        """Forget a thread's state, when the next one is kept."""
        self.delete_thread(thread_id)

    def get_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> NoReturn:  # noqa: ARG002
        """Refuse channels that are made up of their history.

        Raises:
            UsageError: In every case.
        """
        raise UsageError(
            f"the channels {', '.join(channels)} are DeltaChannels, which need a graph's history, and AgentQueueSaver "
            "keeps the newest state; use an ordinary reducer, or another checkpointer"
        )

    async def aget_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> NoReturn:
        """Refuse channels that are made up of their history. See `get_delta_channel_history`."""
        self.get_delta_channel_history(config=config, channels=channels)

    def _put(self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata) -> RunnableConfig:
        place = _place_of(config)
        for inner in [inner for inner in self._states if inner.startswith(f"{place}{SUBGRAPH}")]:
            del self._states[inner]  # a graph in a node of the step that has ended
        self._states[place] = {
            "id": checkpoint["id"],
            "parent": get_checkpoint_id(config),
            "checkpoint": self._dump(checkpoint),
            "metadata": self._dump(get_checkpoint_metadata(config, metadata)),
            "writes": [],
        }
        return _config_of(config, checkpoint["id"])

    def _put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> bool:
        """Return whether there is something to keep. An error of a node is no progress of the job."""
        state = self._states.get(_place_of(config))
        if state is None or state["id"] != get_checkpoint_id(config) or all(channel == ERROR for channel, _ in writes):
            return False
        kept = {(task, index): (task, index, *rest) for task, index, *rest in state["writes"]}
        for number, (channel, value) in enumerate(writes):
            index = WRITES_IDX_MAP.get(channel, number)
            if index < 0 or (task_id, index) not in kept:
                kept[task_id, index] = (task_id, index, channel, self._dump(value), task_path)
        state["writes"] = sorted(kept.values(), key=lambda write: (write[4], write[0], write[1]))
        return True

    def _keep(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self.job.checkpoint({KEPT: self._states})
        else:
            raise UsageError("an async handler runs a graph by `await saver.run(graph, input)`, not by graph.invoke")

    async def _akeep(self) -> None:
        async with self._lock:  # nodes write at the same time, and the newest state must be kept last
            await self.job.checkpoint({KEPT: self._states})

    def _dump(self, value: Any) -> tuple[str, str]:
        kind, raw = self.serde.dumps_typed(value)
        return kind, base64.b85encode(zlib.compress(raw, 1)).decode()

    def _load(self, packed: Sequence[str]) -> Any:
        kind, text = packed
        return self.serde.loads_typed((kind, zlib.decompress(base64.b85decode(text))))


def _place_of(config: RunnableConfig) -> str:
    """Return a thread and its namespace as one text, in which a graph is the beginning of the graphs in its nodes."""
    configurable = config["configurable"]
    inner = configurable.get("checkpoint_ns", "")
    return f"{configurable['thread_id']}{SUBGRAPH}{inner}" if inner else str(configurable["thread_id"])


def _config_of(config: RunnableConfig, checkpoint_id: str) -> RunnableConfig:
    configurable = config["configurable"]
    namespace = configurable.get("checkpoint_ns", "")
    return {
        "configurable": {
            "thread_id": configurable["thread_id"],
            "checkpoint_ns": namespace,
            "checkpoint_id": checkpoint_id,
        }
    }
