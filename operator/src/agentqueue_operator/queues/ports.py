"""Interface between the hosts and the queues of one Redis server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agentqueue.model.schedule import Schedule
from agentqueue.model.template import KeptTemplate, TemplateState
from agentqueue_operator.autoscaling.queue_metrics import QueueMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCrash:
    """A worker container that has ended without draining."""

    worker: str
    """Name of the pod."""
    pod_uid: str
    container: str
    """Container ID of the runtime. Each start of a container has its own."""
    ended_ms: int
    """Time of the end in Unix milliseconds, by the node's clock and truncated to a second; 0 if unknown."""
    why: str
    """Cause, for the history of the jobs that it ran."""
    of_pod: bool = False
    """The pod has ended: no other container takes its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Time for which a queue keeps ended jobs, in seconds."""

    dead_s: int = 604_800
    """Retention of dead letters."""
    history_s: int = 86_400
    """Retention of completed jobs in the history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HousekeepingResult:
    """Result of one housekeeping round over some queues."""

    released: int = 0
    """Jobs with an expired lease that were returned to their queue."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """By queue, the work that could not be done, and why."""


class Queues(Protocol):
    """The queues of one server. Every method raises QueueUnavailable if the server does not answer."""

    async def read(self, horizons_s: Mapping[str, float]) -> dict[str, QueueMetrics]:
        """Return the metrics of each queue that can be read.

        Args:
            horizons_s: by queue, the time in seconds within which delayed jobs count as due soon.
        """
        ...

    async def mark(self, queue: str, worker: str, *, drain: bool, keep_s: float | None = None) -> None:
        """Set the drain mark of a worker, or remove it.

        Args:
            queue: name of the queue.
            worker: name of the worker.
            drain: True sets the mark, False removes it.
            keep_s: time in seconds after which the mark expires unless it is renewed; None for a mark that stays.
        """
        ...

    async def keep_marks(self, queue: str, keep_s: float | None) -> None:
        """Renew the drain marks of a queue for `keep_s` seconds. None: they stay until they are removed."""
        ...

    async def release_leases_of_worker(self, queue: str, worker: str, why: str) -> int:
        """Return the jobs of a dead worker to the queue, and remove the worker. Return the number of jobs."""
        ...

    async def release_leases_of_container(self, queue: str, crash: WorkerCrash) -> int:
        """Return the jobs of a crashed container to the queue. Return the number of jobs.

        Jobs of a container that has taken its place are not affected.
        """
        ...

    async def publish(self, decisions: Mapping[str, bytes]) -> Mapping[str, bytes | None]:
        """Store the last decision on each queue for a minute, where `agentqueue explain` finds it.

        Return the decision that was stored before, by queue; None if there was none.
        """
        ...

    async def run_housekeeping(self, retentions: Mapping[str, Retention]) -> HousekeepingResult:
        """Do the work that workers do beside running jobs: expired leases, retention, old records.

        Queues that a worker has cleaned up a moment ago are skipped.
        """
        ...

    async def read_templates(self, templates: Mapping[str, str]) -> Mapping[str, TemplateState]:
        """Return what each queue knows of a version of its workers. `templates`: by queue, the version's digest."""
        ...

    async def keep_template(self, queue: str, template: str, fingerprint: str) -> KeptTemplate | None:
        """Keep what a version has registered. Return None if something else is registered.

        Args:
            queue: name of the queue.
            template: digest of the version.
            fingerprint: fingerprint of its registration; empty if its workers register nothing.
        """
        ...

    async def restore_registration(self, queue: str, fingerprint: str) -> bool:
        """Register again what an earlier version has registered. Return False if live workers have newer code."""
        ...

    async def put_schedules(self, queue: str, schedules: Sequence[Schedule]) -> None:
        """Replace the schedules that the resource has for a queue, unless they are the same."""
        ...

    async def wait_for_jobs(self, queues: Sequence[str], timeout_s: float) -> bool:
        """Wait until a job is enqueued to one of these queues. Return False after `timeout_s` seconds."""
        ...
