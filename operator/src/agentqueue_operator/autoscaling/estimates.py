"""Estimates of the rates of a queue: arrivals, service time, busy slots, and the start time of a pod.

The functions are pure folds: each observation returns new estimates. Means are exponential, over about a minute or ten
jobs.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import accumulate

from agentqueue_operator.autoscaling.model import Rates

MIN_INTERVAL_S = 0.001
"""Shortest time in seconds between two observations from which rates are estimated. A job within a shorter time would
look like an endless stream."""
AVERAGING_S = 60.0
"""Time in seconds over which arrivals and busy slots are averaged. It smooths single jobs and follows load changes."""
BURST_SIGMA = 3.0
"""Limit in standard deviations above the mean up to which the arrivals of one observation count; more are a burst."""
QUIET_JOBS = 3.0
"""After t seconds without an arrival, the rate is at most this number divided by t, with a confidence of 95 %."""
JOB_WEIGHT = 0.1
"""Weight of one job in the mean service time, which makes it a mean over about ten jobs."""
START_WEIGHT = 0.2
"""Weight of one start in the mean start time of a pod, which makes it a mean over about five starts."""
MIN_JOBS_FOR_BOUND = 5
"""Number of running jobs from which on their mean age alone is a lower bound of the service time."""
MAX_AGE_RATIO = 3.0
"""Limit of a job's age in multiples of the service time, or of the median age if that is greater. A job that hangs must
not determine the estimate."""
AGE_SIGMA = 1.0
"""Excess of the mean age over the service time, in standard deviations, that proves that jobs take longer now."""
NO_END_FACTOR = 1.75
"""Slot-seconds without an end, in multiples of the service time, up to which one busy slot proves nothing. Exponential
service times exceed it with a probability of e^-1.75, or 17 %. Chosen by the simulation in benchmarks/scaling."""
MAX_NO_END_RISE = 10.0
"""Limit of the service time that missing ends prove, in multiples of that of the ended jobs. A job that hangs in the
only slot must not determine the estimate."""


@dataclass(frozen=True, slots=True)
class Running:
    """A group of running jobs of which only the sum of the ages is known."""

    jobs: int
    total_s: float
    """Sum of their ages in seconds."""

    @property
    def mean_s(self) -> float:
        """Mean age in seconds."""
        return self.total_s / self.jobs


def running_of(jobs: int, *, total_s: float, oldest_s: float) -> tuple[Running, ...]:
    """Return a worker's running jobs as groups, with the oldest job apart, so that one that hangs ages no other.

    Args:
        jobs: number of running jobs.
        total_s: sum of their ages in seconds; 0 if a worker of another version does not report it.
        oldest_s: age of the oldest in seconds; 0 likewise.
    """
    if jobs < 2 or oldest_s == 0:
        return (Running(jobs, total_s),)
    return Running(1, oldest_s), Running(jobs - 1, max(0.0, total_s - oldest_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCounters:
    """Counters of a queue at one instant, since the queue was first used."""

    at: float
    """Monotonic seconds."""
    arrived: int
    """Jobs that ever became ready: the ready and the running ones, and the ended attempts."""
    ended: int
    """Attempts that `run` adds up."""
    run: timedelta
    """Sum of the run times of these attempts."""
    active: int
    """Busy slots."""
    running: tuple[Running, ...] = ()
    """Running jobs of known age. A worker of another version may report none."""
    failed: int = 0
    """Attempts that ended in another way."""

    @property
    def waiting(self) -> int:
        """Number of jobs that are ready, or will be once their lease expires."""
        return max(0, self.arrived - self.ended - self.failed - self.active)

    @property
    def mean_age_s(self) -> float:
        """Mean age of the running jobs in seconds; a job of unknown age counts as just started."""
        return sum(group.total_s for group in self.running) / self.active if self.active else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """Estimates so far. None means that nothing is known yet."""

    counters: QueueCounters | None = None
    """Counters of the last observation."""
    arrived_at: float | None = None
    """Last time of an arrival in monotonic seconds."""
    arrivals_per_s: float = 0.0
    busy: float = 0.0
    """Mean number of busy slots."""
    service_s: float | None = None
    """Mean service time of the ended jobs in seconds."""
    oldest_s: float = 0.0
    """Time in seconds that a job takes at least, by the age of those that run."""
    slot_s_without_end: float = 0.0
    """Seconds for which slots were busy since an attempt last ended, added up over the slots."""
    startup_s: float | None = None
    """Mean start time of a pod in seconds."""

    def rates(self, default: Rates = Rates()) -> Rates:  # noqa: B008 -- frozen
        """Return the rates for a decision. Unknown rates are taken from `default`."""
        service_s = default.service.total_seconds() if self.service_s is None else self.service_s
        startup_s = default.startup.total_seconds() if self.startup_s is None else self.startup_s
        arrivals_per_s, last = self.arrivals_per_s, self.counters
        if last is not None:
            if self.arrived_at is not None and last.at > self.arrived_at:
                arrivals_per_s = min(arrivals_per_s, QUIET_JOBS / (last.at - self.arrived_at))
            # Long jobs show by their age before they show by their end.
            if self.service_s is None:
                service_s = max(service_s, last.mean_age_s)
            else:
                by_age_s = raise_by_age(service_s, last.running)
                if last.waiting:
                    service_s = raise_by_missing_ends(service_s, self.slot_s_without_end, last.running)
                service_s = max(service_s, by_age_s)
        return Rates(
            arrivals_per_s=arrivals_per_s,
            busy=self.busy,
            service=timedelta(seconds=service_s),
            service_known=timedelta(seconds=self.oldest_s) if self.service_s is None else None,
            startup=timedelta(seconds=startup_s),
        )


def learn(known: Estimates, counters: QueueCounters) -> Estimates:
    """Return the estimates after one more observation. Counters that decreased (an emptied server) start again."""
    before = known.counters
    known = replace(known, oldest_s=_oldest_s(known, counters))
    if before is None or counters.at - before.at < MIN_INTERVAL_S or counters.ended < before.ended:
        # After an operator restart, use the lifetime average instead of a guess, so no pods start for nothing.
        if known.service_s is None and counters.ended > 0:
            known = replace(known, service_s=counters.run.total_seconds() / counters.ended)
        return replace(known, counters=counters)
    elapsed_s = counters.at - before.at
    has_ended = (counters.ended, counters.failed) != (before.ended, before.failed)
    slot_s = (before.active + counters.active) / 2 * elapsed_s
    arrived = max(0, counters.arrived - before.arrived)
    counted = 0.0  # A first burst is not treated as an arrival rate.
    if known.arrived_at is not None:
        expected = known.arrivals_per_s * elapsed_s
        counted = min(arrived, expected + BURST_SIGMA * math.sqrt(expected) + 1)
    weight = 1 - math.exp(-elapsed_s / AVERAGING_S)
    return replace(
        known,
        counters=counters,
        arrived_at=counters.at if arrived else known.arrived_at,
        arrivals_per_s=_mean(known.arrivals_per_s, counted / elapsed_s, weight),
        busy=_mean(known.busy, counters.active, weight),
        service_s=_service_s(known, before, counters),
        slot_s_without_end=0.0 if has_ended else known.slot_s_without_end + slot_s,
    )


def learn_start(known: Estimates, took: timedelta) -> Estimates:
    """Return the estimates after one more pod became ready, `took` after it was requested."""
    took_s = took.total_seconds()
    return replace(known, startup_s=took_s if known.startup_s is None else _mean(known.startup_s, took_s, START_WEIGHT))


def _mean(old: float, new: float, weight: float) -> float:
    return old + weight * (new - old)


def _service_s(known: Estimates, before: QueueCounters, counters: QueueCounters) -> float | None:
    ended = counters.ended - before.ended
    if ended == 0:
        return known.service_s
    took_s = max(0.0, (counters.run - before.run).total_seconds()) / ended
    return took_s if known.service_s is None else _mean(known.service_s, took_s, 1 - (1 - JOB_WEIGHT) ** ended)


def _oldest_s(known: Estimates, counters: QueueCounters) -> float:
    """Return the time in seconds that a job takes at least, by the age of the running jobs.

    While no attempt ends, the jobs of the last observation continue to run, and the time grows with the clock. If
    attempts end, though no job completes, it is twice the mean age: the running jobs have half their time behind them,
    on average.
    """
    before = known.counters
    mean_s = counters.mean_age_s
    if before is None or before.active == 0:
        return mean_s
    if counters.active < before.active or (counters.ended, counters.failed) != (before.ended, before.failed):
        return 2 * mean_s
    return max(mean_s, known.oldest_s + counters.at - before.at)


def raise_by_age(service_s: float, running: Sequence[Running]) -> float:
    """Return the service time in seconds that fits both the ended jobs and those that still run.

    If service times were exponential with mean S, the ages of n running jobs would have mean S and standard deviation
    S, and their mean a standard deviation of S/√n (a Poisson process observed at one instant has no memory). A mean age
    above that shows that jobs take longer now. They then have half their time behind them, on average, so twice their
    mean age is the estimate.

    No single job decides: an age counts up to `MAX_AGE_RATIO` times S, or times the median age if that is greater, and
    fewer than `MIN_JOBS_FOR_BOUND` jobs raise S by at most n·S. The result is never below S, and never falls as a job
    gets older.

    Args:
        service_s: mean service time S of the ended jobs in seconds.
        running: the running jobs.
    """
    known = [group for group in running if group.jobs > 0 and group.total_s > 0]
    jobs = sum(group.jobs for group in known)
    if jobs == 0:
        return service_s
    by_age = sorted(known, key=lambda group: group.mean_s)  # Each job counts with the mean age of its group.
    counts = list(accumulate(group.jobs for group in by_age))
    median_s = by_age[bisect_left(counts, jobs / 2)].mean_s
    most_s = MAX_AGE_RATIO * max(service_s, median_s)
    age_s = sum(min(group.mean_s, most_s) * group.jobs for group in known) / jobs
    takes_longer = age_s > service_s * (1 + AGE_SIGMA / math.sqrt(jobs))
    if jobs < MIN_JOBS_FOR_BOUND:
        return min(2 * age_s, (1 + jobs) * service_s) if takes_longer else service_s
    return max(service_s, 2 * age_s if takes_longer else age_s)


def raise_by_missing_ends(service_s: float, slot_s: float, running: Sequence[Running]) -> float:
    """Return the service time in seconds that fits both the ended jobs and that none has ended since.

    If service times were exponential with mean S, no job would end within k·S slot-seconds with a probability of e^-k.
    With n busy slots there are n times as many such spans, so k must exceed `NO_END_FACTOR` + ln n. Then jobs take
    longer now, and the estimate is S plus the slot-seconds, as if S were known from one job and the next one ended now.
    This shows sooner than the mean age, which falls whenever a job starts.

    Jobs that all take the same time end none for n·S slot-seconds, so one of them must be older than S, and the result
    is at most twice its age. It is at most `MAX_NO_END_RISE`·S as well.

    Args:
        service_s: mean service time S of the ended jobs in seconds.
        slot_s: seconds for which slots were busy since a job last ended, added up over the slots.
        running: the running jobs.
    """
    known = [group for group in running if group.jobs > 0]
    jobs, oldest_s = sum(group.jobs for group in known), max((group.mean_s for group in known), default=0.0)
    if oldest_s <= service_s or slot_s <= service_s * (NO_END_FACTOR + math.log(jobs)):
        return service_s
    return min(service_s + slot_s, 2 * oldest_s, MAX_NO_END_RISE * service_s)
