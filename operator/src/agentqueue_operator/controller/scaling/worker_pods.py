"""Functions that read the pods and the Deployment of an agent for scaling."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from agentqueue.spec import GROUP
from agentqueue_operator.autoscaling.model import SCALE_UP_RATE_WINDOW_S, Pods
from agentqueue_operator.autoscaling.removal import Stage
from agentqueue_operator.controller.scaling.crashed_workers import FINAL_PHASES, WORKER
from agentqueue_operator.controller.status.pod_problems import CONFIG_REASONS, IMAGE_REASONS, condition_of, last_end
from agentqueue_operator.controller.status.rollout import REVISION_LABEL
from agentqueue_operator.resources.kinds import REPLICA_SET, Object
from agentqueue_operator.resources.render.names import NOT_REMOVABLE, REMOVABLE, REMOVABLE_LABEL
from agentqueue_operator.resources.render.objects import digest

COST: Final = "controller.kubernetes.io/pod-deletion-cost"
LOW_COST: Final = str(-(2**31))
"""Our deletion cost: the lowest possible value, so that no cost set by others sorts before it."""
KEPT_COST: Final = f"{GROUP}/kept-pod-deletion-cost"
"""Annotation with the cost that others had set on the pod, for the time in which it has ours."""
FAILED_WAITING_REASONS: Final = frozenset({"CrashLoopBackOff", *IMAGE_REASONS, *CONFIG_REASONS})
"""Waiting reasons of a container that will not become Ready by itself."""
LONGEST_START_S: Final = 600.0
"""Upper bound of a measured start in seconds. A longer start waited for a node or for a missing image."""
SHORTEST_START_S: Final = 0.5
"""Lower bound of a measured start in seconds, because the times in the status of pods have a resolution of a second."""


def serves_or_will(pod: Object) -> bool:
    """Return whether a ReplicaSet counts the pod: it has not ended and does not terminate."""
    return not is_leaving(pod) and (pod.get("status") or {}).get("phase") not in FINAL_PHASES


def is_leaving(pod: Object) -> bool:
    """Return whether the pod terminates."""
    return "deletionTimestamp" in pod["metadata"]


def stage_of(pod: Object) -> Stage:
    """Return the progress of the pod towards Ready."""
    if not (pod.get("spec") or {}).get("nodeName"):
        return Stage.UNSCHEDULED
    if (pod.get("status") or {}).get("phase", "Pending") == "Pending":
        return Stage.PENDING
    return Stage.READY if condition_of(pod, "Ready").get("status") == "True" else Stage.NOT_READY


def has_low_cost(pod: Object) -> bool:
    """Return whether the pod has our deletion cost."""
    return _cost(pod) == LOW_COST


def with_low_cost(pod: Object) -> Object:
    """Return the merge patch that sets our deletion cost. It is refused if the pod has changed since it was read.

    The patch also changes a label of the pod template. The decrease of `fullyLabeledReplicas` in the ReplicaSet then
    proves that its controller has observed the patch.
    """
    kept = {} if _cost(pod) in {None, LOW_COST} else {KEPT_COST: _cost(pod)}
    return _patch(pod, REMOVABLE, {COST: LOW_COST, **kept})


def without_low_cost(pod: Object) -> Object:
    """Return the merge patch that removes our deletion cost and restores the earlier one.

    It is refused if the pod has changed since it was read.
    """
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


def template_of(live: Object) -> str:
    """Return the digest of the pod template of a Deployment or ReplicaSet. They are equal if the first made the second.

    The label by which a ReplicaSet finds its pods is left out, as the Deployment controller does.
    """
    template: Object = live["spec"].get("template") or {}
    metadata = template.get("metadata") or {}
    labels = {name: value for name, value in (metadata.get("labels") or {}).items() if name != REVISION_LABEL}
    return digest({**template, "metadata": {**metadata, "labels": labels}})


def has_settled(deployment: Object | None, replica_sets: Iterable[Object | None]) -> bool:
    """Return whether the controllers have carried out the last change of replicas, so that no pod is removed for it.

    A ReplicaSet controller writes the status after the deletions of the same sync. So a status of the current
    generation that does not count too many pods proves that no deletion is left.
    """
    if deployment is None or not is_observed(deployment):
        return False
    return all(
        one is not None and is_observed(one) and _count(one, "replicas") <= replicas_of(one) for one in replica_sets
    )


def has_seen_costs(replica_sets: Sequence[Object], pods: Sequence[Object]) -> bool:
    """Return whether the ReplicaSet controller has observed every change of the deletion costs of these pods.

    A count could be right by chance if some changes increase it and others decrease it. So costs may be changed only
    when this holds, and in one direction at a time. Then no earlier state had the present count.
    """
    whole = sum(_is_whole(pod, replica_sets) for pod in pods)
    return _sum(replica_sets, "replicas") == len(pods) and _sum(replica_sets, "fullyLabeledReplicas") == whole


def has_seen(deployment: Object, replica_sets: Sequence[Object], pods: Sequence[Object], *, current: int) -> bool:
    """Return whether the ReplicaSet controller has observed these pods in their present state.

    It then chooses its victims by that state. `has_settled` and `has_seen_costs` must hold already. If there are
    replicas without a pod, because a quota forbids them, the status of the Deployment shows it.
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
    """Return whether the pod has all labels of its template, so that `fullyLabeledReplicas` counts it."""
    labels = (pod["metadata"].get("labels") or {}).items()
    return any(one["spec"]["template"]["metadata"]["labels"].items() <= labels for one in replica_sets)


