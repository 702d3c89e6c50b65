"""Counts events in plain numbers, which become Prometheus metrics at a scrape."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from agentqueue.clock import monotonic
from agentqueue.keys import Level
from agentqueue.model.outcomes import Cancelled, Completed, DeadLettered, Outcome, Released, Rescheduled, Suspended
from agentqueue.model.wait_histogram import cumulative
from agentqueue.store import RenewReply
from agentqueue_worker.app.job import RunningJob

if TYPE_CHECKING:
    from agentqueue_worker.app.state import WorkerState

RUN_BUCKETS_S: Final = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
"""Bucket bounds of job durations in seconds, from a lookup to an agent that works for an hour."""
ROUND_TRIP_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Bucket bounds of round trips to Redis in seconds, from the same machine to a server that barely answers."""
OUTCOMES: Final = {
    Completed: "completed",
    Rescheduled: "retried",
    DeadLettered: "dead",
    Cancelled: "cancelled",
    Released: "released",
    Suspended: "suspended",
}
"""Label values of the outcomes."""
LOST: Final = "lost"
"""Label value of jobs whose lease was lost, so that no outcome is recorded."""


REPLAYED: Final = "replayed"
STEP_OUTCOMES: Final = ("done", "failed", REPLAYED)
"""Label values of the outcomes of steps."""
MAX_STEP_NAMES: Final = 200
"""Maximum number of steps with a series of their own. The names come from the user's code, which may make many."""
OTHER_STEPS: Final = "other"
"""Label value of the steps beyond the limit."""


class Histogram:
    """Counts per bucket and a sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Add an observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return the cumulative buckets, as Prometheus defines them."""
        out, sum_ = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            sum_ += count
            out.append((bound, float(sum_)))
        return out


class JobCounts:
    """Outcomes and durations of the jobs of one name."""

    __slots__ = ("outcomes", "seconds")

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys((*OUTCOMES.values(), LOST), 0)
        self.seconds = Histogram(RUN_BUCKETS_S)


