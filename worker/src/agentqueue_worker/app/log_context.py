"""Binds a job's fields to its task, so that every log line of the job has them.

Tasks, threads of `asyncio.to_thread` and plain handlers inherit the fields. Threads that a handler starts do not.
"""

import contextvars
from typing import Any

import structlog

from agentqueue_worker.app.job import RunningJob

# These are structlog's own variables. A program with its own structlog set-up gets them from `merge_contextvars`.
_tokens = contextvars.Context().run(
    structlog.contextvars.bind_contextvars, job_id="", attempt=1, delivery=1, tenant="", trace="", parent=""
)
_job_id, _attempt, _delivery = (_tokens[name].var for name in ("job_id", "attempt", "delivery"))
_tenant, _trace, _parent = (_tokens[name].var for name in ("tenant", "trace", "parent"))


def current_job_id() -> str:
    """Return the ID of the job whose task or thread this is; empty outside of jobs."""
    return str(_job_id.get(""))


class JobContexts:
    """Makes the context of each job's task. Fields that jobs of one name share are bound only once, to save time."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._of_name: dict[str, contextvars.Context] = {}

    def context_of(self, job: RunningJob) -> contextvars.Context:
        """Return a new context for the job's task, copied from the one in which the first job of its name started."""
        name = job.handler.name
        common = self._of_name.get(name)
        if common is None:
            common = self._of_name[name] = contextvars.copy_context()
            common.run(structlog.contextvars.bind_contextvars, job=name, queue=self._queue, attempt=1, delivery=1)
        return common.copy()


def bind_job(job: RunningJob) -> None:
    """Bind the fields that differ from job to job. Called in the job's task."""
    _job_id.set(job.id)
    if job.claimed.meta or job.attempt != 1:
        _attempt.set(job.attempt)
        _delivery.set(job.delivery)
    record = job.record
    if record.tenant is not None:
        _tenant.set(record.tenant)
    if record.trace is not None:
        _trace.set(record.trace)
    if record.parent is not None:
        _parent.set(record.parent)


def job_fields(job: RunningJob, queue: str) -> dict[str, Any]:
    """Return the job's fields, for a log line that may be written outside of the job's task."""
    record = job.record
    fields: dict[str, Any] = {"job_id": job.id, "job": record.name, "queue": queue}
    fields |= {"attempt": job.attempt, "delivery": job.delivery}
    origin = {"tenant": record.tenant, "trace": record.trace, "parent": record.parent}
    return fields | {name: value for name, value in origin.items() if value is not None}
