"""What every log line of a job says: bound to the job's task, where structlog and logging find it.

Tasks, threads of `asyncio.to_thread` and plain handlers inherit it; threads that a handler starts itself do not.
"""

import contextvars
from typing import Any

import structlog

from agentqueue_worker.app.job import RunningJob

# structlog's own variables, so that a program that configures structlog itself has them by `merge_contextvars`.
_tokens = contextvars.Context().run(structlog.contextvars.bind_contextvars, job_id="", attempt=1, delivery=1, tenant="")
_job_id, _attempt, _delivery, _tenant = (_tokens[name].var for name in ("job_id", "attempt", "delivery", "tenant"))


class JobContexts:
    """Makes the context of each job's task. What jobs of one name have in common is bound once, since each job pays."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._of_name: dict[str, contextvars.Context] = {}

    def context_of(self, job: RunningJob) -> contextvars.Context:
        """Return a new context for the job's task: a copy of the one that the first job of its name was started in."""
        name = job.handler.name
        common = self._of_name.get(name)
        if common is None:
            common = self._of_name[name] = contextvars.copy_context()
            common.run(structlog.contextvars.bind_contextvars, job=name, queue=self._queue, attempt=1, delivery=1)
        return common.copy()


def bind_job(job: RunningJob) -> None:
    """Bind what is the job's own; called in its own task."""
    _job_id.set(job.id)
    if job.claimed.meta or job.attempt != 1:
        _attempt.set(job.attempt)
        _delivery.set(job.delivery)
    tenant = job.record.tenant
    if tenant is not None:
        _tenant.set(tenant)


def job_fields(job: RunningJob, queue: str) -> dict[str, Any]:
    """Return the same as fields, for a line that may be written outside of the job's task."""
    fields: dict[str, Any] = {"job_id": job.id, "job": job.record.name, "queue": queue}
    fields |= {"attempt": job.attempt, "delivery": job.delivery}
    return fields if job.record.tenant is None else fields | {"tenant": job.record.tenant}
