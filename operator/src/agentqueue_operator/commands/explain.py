"""Command `agentqueue explain` (entry point group `agentqueue.commands`). Heavy imports wait until it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from agentqueue.cli.connection import RedisOption, with_client
from agentqueue.cli.output import AsJson, print_json, print_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from agentqueue.client import Client, JobStatus, ScheduleStatus
    from agentqueue.client.stats import QueueStats
    from agentqueue.store import Snapshot
    from agentqueue_operator.autoscaling.decision_record import PublishedDecision
    from agentqueue_operator.autoscaling.explanation import Explanation, JobFacts, JobState, Workers
    from agentqueue_operator.autoscaling.model import Decision
    from agentqueue_operator.autoscaling.queue_metrics import QueueMetrics


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("explain")(explain)


def explain(
    queue: Annotated[str, typer.Argument(metavar="QUEUE")],
    job_id: Annotated[str | None, typer.Argument(metavar="JOB_ID", help="Also explain why this job waits.")] = None,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Explain the number of workers of a queue, and why a job waits.

    The operator and `agentqueue up` store their last decision in Redis, with its inputs and every term.
    """
    found = with_client(redis, lambda client: _read(client, queue, job_id))
    own, job = _of_queue(found), _of_job(found)
    if not as_json:
        if job is not None:
            _print("", job)
        _print(f"{found.stats.name}: ", own)
        return
    from agentqueue_operator.autoscaling.decision_record import to_json  # noqa: PLC0415

    shown_job = None
    if job is not None and found.status is not None:
        status = found.status.to_json()
        shown_job = {"headline": job.headline, "details": list(job.details), **status, "ahead": found.ahead}
    print_json(
        {
            "queue": found.stats.name,
            "headline": own.headline,
            "details": list(own.details),
            "decision": to_json(found.published) if found.published else None,
            "now": found.stats.to_json(),
            "nextScheduledAt": None if found.next_at is None else found.next_at.isoformat(),
            "job": shown_job,
        }
    )


def _print(name: str, explanation: Explanation) -> None:
    print_line(f"{name}{explanation.headline}", style="bold")
    for detail in explanation.details:
        print_line(f"  {detail}")


@dataclass(frozen=True)
class _Found:
    """State of a queue, and of a job, in Redis."""

    metrics: QueueMetrics
    stats: QueueStats
    now_ms: int
    published: PublishedDecision | None
    note: str = ""
    """Reason for which there is no decision."""
    job: Snapshot | None = None
    status: JobStatus | None = None
    ahead: int = 0
    schedules: Sequence[ScheduleStatus] = ()

    @property
    def schedule(self) -> ScheduleStatus | None:
        """The schedule whose tick the job is."""
        name = None if self.status is None else self.status.schedule
        return next((one for one in self.schedules if one.name == name), None)

    @property
    def next_at(self) -> datetime | None:
        """Time of the next tick of any schedule."""
        return min((one.next_at for one in self.schedules if one.next_at is not None), default=None)


async def _read(client: Client, queue: str, job_id: str | None) -> _Found:
    """Read the state of a queue, and of a job in it.

    Raises:
        NotFound: the queue is unknown, or the job is in another queue.
    """
    from agentqueue.client.stats import stats_of  # noqa: PLC0415
    from agentqueue.client.suggestions import check_queue_known  # noqa: PLC0415
    from agentqueue.errors import NotFound  # noqa: PLC0415
    from agentqueue.keys import check_id, check_queue  # noqa: PLC0415
    from agentqueue.store.lookup import find_queue  # noqa: PLC0415
    from agentqueue_operator.autoscaling.decision_record import decode  # noqa: PLC0415
    from agentqueue_operator.queues.reader import metrics_of  # noqa: PLC0415

    check_queue(queue)
    await check_queue_known(client, queue)
    snapshot = await client.store.snapshot(queue)
    raw, published, note = await client.store.decision(queue), None, ""
    try:
        published = None if raw is None else decode(raw)
    except ValueError as error:
        note = f"The last decision is {error}. Use the version of agentqueue that published it."
    job, status, ahead = None, None, 0
    if job_id is not None:
        check_id(job_id)
        owner = await find_queue(client.store, job_id)
        if owner not in (None, queue):
            raise NotFound(f"job {job_id} is in queue {owner}, not in {queue}: agentqueue explain {owner} {job_id}")
        status = await client.status(job_id, queue=queue)
        job = await client.store.inspect(queue, job_id)
        if job.level is not None and job.score is not None and status.state == "waiting":
            ahead = await client.store.count_ahead(queue, job.level, job.score)
    metrics, schedules = metrics_of(snapshot), await client.schedules(queue)
    return _Found(metrics, stats_of(snapshot), snapshot.now_ms, published, note, job, status, ahead, schedules)


