"""State of one agent's scaling between reconciles. Nothing here reads a clock or does I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from agentqueue_operator.autoscaling.model import DEFAULT_TIMING, Decision, Pods, ScalingPolicy, ScalingTiming
from agentqueue_operator.autoscaling.observer import AgentObserver
from agentqueue_operator.autoscaling.queue_metrics import QueueMetrics, WorkerHeartbeat
from agentqueue_operator.autoscaling.removal import Stage
from agentqueue_operator.controller.ports import AgentPods
from agentqueue_operator.controller.scaling.crashed_workers import WORKER
from agentqueue_operator.controller.scaling.scale_in import WorkerPod
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
from agentqueue_operator.resources.kinds import Object

SILENT_S: Final = 8.0
"""Time in seconds without a heartbeat after which a worker is no capacity: its leases have expired by then."""
FAILURE_INTERVAL_S: Final = 4.0
"""Failures within this window, in seconds, count once, because reconciles come in bursts."""


@dataclass(slots=True)
class PodHistory:
    """Times at which a pod was observed in some state, in monotonic seconds."""

    since: float
    """First observation."""
    busy_at: float
    """Last time with a busy slot; the first observation if there was none."""
    ready_at: float | None = None
    heard_at: float | None = None
    """Last time with a live heartbeat."""
    heard_in: str | None = None
    """Container that sent that heartbeat."""
    marked_at: float | None = None
    """Time since which the pod has had a drain mark."""

    def observe(self, pod: Object, heartbeat: WorkerHeartbeat | None, *, marked: bool, at: float) -> None:
        """Record one observation.

        Args:
            pod: the pod.
            heartbeat: its live heartbeat, None if there is none.
            marked: whether it has a drain mark.
            at: monotonic seconds.
        """
        if self.ready_at is None and stage_of(pod) is Stage.READY:
            self.ready_at = at
        if heartbeat is not None:
            self.heard_at, self.heard_in = at, container_of(pod)
            if heartbeat.busy:
                self.busy_at = at
        if not marked:
            self.marked_at = None
        elif self.marked_at is None:
            self.marked_at = at

    def is_silent(self, pod: Object, *, readable_s: float, at: float) -> bool:
        """Return whether the heartbeats of a worker have stopped: its node is lost, or its process hangs.

        Args:
            pod: the pod.
            readable_s: time in seconds for which the queue could be read without a break. After an outage, workers
                need a moment to send heartbeats again.
            at: monotonic seconds.
        """
        if self.heard_at == at or readable_s < SILENT_S:
            return False
        if (
            self.heard_in is not None
        ):  # The pod of a lost node turns NotReady in time, but its container stays the same.
            return container_of(pod) == self.heard_in
        if self.ready_at is not None:
            return stage_of(pod) is Stage.READY and at - self.ready_at >= SILENT_S
        return was_ready(pod)  # It was ready before this operator started.


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentView:
    """The pods of an agent at one instant."""

    deployment: Object | None
    living: Sequence[Object]
    """Pods that serve or will serve."""
    leaving: int
    metrics: QueueMetrics | None
    """None if the queue could not be read."""
    silent: Sequence[Object] = ()
    """Living pods that are no capacity, because they send no heartbeats any more."""

    @property
    def current(self) -> int:
        """Number of pods requested at present."""
        return replicas_of(self.deployment)

    @property
    def is_observed(self) -> bool:
        """The status of the Deployment reflects its last change."""
        return self.deployment is None or is_observed(self.deployment)

    @property
    def is_split(self) -> bool:
        """The living pods belong to more than one ReplicaSet."""
        return len(replica_sets_of(self.living)) > 1

    @property
    def orphans(self) -> Sequence[str]:
        """Workers of this Deployment that have a drain mark and are gone. Nothing else removes their marks."""
        if self.metrics is None or self.deployment is None or self.leaving:
            return ()
        prefix, names = f"{self.deployment['metadata']['name']}-", {pod["metadata"]["name"] for pod in self.living}
        gone = self.metrics.marked.keys() - self.metrics.heartbeats.keys() - names
        return sorted(name for name in gone if name.startswith(prefix))


@dataclass(slots=True)
class AgentHistory:
    """The observations of one agent and of its pods."""

    timing: ScalingTiming = DEFAULT_TIMING
    observer: AgentObserver = field(init=False)
    pods: dict[str, PodHistory] = field(default_factory=dict)
    """By the UID of the pod."""
    started: set[str] = field(default_factory=set)
    """UIDs of the pods whose start time has been learned."""

    def __post_init__(self) -> None:
        self.observer = AgentObserver(timing=self.timing, failure_interval_s=FAILURE_INTERVAL_S)

    def observe(self, agent: AgentPods, metrics: QueueMetrics | None, *, at: float) -> AgentView:
        """Record the state of the pods and of the queue in one reconcile, and return it as a view.

        Args:
            agent: Deployment and pods.
            metrics: None if the queue could not be read.
            at: monotonic seconds.
        """
        living = [pod for pod in agent.pods if serves_or_will(pod)]
        leaving = sum(map(is_leaving, agent.pods))
        view = AgentView(deployment=agent.deployment, living=living, leaving=leaving, metrics=metrics)
        self.started &= {pod["metadata"]["uid"] for pod in living}
        for pod in living:
            uid, took = pod["metadata"]["uid"], start_of(pod)
            if took is not None and uid not in self.started:
                self.started.add(uid)
                self.observer.observe_start(took)
        self.observer.observe(metrics, at=at)
        if metrics is None:
            return view
        before, self.pods = self.pods, {}
        for pod in living:
            meta = pod["metadata"]
            history = self.pods[meta["uid"]] = before.get(meta["uid"]) or PodHistory(since=at, busy_at=at)
            heartbeat, marked = metrics.heartbeats.get(meta["name"]), meta["name"] in metrics.marked
            history.observe(pod, heartbeat, marked=marked, at=at)
        readable_s = self.observer.readable_s(at)
        silent = [
            pod for pod in living if self.pods[pod["metadata"]["uid"]].is_silent(pod, readable_s=readable_s, at=at)
        ]
        return replace(view, silent=silent)

    def decide(
        self,
        view: AgentView,
        policy: ScalingPolicy,
        *,
        at: float,
        now: datetime,
        has_server: bool,
        registering: bool = False,
    ) -> Decision:
        """Decide on the number of pods.

        Args:
            view: result of the last observation.
            policy: the agent's policy.
            at: monotonic seconds.
            now: wall clock, with which the creation times of pods are compared.
            has_server: there is a Redis to read from. Without one nothing counts as a failure.
            registering: no worker of the present version has registered yet.
        """
        pods = without_silent(summary_of(view.living, view.deployment, now=now), view.silent)
        return self.observer.decide(
            pods, current=view.current, policy=policy, at=at, has_server=has_server, registering=registering
        )

    def worker_pods(self, view: AgentView, metrics: QueueMetrics, *, at: float) -> list[WorkerPod]:
        """Return the living pods as `scale_in` takes them. `at`: monotonic seconds."""
        return [_worker_pod(pod, self.pods[pod["metadata"]["uid"]], metrics, at=at) for pod in view.living]


def container_of(pod: Object) -> str | None:
    """Return the ID of the container that runs the worker now; None if none does."""
    containers: Sequence[Mapping[str, Any]] = (pod.get("status") or {}).get("containerStatuses") or ()
    worker = next((one for one in containers if one.get("name") == WORKER), None)
    if worker is None or "running" not in (worker.get("state") or {}):
        return None
    return str(worker.get("containerID") or worker.get("restartCount", 0))


def without_silent(pods: Pods, silent: Sequence[Object]) -> Pods:
    """Return the summary in which the silent pods no longer count as ready or starting."""
    ready = sum(stage_of(pod) is Stage.READY for pod in silent)
    starting = max(0, pods.starting - (len(silent) - ready))
    return replace(pods, ready=pods.ready - ready, starting=starting, silent=len(silent))


def _worker_pod(pod: Object, history: PodHistory, metrics: QueueMetrics, *, at: float) -> WorkerPod:
    name = pod["metadata"]["name"]
    heartbeat = metrics.heartbeats.get(name)
    heard_at = max(history.since if history.ready_at is None else history.ready_at, history.heard_at or float("-inf"))
    return WorkerPod(
        name=name,
        stage=stage_of(pod),
        busy=heartbeat.busy if heartbeat is not None else None,
        confirmed=metrics.confirms(name),
        heard=history.heard_at is not None or name in metrics.silent_s,
        silent_s=metrics.silent_s.get(name, at - heard_at),
        idle_s=at - history.busy_at,
        marked_s=None if history.marked_at is None else at - history.marked_at,
        removable=has_low_cost(pod),
    )
