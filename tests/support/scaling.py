"""Fake cluster and queues for tests of scaling. Its ReplicaSet removes pods in the order of Kubernetes, at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentqueue.errors import QueueUnavailable
from agentqueue.model.schedule import Schedule
from agentqueue.model.template import KeptTemplate, TemplateState
from agentqueue.spec import AgentQueue, ResolvedQueue, resolve
from agentqueue_operator.autoscaling.model import Load
from agentqueue_operator.autoscaling.queue_metrics import QueueMetrics, WorkerHeartbeat
from agentqueue_operator.controller.ports import AgentPods, ApiRefused, NotLeading
from agentqueue_operator.controller.scaling.worker_pods import COST, LOW_COST
from agentqueue_operator.queues.ports import HousekeepingResult, Retention, WorkerCrash
from agentqueue_operator.resources.kinds import DEPLOYMENT, POD, Kind, Object, QueueRef
from agentqueue_operator.resources.render.names import NOT_REMOVABLE, REMOVABLE_LABEL

START = "2026-11-25T02:00:00Z"


def queue_of(*, suspend: bool = False, **scaling: Any) -> ResolvedQueue:
    """Return an AgentQueue with one agent `work`, which has one slot per pod."""
    agent = {"name": "work", "handler": "work:agent", "concurrency": 1, "scaling": scaling}
    spec = {"suspend": suspend, "redis": {"managed": {}}, "agents": [agent]}
    metadata = {"name": "demo", "namespace": "ns", "uid": "u"}
    resource = {"apiVersion": "agentqueue.dev/v1alpha1", "kind": "AgentQueue", "metadata": metadata, "spec": spec}
    return resolve(AgentQueue.model_validate(resource))


def pod(name: str, *, ready: bool = True, template: str = "t1", **status: Any) -> Object:
    """Return a scheduled worker pod that became Ready 4 s after its creation."""
    conditions = [{"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-11-25T02:00:04Z"}]
    container = {"name": "worker", "restartCount": 0, "state": {"running": {}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": f"uid-{name}",
            "resourceVersion": "1",
            "labels": {"pod-template-hash": template, REMOVABLE_LABEL: NOT_REMOVABLE},
            "ownerReferences": [{"kind": "ReplicaSet", "name": f"demo-work-12345-{template}", "controller": True}],
            "creationTimestamp": START,
        },
        "spec": {"nodeName": "node1"},
        "status": {"phase": "Running", "conditions": conditions, "containerStatuses": [container]} | status,
    }


@dataclass
class FakeQueues:
    """One queue on a server, with the heartbeats of its workers. `down`: the server does not answer."""

    load: Load = field(default_factory=Load)
    heartbeats: dict[str, WorkerHeartbeat] = field(default_factory=dict)
    marked: dict[str, int] = field(default_factory=dict)
    """Drain marks by worker. Each mark is one higher than any before."""
    down: bool = False
    takes_marks: bool = True
    arrived: int = 0
    done: int = 0
    run_ms: int = 0
    published: dict[str, bytes] = field(default_factory=dict)
    released: list[WorkerCrash] = field(default_factory=list)
    marks: list[tuple[str, bool]] = field(default_factory=list)
    kept_s: float | None = -1.0
    templates: dict[str, KeptTemplate] | None = None
    """Versions that have registered, by their digest; None: every version has."""
    registered: str = "code"
    """Fingerprint of what is registered at present."""
    restored: list[str] = field(default_factory=list)
    schedules: dict[str, Sequence[Schedule]] = field(default_factory=dict)
    puts: list[str] = field(default_factory=list)
    """Queues whose schedules were written, in order."""

    def confirm(self, worker: str, *, busy: int = 0) -> None:
        """Send a heartbeat in which the worker confirms its present mark."""
        self.heartbeats[worker] = WorkerHeartbeat(busy=busy, slots=1, draining=True, mark=self.marked[worker])

    def _check(self) -> None:
        if self.down:
            raise QueueUnavailable("Redis at nowhere does not answer")

    async def read(self, horizons_s: Mapping[str, float]) -> dict[str, QueueMetrics]:
        self._check()
        look = QueueMetrics(
            load=self.load,
            heartbeats=dict(self.heartbeats),
            marked=dict(self.marked),
            delayed=0,
            done=self.done,
            dead=0,
            arrived=self.arrived,
            run_ms=self.run_ms,
        )
        return dict.fromkeys(horizons_s, look)

    async def mark(self, queue: str, worker: str, *, drain: bool, keep_s: float | None = None) -> None:
        self._check()
        if not self.takes_marks:
            raise QueueUnavailable("Redis is gone in between")
        self.kept_s = keep_s
        self.marks.append((worker, drain))
        if drain:
            self.marked[worker] = len(self.marks)
        else:
            self.marked.pop(worker, None)

    async def keep_marks(self, queue: str, keep_s: float | None) -> None:
        self._check()
        self.kept_s = keep_s

    async def release_leases_of_container(self, queue: str, crash: WorkerCrash) -> int:
        self._check()
        self.released.append(crash)
        return 1

    async def publish(self, decisions: Mapping[str, bytes]) -> Mapping[str, bytes | None]:
        self._check()
        before = {queue: self.published.get(queue) for queue in decisions}
        self.published.update(decisions)
        return before

    async def read_templates(self, templates: Mapping[str, str]) -> Mapping[str, TemplateState]:
        self._check()
        known = KeptTemplate(self.registered, 0, jobs=2)
        return {
            queue: TemplateState(known if self.templates is None else self.templates.get(template), self.registered)
            for queue, template in templates.items()
        }

    async def keep_template(self, queue: str, template: str, fingerprint: str) -> KeptTemplate | None:
        self._check()
        assert self.templates is not None
        self.templates[template] = KeptTemplate(fingerprint, 0, jobs=3)
        return self.templates[template]

    async def restore_registration(self, queue: str, fingerprint: str) -> bool:
        self._check()
        self.restored.append(fingerprint)
        self.registered = fingerprint
        return True

    async def put_schedules(self, queue: str, schedules: Sequence[Schedule]) -> None:
        self._check()
        self.puts.append(queue)
        self.schedules[queue] = tuple(schedules)

    async def wait_for_jobs(self, queues: Sequence[str], timeout_s: float) -> bool:
        raise NotImplementedError

    async def release_leases_of_worker(self, queue: str, worker: str, why: str) -> int:
        raise NotImplementedError

    async def run_housekeeping(self, retentions: Mapping[str, Retention]) -> HousekeepingResult:
        raise NotImplementedError


class FakeCluster:
    """One Deployment, its ReplicaSet and its pods; patches show in the cache at once. `lags`: the ReplicaSet's
    controller has not seen the last patches."""

    def __init__(self, replicas: int = 0, *pods: Object) -> None:
        self.pods: dict[str, Object] = {one["metadata"]["name"]: one for one in pods}
        self.generation = 1
        self.observed = 1
        self.replicas = replicas
        self.lags = False
        self.is_stuck = False
        self.refuses: ApiRefused | NotLeading | None = None
        self.leads = True
        self.template = "t1"
        """Template of the Deployment, as a ReplicaSet and the pods have it in their names and labels."""
        self.reads: list[str] = []
        """ReplicaSets that were read from the API server."""
        self.patches: list[tuple[str, str | None]] = []

    @property
    def deployment(self) -> Object:
        """The Deployment as the cache shows it."""
        stuck = [{"type": "ReplicaFailure", "status": "True"}] if self.is_stuck else []
        return {
            "metadata": {
                "name": "demo-work-12345",
                "namespace": "ns",
                "generation": self.generation,
                "resourceVersion": "7",
            },
            "spec": {"replicas": self.replicas, "template": template_of(self.template)},
            "status": {
                "observedGeneration": self.observed,
                "replicas": len(self.pods),
                "updatedReplicas": len(self.pods),
                "conditions": stuck,
            },
        }

    def replica_set(self, template: str) -> Object | None:
        """Return the ReplicaSet of a pod template as the API server has it."""
        pods = [one for one in self.pods.values() if one["metadata"]["labels"]["pod-template-hash"] == template]
        whole = [one for one in pods if self.lags or one["metadata"]["labels"][REMOVABLE_LABEL] == NOT_REMOVABLE]
        count = self.replicas if len({len(pods), len(self.pods)}) == 1 else len(pods)
        return {
            "metadata": {"name": f"demo-work-12345-{template}", "namespace": "ns", "generation": 1},
            "spec": {
                "replicas": count,
                "template": template_of(template, **{"pod-template-hash": template}),
            },
            "status": {
                "observedGeneration": 1,
                "replicas": len(pods),
                "readyReplicas": sum(map(_is_ready, pods)),
                "fullyLabeledReplicas": len(whole),
            },
        }

    @property
    def agents(self) -> Mapping[str, AgentPods]:
        """Agents as a reconcile gets them."""
        return {"work": AgentPods(deployment=self.deployment, pods=list(self.pods.values()))}

    def costs(self) -> set[str]:
        """Return the names of the pods that have our deletion cost."""
        return {name for name, one in self.pods.items() if one["metadata"].get("annotations", {}).get(COST) == LOW_COST}

    def lower(self, replicas: int) -> list[str]:
        """Set the replicas. Return the removed pods: not Ready ones go first, then those with our deletion cost."""
        self.replicas = replicas
        order = sorted(self.pods, key=lambda name: (_is_ready(self.pods[name]), name not in self.costs(), name))
        gone = order[: max(0, len(order) - replicas)]
        for name in gone:
            del self.pods[name]
        return gone

    def check_leads(self) -> None:
        if not self.leads:
            raise NotLeading

    async def patch(self, kind: Kind, namespace: str, name: str, changes: Object) -> Object:
        if self.refuses is not None:
            raise self.refuses
        annotations = changes["metadata"].get("annotations", {})
        self.patches.append((name, annotations.get(COST)))
        if name not in self.pods:
            raise ApiRefused(404, "NotFound", f"pods {name!r} not found")
        self.pods[name] = patched(self.pods[name], changes)
        return self.pods[name]

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        if kind is DEPLOYMENT:
            return self.deployment
        if kind is POD:
            return self.pods.get(name)
        self.reads.append(name)
        return self.replica_set(name.rpartition("-")[2])

    async def apply(self, manifest: Object, *, manager: str = "agentqueue-operator") -> Object:
        raise NotImplementedError

    async def patch_status(self, ref: QueueRef, status: Object, *, uid: str) -> None:
        raise NotImplementedError

    async def delete(self, live: Object, *, orphan: bool = False) -> None:
        raise NotImplementedError

    async def record_event(self, regarding: Object, *, reason: str, note: str, warning: bool = False) -> None:
        raise NotImplementedError


def template_of(name: str, **labels: str) -> Object:
    """Return a pod template of that name."""
    return {"metadata": {"labels": {REMOVABLE_LABEL: NOT_REMOVABLE, **labels}, "annotations": {"name": name}}}


def patched(live: Object, changes: Object) -> Object:
    """Return the pod after a merge patch of its metadata, as the API server applies it."""
    mine, wanted = live["metadata"], changes["metadata"]
    for name in ("uid", "resourceVersion"):
        if name in wanted and wanted[name] != mine.get(name):
            raise ApiRefused(409, "Conflict", "the object has been modified")
    merged = {
        part: {k: v for k, v in {**mine.get(part, {}), **wanted.get(part, {})}.items() if v is not None}
        for part in ("annotations", "labels")
    }
    same = all(merged[part] == mine.get(part, {}) for part in merged)
    version = mine["resourceVersion"] if same else str(int(mine["resourceVersion"]) + 1)
    return {**live, "metadata": {**mine, **merged, "resourceVersion": version}}


def _is_ready(found: Object) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in found["status"]["conditions"])
