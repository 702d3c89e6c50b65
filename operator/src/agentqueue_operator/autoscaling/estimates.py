"""What is learned of a queue from look to look: how fast jobs arrive, how long they take, how long pods take to start.

Pure folds: each look gives new estimates. Means are exponential, over about a minute or ten jobs.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import accumulate

from agentqueue_operator.autoscaling.model import Rates

SHORTEST_S = 0.001
"""Two looks closer together tell no rate: a job between them would count as an endless stream."""
MEMORY_S = 60.0
"""Over which time arrivals and busy slots are averaged."""
BURST_SIGMA = 3.0
"""More arrivals at one look than this many standard deviations above the mean are a burst, and count up to there."""
QUIET_JOBS = 3.0
"""No arrival for t seconds: the rate is hardly (5 %) more than 3/t."""
PER_JOB = 0.1
"""Weight of one job's time in the mean service time."""
PER_START = 0.2
"""Weight of one pod's start in the mean start time."""
MANY = 5
"""From this many running jobs on, their mean age alone bounds the service time from below."""
MOST_AGE = 3.0
"""Ages count up to this many service times, or median ages if that is more: a job that hangs proves little."""
AGE_SIGMA = 1.0
"""Running jobs whose mean age is this many standard deviations above the service time take longer than ended ones."""


@dataclass(frozen=True, slots=True)
class Running:
    """Some running jobs whose ages are known only as a sum."""

    jobs: int
    total_s: float
    """Their ages in seconds, added up."""

    @property
    def mean_s(self) -> float:
        """Their mean age in seconds."""
        return self.total_s / self.jobs


