"""Claimed jobs, and the outcomes that a worker reports for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, assert_never

from agentqueue.keys import Level
from agentqueue.model.attempts import number_of, returns_of
from agentqueue.model.new_job import NewJob

MAX_JOBS_PER_CALL: Final = 500
"""Maximum number of jobs that one call claims or finishes. It bounds the time for which a script blocks the server."""
MAX_BYTES_PER_CALL: Final = 4 * 1024 * 1024
"""Maximum size of the records that one call claims, and of the outcomes that it records, in bytes."""
SUSPECT_FIELD: Final = "suspect"
"""Field of a job's metadata. Scripts set it to WAITS_TO_RUN_ALONE or RUNS_ALONE (includes/leases.lua)."""
SUSPENDED_BY: Final = "suspended_by"
"""Field of a job's metadata: when the run that suspended it last was claimed, in ms (includes/suspension.lua)."""
RUNS_ALONE: Final = "alone"
"""The suspect has started with nothing beside it, so a crash of its worker counts."""
ENDED_ALONE: Final = ""
"""The job is no longer a suspect."""
KEEP_FOREVER: Final = -1
"""`keep_ms` of a result that never expires."""


@dataclass(frozen=True, slots=True)
class ParentReturn:
    """What a job that ends returns to the parent that waits for it."""

    parent: str
    queue: str
    """Queue of the parent."""
    value: bytes
    """JSON, see `agentqueue.model.child_return`."""


@dataclass(slots=True)  # one per job: freezing makes it three times as slow to make
class Completed:
    """Outcome of a job whose handler has returned. Its children are enqueued in the same call or not at all."""

    id: str
    level: Level
    result: bytes
    keep_ms: int
    """Retention of the result in ms; 0 stores no result, KEEP_FOREVER one that never expires."""
    run_ms: int
    children: Sequence[NewJob] = ()
    has_journal: bool = False
    """The job has a journal, which is deleted."""
    returns: ParentReturn | None = None
    """What the parent that waits for the job gets."""
    has_stream: bool = False
    """The job has emitted events. Its stream gets its end."""


@dataclass(frozen=True, slots=True)
class Rescheduled:
    """Outcome of a failed attempt. The failure is counted, and the next attempt starts after the delay."""

    id: str
    level: Level
    delay_ms: int
    notes: Mapping[str, bytes | str | int] = field(default_factory=dict)
    """Fields to write to the job's meta hash."""


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """Outcome of a job that will not be tried again. Its record is kept with the dead letter, for a replay."""

    id: str
    level: Level
    result: bytes
    keep_ms: int
    """Retention of the result in ms; 0 stores no result, KEEP_FOREVER one that never expires."""
    fingerprint: str
    dead_letter: bytes
    """JSON that says why the job is dead."""
    children: Sequence[NewJob] = ()
    kept: Mapping[str, bytes | str | int] = field(default_factory=dict)
    """Fields of the job's meta hash (checkpoint, journal) that stay with the dead letter. A replay gives them back."""
    returns: ParentReturn | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Outcome of a job that was cancelled, before or while it ran."""

    id: str
    level: Level
    result: bytes
    keep_ms: int
    """Retention of the result in ms; 0 stores no result, KEEP_FOREVER one that never expires."""
    has_journal: bool = False
    """The job has a journal, which is deleted."""
    returns: ParentReturn | None = None
    has_stream: bool = False
    """The job has emitted events. Its stream gets its end."""


@dataclass(frozen=True, slots=True)
class Released:
    """Outcome of a job that goes back to the queue unfinished, without counting an attempt."""

    id: str
    level: Level
    delay_ms: int | None = None
    """Time until the job is due again; None puts it back where it stood."""
    notes: Mapping[str, bytes | str | int] = field(default_factory=dict)
    """Fields to write to the job's meta hash."""


@dataclass(frozen=True, slots=True)
class Suspended:
    """Outcome of a job that waits without a slot. No attempt is counted."""

    id: str
    level: Level
    run_ms: int
    waits: Sequence[str]
    """Fields of the job's journal with its waits. If one has an answer, the job goes back to the queue at once."""
    notes: Mapping[str, bytes | str | int] = field(default_factory=dict)
    """Fields to write to the job's meta hash."""


@dataclass(frozen=True, slots=True)
class Unstarted:
    """Outcome of a claimed job that never started. It goes back to where it stood, and nothing is counted."""

    id: str
    level: Level


Outcome = Completed | Rescheduled | DeadLettered | Cancelled | Released | Suspended | Unstarted


@dataclass(slots=True)  # one per job: freezing makes it three times as slow to make
class Claimed:
    """A job that this worker now holds."""

    id: str
    level: Level
    score: float
    """When the job was due, in ms since the epoch; 1 if arq's abort() has brought it forward."""
    record: bytes | None
    """None if the queue had the ID without a record: it has expired, or was never written."""
    attempts: int
    """Number of attempts that have failed so far."""
    meta: Mapping[str, bytes]
    """errors, crashes, `crash:N`, suspect, releases, progress, checkpoint, expires, and notes of outcomes. If the key
    of the record holds another Redis type, `wrong_type` names that type."""
    cancel: bool
    """Somebody asked to cancel the job before it started."""
    overtaken: int = 0
    """How often a job of a higher priority has passed it while it was the next one to start in its worker."""

    def count(self, name: str) -> int:
        """Return a number in `meta`, such as `crashes`; 0 if it is missing."""
        return number_of(self.meta.get(name))

    @property
    def is_suspect(self) -> bool:
        """Return True if a worker that held the job has crashed, and the job has not ended since. It runs alone."""
        return bool(self.meta.get(SUSPECT_FIELD))

    @property
    def delivery(self) -> int:
        """Return the number of times that the job was started, including this one."""
        return self.attempts + returns_of(self.meta) + 1


def outcome_bytes(outcome: Outcome) -> int:
    """Return about how many bytes an outcome adds to a call."""
    match outcome:
        case Completed(result=result, children=children, returns=returns):
            size = len(result) + sum(len(job.record) for job in children)
            return size if returns is None else size + len(returns.value)
        case DeadLettered(result=result, dead_letter=dead_letter, children=children, kept=kept):
            size = len(result) + len(dead_letter) + sum(len(job.record) for job in children)
            return size + sum(len(str(value)) for value in kept.values())
        case Cancelled(result=result):
            return len(result)
        case Rescheduled(notes=notes) | Released(notes=notes) | Suspended(notes=notes):
            return sum(len(str(value)) for value in notes.values())
        case Unstarted():
            return 0
        case _ as other:
            assert_never(other)
