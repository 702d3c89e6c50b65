"""Why these many pods, and why a job waits: a decision's terms in plain words."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import assert_never

from agentqueue.spec.defaults import ScalingMode
from agentqueue_operator.autoscaling.model import (
    Decision,
    Demand,
    Load,
    Rates,
    ScaleTo,
    ScalingPolicy,
    ScalingReason,
    ScalingSnapshot,
    Terms,
)
from agentqueue_operator.autoscaling.wording import counted


@dataclass(frozen=True, slots=True)
class Explanation:
    """What was decided in a sentence, and how it came about, a sentence each."""

    headline: str
    details: tuple[str, ...]

    def of_workers(self) -> "Explanation":
        """The same where workers are processes, not pods."""
        return Explanation(_of_workers(self.headline), tuple(map(_of_workers, self.details)))


class JobState(StrEnum):
    """The states of a job that have to do with pods."""

    WAITING = "waiting"
    DELAYED = "delayed"
    ACTIVE = "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """A job that is not final, by what its queue says of it."""

    id: str
    state: JobState
    ahead: int = 0
    """Waiting: ready jobs that go first."""
    age: timedelta = timedelta()
    """Waiting: for how long; active: for how long it has run."""
    due_in: timedelta = timedelta()
    """Delayed: until it becomes ready."""
    lease_over: timedelta | None = None
    """Active: since when its lease is over; None: it is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """A queue's live workers, by their heartbeats."""

    claiming: int = 0
    slots: int = 0
    """Of those that claim."""
    busy: int = 0
    """Of these slots."""
    going: int = 0
    """Workers that end what they run and claim no more."""


def explain(decision: Decision) -> Explanation:
    """Why these many pods."""
    terms = decision.terms
    what = f"{_pods(terms.current).capitalize()}, as before"
    if isinstance(decision, ScaleTo):
        what = f"From {_pods(terms.current)} to {decision.replicas}"
    because = _BECAUSE[decision.reason](terms)
    return Explanation(f"{what}: {because}.", (*_inputs(terms.snapshot, terms.policy), *_formula(terms)))


def explain_unwatched(load: Load, workers: Workers) -> Explanation:
    """What is seen of a queue where nobody decides on the number of workers."""
    return Explanation(
        "Nobody decides on the number of its workers: no operator and no `agentqueue up` has looked at it in the last "
        "minute, or Redis took no word of it.",
        (_jobs_now(load), f"{_workers_now(workers)}."),
    )


def explain_job(job: JobFacts, decision: Decision, workers: Workers) -> Explanation:
    """Why a job does not run yet, and when it may."""
    match job.state:
        case JobState.ACTIVE:
            return Explanation(_explain_active(job), ())
        case JobState.DELAYED:
            return Explanation(f"Job {job.id} is delayed: it becomes ready in {_span(job.due_in)}.", ())
        case JobState.WAITING:
            return _explain_waiting(job, decision, workers)
        case _:
            assert_never(job.state)


def _explain_active(job: JobFacts) -> str:
    if job.lease_over is None:
        return f"Job {job.id} has run for {_span(job.age)}."
    return (
        f"Job {job.id} was started {_span(job.age)} ago, and its worker is gone: its lease has been over for "
        f"{_span(job.lease_over)}. It goes back to its queue within 10 s, by a worker, the operator or `agentqueue up`."
    )


def _explain_waiting(job: JobFacts, decision: Decision, workers: Workers) -> Explanation:
    before = f"{_jobs(job.ahead)} before it" if job.ahead else "no job before it"
    headline = f"Job {job.id} has waited for {_span(job.age)} with {before}: {_hindrance(job, decision, workers)}."
    queue = explain(decision)
    return Explanation(headline, (queue.headline, *queue.details))


def _hindrance(job: JobFacts, decision: Decision, workers: Workers) -> str:
    terms = decision.terms
    load = terms.snapshot.load
    if terms.policy.suspended:
        return "the queue is suspended, no job starts"
    if load is not None and load.paused:
        return "the queue is paused, no job starts"
    if load is None:
        return "the queue could not be read, so nothing is known of its workers"
    if workers.claiming:
        return f"{_turn(job, terms, workers)}{_besides(workers)}"
    return _without_worker(decision, workers)


def _without_worker(decision: Decision, workers: Workers) -> str:
    pods, startup = decision.terms.snapshot.pods, _span(decision.terms.snapshot.rates.startup)
    if pods.starting:
        return f"{_pods(pods.starting)} on the way, a start takes about {startup}"
    if pods.unschedulable:
        return "the scheduler finds no node for its pod"
    if pods.failing:
        return f"{_pods(pods.failing)} can't start, the conditions of the AgentQueue say why"
    if isinstance(decision, ScaleTo) and decision.replicas > decision.terms.current:
        return f"its pod has just been asked for, a start takes about {startup}"
    if workers.going:
        return _all_going(workers)
    if pods.ready:
        return f"{_pods(pods.ready)} ready, but no heartbeat has come from there in the last seconds"
    return "no pod runs, and none was asked for"


