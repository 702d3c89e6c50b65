"""Records of one read of a queue, as scaling, metrics and people need them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from agentqueue_operator.autoscaling.estimates import QueueCounters, running_of
from agentqueue_operator.autoscaling.model import Load


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerHeartbeat:
    """The last heartbeat of a worker."""

    busy: int
    slots: int
    draining: bool
    """The worker claims no more jobs."""
    mark: int = 0
    """The drain mark (see `QueueMetrics.marked`) that the worker has confirmed, with no claim in flight; 0 if none."""
    running_s: float = 0.0
    """Sum of the ages of its running jobs, in seconds; 0.0 if the worker reports none."""
    oldest_s: float = 0.0
    """Age of the oldest of them, in seconds; 0.0 if the worker reports none."""
    registration: str | None = None
    """Fingerprint of the jobs and schedules that the worker registers; None for a worker that registers none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueMetrics:
    """A queue at one instant."""

    load: Load
    heartbeats: Mapping[str, WorkerHeartbeat]
    """Live heartbeats by worker."""
    marked: Mapping[str, int]
    """Drain marks by worker. A mark is the time in Unix milliseconds at which it was set, so a later one differs."""
    delayed: int
    """Jobs that a time will make ready, without suspended ones."""
    done: int
    """Jobs completed since the queue was first used."""
    dead: int
    """Dead letters present."""
    arrived: int
    """Jobs that ever became ready."""
    run_ms: int
    """Sum of the run times of the completed jobs and of the runs that were suspended, in milliseconds."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """Counters since the queue was first used, by the engine's names (completed, dead, run_ms, …)."""
    waits: Mapping[str, int] = field(default_factory=dict)
    """Histogram of the wait for a slot since then, by the fields of `agentqueue.model.wait_histogram`."""
    suspended: Mapping[str, int] = field(default_factory=dict)
    """Jobs that wait without a slot, by what they wait for (`agentqueue.model.suspension.KINDS`). They need no pod."""
    next_due_s: float | None = None
    """Time in seconds until the next delayed job becomes ready; None if there is none."""
    silent_s: Mapping[str, float] = field(default_factory=dict)
    """Age in seconds of the last heartbeat, for workers whose heartbeat is too old to be live."""

    @property
    def runs(self) -> int:
        """Return the number of runs that ended well. A job that was suspended has several, and arrived as often."""
        return self.done + self.counters.get("suspended", 0)

    def confirms(self, worker: str) -> bool:
        """Return whether the heartbeat of a worker confirms its current drain mark, so that it claims no more jobs.

        The confirmation of an earlier mark does not count, because the worker may have claimed jobs in between.
        """
        heartbeat = self.heartbeats.get(worker)
        return heartbeat is not None and worker in self.marked and heartbeat.mark == self.marked[worker]

    def counters_at(self, at: float) -> QueueCounters:
        """Return the counters from which the rates are estimated. `at`: time of the read in monotonic seconds."""
        return QueueCounters(
            at=at,
            arrived=self.arrived,
            ended=self.runs,
            run=timedelta(milliseconds=self.run_ms),
            active=self.load.active,
            running=tuple(
                group
                for heartbeat in self.heartbeats.values()
                for group in running_of(heartbeat.busy, total_s=heartbeat.running_s, oldest_s=heartbeat.oldest_s)
            ),
            failed=self.arrived - self.load.ready - self.load.active - self.load.stalled - self.runs,
        )
