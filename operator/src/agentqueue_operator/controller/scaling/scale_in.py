"""Scale-in without killing a job: which pods to mark, when to take marks back, and when replicas may be lowered.

A planner over observations, asked again at each look until nothing is left to do; it remembers nothing. A victim is
marked in Redis; its worker claims no more, ends what it runs and confirms that very mark in a heartbeat; only then the
pod gets the lowest pod-deletion-cost; only while each pod that bears the cost is confirmed, replicas are lowered, by no
more than there are such pods. A pod that leaves this row loses its cost first and its mark last.

The ReplicaSet controller chooses by `ActivePodsWithRanks` (kubernetes/pkg/controller/controller_utils.go, 1.35):
unscheduled, pending and not-Ready pods go before any cost is looked at. So each pod that is not Ready must be confirmed
too: those that stay are held, that is marked, for as long as the scale-in lasts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

SETTLE_S = 0.3
"""Seconds until the next pass when the API server's controllers have not caught up with the last change."""
ANSWER_S = 30.0
"""Seconds. A worker that was silent for so long holds no lease (8 s), since it renews before it claims; one that hears
of its mark and does not confirm it for so long is passed over in favour of another."""


class Stage(IntEnum):
    """How far a pod has come; a ReplicaSet removes those at a lower stage first."""

    UNSCHEDULED = 0
    PENDING = 1
    NOT_READY = 2
    READY = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPod:
    """A worker pod that does not terminate, as last seen."""

    name: str
    stage: Stage
    busy: int | None = None
    """Busy slots by its last heartbeat; None: there is no live heartbeat."""
    confirmed: bool = False
    """Its last heartbeat names the mark that stands in Redis now: it claims no more, and no claim is under way."""
    heard: bool = False
    """It has sent a heartbeat at some time. A worker does so before it first claims."""
    silent_s: float = 0.0
    """Seconds without a live heartbeat, or since it became Ready."""
    idle_s: float = 0.0
    """Seconds for which no slot has been busy."""
    marked_s: float | None = None
    """Seconds for which it has been marked in Redis; None: it is not."""
    removable: bool = False
    """It bears the lowest deletion cost."""

    @property
    def works(self) -> bool:
        """Whether something runs there, or may. Without a live heartbeat a worker counts as busy until its leases are
        over, unless its pod was never Ready and it never sent one."""
        if self.busy is None:
            return (self.heard or self.stage is Stage.READY) and self.silent_s < ANSWER_S
        return self.busy > 0

    @property
    def drained(self) -> bool:
        """Whether it may go: nothing runs there, and nothing will be claimed while the mark stands."""
        if self.marked_s is None or self.works:
            return False
        return self.busy is None or self.confirmed

    @property
    def mute(self) -> bool:
        """Whether it has left its mark unconfirmed for too long."""
        return self.marked_s is not None and self.marked_s >= ANSWER_S and not (self.works or self.drained)


@dataclass(frozen=True, slots=True)
class Mark:
    """Tell the worker through Redis to claim no more."""

    pod: str


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Remove the pod's deletion cost, and then its mark: the worker is wanted, was never due, or has not confirmed."""

    pod: str
    keep_mark: bool = False


@dataclass(frozen=True, slots=True)
class SetCost:
    """Annotate the pod with the lowest deletion cost."""

    pod: str


@dataclass(frozen=True, slots=True)
class Lower:
    """Set the Deployment's replicas."""

    replicas: int


Action = Mark | TakeBack | SetCost | Lower


def plan_scale_in(
    pods: Iterable[WorkerPod], *, wanted: int, current: int, rolling_out: bool = False
) -> tuple[Action, ...]:
    """Return what to do now.

    TakeBack and Lower may be carried out only once the controllers have carried out the last change of replicas.
    With nothing to remove all marks and costs are taken back; also in a rollout, where the Deployment's controller
    would split the loss over two ReplicaSets, past the marks. To zero there is nothing to choose: all go, once all may.

    Args:
        pods: those that serve or will.
        wanted: the number that was decided.
        current: the Deployment's replicas.
        rolling_out: whether there are pods of two templates.
    """
    seen = sorted(pods, key=lambda pod: pod.name)
    victims = [] if rolling_out and wanted > 0 else victims_of(seen, leaving=len(seen) - wanted)
    held = [pod for pod in seen if _is_held(pod, victims)] if victims and current > wanted else []
    actions = (*_forward([*victims, *held], victims), *_back(seen, victims, held))
    if current <= wanted:
        return actions
    if wanted == 0 and all(pod.drained for pod in seen):
        lowered = 0
    else:
        lowered = current if rolling_out else _lowest(seen, wanted=wanted, current=current)
    return (*actions, Lower(lowered)) if lowered < current else actions


def victims_of(pods: Iterable[WorkerPod], *, leaving: int) -> list[WorkerPod]:
    """Return the pods to remove: those that the ReplicaSet would take anyway, then the idle, idle longest first, then
    those that drain already, then the least busy: no busy worker goes while an idle one exists (rule 7). A mark is not
    moved without need."""
    return sorted(pods, key=_order)[: max(0, leaving)]


def _order(pod: WorkerPod) -> tuple[int, bool, bool, float, str]:
    unmarked = pod.marked_s is None
    if pod.works or pod.mute:
        return Stage.READY + 1, unmarked, pod.mute, pod.busy or 0, pod.name
    return pod.stage, not pod.removable, unmarked, -pod.idle_s, pod.name


def _is_held(pod: WorkerPod, victims: Sequence[WorkerPod]) -> bool:
    return pod.stage is not Stage.READY and not pod.works and pod not in victims


def _forward(marked: Iterable[WorkerPod], victims: Iterable[WorkerPod]) -> tuple[Action, ...]:
    marks = (Mark(pod.name) for pod in marked if pod.marked_s is None)
    costs = (SetCost(pod.name) for pod in victims if pod.drained and not pod.removable)
    return (*marks, *costs)


def _back(pods: Iterable[WorkerPod], victims: Sequence[WorkerPod], held: Sequence[WorkerPod]) -> tuple[Action, ...]:
    def of(pod: WorkerPod) -> TakeBack | None:
        if pod in victims or pod in held:
            return TakeBack(pod.name, keep_mark=True) if pod.removable and not pod.drained else None
        return TakeBack(pod.name) if pod.removable or pod.marked_s is not None else None

    return tuple(filter(None, map(of, pods)))


def _lowest(pods: Sequence[WorkerPod], *, wanted: int, current: int) -> int:
    """Return the lowest number of replicas that removes nothing but drained pods.

    While more pods than replicas exist, the last scale-in is still under way. Replicas without a pod go first.
    """
    if len(pods) != current:
        return current if len(pods) > current else max(wanted, len(pods))
    if any(not pod.drained for pod in pods if pod.removable or pod.stage is not Stage.READY):
        return current
    return max(wanted, current - sum(pod.removable for pod in pods))
