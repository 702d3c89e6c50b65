"""Outcomes that wait for the next round trip. Those with children are sent apart from the others."""

from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import Final

from agentqueue.model.outcomes import (
    MAX_BYTES_PER_CALL,
    MAX_JOBS_PER_CALL,
    Cancelled,
    Completed,
    DeadLettered,
    Outcome,
    outcome_bytes,
)

MAX_CHILDREN_PER_ROUND_TRIP: Final = 1_000
"""Maximum number of children in one round trip. It bounds the time for which one script keeps the server busy."""
MAX_RETURNS_PER_ROUND_TRIP: Final = 50
"""Maximum number of jobs in one round trip that return to a parent. Each takes the server as long as 20 children."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Outcomes of one round trip."""

    outcomes: list[Outcome]
    has_children: bool
    """The outcomes have children. A full server refuses such a round trip as a whole, so it claims nothing."""


class Outbox:
    """Two queues of outcomes, those with and those without children. Each keeps its order, and they take turns."""

    __slots__ = ("_plain", "_with_children", "_with_children_next", "blocked_until")

    def __init__(self) -> None:
        self._plain: deque[Outcome] = deque()
        self._with_children: deque[Outcome] = deque()
        self._with_children_next = False
        self.blocked_until: float | None = None
        """If the server is full, the time before which outcomes with children are not sent, in monotonic seconds."""

    def __len__(self) -> int:
        return len(self._plain) + len(self._with_children)

    @property
    def blocked(self) -> int:
        """Number of outcomes that a full server refuses.

        Their jobs keep their slots, so the backlog of unrecorded outcomes stays bounded.
        """
        return 0 if self.blocked_until is None else len(self._with_children)

    def add(self, outcome: Outcome) -> None:
        """Add an outcome that is recorded with one of the next round trips."""
        if (type(outcome) is Completed or type(outcome) is DeadLettered) and outcome.children:
            self._with_children.append(outcome)
        else:
            self._plain.append(outcome)

    def ready(self, now: float) -> bool:
        """Return True if an outcome may be sent now. `now` is in monotonic seconds."""
        return bool(self._plain) or self._with_children_ready(now)

    def _with_children_ready(self, now: float) -> bool:
        return bool(self._with_children) and (self.blocked_until is None or now >= self.blocked_until)

    def take(self, now: float) -> Batch:
        """Remove and return the outcomes of the next round trip, within its limits."""
        self._with_children_next = self._with_children_ready(now) and (self._with_children_next or not self._plain)
        has_children = self._with_children_next
        self._with_children_next = not has_children  # if neither queue is empty, they take turns
        queue = self._with_children if has_children else self._plain
        return Batch([queue.popleft() for _ in range(_count_in_bounds(queue))], has_children)

    def refused(self, batch: Batch, *, retry_at: float) -> None:
        """Put a batch that a full server refused back to the head of its queue, until `retry_at` (monotonic)."""
        self.blocked_until = retry_at
        self._with_children.extendleft(reversed(batch.outcomes))

    def accepted(self, batch: Batch) -> None:
        """Handle that a batch is recorded."""
        if batch.has_children:
            self.blocked_until = None

    def take_all_with_children(self) -> list[Outcome]:
        """Remove and return all outcomes with children, whose jobs are released instead."""
        outcomes = list(self._with_children)
        self._with_children.clear()
        return outcomes


def _count_in_bounds(queue: deque[Outcome]) -> int:
    """Return how many outcomes at the head of the queue fit into one round trip: at least one, if there is any."""
    size = children = returns = 0
    for count, outcome in enumerate(islice(queue, MAX_JOBS_PER_CALL)):
        if type(outcome) is Completed and not outcome.children and outcome.returns is None:  # most jobs
            size += len(outcome.result)
        else:
            size += outcome_bytes(outcome)
            children += len(outcome.children) if isinstance(outcome, Completed | DeadLettered) else 0
            returns += isinstance(outcome, Completed | DeadLettered | Cancelled) and outcome.returns is not None
        is_too_much = (
            size > MAX_BYTES_PER_CALL or children > MAX_CHILDREN_PER_ROUND_TRIP or returns > MAX_RETURNS_PER_ROUND_TRIP
        )
        if is_too_much:
            return max(count, 1)
    return min(len(queue), MAX_JOBS_PER_CALL)
