"""What the loops ask of the world, and what they are told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from agentqueue_operator.autoscaling.estimates import Seen, running_of
from agentqueue_operator.autoscaling.model import Load


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A worker container that runs no more."""

    worker: str
    """The pod's name."""
    pod_uid: str
    container: str
    """The runtime's id: each start has its own."""
    ended_ms: int
    """When, by the node's clock, cut to a second; 0: nobody knows."""
    why: str
    of_pod: bool = False
    """No other container will take its place in this pod."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A worker's last heartbeat."""

    busy: int
    slots: int
    draining: bool
    """It claims no more."""
    mark: int = 0
    """The mark (see `Look.marked`) that it obeys with no claim under way; 0: none."""
    running_s: float = 0.0
    """For how long its running jobs have run, added up; 0.0 if it reports none."""
    oldest_s: float = 0.0
    """For how long the oldest of them has run; 0.0 if it reports none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A queue at one instant, as scaling and people want to see it."""

    load: Load
    reports: Mapping[str, Report]
    """Worker -> heartbeat, live ones only."""
    marked: Mapping[str, int]
    """Workers marked to drain -> the mark: when it was set, in ms. A later mark is another one."""
    delayed: int
    done: int
    """Completed since the queue was first used."""
    dead: int
    """Dead letters there are."""
    arrived: int
    """Jobs that ever became ready."""
    run_ms: int
    """Time that the completed ones took, added up."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """What Redis has counted since the queue was first used, by the engine's names (completed, dead, run_ms, …)."""
    waits: Mapping[str, int] = field(default_factory=dict)
    """How long jobs waited for a slot since then, by the fields of `agentqueue.model.wait_histogram`."""
    silent_s: Mapping[str, float] = field(default_factory=dict)
    """Workers whose last heartbeat is too old to be live -> its age in seconds."""

    def confirms(self, worker: str) -> bool:
        """Return whether a worker's heartbeat confirms the very mark that stands: it claims no more. An earlier mark's
        confirmation is worth nothing, since the worker may have claimed in between."""
        report = self.reports.get(worker)
        return report is not None and worker in self.marked and report.mark == self.marked[worker]

    def seen(self, at: float) -> Seen:
        """What the estimates learn from; `at`: monotonic seconds."""
        return Seen(
            at=at,
            arrived=self.arrived,
            ended=self.done,
            run=timedelta(milliseconds=self.run_ms),
            active=self.load.active,
            running=tuple(
                some
                for report in self.reports.values()
                for some in running_of(report.busy, total_s=report.running_s, oldest_s=report.oldest_s)
            ),
            failed=self.arrived - self.load.ready - self.load.active - self.load.stalled - self.done,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """For how long a queue keeps what has ended, in seconds."""

    dead_s: int = 604_800
    """Dead letters."""
    history_s: int = 86_400
    """Completed jobs, in the history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tended:
    """What a visit to some queues came to."""

    given_back: int = 0
    """Jobs whose lease had run out: they wait again."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Queue -> what could not be done there, and why."""


class Queues(Protocol):
    """The queues on one server. Every method raises QueueUnavailable when the server does not answer."""

    async def look(self, horizons_s: Mapping[str, float]) -> dict[str, Look]:
        """Each queue that can be read; delayed jobs count as due soon when they come due within so many seconds."""
        ...

    async def mark(self, queue: str, worker: str, *, drain: bool, keep_s: float | None = None) -> None:
        """Mark a worker to drain, or take the mark back. It goes after `keep_s` unless it is kept; None: it stays."""
        ...

    async def keep_marks(self, queue: str, keep_s: float | None) -> None:
        """The queue's marks hold for so long from now on; None: until they are taken back."""
        ...

    async def bury_worker(self, queue: str, worker: str, why: str) -> int:
        """Give back what a dead worker held and forget it. Returns how many jobs it held."""
        ...

    async def bury_container(self, queue: str, death: Death) -> int:
        """Give back what a dead container held, and nothing of one that has taken its place. Returns how many jobs."""
        ...

    async def publish(self, decisions: Mapping[str, bytes]) -> Mapping[str, bytes | None]:
        """Leave each queue's last decision where `agentqueue explain` finds it, for a minute.

        Returns each queue's decision before, None if there was none.
        """
        ...

    async def tend(self, retentions: Mapping[str, Retention]) -> Tended:
        """What workers do beside running jobs, for queues that may have none: lost leases, expiries, old records.

        A queue that a worker looked after a moment ago is left alone.
        """
        ...

    async def wait_for_jobs(self, queues: Sequence[str], timeout_s: float) -> bool:
        """Wait until somebody enqueues to one of these queues."""
        ...