def _of_queue(found: _Found) -> Explanation:
    from agentqueue_operator.autoscaling.explanation import Explanation, explain, explain_without_decision  # noqa: PLC0415

    published = found.published
    if published is None:
        undecided = explain_without_decision(found.metrics.load, _workers(found.metrics))
        notes = (found.note,) if found.note else ()
        return Explanation(undecided.headline, (*notes, *undecided.details, *_next_tick(found)))
    explained = explain(published.decision)
    details = (*explained.details, *_next_tick(found), _history(published, found.now_ms))
    explained = Explanation(explained.headline, details)
    return explained.for_processes() if published.by == "up" else explained


def _next_tick(found: _Found) -> tuple[str, ...]:
    """Return a sentence about the schedule that is due next. Without one, return nothing."""
    from agentqueue.cli.output import format_duration  # noqa: PLC0415

    due = found.next_at
    if due is None:
        return ()
    names = ", ".join(one.name for one in found.schedules if one.next_at == due)
    due_in = format_duration(max(0.0, due.timestamp() - found.now_ms / 1000))
    return (f"Next scheduled: {names} in {due_in}, at {due.isoformat(timespec='seconds')}.",)


def _history(published: PublishedDecision, now_ms: int) -> str:
    from agentqueue.cli.output import format_duration  # noqa: PLC0415

    by = "`agentqueue up`" if published.by == "up" else f"the {published.by}"
    decided = f"Decided {format_duration(max(0, now_ms - published.at_ms) / 1000)} ago by {by}."
    change = published.change
    if change is None:
        return f"{decided} It has not changed the number since it started."
    ago = format_duration(max(0, now_ms - change.at_ms) / 1000)
    return f"{decided} The number changed {ago} ago, from {change.before} to {change.after} ({change.reason})."


def _of_job(found: _Found) -> Explanation | None:
    from agentqueue_operator.autoscaling.explanation import Explanation, JobState, explain_job  # noqa: PLC0415

    status = found.status
    if status is None or found.job is None:
        return None
    notes = (*step_notes(status, found.job.now_ms), *_notes(found, status))
    if status.is_final:
        return Explanation(f"Job {status.id} is {status.state}: it no longer waits.", notes)
    facts = _facts(found, found.job, JobState(str(status.state)))
    explained = explain_job(facts, _decision_now(found), _workers(found.metrics))
    explained = Explanation(explained.headline, notes)
    is_local = found.published is None or found.published.by == "up"
    return explained.for_processes() if is_local else explained


def _decision_now(found: _Found) -> Decision:
    """Return the last decision, with the present load. Without one, return a decision to keep the present workers."""
    from agentqueue.spec.defaults import ScalingMode  # noqa: PLC0415
    from agentqueue_operator.autoscaling.decision import decide_replicas  # noqa: PLC0415
    from agentqueue_operator.autoscaling.model import Memory, Pods, Rates, ScalingPolicy, ScalingSnapshot  # noqa: PLC0415

    metrics, workers = found.metrics, len(found.stats.workers)
    if found.published is not None:
        decision = found.published.decision
        now = replace(decision.terms.snapshot, load=metrics.load)
        return replace(decision, terms=replace(decision.terms, snapshot=now))
    rates = Rates(service=timedelta(milliseconds=metrics.run_ms / metrics.runs)) if metrics.runs else Rates()
    policy = ScalingPolicy(mode=ScalingMode.EXTERNAL)
    snapshot = ScalingSnapshot(at=0.0, load=metrics.load, pods=Pods(ready=workers), rates=rates)
    return decide_replicas(snapshot, current=workers, policy=policy, memory=Memory())


