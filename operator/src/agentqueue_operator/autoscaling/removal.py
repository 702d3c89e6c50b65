"""Choice of the workers that a scale-in removes, shared by both hosts."""

from dataclasses import dataclass
from enum import IntEnum


class Stage(IntEnum):
    """Progress of a pod towards Ready. A ReplicaSet removes pods at a lower stage first."""

    UNSCHEDULED = 0
    PENDING = 1
    NOT_READY = 2
    READY = 3


@dataclass(frozen=True, slots=True)
class RequestDrain:
    """Set the drain mark of a worker in Redis: it claims no more jobs and finishes those that it runs."""

    worker: str


def removal_order(
    name: str, *, stage: Stage, busy: int | None, idle_s: float, preference: tuple[bool, bool] = (False, False)
) -> tuple[int, bool, bool, float, str]:
    """Return the key by which workers are sorted for removal; the first one is removed first.

    Workers that do not run jobs go first: those that start, then those that have been idle longest. Busy workers
    follow, the least busy one first. So no busy worker goes while an idle one exists (rule 7).

    Args:
        name: name of the worker, which makes the order unique.
        stage: progress of its pod.
        busy: busy slots of a worker that must be waited for; None if it can be removed without waiting.
        idle_s: time in seconds for which no slot has been busy.
        preference: False goes before True, among workers that are equally far or equally able to go.
    """
    if busy is not None:
        return Stage.READY + 1, *preference, busy, name
    return stage, *preference, -idle_s, name
