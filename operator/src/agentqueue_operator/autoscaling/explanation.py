"""Explanation of a decision, and of why a job waits, in sentences for people."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import assert_never

from agentqueue.model.wording import counted
from agentqueue_operator.autoscaling.model import (
    Decision,
    Load,
    Rates,
    ScaleTo,
    ScalingPolicy,
    ScalingReason,
    ScalingSnapshot,
    Terms,
)


@dataclass(frozen=True, slots=True)
class Explanation:
    """One sentence with the result, and one sentence for each detail."""

    headline: str
    details: tuple[str, ...]

    def for_processes(self) -> "Explanation":
        """Return the explanation for a machine on which workers are processes, not pods."""

        def replaced(sentence: str) -> str:  # The word boundary keeps the names of settings, such as maxPodsPerMinute.
            return re.sub(r"\bpod(s?)\b", r"worker\1", sentence)

        return Explanation(replaced(self.headline), tuple(map(replaced, self.details)))


class JobState(StrEnum):
    """States of a job that depend on pods."""

    WAITING = "waiting"
    DELAYED = "delayed"
    SUSPENDED = "suspended"
    ACTIVE = "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """A job that has not ended, as its queue shows it."""

    id: str
    state: JobState
    ahead: int = 0
    """Ready jobs that start before a waiting job."""
    age: timedelta = timedelta()
    """Time for which a waiting job has waited, a suspended one is suspended, or an active one has run."""
    due_in: timedelta | None = timedelta()
    """Time until a delayed job becomes ready, or a suspended one goes on at the latest. None: no time wakes it."""
    waits_for: str = ""
    """What a suspended job waits for."""
    lease_expired_for: timedelta | None = None
    """Time since the lease of an active job expired; None if it has not expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """Live workers of a queue, by their heartbeats."""

    claiming: int = 0
    slots: int = 0
    """Slots of the claiming workers."""
    busy: int = 0
    """Busy slots of the claiming workers."""
    draining: int = 0
    """Workers that finish their jobs and claim no more."""


def explain(decision: Decision) -> Explanation:
    """Return the explanation of a decision, with every input and every term."""
    terms = decision.terms
    result = f"{_pods(terms.current).capitalize()}, as before"
    if isinstance(decision, ScaleTo):
        result = f"From {_pods(terms.current)} to {decision.replicas}"
    because = _BECAUSE[decision.reason](terms)
    return Explanation(f"{result}: {because}.", (*_inputs(terms.snapshot, terms.policy), *_formula(terms)))


def explain_without_decision(load: Load, workers: Workers) -> Explanation:
    """Return the explanation for a queue on which no decision was published."""
    if workers.draining and not workers.claiming:
        present = _all_draining(workers).capitalize()
    else:
        free = workers.slots - workers.busy
        slots = f"{counted(workers.slots, 'slot')}, {free} of them free"
        present = f"{counted(workers.claiming, 'worker')} with {slots}{_not_counted(workers)}"
    return Explanation(
        "No autoscaling decision found: no operator or `agentqueue up` has reported on this queue in the last minute.",
        (_jobs_now(load), f"{present}."),
    )


def explain_job(job: JobFacts, decision: Decision, workers: Workers) -> Explanation:
    """Return the explanation of why a job does not run yet, and when it may.

    Args:
        job: the job.
        decision: the last decision on its queue.
        workers: the live workers of its queue.
    """
    match job.state:
        case JobState.ACTIVE:
            headline = f"Job {job.id} has run for {_span(job.age)}."
            if job.lease_expired_for is not None:
                headline = (
                    f"Job {job.id} was started {_span(job.age)} ago, and its worker is lost: its lease expired "
                    f"{_span(job.lease_expired_for)} ago. "
                    "A worker, the operator or `agentqueue up` returns it to its queue within 10 s."
                )
            return Explanation(headline, ())
        case JobState.DELAYED:
            return Explanation(f"Job {job.id} is delayed: it becomes ready in {_span(job.due_in or timedelta())}.", ())
        case JobState.SUSPENDED:
            latest = "no timeout" if job.due_in is None else f"it goes on in {_span(job.due_in)} at the latest"
            headline = f"Job {job.id} has waited for {job.waits_for} for {_span(job.age)}, without a slot; {latest}."
            return Explanation(headline, ())
        case JobState.WAITING:
            before = f"{_jobs(job.ahead)} before it" if job.ahead else "no job before it"
            why = _why_it_waits(job, decision, workers)
            queue = explain(decision)
            headline = f"Job {job.id} has waited for {_span(job.age)} with {before}: {why}."
            return Explanation(headline, (queue.headline, *queue.details))
        case _:
            assert_never(job.state)


def _why_it_waits(job: JobFacts, decision: Decision, workers: Workers) -> str:
    terms = decision.terms
    load = terms.snapshot.load
    if terms.policy.suspended:
        return "the queue is suspended, no job starts"
    if load is not None and load.paused:
        return "the queue is paused, no job starts"
    if load is None:
        return "the queue could not be read, so nothing is known of its workers"
    if workers.claiming:
        return f"{_start_estimate(job, terms, workers)}{_not_counted(workers)}"
    return _why_no_worker_claims(decision, workers)