class Metrics(Collector):
    """The metrics of a worker. Their labels (queue, job_name, step, outcome, priority) are from bounded sets.

    The label is not called `job`, because Prometheus uses that for its scrape jobs and would rename ours.
    """

    def __init__(self, queue: str, agent: str) -> None:
        self.queue = queue
        self.agent = agent
        self.state: WorkerState | None = None
        self.jobs: dict[str, JobCounts] = {}
        self.round_trip_seconds = Histogram(ROUND_TRIP_BUCKETS_S)
        self.steps = dict.fromkeys(STEP_OUTCOMES, 0)
        self.step_seconds: dict[tuple[str, str], Histogram] = {}
        self.claimed = 0
        self.lost_outcomes = 0
        self.redis_errors = 0
        self.redis_full_refusals = 0
        self.renewals_failed = 0
        self.reaped = 0
        self.renew_seconds = Histogram(ROUND_TRIP_BUCKETS_S)
        self.renewed_at = monotonic()
        self.loop_lag: Callable[[], float] = lambda: 0.0
        """Returns how late the event loop is. Called at a scrape, because a blocked loop can't update a number."""

    def expect(self, names: Iterable[str]) -> None:
        """Export the series of these jobs as 0 from the start.

        Prometheus sees no increase in a series that first appears with the value 50.
        """
        for name in names:
            self.jobs.setdefault(name, JobCounts())

    def ended(self, job: RunningJob, outcome: Outcome | None, seconds: float) -> None:
        """Count a job that left its slot."""
        counts = self.jobs.get(job.handler.name)
        if counts is None:
            counts = self.jobs[job.handler.name] = JobCounts()
        counts.outcomes[LOST if outcome is None else OUTCOMES[type(outcome)]] += 1
        counts.seconds.add(seconds)

    def step_ended(self, job: str, step: str, outcome: str, seconds: float) -> None:
        """Count a step. Those that were replayed from the journal have no duration."""
        self.steps[outcome] += 1
        if outcome == REPLAYED:
            return
        name = (job, step)
        if name not in self.step_seconds and len(self.step_seconds) >= MAX_STEP_NAMES:
            name = (job, OTHER_STEPS)
        histogram = self.step_seconds.get(name)
        if histogram is None:
            histogram = self.step_seconds[name] = Histogram(RUN_BUCKETS_S)
        histogram.add(seconds)

    def renewed(self, reply: RenewReply | None, seconds: float) -> None:
        """Count a renewal. Only the lease thread calls it and writes these numbers."""
        if reply is None:
            self.renewals_failed += 1
            return
        self.renewed_at = monotonic()
        self.renew_seconds.add(seconds)
        self.reaped += reply.reaped

    def collect(self) -> Iterable[Metric]:
        """Return the metrics. Called at a scrape, in the probes' thread."""
        yield from self._jobs()
        yield from self._steps()
        if self.state is not None:
            yield from self._gauges(self.state)
        for name, text, value in (
            ("agentqueue_jobs_claimed", "Jobs taken from the queue", self.claimed),
            ("agentqueue_lost_outcomes", "Outcomes dropped because another worker held the job", self.lost_outcomes),
            (
                "agentqueue_redis_errors",
                "Round trips that Redis did not answer, refused or found keys of a wrong type in",
                self.redis_errors,
            ),
            ("agentqueue_redis_full_refusals", "Round trips that a full Redis refused", self.redis_full_refusals),
            ("agentqueue_renewals_failed", "Renewals that Redis did not answer", self.renewals_failed),
            ("agentqueue_leases_reaped", "Jobs of dead workers that this worker released", self.reaped),
        ):
            counter = CounterMetricFamily(name, text, labels=("queue",))
            counter.add_metric((self.queue,), float(value))
            yield counter
        for name, text, histogram in (
            ("agentqueue_round_trip_duration_seconds", "Round trips that finish and claim", self.round_trip_seconds),
            ("agentqueue_renewal_duration_seconds", "Round trips that renew leases", self.renew_seconds),
        ):
            family = HistogramMetricFamily(name, text, labels=("queue",))
            family.add_metric((self.queue,), histogram.buckets(), histogram.total)
            yield family

    def _jobs(self) -> Iterable[Metric]:
        total = CounterMetricFamily(
            "agentqueue_jobs", "Runs of jobs by how they ended in this worker", labels=("queue", "job_name", "outcome")
        )
        seconds = HistogramMetricFamily(
            "agentqueue_job_duration_seconds", "Duration of job runs", labels=("queue", "job_name")
        )
        for name, counts in list(self.jobs.items()):
            for outcome, count in counts.outcomes.items():
                total.add_metric((self.queue, name, outcome), count)
            seconds.add_metric((self.queue, name), counts.seconds.buckets(), counts.seconds.total)
        waits = HistogramMetricFamily(
            "agentqueue_job_wait_seconds",
            "Time that jobs waited for a slot, from when they were due until this worker claimed them",
            labels=("queue", "priority"),
        )
        if self.state is not None:
            for level in Level:
                waits.add_metric((self.queue, level.label), *cumulative(self.state.waits.of(level)))
        return (total, seconds, waits)

    def _steps(self) -> Iterable[Metric]:
        total = CounterMetricFamily(
            "agentqueue_steps", "Steps of jobs by how they ended in this worker", labels=("queue", "outcome")
        )
        for outcome, count in self.steps.items():
            total.add_metric((self.queue, outcome), count)
        seconds = HistogramMetricFamily(
            "agentqueue_step_duration_seconds", "Duration of the steps of jobs", labels=("queue", "job_name", "step")
        )
        for (job, step), histogram in list(self.step_seconds.items()):
            seconds.add_metric((self.queue, job, step), histogram.buckets(), histogram.total)
        return (total, seconds)

    def _gauges(self, state: "WorkerState") -> Iterable[Metric]:
        redis_full = state.outbox.blocked_until is not None
        for name, text, value in (
            ("agentqueue_jobs_in_progress", "Jobs running now", len(state.running)),
            ("agentqueue_outcomes_unrecorded", "Ended jobs whose outcome is on its way to Redis", len(state.outbox)),
            ("agentqueue_worker_slots", "Jobs that may run at a time", state.options.concurrency),
            ("agentqueue_worker_draining", "1 while no jobs are claimed", int(state.draining or state.drain_requested)),
            ("agentqueue_orphaned_threads", "Threads that run on after their job has ended", state.orphaned_threads),
            ("agentqueue_redis_full", "1 while Redis refuses outcomes with children", int(redis_full)),
            (
                "agentqueue_renewal_age_seconds",
                "Time since the last renewal that Redis answered",
                monotonic() - self.renewed_at,
            ),
            (
                "agentqueue_loop_lag_seconds",
                "Delay of the event loop, which grows while a handler blocks it",
                self.loop_lag(),
            ),
        ):
            family = GaugeMetricFamily(name, text, labels=("queue",))
            family.add_metric((self.queue,), float(value))
            yield family
