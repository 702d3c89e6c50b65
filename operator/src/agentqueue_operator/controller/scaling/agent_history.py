"""What the scaling of one agent remembers from pass to pass. Nothing here reads a clock or does anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from agentqueue_operator.autoscaling.decision import decide_replicas
from agentqueue_operator.autoscaling.estimates import Estimates, learn, learn_start
from agentqueue_operator.autoscaling.model import (
    DEFAULT_TIMING,
    Decision,
    Memory,
    Pods,
    ScalingPolicy,
    ScalingSnapshot,
    ScalingTiming,
)
from agentqueue_operator.controller.ports import AgentPods
from agentqueue_operator.controller.scaling.crashed_workers import WORKER
from agentqueue_operator.controller.scaling.scale_in import Stage, WorkerPod
from agentqueue_operator.controller.scaling.worker_pods import (
    has_low_cost,
    is_leaving,
    is_observed,
    replica_sets_of,
    replicas_of,
    serves_or_will,
    stage_of,
    start_of,
    summary_of,
)
from agentqueue_operator.controller.status.pod_problems import was_ready
from agentqueue_operator.queues.ports import Look, Report
from agentqueue_operator.resources.kinds import Object

SILENT_S: Final = 8.0
"""A worker that is not heard for so long holds no lease any more."""
LOOK_S: Final = 4.0
"""Looks that failed within so long of one that counted are the same failure: passes come in bursts."""


@dataclass(slots=True)
class Sight:
    """When passes have seen what of a pod; monotonic seconds."""

    since: float
    busy_at: float
    """When a slot was last busy, or since the first sight."""
    ready_at: float | None = None
    heard_at: float | None = None
    heard_in: str | None = None
    """The container that was last heard."""
    marked_at: float | None = None

    def hear(self, pod: Object, report: Report | None, *, marked: bool, at: float) -> None:
        """Take in what one pass shows."""
        if self.ready_at is None and stage_of(pod) is Stage.READY:
            self.ready_at = at
        if report is not None:
            self.heard_at, self.heard_in = at, container_of(pod)
            self.busy_at = at if report.busy else self.busy_at
        self.marked_at = (at if self.marked_at is None else self.marked_at) if marked else None

    def is_silent(self, pod: Object, *, looked_s: float, at: float) -> bool:
        """Its heartbeats have ceased, though it was looked for long enough: its node is lost, or its process hangs.

        `looked_s`: for how long looks have succeeded; after an outage workers need a moment to be heard again.
        """
        if self.heard_at == at or looked_s < SILENT_S:
            return False
        if self.heard_in is not None:  # a lost node's pod turns NotReady in time; its container stays as it was
            return container_of(pod) == self.heard_in
        if self.ready_at is not None:
            return stage_of(pod) is Stage.READY and at - self.ready_at >= SILENT_S
        return was_ready(pod)  # before this operator began to look


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """An agent's pods at one instant, as the decision and the handshake want them."""

    deployment: Object | None
    living: Sequence[Object]
    """Those that serve or will."""
    leaving: int
    look: Look | None
    silent: Sequence[Object] = ()
    """Of the living those that are no capacity, since they are not heard any more."""

    @property
    def current(self) -> int:
        """Pods asked for at present."""
        return replicas_of(self.deployment)

    @property
    def is_observed(self) -> bool:
        """What the Deployment's status tells is of its last change."""
        return self.deployment is None or is_observed(self.deployment)

    @property
    def is_split(self) -> bool:
        """There are pods of more than one ReplicaSet."""
        return len(replica_sets_of(self.living)) > 1

    @property
    def orphans(self) -> Sequence[str]:
        """Marked workers of this Deployment that are gone without a word: nobody else takes their marks back."""
        if self.look is None or self.deployment is None:
            return ()
        prefix, names = f"{self.deployment['metadata']['name']}-", {pod["metadata"]["name"] for pod in self.living}
        silent = self.look.marked.keys() - self.look.reports.keys() - names
        return () if self.leaving else sorted(name for name in silent if name.startswith(prefix))


