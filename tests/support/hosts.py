"""The two hosts on a real server: the operator's work queue over clusters in memory, and the supervisor of `up`.

No worker ever starts here: a cluster in memory runs no pods, and `up` gets no processes.
"""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentqueue.clock import monotonic, now_ms
from agentqueue.model.times import from_ms
from agentqueue.store import Server, ServerOptions
from agentqueue_operator.autoscaling.model import ScalingPolicy
from agentqueue_operator.controller.reconciler import PAUSED, Dependencies, QueueReconciler
from agentqueue_operator.controller.redis_pool import RedisPool
from agentqueue_operator.controller.scaling.scaler import QueueScaler
from agentqueue_operator.controller.work_queue import WorkQueue
from agentqueue_operator.local.agent import LocalAgent
from agentqueue_operator.local.ports import AgentRun, Exit, Row
from agentqueue_operator.local.supervisor import LocalSupervisor
from agentqueue_operator.queues.ports import Retention
from agentqueue_operator.queues.reader import QueueReader
from agentqueue_operator.resources.kinds import Object, QueueRef
from agentqueue_operator.resources.render import Images
from tests.support.fake_cluster import FakeCluster

KEEPS = Retention(dead_s=3_600, history_s=1_800)


@dataclass
class OperatorReplica:
    """A replica of the operator. Its AgentQueues exist before it starts."""

    url: str
    clusters: dict[QueueRef, FakeCluster] = field(default_factory=dict)
    leads: bool = True

    def add(self, queue: str, *, suspend: bool = False, hands_off: bool = False, **scaling: Any) -> FakeCluster:
        """Add an AgentQueue with one agent on that queue."""
        ref, cluster = QueueRef("ns", queue), FakeCluster()
        secret = {"url": base64.b64encode(self.url.encode()).decode()}
        cluster.put({"kind": "Secret", "metadata": {"name": "redis"}, "data": secret})
        retention = {"deadSeconds": KEEPS.dead_s, "completedSeconds": KEEPS.history_s}
        agent = {"name": "a", "queueName": queue, "handler": "m:agent", "scaling": scaling, "retention": retention}
        cluster.queues[ref] = {
            "apiVersion": "agentqueue.dev/v1alpha1",
            "kind": "AgentQueue",
            "metadata": {
                "name": queue,
                "namespace": "ns",
                "uid": f"uid-{queue}",
                "generation": 1,
                "creationTimestamp": "2026-01-01T12:00:00Z",
                "annotations": {PAUSED: "true"} if hands_off else {},
            },
            "spec": {
                "suspend": suspend,
                "redis": {"external": {"urlSecretRef": {"name": "redis", "key": "url"}}},
                "console": {"enabled": False},
                "agents": [agent],
            },
        }
        self.clusters[ref] = cluster
        return cluster

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[WorkQueue]:
        """Run the replica for a block."""
        pool = RedisPool()
        work_queue = WorkQueue(
            lambda ref: QueueReconciler(ref, self._dependencies(ref, pool, work_queue)),
            exists=lambda ref: ref in self.clusters and self.clusters[ref].queue(ref) is not None,
            leads=lambda: self.leads,
            clock=monotonic,
        )
        for ref in self.clusters:
            work_queue.wake(ref)
        try:
            yield work_queue
        finally:
            await work_queue.close()

    def _dependencies(self, ref: QueueRef, pool: RedisPool, work_queue: WorkQueue) -> Dependencies:
        cluster = self.clusters[ref]
        return Dependencies(
            cluster=cluster,
            cache=cluster,
            acquire=pool.acquire,
            make_scaler=lambda _: QueueScaler(cluster),
            images=Images("worker:1", "redis:1", "console:1"),
            clock=monotonic,
            now=lambda: from_ms(now_ms()),
            make_secret=lambda: "secret",
            wake=work_queue.wake,
            leads=lambda: self.leads,
        )


def replicas_in(cluster: FakeCluster) -> int | None:
    """Return the replicas of the Deployment; None: there is no Deployment."""
    found = [live for (kind, _), live in cluster.objects.items() if kind == "Deployment"]
    return found[0]["spec"].get("replicas") if found else None


def status_in(cluster: FakeCluster) -> Object:
    """Return the status that was written last."""
    return cluster.statuses[-1] if cluster.statuses else {}


class NoProcesses:
    """Processes and screen of `up`. No process can be started, and messages are kept."""

    def __init__(self) -> None:
        self.said: list[str] = []

    async def start(self, run: AgentRun) -> str:
        raise OSError(11, "no process left")

    def stop(self, worker: str) -> None:
        raise NotImplementedError

    def kill(self, worker: str) -> None:
        raise NotImplementedError

    def exits(self) -> list[Exit]:
        return []

    def print_line(self, source: str, text: str, *, error: bool = False) -> None:
        del source, error
        self.said.append(text)

    def show(self, rows: Iterable[Row]) -> None: ...


@contextlib.asynccontextmanager
async def up_running(url: str, policies: Mapping[str, ScalingPolicy]) -> AsyncIterator[Callable[[str], LocalAgent]]:
    """Run the supervisor of `up` over agents of these queues, and yield a function from queue to agent."""
    stop, no_processes = asyncio.Event(), NoProcesses()
    agents = {
        q: LocalAgent(AgentRun(name=q, queue=q, policy=policy, retention=KEEPS), registered=0)
        for q, policy in policies.items()
    }
    async with Server(ServerOptions(url)) as server:
        up = LocalSupervisor(
            list(agents.values()),
            QueueReader(server),
            no_processes,
            no_processes,
            clock=monotonic,
            wake=asyncio.Event(),
        )
        running = asyncio.create_task(up.run(stop, asyncio.Event()))
        try:
            yield agents.__getitem__
        finally:
            stop.set()
            await running
