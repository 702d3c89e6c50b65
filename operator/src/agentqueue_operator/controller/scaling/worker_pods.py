"""What scaling reads from an agent's pods and its Deployment."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from agentqueue.spec import GROUP
from agentqueue_operator.autoscaling.model import SCALE_UP_RATE_WINDOW_S, Pods
from agentqueue_operator.controller.scaling.crashed_workers import FINAL_PHASES, WORKER
from agentqueue_operator.controller.scaling.scale_in import Stage
from agentqueue_operator.controller.status.pod_problems import CONFIG_REASONS, IMAGE_REASONS, condition_of, last_end
from agentqueue_operator.resources.kinds import REPLICA_SET, Object
from agentqueue_operator.resources.render.names import NOT_REMOVABLE, REMOVABLE, REMOVABLE_LABEL

COST: Final = "controller.kubernetes.io/pod-deletion-cost"
LOW_COST: Final = str(-(2**31))
"""Ours: the lowest there is, so that no cost that somebody else sets comes before it."""
KEPT_COST: Final = f"{GROUP}/kept-pod-deletion-cost"
"""The annotation in which a pod keeps the cost that somebody else had given it, until ours is taken back."""
FAILS: Final = frozenset({"CrashLoopBackOff", *IMAGE_REASONS, *CONFIG_REASONS})
"""What a container waits for that will not become Ready by itself."""
LONGEST_START_S: Final = 600.0
"""A start that took longer waited for something else, a node or an image that was not there."""
SHORTEST_START_S: Final = 0.5
"""The times that pods tell are cut to a second."""


def serves_or_will(pod: Object) -> bool:
    """As a ReplicaSet counts: neither ended nor on its way out."""
    return not is_leaving(pod) and (pod.get("status") or {}).get("phase") not in FINAL_PHASES


def is_leaving(pod: Object) -> bool:
    """It was told to stop."""
    return "deletionTimestamp" in pod["metadata"]


def stage_of(pod: Object) -> Stage:
    """How far it has come."""
    if not (pod.get("spec") or {}).get("nodeName"):
        return Stage.UNSCHEDULED
    if (pod.get("status") or {}).get("phase", "Pending") == "Pending":
        return Stage.PENDING
    return Stage.READY if condition_of(pod, "Ready").get("status") == "True" else Stage.NOT_READY


def has_low_cost(pod: Object) -> bool:
    """It bears our deletion cost."""
    return _cost(pod) == LOW_COST


def with_low_cost(pod: Object) -> Object:
    """Return the merge patch that gives a pod our deletion cost; refused if the pod has changed since it was seen.

    The label is one of the template's: that the ReplicaSet's `fullyLabeledReplicas` goes down proves that its
    controller has seen the patch.
    """
    kept = {} if _cost(pod) in {None, LOW_COST} else {KEPT_COST: _cost(pod)}
    return _patch(pod, REMOVABLE, {COST: LOW_COST, **kept})


def without_low_cost(pod: Object) -> Object:
    """Return the merge patch that takes our deletion cost back, and restores what was there before; refused if the pod
    has changed since it was seen."""
    kept = (pod["metadata"].get("annotations") or {}).get(KEPT_COST)
    return _patch(pod, NOT_REMOVABLE, {COST: kept, KEPT_COST: None} if has_low_cost(pod) else {})


def _patch(pod: Object, removable: str, annotations: Object) -> Object:
    seen = {name: pod["metadata"][name] for name in ("uid", "resourceVersion")}
    return {"metadata": {**seen, "labels": {REMOVABLE_LABEL: removable}, "annotations": annotations}}


def _cost(pod: Object) -> str | None:
    return (pod["metadata"].get("annotations") or {}).get(COST)


def replica_sets_of(pods: Iterable[Object]) -> Sequence[str]:
    """Return the names of the ReplicaSets that own these pods."""
    owners = (owner for pod in pods for owner in pod["metadata"].get("ownerReferences") or ())
    return sorted({owner["name"] for owner in owners if owner.get("controller") and owner["kind"] == REPLICA_SET.kind})


def has_settled(deployment: Object | None, replica_sets: Iterable[Object | None]) -> bool:
    """Return whether the controllers have carried out the last change of replicas: no pod will be removed for it.

    A ReplicaSet's status is written after the deletions of the same round have been carried out, so a status of this
    generation that counts no pod too many says that there is nothing left to delete.
    """
    if deployment is None or not is_observed(deployment):
        return False
    return all(
        one is not None and is_observed(one) and _count(one, "replicas") <= replicas_of(one) for one in replica_sets
    )


def has_seen_costs(replica_sets: Sequence[Object], pods: Sequence[Object]) -> bool:
    """Return whether the ReplicaSets' controller has seen every change of these pods' deletion costs.

    A count can be right by chance where some changes add pods and others take some away. So costs may only be changed
    when this holds, and in one direction at a time: then no earlier state had the present count.
    """
    whole = sum(_is_whole(pod, replica_sets) for pod in pods)
    return _sum(replica_sets, "replicas") == len(pods) and _sum(replica_sets, "fullyLabeledReplicas") == whole


def has_seen(deployment: Object, replica_sets: Sequence[Object], pods: Sequence[Object], *, current: int) -> bool:
    """Return whether the ReplicaSet controller knows these pods as they are here, so that it will choose among them by
    what is known here. Presupposes `has_settled` and `has_seen_costs`.

    Where it has no pod to choose (replicas without a pod, since a quota forbids them), the Deployment says so.
    """
    if replicas_of(deployment) != current:
        return False
    if len(pods) < current:
        stuck = condition_of(deployment, "ReplicaFailure").get("status") == "True"
        return stuck and counted_pods(deployment) == len(pods)
    return (
        sum(map(replicas_of, replica_sets)) == current
        and _sum(replica_sets, "readyReplicas") == sum(stage_of(pod) is Stage.READY for pod in pods)
        and not any(has_low_cost(pod) and _is_whole(pod, replica_sets) for pod in pods)
    )


def _is_whole(pod: Object, replica_sets: Iterable[Object]) -> bool:
    """Whether it has all labels of its template: these are the pods that `fullyLabeledReplicas` counts."""
    labels = (pod["metadata"].get("labels") or {}).items()
    return any(one["spec"]["template"]["metadata"]["labels"].items() <= labels for one in replica_sets)


def counted_pods(deployment: Object) -> int:
    """Return how many pods the Deployment's status counts."""
    return _count(deployment, "replicas")


