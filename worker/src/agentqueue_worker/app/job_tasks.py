"""Tracks the tasks that handlers start, so that those that a durable run has forgotten end with it."""

import asyncio
import weakref
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from agentqueue_worker.app.log_context import current_job_id

if TYPE_CHECKING:
    from agentqueue_worker.app.job import RunningJob

_workers: Final[weakref.WeakValueDictionary[int, "_Running"]] = weakref.WeakValueDictionary()
_creators: Final[weakref.WeakKeyDictionary["asyncio.Task[Any]", "weakref.ref[asyncio.Task[Any]]"]] = (
    weakref.WeakKeyDictionary()
)
"""The task that has started each task of a job."""


class _Running(dict[str, "RunningJob"]):
    """The running jobs of one worker. A plain dict can't be referred to weakly."""


def running_jobs(loop: asyncio.AbstractEventLoop) -> dict[str, "RunningJob"]:
    """Return the mapping for a worker's running jobs by ID. The tasks that they start from now on are tracked."""
    jobs = _Running()
    _workers[id(jobs)] = jobs
    loop.set_task_factory(_make_task)  # type: ignore[arg-type]  # a factory takes a context, too, since Python 3.11
    return jobs


def creator_of(task: "asyncio.Task[Any]") -> "asyncio.Task[Any] | None":
    """Return the task that has started a task of a job."""
    reference = _creators.get(task)
    return None if reference is None else reference()


def _make_task(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
) -> "asyncio.Task[Any]":
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    job_id = current_job_id()
    found = [jobs[job_id] for jobs in _workers.values() if job_id in jobs] if job_id else ()
    for job in found:
        if job.tasks is None:
            job.tasks = set()
        job.tasks.add(task)
        task.add_done_callback(job.tasks.discard)
        creator = asyncio.current_task()
        if creator is not None:
            _creators[task] = weakref.ref(creator)
    return task