def _why_no_worker_claims(decision: Decision, workers: Workers) -> str:
    pods, startup = decision.terms.snapshot.pods, _span(decision.terms.snapshot.rates.startup)
    if pods.starting:
        return f"{_pods(pods.starting)} starting; a start takes about {startup}"
    if pods.unschedulable:
        return "the scheduler finds no node for its pod"
    if pods.failing:
        return f"{_pods(pods.failing)} cannot start; see the conditions of the AgentQueue"
    if isinstance(decision, ScaleTo) and decision.replicas > decision.terms.current:
        return f"its pod has just been requested; a start takes about {startup}"
    if workers.draining:
        return _all_draining(workers)
    if pods.ready:
        return f"{_pods(pods.ready)} ready, but no heartbeat has arrived from there in the last seconds"
    return "no pod runs, and none was requested"


def _start_estimate(job: JobFacts, terms: Terms, workers: Workers) -> str:
    """Return when a waiting job starts. Each slot ends one job per service time, and a rate limit can be slower."""
    slots, service_s = workers.slots, terms.snapshot.rates.service.total_seconds()
    limit = terms.policy.rate_limit
    if limit is not None and limit.per_second < slots / max(service_s, 1e-9):
        allowed = f"{counted(limit.max, 'start')} in {_seconds(limit.duration_seconds)}"
        return f"the rate limit allows {allowed}; it starts within about {_seconds(job.ahead / limit.per_second)}"
    if workers.busy < slots and job.ahead == 0:
        return "a slot is free; it starts with the next claim"
    within_s = (job.ahead + 1) * service_s / max(slots, 1)
    return f"{workers.busy} of {slots} slots are busy; it starts within about {_seconds(within_s)}"


def _all_draining(workers: Workers) -> str:
    return f"all its workers ({workers.draining}) are draining: they finish their jobs and claim no more"


def _not_counted(workers: Workers) -> str:
    return f"; not counted: {counted(workers.draining, 'draining worker')}" if workers.draining else ""


# Details


def _inputs(snapshot: ScalingSnapshot, policy: ScalingPolicy) -> tuple[str, ...]:
    load, pods, rates = snapshot.load, snapshot.pods, snapshot.rates
    if load is None:
        return ("The queue could not be read.",)
    states = [f"{_pods(pods.ready).capitalize()} ready", f"{pods.starting} starting"]
    states += [f"{pods.unschedulable} without a node"] if pods.unschedulable else []
    states += [f"{pods.silent} without heartbeats"] if pods.silent else []
    states += [f"{pods.failing} failing to start"] if pods.failing else []
    guessed = "" if rates.service_known is None else "an estimated "
    return (
        _jobs_now(load),
        (
            f"{rates.arrivals_per_s:.2g} jobs a second arrive and take {guessed}{_span(rates.service)} each; "
            f"{rates.busy:.1f} slots were busy in the last minute."
        ),
        f"{', '.join(states)}; each has {counted(policy.concurrency, 'slot')} and starts in {_span(rates.startup)}.",
    )


def _jobs_now(load: Load) -> str:
    oldest = f" (the oldest for {_span(load.oldest_ready)})" if load.ready else ""
    stalled = f", {load.stalled} started by lost workers and soon ready again" if load.stalled else ""
    paused = " The queue is paused." if load.paused else ""
    due = f"{load.due_soon} due within a pod's start"
    return f"{_jobs(load.ready)} ready{oldest}, {due}, {load.active} running{stalled}.{paused}"


def _formula(terms: Terms) -> tuple[str, ...]:
    demand, policy = terms.demand, terms.policy
    if demand is None:
        return ()
    backlog = "There is no backlog."
    if demand.slots_to_clear:
        time_left = _seconds(demand.time_left_s)
        backlog = f"To clear the backlog in {time_left}, {demand.slots_to_clear:.1f} must run at the same time."
    start = f"below {_pods(demand.start_below)} some are started" if demand.start_below else "none is started"
    keep = f"above {_pods(demand.remove_above)} some may be removed" if demand.remove_above else "all may be removed"
    floor = f"The running jobs need {_pods(demand.busy_floor)}"
    floor += f", with minIdleSlots {demand.idle_floor}" if demand.idle_floor != demand.busy_floor else ""
    cap: tuple[str, ...] = ()
    if demand.rate_cap is not None:
        known = _as_known(terms.snapshot.rates)
        cap = (f"The rate limit can supply {_pods(demand.rate_cap)} with jobs{known}.",)
    window = f"The maximum to keep in the last {_seconds(terms.down_window_s)} was {terms.keep_peak}."
    return (
        f"In the long run, {demand.steady:.1f} jobs run at the same time.",
        f"{demand.expected:.1f} jobs are expected to be present when a pod requested now is ready.",
        backlog,
        (
            f"Slots for {demand.wanted:.1f} jobs are wanted, with a standard deviation of {demand.sigma:.1f}: "
            f"{start}, {keep}."
        ),
        f"{floor}.",
        *cap,
        f"At least {policy.min_replicas}, at most {policy.max_replicas} pods are allowed.",
        *((window,) if terms.down_window_s else ()),
    )


