"""Build `ScheduleStatus`, a schedule as users see it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentqueue.model.new_job import NO_PAYLOAD
from agentqueue.model.times import iso, moment_of
from agentqueue.store import ScheduleState


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """The last tick of a schedule that a worker has started. Times are in UTC."""

    id: str
    """ID of the job."""
    scheduled_for: datetime | None
    """Due time of the tick."""
    started_at: datetime | None
    state: str
    """State of the job: active, completed, dead, …; `unknown` if nothing is known of it any more."""
    ended_at: datetime | None
    """None if it has not ended, or its end is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleStatus:
    """A schedule of a queue. Times are in UTC."""

    name: str
    queue: str
    job: str
    """Name of the job that is enqueued."""
    cron: str
    timezone: str
    missed: str
    """What happens to ticks that could not start near their time: skip, one or all."""
    source: str
    """`code` (`@agent.cron`) or `resource` (`spec.agents[].schedules`)."""
    suspended: bool
    """The resource suspends it."""
    paused: str | None
    """Note of who has paused it; None if nobody has."""
    next_at: datetime | None
    """Time of the next tick; None while it is suspended or paused."""
    started: int
    """Number of ticks that workers have started."""
    missed_ticks: int
    """Number of ticks that were left out, since they were missed."""
    last: LastRun | None
    """The last tick that a worker has started."""
    data: Any = NO_PAYLOAD
    """Payload of the job; NO_PAYLOAD for none."""

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON types, with camelCase names and ISO 8601 times."""
        last = self.last
        return {
            "name": self.name,
            "queue": self.queue,
            "job": self.job,
            **({} if self.data is NO_PAYLOAD else {"data": self.data}),
            "cron": self.cron,
            "timezone": self.timezone,
            "missed": self.missed,
            "source": self.source,
            "suspended": self.suspended,
            "paused": self.paused,
            "nextAt": _iso(self.next_at),
            "started": self.started,
            "missedTicks": self.missed_ticks,
            "last": last
            and {
                "id": last.id,
                "scheduledFor": _iso(last.scheduled_for),
                "startedAt": _iso(last.started_at),
                "state": last.state,
                "endedAt": _iso(last.ended_at),
            },
        }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else iso(moment)


def schedule_status(queue: str, state: ScheduleState, last_job_state: str | None) -> ScheduleStatus:
    """Return the status of a schedule.

    Args:
        queue: The queue.
        state: What the server knows of the schedule.
        last_job_state: State of the last run's job, if its end was not noted and the job is still known.
    """
    schedule, last = state.schedule, state.last
    return ScheduleStatus(
        name=schedule.name,
        queue=queue,
        job=schedule.job,
        data=schedule.data,
        cron=schedule.cron,
        timezone=schedule.timezone,
        missed=schedule.missed.value,
        source=state.source,
        suspended=schedule.suspend,
        paused=state.paused,
        next_at=moment_of(state.next_due_ms),
        started=state.started,
        missed_ticks=state.missed,
        last=None
        if last is None
        else LastRun(
            id=last.id,
            scheduled_for=moment_of(last.due_ms),
            started_at=moment_of(last.started_ms),
            state=last.state or last_job_state or "unknown",
            ended_at=moment_of(last.ended_ms),
        ),
    )