def running_of(jobs: int, *, total_s: float, oldest_s: float) -> tuple[Running, ...]:
    """Return a worker's running jobs, the oldest apart from the others: one that hangs must not make all of them old.

    `total_s` and `oldest_s` are 0 where a worker of another version does not report them.
    """
    if jobs < 2 or oldest_s == 0:
        return (Running(jobs, total_s),)
    return Running(1, oldest_s), Running(jobs - 1, max(0.0, total_s - oldest_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCounters:
    """What one look shows; counters since the beginning."""

    at: float
    """Monotonic seconds."""
    arrived: int
    """Jobs that ever became ready: those ready and running now, and those whose attempt ended."""
    ended: int
    """Attempts that `run` adds up."""
    run: timedelta
    """Time that all ended attempts took."""
    active: int
    """Busy slots."""
    running: tuple[Running, ...] = ()
    """The running jobs whose ages are known. A worker of another version may report none."""
    failed: int = 0
    """Attempts that ended in another way."""

    @property
    def mean_age_s(self) -> float:
        """Mean age of the running jobs in seconds; a job of unknown age counts as just started."""
        return sum(some.total_s for some in self.running) / self.active if self.active else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """What was learned so far. None: nothing yet."""

    seen: QueueCounters | None = None
    arrived_at: float | None = None
    """When jobs last arrived; None: never yet."""
    arrivals_per_s: float = 0.0
    busy: float = 0.0
    service_s: float | None = None
    oldest_s: float = 0.0
    """For how long a job runs at least, by those that run."""
    startup_s: float | None = None

    def rates(self, default: Rates = Rates()) -> Rates:  # noqa: B008 -- frozen
        """The rates for a decision; what is not known yet is taken from the default."""
        service_s = default.service.total_seconds() if self.service_s is None else self.service_s
        startup_s = default.startup.total_seconds() if self.startup_s is None else self.startup_s
        return Rates(
            arrivals_per_s=_within_quiet(self),
            busy=self.busy,
            service=timedelta(seconds=_raised_by_running(service_s, self)),
            service_known=timedelta(seconds=self.oldest_s) if self.service_s is None else None,
            startup=timedelta(seconds=startup_s),
        )


def learn(known: Estimates, seen: QueueCounters) -> Estimates:
    """The estimates after one more look. Counters that went back (an emptied server) start anew."""
    before = known.seen
    known = replace(known, oldest_s=_oldest_s(known, seen))
    if before is None or seen.at - before.at < SHORTEST_S or seen.ended < before.ended:
        service_s = known.service_s if known.service_s is not None else _since_ever(seen)
        return replace(known, seen=seen, service_s=service_s)
    elapsed_s = seen.at - before.at
    arrived = max(0, seen.arrived - before.arrived)
    weight = 1 - math.exp(-elapsed_s / MEMORY_S)
    return replace(
        known,
        seen=seen,
        arrived_at=seen.at if arrived else known.arrived_at,
        arrivals_per_s=_mean(known.arrivals_per_s, _without_burst(arrived, known, elapsed_s) / elapsed_s, weight),
        busy=_mean(known.busy, seen.active, weight),
        service_s=_service_s(known, before, seen),
    )


def learn_start(known: Estimates, took: timedelta) -> Estimates:
    """The estimates after one more pod became ready, `took` after it was asked for."""
    took_s = took.total_seconds()
    return replace(known, startup_s=took_s if known.startup_s is None else _mean(known.startup_s, took_s, PER_START))


def _mean(old: float, new: float, weight: float) -> float:
    return old + weight * (new - old)


def _without_burst(arrived: int, known: Estimates, elapsed_s: float) -> float:
    """The first jobs ever, or a hundred at one instant, are no rate: nothing says that more will come."""
    if known.arrived_at is None:
        return 0.0
    expected = known.arrivals_per_s * elapsed_s
    return min(arrived, expected + BURST_SIGMA * math.sqrt(expected) + 1)


def _within_quiet(known: Estimates) -> float:
    if known.seen is None or known.arrived_at is None or known.seen.at <= known.arrived_at:
        return known.arrivals_per_s
    return min(known.arrivals_per_s, QUIET_JOBS / (known.seen.at - known.arrived_at))


def _since_ever(seen: QueueCounters) -> float | None:
    """Who has just started knows this much: a guess instead would start pods for nothing at each restart."""
    return seen.run.total_seconds() / seen.ended if seen.ended > 0 else None


def _service_s(known: Estimates, before: QueueCounters, seen: QueueCounters) -> float | None:
    ended = seen.ended - before.ended
    if ended == 0:
        return known.service_s
    took_s = max(0.0, (seen.run - before.run).total_seconds()) / ended
    return took_s if known.service_s is None else _mean(known.service_s, took_s, 1 - (1 - PER_JOB) ** ended)


def _oldest_s(known: Estimates, seen: QueueCounters) -> float:
    """What ran at the last look runs on while no attempt ends. Before that the mean age tells, and where attempts end,
    too, but as no job: those that run then have half their time behind them, on average."""
    before = known.seen
    mean_s = seen.mean_age_s
    if before is None or before.active == 0:
        return mean_s
    if seen.active < before.active or (seen.ended, seen.failed) != (before.ended, before.failed):
        return 2 * mean_s
    return max(mean_s, known.oldest_s + seen.at - before.at)


def _raised_by_running(service_s: float, known: Estimates) -> float:
    """Long jobs show by their age before they show by their end."""
    if known.seen is None:
        return service_s
    if known.service_s is None:
        return max(service_s, known.seen.mean_age_s)
    return raise_by_age(service_s, known.seen.running)


def raise_by_age(service_s: float, running: Sequence[Running]) -> float:
    """Return the service time in seconds that fits both the ended jobs (`service_s`) and those that still run.

    Were service times exponential with mean S, the ages of n running jobs would have mean S and standard deviation S,
    and their mean a standard deviation of S/√n (a Poisson process seen from one instant has no memory). A mean age
    above that shows that jobs take longer now. They then have half their time behind them, on average, so twice their
    mean age is the estimate.

    No job decides alone: an age counts up to `MOST_AGE` times S, or times the median age if that is more, and fewer
    than `MANY` jobs raise S by at most n·S. The result is never below S, and never falls as a job gets older.
    """
    known = [some for some in running if some.jobs > 0 and some.total_s > 0]
    jobs = sum(some.jobs for some in known)
    if jobs == 0:
        return service_s
    most_s = MOST_AGE * max(service_s, _median_s(known))
    age_s = sum(min(some.mean_s, most_s) * some.jobs for some in known) / jobs
    takes_longer = age_s > service_s * (1 + AGE_SIGMA / math.sqrt(jobs))
    if jobs < MANY:
        return min(2 * age_s, (1 + jobs) * service_s) if takes_longer else service_s
    return max(service_s, 2 * age_s if takes_longer else age_s)


def _median_s(known: Sequence[Running]) -> float:
    """Return the median age in seconds, each job taken for as old as its group is on average."""
    ordered = sorted(known, key=lambda some: some.mean_s)
    counts = list(accumulate(some.jobs for some in ordered))
    return ordered[bisect_left(counts, counts[-1] / 2)].mean_s
