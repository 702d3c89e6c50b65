"""A cluster and queues that only scaling sees: pods under a ReplicaSet that removes as Kubernetes does, in no time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentqueue.errors import QueueUnavailable
from agentqueue.spec import AgentQueue, ResolvedQueue, resolve
from agentqueue_operator.app.cluster.ports import AgentPods, ApiRefused
from agentqueue_operator.app.ports import Look, Report, Retention, Tended
from agentqueue_operator.domain.deaths import Death
from agentqueue_operator.domain.kinds import Kind, Object, QueueRef
from agentqueue_operator.domain.scaling import Load
from agentqueue_operator.domain.worker_pods import COST, LOW_COST

START = "2026-11-25T02:00:00Z"


def queue_of(*, suspend: bool = False, **scaling: Any) -> ResolvedQueue:
    """An AgentQueue of one agent `work` with one slot a pod."""
    agent = {"name": "work", "handler": "work:agent", "concurrency": 1, "scaling": scaling}
    spec = {"suspend": suspend, "redis": {"managed": {}}, "agents": [agent]}
    metadata = {"name": "demo", "namespace": "ns", "uid": "u"}
    resource = {"apiVersion": "agentqueue.dev/v1alpha1", "kind": "AgentQueue", "metadata": metadata, "spec": spec}
    return resolve(AgentQueue.model_validate(resource))


def pod(name: str, *, ready: bool = True, template: str = "t1", **status: Any) -> Object:
    """A worker pod, scheduled, and Ready 4 s after it was made."""
    conditions = [{"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-11-25T02:00:04Z"}]
    container = {"name": "worker", "restartCount": 0, "state": {"running": {}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": f"uid-{name}",
            "labels": {"pod-template-hash": template},
            "creationTimestamp": START,
        },
        "spec": {"nodeName": "node1"},
        "status": {"phase": "Running", "conditions": conditions, "containerStatuses": [container]} | status,
    }


@dataclass
class FakeQueues:
    """One queue on a server, with the workers' heartbeats. `down`: it does not answer."""

    load: Load = field(default_factory=Load)
    reports: dict[str, Report] = field(default_factory=dict)
    marked: set[str] = field(default_factory=set)
    down: bool = False
    arrived: int = 0
    done: int = 0
    run_ms: int = 0
    published: dict[str, bytes] = field(default_factory=dict)
    buried: list[Death] = field(default_factory=list)
    marks: list[tuple[str, bool]] = field(default_factory=list)
    kept_s: float | None = -1.0

    def _check(self) -> None:
        if self.down:
            raise QueueUnavailable("Redis at nowhere does not answer")

    async def look(self, horizons_s: Mapping[str, float]) -> dict[str, Look]:
        self._check()
        look = Look(
            load=self.load,
            reports=dict(self.reports),
            marked=frozenset(self.marked),
            delayed=0,
            done=self.done,
            dead=0,
            arrived=self.arrived,
            run_ms=self.run_ms,
        )
        return dict.fromkeys(horizons_s, look)

    async def mark(self, queue: str, worker: str, *, drain: bool, keep_s: float | None = None) -> None:
        self._check()
        self.kept_s = keep_s
        self.marks.append((worker, drain))
        self.marked.add(worker) if drain else self.marked.discard(worker)

    async def keep_marks(self, queue: str, keep_s: float | None) -> None:
        self._check()
        self.kept_s = keep_s

    async def bury_container(self, queue: str, death: Death) -> int:
        self._check()
        self.buried.append(death)
        return 1

    async def publish(self, decisions: Mapping[str, bytes]) -> Mapping[str, bytes | None]:
        self._check()
        before = {queue: self.published.get(queue) for queue in decisions}
        self.published.update(decisions)
        return before

    async def wait_for_jobs(self, queues: Sequence[str], timeout_s: float) -> bool:
        raise NotImplementedError

    async def bury_worker(self, queue: str, worker: str, why: str) -> int:
        raise NotImplementedError

    async def tend(self, retentions: Mapping[str, Retention]) -> Tended:
        raise NotImplementedError


class FakeCluster:
    """One Deployment and its pods; patches show in the cache at once, `age` tells how old they look there."""

    def __init__(self, replicas: int = 0, *pods: Object) -> None:
        self.pods: dict[str, Object] = {one["metadata"]["name"]: one for one in pods}
        self.generation = 1
        self.observed = 1
        self.replicas = replicas
        self.age = 10.0
        self.refuses: ApiRefused | None = None
        self.patches: list[tuple[str, str | None]] = []

    @property
    def deployment(self) -> Object:
        """As the cache shows it."""
        return {
            "metadata": {"name": "demo-work-12345", "namespace": "ns", "generation": self.generation},
            "spec": {"replicas": self.replicas},
            "status": {
                "observedGeneration": self.observed,
                "replicas": len(self.pods),
                "updatedReplicas": len(self.pods),
            },
        }

    @property
    def agents(self) -> Mapping[str, AgentPods]:
        """What a pass is given."""
        return {"work": AgentPods(deployment=self.deployment, pods=list(self.pods.values()))}

    def costs(self) -> set[str]:
        """Pods that bear our cost."""
        return {name for name, one in self.pods.items() if one["metadata"].get("annotations", {}).get(COST) == LOW_COST}

    def lower(self, replicas: int) -> list[str]:
        """Set the number, as the loop does; returns the pods that go: not Ready first, then by cost."""
        self.replicas = replicas
        order = sorted(self.pods, key=lambda name: (_is_ready(self.pods[name]), name not in self.costs(), name))
        gone = order[: max(0, len(order) - replicas)]
        for name in gone:
            del self.pods[name]
        return gone

    async def patch(self, kind: Kind, namespace: str, name: str, changes: Object) -> Object:
        if self.refuses is not None:
            raise self.refuses
        cost = changes["metadata"]["annotations"][COST]
        self.patches.append((name, cost))
        if name not in self.pods:
            raise ApiRefused(404, "NotFound", f"pods {name!r} not found")
        annotations = self.pods[name]["metadata"].setdefault("annotations", {})
        if cost is None:
            annotations.pop(COST, None)
        else:
            annotations[COST] = cost
        return self.pods[name]

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        raise NotImplementedError

    async def apply(self, manifest: Object, *, manager: str = "agentqueue-operator") -> Object:
        raise NotImplementedError

    async def patch_status(self, ref: QueueRef, status: Object, *, uid: str) -> None:
        raise NotImplementedError

    async def delete(self, live: Object, *, orphan: bool = False) -> None:
        raise NotImplementedError

    async def tell(self, regarding: Object, *, reason: str, note: str, warning: bool = False) -> None:
        raise NotImplementedError

    def queue(self, ref: QueueRef) -> Object | None:
        raise NotImplementedError

    def children(self, ref: QueueRef) -> Sequence[Object]:
        raise NotImplementedError

    def age_s(self, live: Object) -> float:
        return self.age

    def trouble(self) -> Sequence[str]:
        return ()


def _is_ready(found: Object) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in found["status"]["conditions"])
