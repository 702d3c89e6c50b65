"""What the clients' methods return."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from agentqueue.model.dead_letter import DeadLetter

T = TypeVar("T")


class Cancellation(StrEnum):
    """What `cancel` did."""

    CANCELLED = "cancelled"
    """The job had not started: it is cancelled."""
    REQUESTED = "requested"
    """The job runs: its worker will cancel it within a second."""
    TOO_LATE = "too-late"
    """The job had ended before."""


class Page(list[T]):
    """A part of a longer list. `cursor` asks for the next part; None: this was the last."""

    def __init__(self, items: Iterable[T] = (), cursor: str | None = None) -> None:
        super().__init__(items)
        self.cursor = cursor


@dataclass(frozen=True, slots=True)
class DeadGroup:
    """Dead letters of one kind: same reason, job and error, but for numbers, ids and quoted words."""

    fingerprint: str
    count: int
    newest: DeadLetter


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did: how many jobs run again, and which do not, and why."""

    count: int = 0
    not_found: Sequence[str] = ()
    """No dead letters of this queue (any more)."""
    already_queued: Sequence[str] = ()
    """Enqueued anew under the same id already."""
    no_record: Sequence[str] = ()
    """Died without a record, so there is nothing to run."""

    def __add__(self, other: "Replayed") -> "Replayed":
        return Replayed(
            self.count + other.count,
            [*self.not_found, *other.not_found],
            [*self.already_queued, *other.already_queued],
            [*self.no_record, *other.no_record],
        )

    @property
    def left(self) -> int:
        """How many were not replayed."""
        return len(self.not_found) + len(self.already_queued) + len(self.no_record)
