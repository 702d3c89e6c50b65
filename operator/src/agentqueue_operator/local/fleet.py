"""Which of an agent's workers to start, to drain and to end, so that as many serve as are wanted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """Where a worker is in its life."""

    STARTING = "starting"
    """No heartbeat yet: it may still import its handlers, or be about to claim its first job."""
    READY = "ready"
    DRAINING = "draining"
    """Marked in Redis: from its next renewal on it claims no more."""
    ENDING = "ending"
    """Told to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A worker as last seen."""

    name: str
    phase: Phase
    busy: int = 0
    """Slots that run a job."""
    idle_s: float = 0.0
    """For how long no slot has run a job."""
    drained: bool = False
    """It has confirmed its mark, or was marked before its first heartbeat, and nothing runs: it claims no more."""
    outdated: bool = False
    """It runs code or settings that have changed since it started."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start so many workers."""

    count: int


@dataclass(frozen=True, slots=True)
class Mark:
    """Ask a worker, through Redis, to claim no more."""

    name: str


@dataclass(frozen=True, slots=True)
class Unmark:
    """Take the mark back: the worker is wanted again."""

    name: str


@dataclass(frozen=True, slots=True)
class End:
    """Stop a worker (SIGTERM): it runs nothing, and claims nothing."""

    name: str


Action = Start | Mark | Unmark | End


def plan(members: Iterable[Member], *, wanted: int, may_start: int) -> tuple[Action, ...]:
    """What to do now; asked again after each look, until nothing is left to do.

    No busy worker is ended: it is marked, and ended once it is drained; nor is one that starts, since it may be about
    to claim its first job. Outdated workers serve
    on until an up-to-date one is ready in their place. `may_start` holds starts back while workers crash.
    """
    by_name = sorted(members, key=lambda member: member.name)
    fresh = [m for m in by_name if m.phase in (Phase.STARTING, Phase.READY) and not m.outdated]
    return (
        *_supply(by_name, missing=wanted - len(fresh), may_start=may_start),
        *_leave(in_order_to_leave(fresh)[: max(0, len(fresh) - wanted)]),
        *_replace([m for m in by_name if m.outdated], fresh, wanted=wanted),
        *(End(m.name) for m in by_name if m.phase is Phase.DRAINING and m.drained),
    )


def in_order_to_leave(members: Iterable[Member]) -> list[Member]:
    """Those that start first, then the idle ones, idle longest first, then the least busy: as a ReplicaSet, but for the
    last step (rule 7)."""
    return sorted(members, key=lambda m: (m.phase is not Phase.STARTING, m.busy, -m.idle_s, m.name))


def _supply(members: Sequence[Member], *, missing: int, may_start: int) -> tuple[Action, ...]:
    """Workers on their way out come back before new ones are started; those that are drained have given up."""
    if missing <= 0:
        return ()
    back = [m for m in members if m.phase is Phase.DRAINING and not m.outdated and not m.drained][:missing]
    count = min(missing - len(back), may_start)
    return (*(Unmark(m.name) for m in back), *((Start(count),) if count > 0 else ()))


def _leave(members: Iterable[Member]) -> tuple[Action, ...]:
    return tuple(Mark(m.name) for m in members)


def _replace(outdated: Sequence[Member], fresh: Sequence[Member], *, wanted: int) -> tuple[Action, ...]:
    serving = [m for m in outdated if m.phase is Phase.READY]
    ready = sum(m.phase is Phase.READY for m in fresh)
    leaving = in_order_to_leave(serving)[: max(0, len(serving) + ready - wanted)]
    return _leave([*(m for m in outdated if m.phase is Phase.STARTING), *leaving])