def counted_pods(deployment: Object) -> int:
    """Return the number of pods in the status of the Deployment."""
    return _count(deployment, "replicas")


def _count(live: Object, field: str) -> int:
    return int((live.get("status") or {}).get(field, 0))


def _sum(live: Iterable[Object], field: str) -> int:
    return sum(_count(one, field) for one in live)


def summary_of(pods: Sequence[Object], deployment: Object | None, *, now: datetime) -> Pods:
    """Return the number of pods by state. `pods`: the pods that serve or will serve; `now`: wall clock."""
    ready = sum(stage_of(pod) is Stage.READY for pod in pods)
    scheduled = [condition_of(pod, "PodScheduled") for pod in pods]
    unschedulable = sum(one.get("status") == "False" and one.get("reason") == "Unschedulable" for one in scheduled)
    failing = sum(map(_fails, pods))
    # In a rollout there are pods of two templates, or pods of an older one that have not ended.
    templates = {(pod["metadata"].get("labels") or {}).get("pod-template-hash") for pod in pods}
    status: Mapping[str, int] = (deployment or {}).get("status") or {}
    return Pods(
        ready=ready,
        starting=len(pods) - ready - unschedulable - failing,
        unschedulable=unschedulable,
        failing=failing,
        young=sum((now - _made(pod)).total_seconds() < SCALE_UP_RATE_WINDOW_S for pod in pods),
        rolling_out=len(templates) > 1 or status.get("replicas", 0) > status.get("updatedReplicas", 0),
    )


def is_observed(deployment: Object) -> bool:
    """Return whether the status of the Deployment reflects its last change."""
    observed: int = (deployment.get("status") or {}).get("observedGeneration", 0)
    wanted: int = deployment["metadata"].get("generation", 0)
    return observed >= wanted


def replicas_of(deployment: Object | None) -> int:
    """Return the number of pods requested; 0 without a Deployment."""
    return int(deployment["spec"].get("replicas", 1)) if deployment is not None else 0


def start_of(pod: Object) -> timedelta | None:
    """Return the time from the creation of the pod until Ready; None if it is not Ready, or not for the first time."""
    ready = condition_of(pod, "Ready")
    if ready.get("status") != "True" or any(one.get("restartCount") for one in _containers(pod)):
        return None
    took_s = (_moment(ready["lastTransitionTime"]) - _made(pod)).total_seconds()
    return timedelta(seconds=min(max(took_s, SHORTEST_START_S), LONGEST_START_S))


def _fails(pod: Object) -> bool:
    worker = next((one for one in _containers(pod) if one.get("name") == WORKER), None)
    if worker is None or stage_of(pod) is Stage.READY:
        return False
    waiting = (worker.get("state") or {}).get("waiting") or {}
    return waiting.get("reason") in FAILED_WAITING_REASONS or _ended_unready(pod, worker)


def _ended_unready(pod: Object, worker: Mapping[str, Any]) -> bool:
    """Return whether the last container of the worker ended before it became Ready.

    The end of a Ready container changes the condition `Ready`: not before that end, and after the start of the
    container, since these times are truncated to a second. The restart of such a container is a normal start.
    """
    ended, turned = last_end(worker) or {}, condition_of(pod, "Ready").get("lastTransitionTime")
    started, finished = ended.get("startedAt"), ended.get("finishedAt")
    if not (started and finished and turned):  # The kubelet has lost that container.
        return False
    return not _moment(started) < _moment(finished) <= _moment(turned)


def _containers(pod: Object) -> Sequence[Mapping[str, Any]]:
    return (pod.get("status") or {}).get("containerStatuses") or ()


def _made(pod: Object) -> datetime:
    return _moment(pod["metadata"]["creationTimestamp"])


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
