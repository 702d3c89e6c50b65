"""Return types of the clients."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from agentqueue.model.dead_letter import DeadLetter

T = TypeVar("T")


class Cancellation(StrEnum):
    """Outcome of `cancel`."""

    CANCELLED = "cancelled"
    """The job had not started and is cancelled."""
    REQUESTED = "requested"
    """The job runs. Its worker cancels it within a second."""
    TOO_LATE = "too-late"
    """The job had already ended."""


class Page(list[T]):
    """A part of a longer list. Pass `cursor` to get the next part; None means that this is the last one."""

    def __init__(self, items: Iterable[T] = (), cursor: str | None = None) -> None:
        super().__init__(items)
        self.cursor = cursor


@dataclass(frozen=True, slots=True)
class DeadGroup:
    """Dead letters with the same fingerprint: reason, job and error are equal, apart from numbers, IDs and quotes."""

    fingerprint: str
    count: int
    newest: DeadLetter


@dataclass(frozen=True, slots=True)
class Replayed:
    """Outcome of a replay: the number of jobs that run again, and the IDs of those that do not."""

    count: int = 0
    not_found: Sequence[str] = ()
    """IDs that have no dead letter in this queue."""
    already_queued: Sequence[str] = ()
    """IDs that have been enqueued again already."""
    no_record: Sequence[str] = ()
    """IDs of jobs that died without a record, so that there is nothing to run."""
    no_step: Sequence[str] = ()
    """IDs of jobs whose journal does not have the step from which they were to run again."""

    def __add__(self, other: "Replayed") -> "Replayed":
        return Replayed(
            self.count + other.count,
            [*self.not_found, *other.not_found],
            [*self.already_queued, *other.already_queued],
            [*self.no_record, *other.no_record],
            (*self.no_step, *other.no_step),
        )

    @property
    def left(self) -> int:
        """Return the number of dead letters that were not replayed."""
        return len(self.not_found) + len(self.already_queued) + len(self.no_record) + len(self.no_step)
