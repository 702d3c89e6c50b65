"""Scale-in without interrupting a job: which workers to drain, when to keep them after all, when to lower replicas.

`plan_scale_in` is a pure planner without memory. It is called in each reconcile until it returns no action. The steps:

1. A victim gets a drain mark in Redis. Its worker claims no more jobs, finishes those that it runs, and confirms this
   very mark in a heartbeat.
2. Only then the pod gets the lowest pod-deletion-cost.
3. Replicas are lowered only while each pod with that cost is confirmed, by at most the number of such pods.

A pod that stays loses its deletion cost first and its mark last.

The ReplicaSet controller chooses victims by `ActivePodsWithRanks` (kubernetes/pkg/controller/controller_utils.go in
1.35): unscheduled, pending and not-Ready pods go before any cost is compared. So each pod that is not Ready must be
confirmed too. Those that stay are held: they have a drain mark while the scale-in lasts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agentqueue_operator.autoscaling.removal import RequestDrain, Stage, removal_order

SETTLE_S = 0.3
"""Time in seconds until the next reconcile while the controllers have not observed the last change."""
ANSWER_S = 30.0
"""Time in seconds. A worker that has been silent for this long holds no lease, since leases last 8 s and are renewed
before each claim. A worker that does not confirm its mark within this time is passed over in favour of another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPod:
    """A worker pod that does not terminate, as last observed."""

    name: str
    stage: Stage
    busy: int | None = None
    """Busy slots by its last heartbeat; None without a live heartbeat."""
    confirmed: bool = False
    """Its last heartbeat confirms its current drain mark: it claims no more jobs, and no claim is in flight."""
    heard: bool = False
    """It has sent a heartbeat at some time. A worker sends one before its first claim."""
    silent_s: float = 0.0
    """Time in seconds without a live heartbeat, or since it became Ready."""
    idle_s: float = 0.0
    """Time in seconds for which no slot has been busy."""
    marked_s: float | None = None
    """Time in seconds for which it has had a drain mark; None without one."""
    removable: bool = False
    """It has the lowest deletion cost."""

    @property
    def works(self) -> bool:
        """A job runs there, or may run there.

        Without a live heartbeat a worker counts as busy until its leases have expired, unless its pod was never Ready
        and it has never sent a heartbeat.
        """
        if self.busy is None:
            return (self.heard or self.stage is Stage.READY) and self.silent_s < ANSWER_S
        return self.busy > 0

    @property
    def drained(self) -> bool:
        """It may be removed: no job runs there, and it claims none while it has the mark."""
        if self.marked_s is None or self.works:
            return False
        return self.busy is None or self.confirmed

    @property
    def is_unresponsive(self) -> bool:
        """It has not confirmed its mark for too long."""
        return self.marked_s is not None and self.marked_s >= ANSWER_S and not (self.works or self.drained)


@dataclass(frozen=True, slots=True)
class CancelRemoval:
    """Remove the deletion cost of the pod, and then its drain mark: the worker is to stay, or has not confirmed."""

    worker: str
    keep_mark: bool = False
    """Remove the deletion cost only."""


@dataclass(frozen=True, slots=True)
class SetDeletionCost:
    """Annotate the pod with the lowest deletion cost."""

    worker: str


@dataclass(frozen=True, slots=True)
class ScaleDown:
    """Lower the replicas of the Deployment to this number."""

    replicas: int


Action = RequestDrain | CancelRemoval | SetDeletionCost | ScaleDown


def plan_scale_in(
    pods: Iterable[WorkerPod], *, wanted: int, current: int, rolling_out: bool = False
) -> tuple[Action, ...]:
    """Return the actions to carry out now.

    CancelRemoval and ScaleDown may be carried out only after the controllers have carried out the last change of
    replicas. If no pod must be removed, all marks and costs are removed. The same holds in a rollout, where the
    Deployment controller would split a scale-in over two ReplicaSets, regardless of the marks. A scale-in to zero needs
    no choice: replicas are set to zero once all pods have drained.

    Args:
        pods: the pods that serve or will serve.
        wanted: the number of pods that was decided.
        current: the replicas of the Deployment.
        rolling_out: whether there are pods of two templates.
    """
    by_name = sorted(pods, key=lambda pod: pod.name)
    victims = [] if rolling_out and wanted > 0 else victims_of(by_name, leaving=len(by_name) - wanted)
    held: list[WorkerPod] = []
    if victims and current > wanted:
        held = [pod for pod in by_name if pod.stage is not Stage.READY and not pod.works and pod not in victims]
    draining = [*victims, *held]
    cancellations: list[CancelRemoval] = []
    for pod in by_name:
        if pod not in draining and (pod.removable or pod.marked_s is not None):
            cancellations.append(CancelRemoval(pod.name))
        elif pod in draining and pod.removable and not pod.drained:
            cancellations.append(CancelRemoval(pod.name, keep_mark=True))
    actions: tuple[Action, ...] = (
        *(RequestDrain(pod.name) for pod in draining if pod.marked_s is None),
        *(SetDeletionCost(pod.name) for pod in victims if pod.drained and not pod.removable),
        *cancellations,
    )
    if current <= wanted:
        return actions
    if wanted == 0 and all(pod.drained for pod in by_name):
        lowered = 0
    else:
        lowered = current if rolling_out else _lowest(by_name, wanted=wanted, current=current)
    return (*actions, ScaleDown(lowered)) if lowered < current else actions


def victims_of(pods: Iterable[WorkerPod], *, leaving: int) -> list[WorkerPod]:
    """Return the `leaving` pods to remove, in the order of `removal_order`.

    Workers that already have a mark are preferred, so that a mark is not moved without need. Workers that do not
    respond to their mark count as busy.
    """

    def order(pod: WorkerPod) -> tuple[int, bool, bool, float, str]:
        unmarked, must_wait = pod.marked_s is None, pod.works or pod.is_unresponsive
        return removal_order(
            pod.name,
            stage=pod.stage,
            busy=(pod.busy or 0) if must_wait else None,
            idle_s=pod.idle_s,
            preference=(unmarked, pod.is_unresponsive) if must_wait else (not pod.removable, unmarked),
        )

    return sorted(pods, key=order)[: max(0, leaving)]


def _lowest(pods: Sequence[WorkerPod], *, wanted: int, current: int) -> int:
    """Return the lowest number of replicas that removes only drained pods.

    While there are more pods than replicas, the last scale-in is still in progress. Replicas without a pod go first.
    """
    if len(pods) != current:
        return current if len(pods) > current else max(wanted, len(pods))
    if any(not pod.drained for pod in pods if pod.removable or pod.stage is not Stage.READY):
        return current
    return max(wanted, current - sum(pod.removable for pod in pods))
