"""Definitions of jobs and crons: a handler with its settings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from agentqueue.agent.declaration import JobDeclaration
from agentqueue.agent.payload import Payload
from agentqueue.agent.result import Result
from agentqueue.agent.signature import name_of
from agentqueue.errors import UsageError
from agentqueue.model.cron_times import check_cron
from agentqueue.model.retry_policy import Backoff, Seconds
from agentqueue.model.schedule import Missed, Schedule


class HandlerOptions(TypedDict, total=False):
    """The keywords of `Agent.job` and `Agent.cron`. None means the same as leaving one out: the worker's setting."""

    name: str | None
    """The job's name. By default the function's, with dashes."""
    timeout: Seconds | None
    """Longest duration of one attempt."""
    attempts: int | None
    """Maximum number of attempts, including the first."""
    backoff: Backoff | Mapping[str, Any] | Seconds | None
    """Delay before a failed job is tried again. A number of seconds or a timedelta is a fixed delay."""
    keep_result: Seconds | None
    """Retention of the result. `math.inf` keeps it for ever, 0 keeps none."""


@dataclass(frozen=True, slots=True)
class JobDefinition:
    """A handler with its settings. None in an option selects the worker's setting."""

    agent: str
    """Name of the agent."""
    queue: str
    """Queue of the agent."""
    name: str
    func: Callable[..., Any]
    payload: Payload
    result: Result
    is_async: bool
    timeout: float | None = None
    """Longest duration of one attempt, in seconds."""
    attempts: int | None = None
    backoff: Backoff | None = None
    keep_result: float | None = None
    """Retention of the result, in seconds. Infinity keeps it for ever, 0 keeps none."""


@dataclass(frozen=True, slots=True)
class CronDefinition:
    """A schedule that the code defines: a job that is enqueued at the times of a cron expression."""

    job: JobDefinition
    expression: str
    timezone: str
    name: str
    """Name of the schedule."""
    missed: Missed = Missed.ONE

    def schedule(self) -> Schedule:
        """Return the schedule.

        Raises:
            UsageError: The expression or the time zone is not valid.
        """
        try:
            check_cron(self.expression, self.timezone)
        except UsageError as exc:
            raise UsageError(f"cron {self.expression!r} of job {self.job.name!r}: {exc}") from exc
        return Schedule(self.name, self.expression, self.job.name, self.timezone, missed=self.missed)


def job_of(target: Any) -> JobDefinition | JobDeclaration[Any, Any] | None:
    """Return the definition of a function decorated with `@agent.job`.

    A definition and a declaration return themselves, and other values give None.

    Raises:
        UsageError: The function is more than one job, of several agents or with several names.
    """
    if isinstance(target, JobDefinition | JobDeclaration):
        return target
    found = jobs_of(target)
    if len(found) > 1:
        names = " and ".join(f"{job.name!r} of agent {job.agent!r}" for job in found)
        raise UsageError(
            f"{name_of(target)} is the job {names}: pass the one that is meant, as in agent.jobs[{found[0].name!r}], "
            "or the queue and the job's name"
        )
    return found[0] if found else None


def jobs_of(target: Any) -> Sequence[JobDefinition]:
    """Return the definitions of a function. A decorator may copy those of the wrapped function, which do not count."""
    found = getattr(target, "__agentqueue_jobs__", ())
    return [job for job in found if job.func is target] or found