def _turn(job: JobFacts, terms: Terms, workers: Workers) -> str:
    """When a slot is free for it: slots end a job each service time, a rate limit lets some through."""
    slots, service_s = workers.slots, terms.snapshot.rates.service.total_seconds()
    limit = terms.policy.rate_limit
    if limit is not None and limit.per_second < slots / max(service_s, 1e-9):
        turn = timedelta(seconds=job.ahead / limit.per_second)
        window = _seconds(limit.duration_seconds)
        return f"the rate limit starts {limit.max} in {window}, its turn comes within about {_span(turn)}"
    if workers.busy < slots and job.ahead == 0:
        return "a slot is free, it starts with the next claim"
    turn = timedelta(seconds=(job.ahead + 1) * service_s / max(slots, 1))
    return f"{workers.busy} of {slots} slots are busy, its turn comes within about {_span(turn)}"


def _workers_now(workers: Workers) -> str:
    if workers.going and not workers.claiming:
        return _all_going(workers).capitalize()
    free = workers.slots - workers.busy
    have = f"{counted(workers.claiming, 'worker')} with {counted(workers.slots, 'slot')}, {free} of them free"
    return f"{have}{_besides(workers)}"


def _all_going(workers: Workers) -> str:
    """Words that fit one as well as many."""
    return f"all its workers ({workers.going}) are going, they end what they run and claim no more"


def _besides(workers: Workers) -> str:
    return f"; not counted: {counted(workers.going, 'worker')} on the way out" if workers.going else ""


# The parts of an explanation


def _inputs(snapshot: ScalingSnapshot, policy: ScalingPolicy) -> tuple[str, ...]:
    load, pods, rates = snapshot.load, snapshot.pods, snapshot.rates
    if load is None:
        return ("The queue could not be read.",)
    failing = f", {pods.failing} failing to start" if pods.failing else ""
    silent = f", {pods.silent} not heard any more{failing}" if pods.silent else failing
    unschedulable = f", {pods.unschedulable} without a node{silent}" if pods.unschedulable else silent
    return (
        _jobs_now(load),
        (
            f"{rates.arrivals_per_s:.2g} jobs a second arrive and take {_span(rates.service)} each{_guess(rates)}; "
            f"{rates.busy:.1f} slots were busy in the last minute."
        ),
        (
            f"{_pods(pods.ready).capitalize()} ready, {pods.starting} starting{unschedulable}; "
            f"each has {counted(policy.concurrency, 'slot')} and starts in {_span(rates.startup)}."
        ),
    )


def _guess(rates: Rates) -> str:
    return "" if rates.service_known is None else " by a guess"


def _jobs_now(load: Load) -> str:
    oldest = f" (the oldest for {_span(load.oldest_ready)})" if load.ready else ""
    stalled = f", {load.stalled} started by workers that are gone and soon ready again" if load.stalled else ""
    paused = " The queue is paused." if load.paused else ""
    due = f"{load.due_soon} due within a pod's start"
    return f"{_jobs(load.ready)} ready{oldest}, {due}, {load.active} running{stalled}.{paused}"


def _formula(terms: Terms) -> tuple[str, ...]:
    demand, policy = terms.demand, terms.policy
    if demand is None:
        return ()
    bounds = f"At least {policy.min_replicas}, at most {policy.max_replicas} pods are allowed."
    return (*_terms(demand), *_floors(demand, terms.snapshot.rates), bounds, *_history(terms))


def _terms(demand: Demand) -> tuple[str, ...]:
    drain = (
        f"To have the backlog gone in {_seconds(demand.time_left_s)}, {demand.drain:.1f} must run at once."
        if demand.drain
        else "There is no backlog."
    )
    return (
        f"In the long run {demand.steady:.1f} jobs run at once.",
        f"{demand.expected:.1f} jobs are expected to be here when a pod asked for now is up.",
        drain,
        (f"So slots for {demand.wanted:.1f} jobs are wanted, with a scatter of {demand.sigma:.1f}: {_levels(demand)}."),
    )


def _levels(demand: Demand) -> str:
    start = f"below {_pods(demand.start)} some are started" if demand.start else "none is started"
    return f"{start}, " + (f"above {_pods(demand.keep)} some may go" if demand.keep else "and all may go")


