"""What people see of a job: `JobStatus`, made from all that the server knows of it at one instant. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Final

from agentqueue.client.decoding import decode_snapshot
from agentqueue.keys import Level
from agentqueue.model.attempts import Progress, decode_progress, errors_of, returns_of
from agentqueue.model.dead_letter import DeadLetter, priority_label
from agentqueue.model.exceptions import clean_text
from agentqueue.model.job import OMITTED, JobRecord, State
from agentqueue.model.json import camel
from agentqueue.model.result import ResultRecord
from agentqueue.model.times import LAST_MS, from_ms, iso, iso_of, moment_of
from agentqueue.store import Snapshot, Unreadable

FINAL_STATES: Final = frozenset((State.COMPLETED, State.DEAD, State.CANCELLED))
PAYLOADS: Final = ("data", "result")
"""The fields of a job that lists have on request only: each may have a megabyte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """A job at one instant. Times are UTC."""

    id: str
    queue: str
    name: str
    """Empty where only the history remembers the job, or its record can't be read."""
    state: State
    priority: str
    """urgent, high, normal or low."""
    data: Any
    """The payload; of a plain arq job with several arguments `{args, kwargs}`. OMITTED in lists that were not asked for
    it."""
    progress: Progress | None
    attempts: int
    """Runs that ended by the handler's own doing."""
    deliveries: int
    """Starts, whatever ended them."""
    enqueued_at: datetime | None
    due_at: datetime | None
    """When a delayed job becomes ready: sent for later, or waiting to be tried again. None in any other state."""
    started_at: datetime | None
    """Of the last start that is known."""
    finished_at: datetime | None
    result: Any
    """What the handler returned; None until then. OMITTED in lists that were not asked for it."""
    error: str | None
    """The last error in one line, also while another attempt is due."""
    worker: str | None
    """Who runs it, or ran it last."""
    tags: Sequence[str] = ()
    """The words that it was enqueued with."""
    tenant: str | None = None
    """Whom it is for."""
    trace: str | None = None
    """The W3C `traceparent` that it was enqueued with."""
    parent: str | None = None
    """The id of the job that sent it; of a dead letter's notice, of the job that died."""

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return self.state in FINAL_STATES

    def to_json(self) -> dict[str, Any]:
        """camelCase names and ISO 8601 times, as the command line and HTTP have them; without what was omitted."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {camel(name): _json(value) for name, value in values if value is not OMITTED}


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, Progress):
        return {"percent": value.percent, "message": value.message, "at": iso_of(value.at_ms)}
    return list(value) if isinstance(value, tuple) else value


def status_of(snapshot: Snapshot) -> JobStatus | None:
    """The job's status, or None if the server does not know it.

    Raises:
        Cut: The snapshot holds the heads of records only, and the job must be read whole.
    """
    state = snapshot.state
    if state is None:
        return None
    job = decode_snapshot(snapshot)
    if job.dead_letter is not None:
        return _status_of_dead(snapshot, job.dead_letter, job.result)
    if job.result is not None:
        return _status_of_ended(snapshot, job.result)
    return _status_of_live(snapshot, state, job.record, job.problem)


def listed(status: JobStatus, wanted: Collection[str]) -> JobStatus:
    """Return the status without those of its payloads that are not wanted, and with an id that can be written."""
    return replace(
        status,
        id=clean_text(status.id),
        data=status.data if "data" in wanted else OMITTED,
        result=status.result if "result" in wanted else OMITTED,
    )


def unread_status(unread: Unreadable, state: State) -> JobStatus:
    """Return the status of a job that can't be looked at: its error says why."""
    return JobStatus(
        id=clean_text(unread.id),
        queue=unread.queue,
        name="",
        state=state,
        priority=Level.NORMAL.label,
        data=OMITTED,
        progress=None,
        attempts=0,
        deliveries=0,
        enqueued_at=None,
        due_at=None,
        started_at=None,
        finished_at=None,
        result=OMITTED,
        error=f"it can't be read: {unread.reason}",
        worker=None,
    )


def _status_of_live(snapshot: Snapshot, state: State, record: JobRecord, problem: str | None) -> JobStatus:
    owner, claimed_ms = _holder(snapshot.held)
    errors = errors_of(snapshot.meta)
    started = snapshot.attempts + returns_of(snapshot.meta)
    return JobStatus(
        id=snapshot.id,
        queue=snapshot.queue,
        name=record.name,
        state=state,
        priority=(snapshot.level or Level.NORMAL).label,
        data=record.data,
        progress=decode_progress(snapshot.meta.get("progress")),
        attempts=snapshot.attempts,
        deliveries=started + (state is State.ACTIVE),
        enqueued_at=moment_of(record.enqueued_ms),
        due_at=_due(snapshot) if state is State.DELAYED else None,
        started_at=moment_of(claimed_ms),
        finished_at=None,
        result=None,
        error=errors[-1].line if errors else problem,
        worker=owner,
        **_origin(record),
    )


def _status_of_dead(snapshot: Snapshot, dead_letter: DeadLetter, result: ResultRecord | None) -> JobStatus:
    return JobStatus(
        id=snapshot.id,
        queue=snapshot.queue,
        name=dead_letter.name,
        state=State.DEAD,
        priority=priority_label(dead_letter.priority),
        data=dead_letter.data,
        progress=result.progress if result else None,
        attempts=dead_letter.attempts,
        deliveries=dead_letter.deliveries,
        enqueued_at=moment_of(dead_letter.enqueued_ms),
        due_at=None,
        started_at=moment_of(result.started_ms if result else 0),
        finished_at=moment_of(dead_letter.died_ms),
        result=None,
        error=dead_letter.error,
        worker=result.worker if result else None,
        **_origin(dead_letter),
    )


def _status_of_ended(snapshot: Snapshot, result: ResultRecord) -> JobStatus:
    return JobStatus(
        id=snapshot.id,
        queue=result.queue or snapshot.queue,
        name=result.name,
        state=result.state,
        priority=priority_label(result.priority),
        data=result.data,
        progress=result.progress,
        attempts=result.attempts,
        deliveries=result.deliveries,
        enqueued_at=moment_of(result.enqueued_ms),
        due_at=None,
        started_at=moment_of(result.started_ms),
        finished_at=moment_of(result.finished_ms),
        result=result.result if result.success else None,
        error=result.error,
        worker=result.worker,
        **_origin(result),
    )


def _origin(of: JobRecord | DeadLetter | ResultRecord) -> dict[str, Any]:
    """Where the job comes from and whom it is for."""
    return {"tags": tuple(of.tags), "tenant": of.tenant, "trace": of.trace, "parent": of.parent}


def _holder(held: bytes | None) -> tuple[str | None, int]:
    """Worker id and claim time from `owner|level|old score|claimed ms`; a plain arq worker leaves neither."""
    parts = (held or b"").decode(errors="replace").split("|")
    if len(parts) != 4:
        return None, 0
    return parts[0].partition("/")[0], _ms(parts[3])


def _ms(text: str) -> int:
    """0 for what is no time: any client may have written it."""
    try:
        value = float(text)
    except ValueError:
        return 0
    return int(value) if 0 <= value <= LAST_MS else 0


def _due(snapshot: Snapshot) -> datetime | None:
    """None for a time after the last one that a datetime has: any client may have written the score."""
    score = snapshot.score
    return from_ms(int(score)) if score is not None and 0 <= score <= LAST_MS else None