def _count(live: Object, field: str) -> int:
    return int((live.get("status") or {}).get(field, 0))


def _sum(live: Iterable[Object], field: str) -> int:
    return sum(_count(one, field) for one in live)


def summary_of(pods: Sequence[Object], deployment: Object | None, *, now: datetime) -> Pods:
    """How many are where. `pods`: those that serve or will."""
    ready = sum(stage_of(pod) is Stage.READY for pod in pods)
    unschedulable = sum(map(_is_unschedulable, pods))
    failing = sum(map(_fails, pods))
    return Pods(
        ready=ready,
        starting=len(pods) - ready - unschedulable - failing,
        unschedulable=unschedulable,
        failing=failing,
        young=sum((now - _made(pod)).total_seconds() < SCALE_UP_RATE_WINDOW_S for pod in pods),
        rolling_out=_is_rolling_out(deployment, pods),
    )


def is_observed(deployment: Object) -> bool:
    """Its controller has seen the last change, so that its status tells of it."""
    observed: int = (deployment.get("status") or {}).get("observedGeneration", 0)
    wanted: int = deployment["metadata"].get("generation", 0)
    return observed >= wanted


def replicas_of(deployment: Object | None) -> int:
    """How many pods are asked for."""
    return int(deployment["spec"].get("replicas", 1)) if deployment is not None else 0


def start_of(pod: Object) -> timedelta | None:
    """How long it took from its being made to Ready; None: it is not Ready, or not for the first time."""
    ready = condition_of(pod, "Ready")
    if ready.get("status") != "True" or any(one.get("restartCount") for one in _containers(pod)):
        return None
    took_s = (_moment(ready["lastTransitionTime"]) - _made(pod)).total_seconds()
    return timedelta(seconds=min(max(took_s, SHORTEST_START_S), LONGEST_START_S))


def _is_rolling_out(deployment: Object | None, pods: Iterable[Object]) -> bool:
    """Pods of two templates, or some of an older one that have not gone."""
    hashes = {(pod["metadata"].get("labels") or {}).get("pod-template-hash") for pod in pods}
    status: Mapping[str, int] = (deployment or {}).get("status") or {}
    return len(hashes) > 1 or status.get("replicas", 0) > status.get("updatedReplicas", 0)


def _is_unschedulable(pod: Object) -> bool:
    scheduled = condition_of(pod, "PodScheduled")
    return scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"


def _fails(pod: Object) -> bool:
    worker = next((one for one in _containers(pod) if one.get("name") == WORKER), None)
    if worker is None or stage_of(pod) is Stage.READY:
        return False
    waiting = (worker.get("state") or {}).get("waiting") or {}
    return waiting.get("reason") in FAILS or _ended_unready(pod, worker)


def _ended_unready(pod: Object, worker: Mapping[str, Any]) -> bool:
    """Its last end was before it got Ready. The end of a Ready one is what turns the condition: not before the end, and
    after its start, for these times are cut to a second. It comes back, and that is a start like any other."""
    ended, turned = last_end(worker) or {}, condition_of(pod, "Ready").get("lastTransitionTime")
    started, finished = ended.get("startedAt"), ended.get("finishedAt")
    if not (started and finished and turned):  # the kubelet has lost that container
        return False
    return not _moment(started) < _moment(finished) <= _moment(turned)


def _containers(pod: Object) -> Sequence[Mapping[str, Any]]:
    return (pod.get("status") or {}).get("containerStatuses") or ()


def _made(pod: Object) -> datetime:
    return _moment(pod["metadata"]["creationTimestamp"])


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
