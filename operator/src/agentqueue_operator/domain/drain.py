"""Scale-in without killing a job: which pods to mark, when to take marks back, and when replicas may be lowered.

A planner over observations, asked again at each look until nothing is left to do; it remembers nothing. The way of a
victim: marked in Redis -> its worker claims no more, ends what it runs and says so. Once nothing runs: annotated with a
low pod-deletion-cost -> the annotation seen in our own watch, and SETTLE_S more -> replicas lowered by as many.

A ReplicaSet removes unscheduled, pending and not-Ready pods before it looks at the cost (tried on Kubernetes 1.35), so
those are victims first; and lowering replicas in the instant of the annotation removed wrong pods, 0.3 s later none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

SETTLE_S = 0.3
"""From an annotation's being seen in our watch to the ReplicaSet controller's having it too."""
ANSWER_S = 30.0
"""A worker silent for so long holds no lease (8 s); one marked, idle and mute for so long is left to SIGTERM."""


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
    draining: bool = False
    """Its last heartbeat says that it claims no more."""
    silent_s: float = 0.0
    """Without a live heartbeat: since when, or since it became Ready."""
    idle_s: float = 0.0
    """For how long no slot has been busy."""
    marked_s: float | None = None
    """For how long it has been marked in Redis; None: it is not."""
    cost_seen_s: float | None = None
    """For how long our watch has shown the low deletion cost; None: it does not."""

    @property
    def works(self) -> bool:
        """Something runs there, or may: a Ready worker without a heartbeat counts as busy until its leases are over."""
        if self.busy is None:
            return self.stage is Stage.READY and self.silent_s < ANSWER_S
        return self.busy > 0

    @property
    def drained(self) -> bool:
        """It may go: nothing runs, and nothing will be claimed. One that never answers is left to SIGTERM's grace."""
        if self.works or self.marked_s is None:
            return False
        return self.stage is not Stage.READY or self.busy is None or self.draining or self.marked_s >= ANSWER_S


@dataclass(frozen=True, slots=True)
class Mark:
    """Tell the worker through Redis to claim no more."""

    pod: str


@dataclass(frozen=True, slots=True)
class Unmark:
    """Take the mark in Redis back: the worker is wanted again, or was never due."""

    pod: str


@dataclass(frozen=True, slots=True)
class SetCost:
    """Annotate the pod with a low deletion cost."""

    pod: str


@dataclass(frozen=True, slots=True)
class ClearCost:
    """Take the annotation back."""

    pod: str


@dataclass(frozen=True, slots=True)
class Lower:
    """Set the Deployment's replicas."""

    replicas: int


Action = Mark | Unmark | SetCost | ClearCost | Lower


def plan_scale_in(
    pods: Iterable[WorkerPod], *, wanted: int, current: int, rolling_out: bool = False
) -> tuple[Action, ...]:
    """What to do now. `current` is the Deployment's replicas, `wanted` what was decided.

    With nothing to remove all marks and annotations are taken back; also in a rollout, where the controller would split
    the loss over two ReplicaSets, past the marks. To zero there is nothing to split: all go, once all may.
    """
    seen = sorted(pods, key=lambda pod: pod.name)
    victims = [] if rolling_out and wanted > 0 else victims_of(seen, leaving=len(seen) - wanted)
    actions = (*_marks(victims), *_taken_back(seen, victims))
    if current <= wanted:
        return actions
    if rolling_out:
        lowered = 0 if wanted == 0 and all(map(_may_go, seen)) else current
    else:
        lowered = _lowest(seen, victims, wanted=wanted, current=current)
    return (*actions, Lower(lowered)) if lowered < current else actions


def victims_of(pods: Iterable[WorkerPod], *, leaving: int) -> list[WorkerPod]:
    """Those that the ReplicaSet would take anyway, then the idle, idle longest first, then those that drain already,
    then the least busy: no busy worker goes while an idle one exists (rule 7). A mark is not moved without need."""
    return sorted(pods, key=_order)[: max(0, leaving)]


def _order(pod: WorkerPod) -> tuple[int, bool, float, str]:
    unmarked = pod.marked_s is None
    if pod.works:
        return Stage.READY + 1, unmarked, pod.busy or 0, pod.name
    return pod.stage, unmarked, -pod.idle_s, pod.name


def _marks(victims: Sequence[WorkerPod]) -> tuple[Action, ...]:
    marks = (Mark(pod.name) for pod in victims if pod.marked_s is None)
    costs = (SetCost(pod.name) for pod in victims if not pod.works and pod.cost_seen_s is None)
    return (*marks, *costs)


def _taken_back(pods: Sequence[WorkerPod], victims: Sequence[WorkerPod]) -> tuple[Action, ...]:
    staying = [pod for pod in pods if pod not in victims]
    marks = (Unmark(pod.name) for pod in staying if pod.marked_s is not None)
    costs = (ClearCost(pod.name) for pod in staying if pod.cost_seen_s is not None)
    return (*marks, *costs)


def _lowest(pods: Sequence[WorkerPod], victims: Sequence[WorkerPod], *, wanted: int, current: int) -> int:
    """The lowest number of replicas that removes nothing but victims that may go.

    Replicas without a pod go first. While more pods than replicas exist, the last scale-in is still under way.
    """
    if len(pods) > current:
        return current
    safe = 0
    for pod in sorted(pods, key=_removal_order):
        if pod not in victims or not _may_go(pod):
            break
        safe += 1
    return max(wanted, len(pods) - safe)


def _may_go(pod: WorkerPod) -> bool:
    return pod.drained and pod.cost_seen_s is not None and pod.cost_seen_s >= SETTLE_S


def _removal_order(pod: WorkerPod) -> tuple[int, bool]:
    """The ReplicaSet's. What it looks at after the cost doesn't matter: only victims bear a cost."""
    return pod.stage, pod.cost_seen_s is None