@dataclass(slots=True)
class AgentMemory:
    """One agent's past."""

    timing: ScalingTiming = DEFAULT_TIMING
    memory: Memory = field(default_factory=Memory)
    estimates: Estimates = field(default_factory=Estimates)
    sights: dict[str, Sight] = field(default_factory=dict)
    """By the pod's uid."""
    started: set[str] = field(default_factory=set)
    """Pods whose start has been learned from; by uid."""
    was_read: bool = False
    failed_at: float | None = None
    looked_from: float | None = None
    """The first of the looks that have succeeded without a break."""

    @property
    def horizon_s(self) -> float:
        """Delayed jobs that come due within so long count: that is how long a pod takes to start."""
        return self.estimates.rates().startup.total_seconds()

    def see(self, agent: AgentPods, look: Look | None, *, at: float) -> View:
        """Take in what one pass shows."""
        living = [pod for pod in agent.pods if serves_or_will(pod)]
        leaving = sum(map(is_leaving, agent.pods))
        view = View(deployment=agent.deployment, living=living, leaving=leaving, look=look)
        self._learn_starts(living)
        if look is None:
            self.looked_from = None
            return view
        self.looked_from = at if self.looked_from is None else self.looked_from
        self.was_read = True
        self.estimates = learn(self.estimates, look.seen(at))
        before, self.sights = self.sights, {}
        for pod in living:
            meta = pod["metadata"]
            sight = self.sights[meta["uid"]] = before.get(meta["uid"]) or Sight(since=at, busy_at=at)
            sight.hear(pod, look.reports.get(meta["name"]), marked=meta["name"] in look.marked, at=at)
        looked_s = at - self.looked_from
        silent = [pod for pod in living if self.sights[pod["metadata"]["uid"]].is_silent(pod, looked_s=looked_s, at=at)]
        return replace(view, silent=silent)

    def decide(self, view: View, policy: ScalingPolicy, *, at: float, now: datetime, is_reachable: bool) -> Decision:
        """How many pods from now on. `now`: the time that pods are dated by. `is_reachable`: there is a Redis to ask;
        without one nothing counts as failed."""
        load = view.look.load if view.look is not None else None
        pods = without_silent(summary_of(view.living, view.deployment, now=now), view.silent)
        snapshot = ScalingSnapshot(at=at, load=load, pods=pods, rates=self.estimates.rates())
        counts = load is not None or self._counts_as_failure(at, is_reachable=is_reachable)
        memory = self.memory if counts else replace(self.memory, failures=max(0, self.memory.failures - 1))
        decision = decide_replicas(snapshot, current=view.current, policy=policy, memory=memory, timing=self.timing)
        if counts:
            self.memory = decision.memory
            self.failed_at = at if load is None else None
        return decision

    def worker_pods(self, view: View, look: Look, *, at: float) -> list[WorkerPod]:
        """Return the pods as `domain.drain` takes them."""
        return [_worker_pod(pod, self.sights[pod["metadata"]["uid"]], look, at=at) for pod in view.living]

    def _counts_as_failure(self, at: float, *, is_reachable: bool) -> bool:
        if not (is_reachable or self.was_read):
            return False
        return self.failed_at is None or at >= self.failed_at + LOOK_S

    def _learn_starts(self, pods: Sequence[Object]) -> None:
        self.started &= {pod["metadata"]["uid"] for pod in pods}
        for pod in pods:
            uid, took = pod["metadata"]["uid"], start_of(pod)
            if took is not None and uid not in self.started:
                self.started.add(uid)
                self.estimates = learn_start(self.estimates, took)


def container_of(pod: Object) -> str | None:
    """Which container of the pod runs the worker now; None: none does."""
    containers: Sequence[Mapping[str, Any]] = (pod.get("status") or {}).get("containerStatuses") or ()
    worker = next((one for one in containers if one.get("name") == WORKER), None)
    if worker is None or "running" not in (worker.get("state") or {}):
        return None
    return str(worker.get("containerID") or worker.get("restartCount", 0))


def without_silent(pods: Pods, silent: Sequence[Object]) -> Pods:
    """The summary, with those as silent that it has as ready or starting."""
    ready = sum(stage_of(pod) is Stage.READY for pod in silent)
    starting = max(0, pods.starting - (len(silent) - ready))
    return replace(pods, ready=pods.ready - ready, starting=starting, silent=len(silent))


def _worker_pod(pod: Object, sight: Sight, look: Look, *, at: float) -> WorkerPod:
    name = pod["metadata"]["name"]
    report = look.reports.get(name)
    heard_at = max(sight.since if sight.ready_at is None else sight.ready_at, sight.heard_at or float("-inf"))
    return WorkerPod(
        name=name,
        stage=stage_of(pod),
        busy=report.busy if report is not None else None,
        confirmed=look.confirms(name),
        heard=sight.heard_at is not None or name in look.silent_s,
        silent_s=look.silent_s.get(name, at - heard_at),
        idle_s=at - sight.busy_at,
        marked_s=None if sight.marked_at is None else at - sight.marked_at,
        removable=has_low_cost(pod),
    )