def _as_known(rates: Rates) -> str:
    return "" if rates.service_known is None else ", as far as is known before a job has ended"


_BECAUSE: dict[ScalingReason, Callable[[Terms], str]] = {
    ScalingReason.BACKLOG: lambda t: f"{_jobs(_load(t).backlog)} ready or due soon need slots",
    ScalingReason.ARRIVALS: lambda t: f"{t.snapshot.rates.arrivals_per_s:.2g} jobs a second arrive",
    ScalingReason.BUSY_FLOOR: lambda t: f"{_jobs(_load(t).active)} running need them",
    ScalingReason.MIN_IDLE_SLOTS: lambda t: f"minIdleSlots is {t.policy.min_idle_slots}",
    ScalingReason.ENOUGH: lambda _: "they are enough for the expected jobs, and not too many",
    ScalingReason.PODS_STARTING: lambda t: (
        f"with {_pods(t.snapshot.pods.starting)} starting they are enough for the backlog"
    ),
    ScalingReason.LEARNING: lambda t: (
        f"rates are being learned for another {_seconds(t.learning_s)}, and none is removed before"
    ),
    ScalingReason.COOLING_DOWN: lambda t: f"fewer are enough, but {_cooling_down(t)}",
    ScalingReason.LESS_WORK: lambda _: "the expected jobs need no more",
    ScalingReason.SCALE_TO_ZERO: lambda t: f"there has been no job for {_seconds(t.quiet_s)}",
    ScalingReason.IDLE: lambda _: "there is no job",
    ScalingReason.RATE_LIMITED: lambda t: f"the rate limit can supply no more with jobs{_as_known(t.snapshot.rates)}",
    ScalingReason.REGISTERING: lambda _: "no worker of this version has registered its jobs and schedules yet",
    ScalingReason.MIN: lambda t: f"minReplicas is {t.policy.min_replicas}",
    ScalingReason.MAX: lambda t: f"maxReplicas is {t.policy.max_replicas}",
    ScalingReason.MAX_PODS_PER_MINUTE: lambda t: f"maxPodsPerMinute is {t.policy.max_pods_per_minute}",
    ScalingReason.UNSCHEDULABLE: lambda t: (
        f"more are wanted, but the scheduler finds no node for {t.snapshot.pods.unschedulable}"
    ),
    ScalingReason.PODS_FAILING: lambda t: (
        f"more are wanted, but none becomes ready: {t.snapshot.pods.failing} cannot start"
    ),
    ScalingReason.ROLLOUT: lambda _: "fewer are enough, but none is removed during a rollout",
    ScalingReason.PAUSED: lambda _: "the queue is paused, so only running jobs count",
    ScalingReason.SUSPENDED: lambda _: "the queue is suspended",
    ScalingReason.FIXED: lambda t: f"scaling.mode is Fixed at {t.policy.replicas}",
    ScalingReason.EXTERNAL: lambda _: "scaling.mode is External, so the operator does not set the number",
    ScalingReason.METRICS_MISSING: lambda t: f"{_unreadable(t)}, and none is removed without metrics",
    ScalingReason.FALLBACK_HOLD: lambda t: f"{_unreadable(t)}, and the fallback is Hold",
    ScalingReason.FALLBACK_STATIC: lambda t: (
        f"{_unreadable(t)}, and the fallback is Static with {t.policy.fallback.replicas}"
    ),
    ScalingReason.FALLBACK_MAX: lambda t: f"{_unreadable(t)}, and the fallback is Max",
}
"""Text for each reason, which completes a sentence such as "From 2 pods to 10: …"."""


def _cooling_down(terms: Terms) -> str:
    left_s = terms.zero_window_s - terms.quiet_s
    if terms.demand is not None and terms.demand.start_below == 0 and left_s > 0 and terms.keep_peak == terms.current:
        return f"the last ones are removed after another {_seconds(left_s)} without a job"
    return f"{terms.keep_peak} were wanted within the last {_seconds(terms.down_window_s)}"


def _unreadable(terms: Terms) -> str:
    return f"the queue could not be read {terms.failures} times in a row"


def _load(terms: Terms) -> Load:
    return terms.snapshot.load or Load()


def _jobs(number: int) -> str:
    return counted(number, "job")


def _pods(number: int) -> str:
    return {0: "no pods", 1: "1 pod"}.get(number, f"{number} pods")


def _seconds(seconds: float) -> str:
    return _span(timedelta(seconds=seconds))


def _span(span: timedelta) -> str:
    seconds = span.total_seconds()
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
