"""Claimed jobs, and the outcomes that a worker reports for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from agentqueue.keys import Level
from agentqueue.model.attempts import number_of, returns_of
from agentqueue.model.new_job import NewJob

MAX_STEP: Final = 500
"""The most jobs a step claims or finishes: bounds the time a script keeps the server busy."""
MAX_STEP_BYTES: Final = 4 * 1024 * 1024


@dataclass(slots=True)  # one per job: freezing makes it three times as slow to make
class Done:
    """The handler returned. `children` are sent with it, or not at all (rule 12)."""

    id: str
    level: Level
    result: bytes
    keep_ms: int
    run_ms: int
    children: Sequence[NewJob] = ()


@dataclass(frozen=True, slots=True)
class Again:
    """The attempt failed; the next one starts after the delay. Counts one attempt."""

    id: str
    level: Level
    delay_ms: int
    notes: Mapping[str, bytes | str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bury:
    """The job is dead: `letter` says why; its record is kept for a replay."""

    id: str
    level: Level
    result: bytes
    keep_ms: int
    fingerprint: str
    letter: bytes
    children: Sequence[NewJob] = ()


@dataclass(frozen=True, slots=True)
class Cancel:
    """The job was cancelled, before or while it ran."""

    id: str
    level: Level
    result: bytes
    keep_ms: int


@dataclass(frozen=True, slots=True)
class HandBack:
    """The job goes back unfinished, without an attempt burnt: to where it stood, or after a delay."""

    id: str
    level: Level
    delay_ms: int | None = None
    notes: Mapping[str, bytes | str | int] = field(default_factory=dict)


Outcome = Done | Again | Bury | Cancel | HandBack


@dataclass(slots=True)  # one per job: freezing makes it three times as slow to make
class Claimed:
    """A job this worker now holds."""

    id: str
    level: Level
    score: float
    """When it was due, ms since the epoch (1: arq's abort brought it forward)."""
    record: bytes | None
    """None: the id was in the queue without one (expired, or never written)."""
    attempts: int
    """Attempts that ended in failure so far."""
    meta: Mapping[str, bytes]
    """errors, crashes, `crash:N`, handbacks, progress, checkpoint, expires, and what `notes` wrote; `foreign` if
    there is no record since its key holds another Redis type: which one."""
    cancel: bool
    """Somebody asked to cancel it before it started."""

    def count(self, name: str) -> int:
        """A number in `meta` (crashes, handbacks), 0 if there is none."""
        return number_of(self.meta.get(name))

    @property
    def delivery(self) -> int:
        """How many times it was started, this start included."""
        return self.attempts + returns_of(self.meta) + 1


def outcome_bytes(outcome: Outcome) -> int:
    """About how many bytes the outcome adds to a step."""
    match outcome:
        case Done() | Bury():
            own = len(outcome.result) + (len(outcome.letter) if isinstance(outcome, Bury) else 0)
            return own + sum(len(job.record) for job in outcome.children)
        case Cancel():
            return len(outcome.result)
        case Again() | HandBack():
            return sum(len(str(value)) for value in outcome.notes.values())
