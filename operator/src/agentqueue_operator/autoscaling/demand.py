"""The formula: the number of pods that the work in a queue needs. docs/scaling.md explains its terms."""

import math
from dataclasses import dataclass
from datetime import timedelta

from agentqueue_operator.autoscaling.model import Demand, Load, Rates, ScalingPolicy, ScalingReason, ScalingSnapshot

SCALE_UP_HEADROOM_SIGMA = 0.5
"""Headroom above the expected jobs when pods are started, in standard deviations of the arrivals during a pod's start.
Chosen by the simulation in benchmarks/scaling."""
SCALE_DOWN_HEADROOM_SIGMA = 1.5
"""Pods are kept up to this headroom above the expected jobs, in the same unit. It is larger than the headroom for
starting pods, and the gap between the two prevents flapping."""
ROUND_UP_THRESHOLD = 0.25
"""Fraction of a slot below which demand is rounded down. Without it, a trickle of single jobs would start two pods each
time."""
RATE_LIMIT_UTILISATION = 0.85
"""Share of its slots that a rate-limited queue keeps busy. The remaining slots absorb variation in service times."""
MIN_CLEAR_TIME_S = 5.0
"""Shortest time in which a backlog should be cleared, in seconds: one poll of the queue takes this long."""


def compute_demand(snapshot: ScalingSnapshot, load: Load, *, policy: ScalingPolicy) -> Demand:
    """Return the number of pods that the work needs, regardless of minReplicas, maxReplicas and earlier decisions.

    Args:
        snapshot: the pods and the rates.
        load: the load of the snapshot, which must be known here.
        policy: the agent's policy.
    """
    slots = policy.concurrency
    work = _Work.of(snapshot, load, slots)
    # While pods start, the age of the oldest job does not count, so that one old job does not request pods twice.
    spent = load.oldest_ready + snapshot.rates.startup if snapshot.pods.starting == 0 else timedelta()
    target_s = policy.target_wait.total_seconds()
    shortest_s = min(snapshot.rates.service.total_seconds(), target_s) / 2
    time_left_s = max(target_s - spent.total_seconds(), shortest_s, MIN_CLEAR_TIME_S)
    slots_to_clear = (work.backlog / time_left_s + work.arrivals_per_s) * work.service_s if work.backlog else 0.0
    expected = work.expected(work.backlog)
    wanted = min(expected, max(slots_to_clear, work.expected(0)))
    sigma = math.sqrt(min(work.arrivals_per_s * work.startup_s, work.steady))
    busy_floor, idle_floor = math.ceil(load.active / slots), math.ceil((load.active + policy.min_idle_slots) / slots)
    rate_cap = _rate_cap(policy, snapshot.rates)
    has_jobs = work.backlog > 0 or work.active > 0
    unlimited = max(1, _pods_for(wanted + SCALE_UP_HEADROOM_SIGMA * sigma, slots)) if has_jobs else 0
    start_below = max(idle_floor, unlimited if rate_cap is None else min(unlimited, rate_cap))
    if start_below == idle_floor > 0:
        reason = ScalingReason.BUSY_FLOOR if idle_floor == busy_floor else ScalingReason.MIN_IDLE_SLOTS
    elif start_below < unlimited:
        reason = ScalingReason.RATE_LIMITED
    elif has_jobs:
        reason = ScalingReason.BACKLOG if work.backlog else ScalingReason.ARRIVALS
    else:
        reason = ScalingReason.IDLE
    remove_above = _pods_for(wanted + SCALE_DOWN_HEADROOM_SIGMA * sigma, slots)
    return Demand(
        steady=work.steady,
        expected=expected,
        time_left_s=time_left_s,
        slots_to_clear=slots_to_clear,
        wanted=wanted,
        sigma=sigma,
        busy_floor=busy_floor,
        idle_floor=idle_floor,
        rate_cap=rate_cap,
        start_below=start_below,
        remove_above=max(start_below, remove_above if rate_cap is None else min(remove_above, rate_cap)),
        reason=reason,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """Inputs of the formula. In a paused queue the backlog and the arrivals count as zero, since they do not start."""

    backlog: int
    active: int
    slots_ready: int
    arrivals_per_s: float
    steady: float
    service_s: float
    startup_s: float

    @classmethod
    def of(cls, snapshot: ScalingSnapshot, load: Load, slots: int) -> "_Work":
        rates = snapshot.rates
        service_s = max(rates.service.total_seconds(), 0.001)
        arrivals = 0.0 if load.paused else rates.arrivals_per_s
        return cls(
            backlog=0 if load.paused else load.backlog,
            active=load.active,
            slots_ready=max(snapshot.pods.ready * slots, load.active),
            arrivals_per_s=arrivals,
            steady=math.sqrt(arrivals * service_s * rates.busy),
            service_s=service_s,
            startup_s=rates.startup.total_seconds(),
        )

    def expected(self, backlog: int) -> float:
        """Return how many jobs there will be when a pod requested now is ready, if no pod is added.

        With the service time S, the number changes by (arrivals - slots/S)·t while it is greater than the ready slots.
        Then it approaches `steady`: the distance shrinks by the factor e^(-t/S).
        """
        jobs, left_s = float(backlog + self.active), self.startup_s
        if jobs > self.slots_ready:
            falls_per_s = self.slots_ready / self.service_s - self.arrivals_per_s
            if jobs - falls_per_s * left_s > self.slots_ready:
                return jobs - falls_per_s * left_s
            left_s -= (jobs - self.slots_ready) / falls_per_s
            jobs = float(self.slots_ready)
        return self.steady + (jobs - self.steady) * math.exp(-left_s / self.service_s)


def _pods_for(jobs: float, slots: int) -> int:
    return math.ceil(math.ceil(jobs - ROUND_UP_THRESHOLD) / slots)


def _rate_cap(policy: ScalingPolicy, rates: Rates) -> int | None:
    """Return the pods that the rate limit can supply with jobs, with one slot to spare; None without a limit.

    More pods would be idle. Before a job has ended, the age of the running jobs replaces the guessed service time. The
    cap then grows with that age.
    """
    if policy.rate_limit is None:
        return None
    service = rates.service if rates.service_known is None else rates.service_known
    slots = policy.rate_limit.per_second * service.total_seconds() / RATE_LIMIT_UTILISATION + 1
    return math.ceil(slots / policy.concurrency)