def _floors(demand: Demand, rates: Rates) -> tuple[str, ...]:
    floor = f"What runs needs {_pods(demand.busy_floor)}"
    idle = f", with the idle slots asked for {demand.idle_floor}" if demand.idle_floor != demand.busy_floor else ""
    cap = (
        (f"The rate limit can feed {_pods(demand.rate_cap)}{_as_known(rates)}.",) if demand.rate_cap is not None else ()
    )
    return (f"{floor}{idle}.", *cap)


def _as_known(rates: Rates) -> str:
    return "" if rates.service_known is None else ", as far as is known before a job has ended"


def _history(terms: Terms) -> tuple[str, ...]:
    window = (f"The greatest number to keep in the last {_seconds(terms.down_window_s)} was {terms.keep_peak}.",)
    return window if terms.down_window_s else ()


_BECAUSE: dict[ScalingReason, Callable[[Terms], str]] = {
    ScalingReason.BACKLOG: lambda t: f"{_jobs(_load(t).backlog)} ready or due soon want slots",
    ScalingReason.ARRIVALS: lambda t: f"{t.snapshot.rates.arrivals_per_s:.2g} jobs a second arrive",
    ScalingReason.BUSY_FLOOR: lambda t: f"{_jobs(_load(t).active)} running need them",
    ScalingReason.MIN_IDLE_SLOTS: lambda t: f"minIdleSlots asks for {t.policy.min_idle_slots} idle slots",
    ScalingReason.ENOUGH: lambda _: "they are enough for the jobs expected, and not so many that some should go",
    ScalingReason.PODS_STARTING: lambda t: (
        f"with {_pods(t.snapshot.pods.starting)} starting they will do for the backlog"
    ),
    ScalingReason.LEARNING: lambda t: f"rates are being learned for {_seconds(t.learning_s)} more, nothing goes before",
    ScalingReason.COOLING_DOWN: lambda t: f"fewer would do, but {_cooling(t)}",
    ScalingReason.LESS_WORK: lambda _: "the jobs expected need no more",
    ScalingReason.SCALE_TO_ZERO: lambda t: f"there has been no job for {_seconds(t.quiet_s)}",
    ScalingReason.IDLE: lambda _: "there is no job",
    ScalingReason.RATE_LIMITED: lambda t: f"the rate limit can feed no more{_as_known(t.snapshot.rates)}",
    ScalingReason.MIN: lambda t: f"minReplicas is {t.policy.min_replicas}",
    ScalingReason.MAX: lambda t: f"maxReplicas is {t.policy.max_replicas}",
    ScalingReason.MAX_PODS_PER_MINUTE: lambda t: f"maxPodsPerMinute is {t.policy.max_pods_per_minute}",
    ScalingReason.UNSCHEDULABLE: lambda t: f"more are wanted, but {t.snapshot.pods.unschedulable} find no node",
    ScalingReason.PODS_FAILING: lambda t: (
        f"more are wanted, but none gets ready, {t.snapshot.pods.failing} can't start"
    ),
    ScalingReason.ROLLOUT: lambda _: "fewer would do, but nothing goes during a rollout",
    ScalingReason.PAUSED: lambda _: "the queue is paused, only what runs counts",
    ScalingReason.SUSPENDED: lambda _: "the queue is suspended",
    ScalingReason.FIXED: lambda t: f"scaling.mode is Fixed at {t.policy.replicas}",
    ScalingReason.EXTERNAL: lambda _: f"scaling.mode is {ScalingMode.EXTERNAL}, someone else sets the number",
    ScalingReason.METRICS_MISSING: lambda t: f"{_unread(t)}, nothing goes on a guess",
    ScalingReason.FALLBACK_HOLD: lambda t: f"{_unread(t)}, the fallback is Hold",
    ScalingReason.FALLBACK_STATIC: lambda t: f"{_unread(t)}, the fallback is Static with {t.policy.fallback.replicas}",
    ScalingReason.FALLBACK_MAX: lambda t: f"{_unread(t)}, the fallback is Max",
}


def _cooling(terms: Terms) -> str:
    left_s = terms.zero_window_s - terms.quiet_s
    if terms.demand is not None and terms.demand.start == 0 and left_s > 0 and terms.keep_peak == terms.current:
        return f"the last ones go after {_seconds(left_s)} more without a job"
    return f"{terms.keep_peak} were wanted within the last {_seconds(terms.down_window_s)}"


def _unread(terms: Terms) -> str:
    return f"the queue could not be read, {terms.failures} times in a row"


def _load(terms: Terms) -> Load:
    return terms.snapshot.load or Load()


def _of_workers(sentence: str) -> str:
    """Names of settings (maxPodsPerMinute) stay."""
    return re.sub(r"\bpod(s?)\b", r"worker\1", sentence)


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
