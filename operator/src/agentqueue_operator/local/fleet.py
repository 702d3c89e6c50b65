"""Plan for the workers of one agent on this machine: which of them to start, to drain and to stop."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agentqueue_operator.autoscaling.removal import RequestDrain, Stage, removal_order


class Phase(StrEnum):
    """Phase in the life of a worker."""

    STARTING = "starting"
    """No heartbeat yet: it may still import its handlers, or be about to claim its first job."""
    READY = "ready"
    DRAINING = "draining"
    """It has a drain mark: from its next lease renewal on it claims no more jobs."""
    STOPPING = "stopping"
    """It was asked to stop (SIGTERM)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A worker as last observed."""

    name: str
    phase: Phase
    busy: int = 0
    """Slots that run a job."""
    idle_s: float = 0.0
    """Time in seconds for which no slot has run a job."""
    drained: bool = False
    """No job runs there, and it has confirmed its drain mark or was marked before its first heartbeat."""
    outdated: bool = False
    """Its code or its settings have changed since it started."""


@dataclass(frozen=True, slots=True)
class StartWorkers:
    """Start this number of workers."""

    count: int


@dataclass(frozen=True, slots=True)
class CancelDrain:
    """Remove the drain mark of a worker: it is to serve again."""

    worker: str


@dataclass(frozen=True, slots=True)
class StopWorker:
    """Stop a worker (SIGTERM) that runs no job and claims none."""

    worker: str


Action = StartWorkers | RequestDrain | CancelDrain | StopWorker


def plan(members: Iterable[Member], *, wanted: int, may_start: int) -> tuple[Action, ...]:
    """Return the actions to carry out now. It is called after each read, until it returns no action.

    A busy worker is not stopped: it gets a drain mark, and is stopped when it has drained. The same holds for a worker
    that starts, because it may be about to claim its first job. An outdated worker serves until an up-to-date one is
    ready in its place.

    Args:
        members: the workers of the agent.
        wanted: number of workers that was decided.
        may_start: number of workers that may be started now; it is limited while workers crash.
    """
    by_name = sorted(members, key=lambda member: member.name)
    current = [m for m in by_name if m.phase in (Phase.STARTING, Phase.READY) and not m.outdated]
    leaving = in_removal_order(current)[: max(0, len(current) - wanted)]
    # Outdated workers go when they only start, or when their successor is ready.
    outdated = [m for m in by_name if m.outdated and m.phase is Phase.READY]
    ready = sum(m.phase is Phase.READY for m in current)
    leaving += [m for m in by_name if m.outdated and m.phase is Phase.STARTING]
    leaving += in_removal_order(outdated)[: max(0, len(outdated) + ready - wanted)]
    return (
        *_add(by_name, missing=wanted - len(current), may_start=may_start),
        *(RequestDrain(m.name) for m in leaving),
        *(StopWorker(m.name) for m in by_name if m.phase is Phase.DRAINING and m.drained),
    )


def in_removal_order(members: Iterable[Member]) -> list[Member]:
    """Return the workers in the order in which they are removed; see `removal_order`."""

    def order(member: Member) -> tuple[int, bool, bool, float, str]:
        stage = Stage.PENDING if member.phase is Phase.STARTING else Stage.READY
        return removal_order(member.name, stage=stage, busy=member.busy or None, idle_s=member.idle_s)

    return sorted(members, key=order)


def _add(members: Sequence[Member], *, missing: int, may_start: int) -> tuple[Action, ...]:
    """Return the actions that add workers.

    Draining workers are kept before new ones are started, unless they have drained already.
    """
    if missing <= 0:
        return ()
    back = [m for m in members if m.phase is Phase.DRAINING and not m.outdated and not m.drained][:missing]
    count = min(missing - len(back), may_start)
    return (*(CancelDrain(m.name) for m in back), *((StartWorkers(count),) if count > 0 else ()))