def _workers(metrics: QueueMetrics) -> Workers:
    """Return the live workers. A marked worker counts as draining, because it sees its mark within 2 s."""
    from agentqueue_operator.autoscaling.explanation import Workers  # noqa: PLC0415

    draining = [one for name, one in metrics.heartbeats.items() if one.draining or name in metrics.marked]
    slots = sum(one.slots for one in metrics.heartbeats.values()) - sum(one.slots for one in draining)
    busy = metrics.load.active - sum(one.busy for one in draining)
    claiming = len(metrics.heartbeats) - len(draining)
    return Workers(claiming=claiming, slots=slots, busy=min(max(busy, 0), slots), draining=len(draining))


def _facts(found: _Found, job: Snapshot, state: JobState) -> JobFacts:
    from agentqueue_operator.autoscaling.explanation import JobFacts, JobState  # noqa: PLC0415

    since_ms, expired_for = job.score or job.now_ms, None
    if job.score is not None and job.score < 0:  # The negative score is the end of its lease.
        since_ms = job.now_ms
        expired_for = timedelta(milliseconds=job.now_ms + job.score) if job.now_ms + job.score > 0 else None
    if state is JobState.ACTIVE and found.status is not None and found.status.started_at is not None:
        since_ms = found.status.started_at.timestamp() * 1000
    due_in: timedelta | None = timedelta(milliseconds=max(0.0, since_ms - job.now_ms))
    waits_for = ""
    if state is JobState.SUSPENDED and job.suspension is not None:
        due_in = None if job.suspension.until_ms is None else due_in
        since_ms, waits_for = job.suspension.since_ms, job.suspension.text
    return JobFacts(
        id=job.id,
        state=state,
        ahead=found.ahead,
        age=timedelta(milliseconds=max(0.0, job.now_ms - since_ms)),
        due_in=due_in,
        waits_for=waits_for,
        lease_expired_for=expired_for,
    )


def _tick_note(name: str, due: datetime, schedule: ScheduleStatus | None) -> str:
    tick = f"It is the tick of schedule {name} for {due.isoformat(timespec='seconds')}"
    if schedule is None:
        return f"{tick}. The schedule has been removed since."
    rules = {
        "skip": "if it can't start near its time, it does not run",
        "one": "of several that could not start near their time, the last one runs",
        "all": "it runs however late it starts",
    }
    return f"{tick} ({schedule.cron}, {schedule.timezone}); {rules[schedule.missed]}."


def step_notes(status: JobStatus, now_ms: int) -> tuple[str, ...]:
    """Return how far a job has come: its steps, the one that runs, and how often it has snoozed."""
    from agentqueue.cli.output import format_duration  # noqa: PLC0415
    from agentqueue.model.journal import STEP_ENDED  # noqa: PLC0415
    from agentqueue.model.wording import counted  # noqa: PLC0415

    def ago(at_ms: float) -> str:
        return format_duration(max(0.0, now_ms - at_ms) / 1000)

    notes, running = [], {step.name for step in status.running_steps}
    if done := [step for step in status.steps if step.outcome in STEP_ENDED]:
        notes.append(f"It has done {counted(len(done), 'step')}; the last, {done[-1].name}, {ago(done[-1].at_ms)} ago.")
    notes += [
        f"Step {step.name} has run for {ago(step.since_ms)}, in attempt {step.attempt} of the step."
        for step in status.running_steps
    ]
    for step in status.steps:
        if step.name in running:
            continue
        if step.outcome == "failed":
            notes.append(f"Step {step.name} failed {ago(step.at_ms)} ago, and runs again: {step.error}.")
        elif step.outcome == "intent":
            notes.append(f"Step {step.name} began {ago(step.at_ms)} ago, and its outcome is not known yet.")
    if status.snoozes:
        times = "once" if status.snoozes == 1 else f"{status.snoozes} times"
        notes.append(f"It has snoozed {times}, the last time because: {status.snooze}.")
    return tuple(notes)


def _notes(found: _Found, status: JobStatus) -> tuple[str, ...]:
    """Return further reasons for which a job does not complete."""
    notes = []
    if status.schedule is not None and status.scheduled_for is not None:
        notes.append(_tick_note(status.schedule, status.scheduled_for, found.schedule))
    if status.error:
        times = "once" if status.deliveries == 1 else f"{status.deliveries} times"
        notes.append(f"It was started {times}, and {status.attempts} of these failed; the last error: {status.error}.")
    known = {name for worker in found.stats.workers for name in worker.jobs}
    if known and status.name and status.name not in known and not status.is_final:
        notes.append(f"None of the live workers knows a job named {status.name}: they know {', '.join(sorted(known))}.")
    return tuple(notes)
