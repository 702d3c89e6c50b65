"""Outcomes on their way to Redis: they ride with the next step, those with children apart from the others."""

from collections import deque
from dataclasses import dataclass
from typing import Final

from agentqueue.model.outcomes import (
    MAX_BYTES_PER_CALL,
    MAX_JOBS_PER_CALL,
    Completed,
    DeadLettered,
    Outcome,
    outcome_bytes,
)

MAX_CHILDREN_PER_STEP: Final = 1_000
"""Bounds the time that one script keeps the server busy."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step takes along."""

    outcomes: list[Outcome]
    has_children: bool
    """They have children: the step is refused as a whole on a full server, so it claims nothing."""


class Outbox:
    """Keeps order within each of its two rows, and lets neither starve the other."""

    __slots__ = ("_plain", "_with_children", "_with_children_next", "blocked_until")

    def __init__(self) -> None:
        self._plain: deque[Outcome] = deque()
        self._with_children: deque[Outcome] = deque()
        self._with_children_next = False
        self.blocked_until: float | None = None
        """The server is full: those with children are not tried again before then (monotonic)."""

    def __len__(self) -> int:
        return len(self._plain) + len(self._with_children)

    @property
    def blocked(self) -> int:
        """Outcomes that a full server refuses: their jobs keep their slots, so that not ever more of them pile up."""
        return 0 if self.blocked_until is None else len(self._with_children)

    def add(self, outcome: Outcome) -> None:
        """An outcome to record."""
        has_children = isinstance(outcome, Completed | DeadLettered) and outcome.children
        (self._with_children if has_children else self._plain).append(outcome)

    def ready(self, now: float) -> bool:
        """Whether there is one that may be sent now."""
        return bool(self._plain) or self._with_children_ready(now)

    def _with_children_ready(self, now: float) -> bool:
        return bool(self._with_children) and (self.blocked_until is None or now >= self.blocked_until)

    def take(self, now: float) -> Batch:
        """What goes with the next step, within the limits of a step. It is out of the box then."""
        self._with_children_next = self._with_children_ready(now) and (self._with_children_next or not self._plain)
        has_children = self._with_children_next
        self._with_children_next = not has_children  # with both rows filled they take turns
        row = self._with_children if has_children else self._plain
        if not has_children and len(row) <= 16:  # the hot path: few and small
            return Batch(self._take_few(row), has_children=False)
        return Batch(_take_bounded(row), has_children)

    def _take_few(self, row: deque[Outcome]) -> list[Outcome]:
        if sum(map(outcome_bytes, row)) > MAX_BYTES_PER_CALL:
            return _take_bounded(row)
        out = list(row)
        row.clear()
        return out

    def refused(self, batch: Batch, *, retry_at: float) -> None:
        """The server was full: the batch waits at the head of its row."""
        self.blocked_until = retry_at
        self._with_children.extendleft(reversed(batch.outcomes))

    def accepted(self, batch: Batch) -> None:
        """The batch is recorded."""
        if batch.has_children:
            self.blocked_until = None

    def take_all_with_children(self) -> list[Outcome]:
        """Give up on those with children: their jobs have to be handed back instead."""
        out = list(self._with_children)
        self._with_children.clear()
        return out


def _take_bounded(row: deque[Outcome]) -> list[Outcome]:
    out: list[Outcome] = []
    size = children = 0
    while row and len(out) < MAX_JOBS_PER_CALL:
        size += outcome_bytes(row[0])
        children += _children(row[0])
        if out and (size > MAX_BYTES_PER_CALL or children > MAX_CHILDREN_PER_STEP):
            break
        out.append(row.popleft())
    return out


def _children(outcome: Outcome) -> int:
    return len(outcome.children) if isinstance(outcome, Completed | DeadLettered) else 0
