"""Build `JobStatus`, a job as users see it, from its decoded snapshot. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Final

from agentqueue.client.decoding import decode_snapshot
from agentqueue.keys import Level
from agentqueue.model.attempts import Progress, decode_progress, errors_of, returns_of, snoozes_of
from agentqueue.model.dead_letter import DeadLetter, priority_label
from agentqueue.model.exceptions import clean_text
from agentqueue.model.job import OMITTED, JobRecord, State
from agentqueue.model.journal import RUNNING_STEPS, STEP_ENDED, RunningStep, StepRecord, decode_running, step_to_json
from agentqueue.model.json import camel
from agentqueue.model.result import ResultRecord
from agentqueue.model.times import LAST_MS, from_ms, iso, iso_of, moment_of
from agentqueue.store import Snapshot, Unreadable

FINAL_STATES: Final = frozenset((State.COMPLETED, State.DEAD, State.CANCELLED))
"""States of jobs that have ended."""
PAYLOADS: Final = ("data", "result")
"""Fields that lists include on request only, since each may have a megabyte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """The status of a job. Times are in UTC."""

    id: str
    queue: str
    name: str
    """The job's name. Empty if only the history has the job, or its record cannot be read."""
    state: State
    priority: str
    """urgent, high, normal or low."""
    data: Any
    """The payload. A plain arq job with several arguments has `{args, kwargs}`. OMITTED in lists that leave it out."""
    progress: Progress | None
    attempts: int
    """Number of runs that ended with a result or an error of the handler."""
    deliveries: int
    """Number of starts, including those that a crash or a drain ended."""
    enqueued_at: datetime | None
    due_at: datetime | None
    """Time at which a delayed job becomes ready, for a later start or the next attempt, and at which a suspended one
    goes on at the latest. None in any other state, and for a suspended job that no time wakes."""
    started_at: datetime | None
    """Time of the last known start."""
    finished_at: datetime | None
    result: Any
    """Result of the handler; None until it has returned. OMITTED in lists that leave it out."""
    error: str | None
    """The last error in one line. A job that waits for its next attempt has one too."""
    worker: str | None
    """Name of the worker that runs the job, or ran it last."""
    tags: Sequence[str] = ()
    """Tags of the job."""
    tenant: str | None = None
    """Tenant of the job."""
    trace: str | None = None
    """W3C `traceparent` of the job."""
    parent: str | None = None
    """ID of the job that enqueued this one. A dead-letter notification has the ID of the dead job."""
    snoozes: int = 0
    """Number of times that the handler raised Snooze. Known until the job ends."""
    snooze: str | None = None
    """The reason of the last Snooze. Known until the job ends."""
    waits_for: str | None = None
    """What a suspended job waits for, such as `the signal approval`. None in any other state."""
    suspended_at: datetime | None = None
    """Time since which the job is suspended. None in any other state."""
    children: int = 0
    """Number of children that it has asked for with `ctx.child`. Known until the job ends."""
    children_ended: int = 0
    """Number of these that have ended."""

    schedule: str | None = None
    """Name of the schedule whose tick this job is. Known until the job ends."""
    scheduled_for: datetime | None = None
    """Due time of the tick. Known until the job ends."""
    steps: Sequence[StepRecord] = ()
    """The last 200 steps of the job (`ctx.step`), without their values. Empty in lists."""
    running_steps: Sequence[RunningStep] = ()
    """Steps whose functions run now, and have run for a second at least."""

    @property
    def is_final(self) -> bool:
        """Return whether the job has ended."""
        return self.state in FINAL_STATES

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON types, with camelCase names and ISO 8601 times. OMITTED fields are left out."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {camel(name): _json(value) for name, value in values if value is not OMITTED}


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, Progress):
        return {"percent": value.percent, "message": value.message, "at": iso_of(value.at_ms)}
    if isinstance(value, StepRecord):
        return step_to_json(value)
    if isinstance(value, RunningStep):
        return {"name": value.name, "since": iso_of(value.since_ms), "attempt": value.attempt}
    return [_json(item) for item in value] if isinstance(value, tuple) else value


def status_of(snapshot: Snapshot) -> JobStatus | None:
    """Return the status of a job, or None if the server does not know it.

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


def select_payloads(status: JobStatus, wanted: Collection[str]) -> JobStatus:
    """Return the status without the payloads that are not wanted, and with an ID that can be encoded."""
    return replace(
        status,
        id=clean_text(status.id),
        data=status.data if "data" in wanted else OMITTED,
        result=status.result if "result" in wanted else OMITTED,
    )


def unreadable_status(unread: Unreadable, state: State) -> JobStatus:
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
    snoozes, snooze = snoozes_of(snapshot.meta)
    suspension = snapshot.suspension if state is State.SUSPENDED else None
    deliveries = started + (state is State.ACTIVE)
    ended = {step.name for step in snapshot.steps if step.outcome in STEP_ENDED}
    runs = state is State.ACTIVE and not snapshot.is_truncated
    running = decode_running(snapshot.meta.get(RUNNING_STEPS), deliveries, ended) if runs else []
    has_due_time = state is State.DELAYED or (suspension is not None and suspension.until_ms is not None)
    return JobStatus(
        id=snapshot.id,
        queue=snapshot.queue,
        name=record.name,
        state=state,
        priority=(snapshot.level or Level.NORMAL).label,
        data=record.data,
        progress=decode_progress(snapshot.meta.get("progress")),
        attempts=snapshot.attempts,
        deliveries=deliveries,
        enqueued_at=moment_of(record.enqueued_ms),
        due_at=_due(snapshot) if has_due_time else None,
        started_at=moment_of(claimed_ms),
        finished_at=None,
        result=None,
        error=errors[-1].line if errors else problem,
        worker=owner,
        snoozes=snoozes,
        snooze=snooze,
        waits_for=None if suspension is None else suspension.text,
        suspended_at=None if suspension is None else moment_of(suspension.since_ms),
        children=snapshot.children[0],
        children_ended=snapshot.children[1],
        schedule=None if record.tick is None else record.tick[0],
        scheduled_for=None if record.tick is None else moment_of(record.tick[1]),
        steps=tuple(snapshot.steps),
        running_steps=tuple(running),
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
        steps=tuple(snapshot.steps),
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
        steps=tuple(result.steps),
        **_origin(result),
    )


def _origin(of: JobRecord | DeadLetter | ResultRecord) -> dict[str, Any]:
    """Return the fields on a job's origin, which all records have."""
    return {"tags": tuple(of.tags), "tenant": of.tenant, "trace": of.trace, "parent": of.parent}


def _holder(held: bytes | None) -> tuple[str | None, int]:
    """Return worker name and claim time (ms) of `owner|level|old score|claimed ms`. A plain arq worker has neither."""
    parts = (held or b"").decode(errors="replace").split("|")
    if len(parts) != 4:
        return None, 0
    return parts[0].partition("/")[0], _ms(parts[3])


def _ms(text: str) -> int:
    """Return a time in ms, or 0 for text that is no time. Any client may have written it."""
    try:
        value = float(text)
    except ValueError:
        return 0
    return int(value) if 0 <= value <= LAST_MS else 0


def _due(snapshot: Snapshot) -> datetime | None:
    """Return the time at which a job is due, or None if no datetime can hold it. Any client may have written it."""
    score = snapshot.score
    return from_ms(int(score)) if score is not None and 0 <= score <= LAST_MS else None
