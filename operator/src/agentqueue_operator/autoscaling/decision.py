"""How many worker pods a queue should have now: a frozen snapshot in, a decision out, reasons and terms with it.

The operator, `agentqueue up` and the simulator in benchmarks/scaling call the same function. What the terms mean and
why they are there: docs/scaling.md.
"""

import math
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import assert_never

START_SCATTER = 0.5
"""Pods are started for the jobs expected and this part of their scatter."""
KEEP_SCATTER = 1.5
"""Pods are kept for the jobs expected and this many times their scatter: the gap to the above stops flapping."""
NO_SLOT_FOR = 0.25
"""So small a part of a job earns no slot: else every job of a trickle would start two pods."""
UTILISATION = 0.85
"""Share of a rate-limited queue's slots that the limit can keep busy; the rest takes up their scatter."""
LEAST_WAIT_S = 5.0
"""The backlog is never asked to be gone sooner than this: one look at the queue takes that long."""
ADDED_S = 60.0
"""Over which time pods added are counted for maxPodsPerMinute."""
LEARNING_S = 60.0
"""After the first look, and after missing metrics, nothing goes for so long: rates are learned anew."""
ZERO_WINDOW_S = (30.0, 300.0)
"""Bounds of the quiet time before the last pod goes, by default four times a pod's start."""


class Mode(StrEnum):
    """Who decides the number of pods; the resource's `scaling.mode`."""

    AUTO = "Auto"
    FIXED = "Fixed"
    EXTERNAL = "External"


class FallbackBehavior(StrEnum):
    """What to do when the queue could not be read `failure_threshold` times in a row."""

    HOLD = "Hold"
    STATIC = "Static"
    MAX = "Max"


class Reason(StrEnum):
    """Why a decision is what it is: the declared set, shown in events, metrics and `status.agents[].lastScale`."""

    BACKLOG = "Backlog"
    ARRIVALS = "Arrivals"
    BUSY_FLOOR = "BusyFloor"
    MIN_IDLE_SLOTS = "MinIdleSlots"
    ENOUGH = "Enough"
    STARTING_WILL_DO = "StartingWillDo"
    LEARNING = "Learning"
    COOLING_DOWN = "CoolingDown"
    LESS_WORK = "LessWork"
    SCALE_TO_ZERO = "ScaleToZero"
    IDLE = "Idle"
    RATE_LIMITED = "RateLimited"
    MIN = "MinReplicas"
    MAX = "MaxReplicas"
    MAX_PODS_PER_MINUTE = "MaxPodsPerMinute"
    UNSCHEDULABLE = "Unschedulable"
    PODS_FAIL = "PodsFail"
    ROLLOUT = "Rollout"
    PAUSED = "Paused"
    SUSPENDED = "Suspended"
    FIXED = "Fixed"
    EXTERNAL = "External"
    METRICS_MISSING = "MetricsMissing"
    FALLBACK_HOLD = "FallbackHold"
    FALLBACK_STATIC = "FallbackStatic"
    FALLBACK_MAX = "FallbackMax"


CHANGES = (
    Reason.BACKLOG,
    Reason.ARRIVALS,
    Reason.BUSY_FLOOR,
    Reason.MIN_IDLE_SLOTS,
    Reason.LESS_WORK,
    Reason.SCALE_TO_ZERO,
    Reason.RATE_LIMITED,
    Reason.MIN,
    Reason.MAX,
    Reason.MAX_PODS_PER_MINUTE,
    Reason.SUSPENDED,
    Reason.FIXED,
    Reason.FALLBACK_STATIC,
    Reason.FALLBACK_MAX,
)
"""Reasons that a `ScaleTo` may have: their counters are shown before the first one happens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """At most `max` starts in any window of `duration`."""

    max: int
    duration: timedelta

    @property
    def per_second(self) -> float:
        """Jobs per second that the limit lets through."""
        return self.max / self.duration.total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """What to do without metrics; it never goes down (rule 7)."""

    behavior: FallbackBehavior = FallbackBehavior.HOLD
    replicas: int = 0
    failure_threshold: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPolicy:
    """An agent's resolved `scaling`, `concurrency`, `rateLimit`, and the queue's `suspend`."""

    mode: Mode = Mode.AUTO
    replicas: int = 1
    """Pods in mode Fixed."""
    min_replicas: int = 0
    max_replicas: int = 10
    target_wait: timedelta = timedelta(seconds=30)
    """How long a ready job may wait before it starts."""
    min_idle_slots: int = 0
    scale_down_window: timedelta | None = None
    scale_to_zero_after: timedelta | None = None
    max_pods_per_minute: int | None = None
    fallback: Fallback = Fallback()
    concurrency: int = 5
    """Slots per pod."""
    rate_limit: RateLimit | None = None
    suspended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a queue holds, by one look at Redis; jobs, except where it says otherwise."""

    ready: int = 0
    due_soon: int = 0
    """Delayed jobs that come due within a pod's start."""
    active: int = 0
    """Busy slots of workers with a live heartbeat."""
    stalled: int = 0
    """Started jobs that no live worker holds: their lease has run out, or will; then they are ready again."""
    oldest_ready: timedelta = timedelta()
    """Age of the oldest ready job."""
    paused: bool = False

    @property
    def backlog(self) -> int:
        """Jobs that want a slot by the time a new pod is up."""
        return self.ready + self.due_soon + self.stalled

    @property
    def jobs(self) -> int:
        """Jobs that run or want a slot."""
        return self.backlog + self.active


@dataclass(frozen=True, slots=True, kw_only=True)
class Pods:
    """The worker pods seen, without those that terminate."""

    ready: int = 0
    starting: int = 0
    """Neither Ready nor refused by the scheduler."""
    silent: int = 0
    """They were Ready, and their workers' heartbeats have ceased (a lost node, a hung process): no capacity."""
    unschedulable: int = 0
    failing: int = 0
    """Neither, and it will not be Ready either: it crashes again and again, or its container can't be made."""
    young: int = 0
    """Of all these, made in the last minute."""
    rolling_out: bool = False
    """Two ReplicaSets: the Deployment's controller splits a scale-in over both and would pass by the marks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What was learned from looks before this one; see `domain.estimates`."""

    arrivals_per_s: float = 0.0
    busy: float = 0.0
    """Slots busy at once, a mean over the last minute or so."""
    service: timedelta = timedelta(seconds=30)
    """How long a job takes."""
    service_known: timedelta | None = None
    """Until a job has ended `service` is a guess, and this is for how long one has run; None: it was measured."""
    startup: timedelta = timedelta(seconds=20)
    """From the wish for a pod to its being Ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything a decision needs to know, at one instant."""

    at: float
    """Monotonic seconds."""
    load: Load | None
    """None: the queue could not be read."""
    pods: Pods = Pods()
    rates: Rates = Rates()


@dataclass(frozen=True, slots=True)
class Wish:
    """A number of pods wished for at an instant."""

    at: float
    pods: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What one decision leaves to the next. The first decision starts from an empty one."""

    since: float | None = None
    """The first look of the unbroken row of looks."""
    keeps: tuple[Wish, ...] = ()
    """Falling numbers of pods to keep, oldest first: the greatest since any instant is the first one from then on."""
    busy_at: float | None = None
    """When the queue last held or ran a job."""
    current: int | None = None
    raises: tuple[Wish, ...] = ()
    """Pods added in the last minute, as seen."""
    failures: int = 0
    """Looks in a row without metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """The terms of the formula; jobs, pods where it says so."""

    steady: float
    """Jobs that run at once in the long run."""
    expected: float
    """Jobs that will be here when a pod that is asked for now is up."""
    time_left_s: float
    """In which time the backlog should be gone."""
    drain: float
    """Jobs to run at once so that the backlog is gone in that time."""
    wanted: float
    """Jobs to have slots for: those expected, unless fewer slots clear the backlog in time."""
    scatter: float
    """By how much the jobs that come while a pod starts scatter."""
    busy_floor: int
    """Pods for what runs."""
    idle_floor: int
    """Pods for what runs and the idle slots asked for."""
    rate_cap: int | None
    """Pods that the rate limit can feed."""
    start: int
    """Pods: as long as there are fewer, start some."""
    keep: int
    """Pods: those above may go."""
    reason: Reason
    """What sets `start`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Every input and every term of a decision, so that it can be explained."""

    snapshot: Snapshot
    current: int
    policy: ScalingPolicy
    need: Need | None = None
    """None: the mode, or missing metrics, decided without the formula."""
    down_window_s: float = 0.0
    zero_window_s: float = 0.0
    keep_peak: int | None = None
    """The greatest number to keep in the scale-down window, within min and max."""
    quiet_s: float = 0.0
    """For how long the queue has had no job."""
    learning_s: float = 0.0
    """For how long nothing goes yet, since too little is known."""
    added_last_minute: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class ScaleTo:
    """Set the number of pods to `replicas`."""

    replicas: int
    reason: Reason
    terms: Terms
    memory: Memory


@dataclass(frozen=True, slots=True)
class Hold:
    """Leave the number of pods as it is."""

    reason: Reason
    terms: Terms
    memory: Memory


Decision = ScaleTo | Hold


def decide_replicas(snapshot: Snapshot, *, current: int, policy: ScalingPolicy, memory: Memory) -> Decision:
    """How many pods from now on, and why.

    `current` is the number asked for at present. The answer carries the memory for the next call.
    Guarantees: within min and max; not below what the busy slots need unless the policy commands it (max, Fixed,
    suspend: then the drain waits for the jobs); never down without metrics, nor during a rollout but to zero, where
    there is no choice of victims.
    """
    terms = Terms(snapshot=snapshot, current=current, policy=policy)
    if policy.mode is Mode.EXTERNAL:
        return Hold(Reason.EXTERNAL, terms, Memory())
    if policy.mode is Mode.FIXED and not policy.suspended and policy.replicas >= current:
        return _towards(policy.replicas, Reason.FIXED, terms, Memory())
    if snapshot.load is None:
        return _without_metrics(terms, memory)
    if policy.suspended:
        return _towards(0, Reason.SUSPENDED, terms, Memory())
    if policy.mode is Mode.FIXED:
        return _towards(policy.replicas, Reason.FIXED, terms, Memory())
    return _auto(terms, snapshot.load, memory)


def _towards(target: int, reason: Reason, terms: Terms, memory: Memory) -> Decision:
    if 0 < target < terms.current and terms.snapshot.pods.rolling_out:
        return Hold(Reason.ROLLOUT, terms, memory)
    if target == terms.current:
        return Hold(reason, terms, memory)
    return ScaleTo(target, reason, terms, memory)


# Without metrics


def _without_metrics(terms: Terms, memory: Memory) -> Decision:
    """Hold, then the fallback. Wishes are forgotten: what runs when metrics return counts as wished for."""
    failures = memory.failures + 1
    terms = replace(terms, failures=failures)
    target, reason = _fallback(terms)
    return _towards(max(terms.current, target), reason, terms, Memory(failures=failures))


def _fallback(terms: Terms) -> tuple[int, Reason]:
    fallback = terms.policy.fallback
    if terms.policy.mode is not Mode.AUTO or terms.policy.suspended or terms.failures < fallback.failure_threshold:
        return 0, Reason.METRICS_MISSING
    match fallback.behavior:
        case FallbackBehavior.HOLD:
            return 0, Reason.FALLBACK_HOLD
        case FallbackBehavior.STATIC:
            return min(fallback.replicas, terms.policy.max_replicas), Reason.FALLBACK_STATIC
        case FallbackBehavior.MAX:
            return terms.policy.max_replicas, Reason.FALLBACK_MAX
        case _:
            assert_never(fallback.behavior)


# Auto


def _auto(terms: Terms, load: Load, memory: Memory) -> Decision:
    snapshot, policy, current = terms.snapshot, terms.policy, terms.current
    need = compute_need(snapshot, load, policy=policy)
    memory = _seen(memory, terms, load)
    silent = snapshot.pods.silent
    start = _within_bounds(need.start, silent, policy)
    keep = _within_bounds(_keep(need, load, terms, memory), silent, policy)
    memory = replace(memory, keeps=_with_keep(memory.keeps, Wish(snapshot.at, keep)))
    peak = max(kept.pods for kept in memory.keeps if kept.at >= snapshot.at - _down_window_s(policy))
    peak = min(peak, policy.max_replicas)
    terms = _with_history(terms, memory, need=need, keep_peak=peak)
    if start > current:
        return _up(start, _reason_up(need, terms), terms, memory)
    if peak < current:
        return _down(peak, terms, memory)
    return Hold(_reason_to_stay(need, load, terms, start=start, keep=keep), terms, memory)


def compute_need(snapshot: Snapshot, load: Load, *, policy: ScalingPolicy) -> Need:
    """The formula: how many pods the work calls for, without regard to min, max and history."""
    slots = policy.concurrency
    work = _Work.of(snapshot, load, slots)
    steady, time_left_s = work.steady, _time_left_s(snapshot, load, policy)
    drain = (work.backlog / time_left_s + work.arrivals_per_s) * work.service_s if work.backlog else 0.0
    expected = work.expected(work.backlog)
    wanted = min(expected, max(drain, work.expected(0)))
    scatter = math.sqrt(min(work.arrivals_per_s * work.startup_s, steady))
    busy_floor, idle_floor = math.ceil(load.active / slots), math.ceil((load.active + policy.min_idle_slots) / slots)
    rate_cap = _rate_cap(policy, snapshot.rates)
    start, reason = _start(work, wanted + START_SCATTER * scatter, slots)
    start, reason = (rate_cap, Reason.RATE_LIMITED) if rate_cap is not None and rate_cap < start else (start, reason)
    if start <= idle_floor > 0:
        start, reason = idle_floor, Reason.BUSY_FLOOR if idle_floor == busy_floor else Reason.MIN_IDLE_SLOTS
    keep = _pods(wanted + KEEP_SCATTER * scatter, slots)
    return Need(
        steady=steady,
        expected=expected,
        time_left_s=time_left_s,
        drain=drain,
        wanted=wanted,
        scatter=scatter,
        busy_floor=busy_floor,
        idle_floor=idle_floor,
        rate_cap=rate_cap,
        start=start,
        keep=max(start, keep if rate_cap is None else min(keep, rate_cap)),
        reason=reason,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """A snapshot's figures as the formula takes them; a paused queue's backlog and arrivals don't start."""

    backlog: int
    active: int
    slots_ready: int
    arrivals_per_s: float
    steady: float
    service_s: float
    startup_s: float

    @classmethod
    def of(cls, snapshot: Snapshot, load: Load, slots: int) -> "_Work":
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
        """Jobs that will be here after a pod's start, if the pods that are ready go on and others don't come.

        While more jobs are here than slots are ready, their number falls by what all the slots do, less what arrives;
        then it comes near the steady number, by the share of the jobs that ends in the time.
        """
        jobs, left_s = float(backlog + self.active), self.startup_s
        if jobs > self.slots_ready:
            falls_per_s = self.slots_ready / self.service_s - self.arrivals_per_s
            if jobs - falls_per_s * left_s > self.slots_ready:
                return jobs - falls_per_s * left_s
            left_s -= (jobs - self.slots_ready) / falls_per_s
            jobs = float(self.slots_ready)
        return self.steady + (jobs - self.steady) * math.exp(-left_s / self.service_s)


def _start(work: _Work, jobs: float, slots: int) -> tuple[int, Reason]:
    """Pods to start for so many jobs; a queue without a job gets none."""
    if work.backlog == 0 and work.active == 0:
        return 0, Reason.IDLE
    reason = Reason.BACKLOG if work.backlog else Reason.ARRIVALS
    return max(1, _pods(jobs, slots)), reason


def _pods(jobs: float, slots: int) -> int:
    return math.ceil(math.ceil(jobs - NO_SLOT_FOR) / slots)


def _time_left_s(snapshot: Snapshot, load: Load, policy: ScalingPolicy) -> float:
    """Pods that start were asked for with the oldest job's age in mind: no second alarm."""
    target_s = policy.target_wait.total_seconds()
    rates = snapshot.rates
    spent = load.oldest_ready + rates.startup if snapshot.pods.starting == 0 else timedelta()
    return max(target_s - spent.total_seconds(), min(rates.service.total_seconds(), target_s) / 2, LEAST_WAIT_S)


def _rate_cap(policy: ScalingPolicy, rates: Rates) -> int | None:
    """Pods that the rate limit can feed, and one slot to spare; more would idle. No pod is started on a guess here: as
    the first jobs run on, the cap grows as fast as the limit lets jobs start."""
    if policy.rate_limit is None:
        return None
    service = rates.service if rates.service_known is None else rates.service_known
    slots = policy.rate_limit.per_second * service.total_seconds() / UTILISATION + 1
    return math.ceil(slots / policy.concurrency)


def _keep(need: Need, load: Load, terms: Terms, memory: Memory) -> int:
    """Pods that a known job could use stay, and one stays until the queue has been quiet for long enough."""
    work = load.active if load.paused else load.jobs
    useful = min(terms.current, math.ceil(work / terms.policy.concurrency))
    if work or _quiet_s(terms, memory) < _zero_window_s(terms):
        return max(need.keep, useful, 1)
    return need.idle_floor


def _within_bounds(pods: int, silent: int, policy: ScalingPolicy) -> int:
    """Pods to ask for, so that as many work: silent ones come on top, but where nothing is wanted they may go too."""
    working = max(policy.min_replicas, pods)
    return min(working + silent if working else 0, policy.max_replicas)


def _reason_up(need: Need, terms: Terms) -> Reason:
    policy = terms.policy
    if need.start + terms.snapshot.pods.silent > policy.max_replicas:
        return Reason.MAX
    return Reason.MIN if need.start < policy.min_replicas else need.reason


def _reason_to_stay(need: Need, load: Load, terms: Terms, *, start: int, keep: int) -> Reason:
    """Why nothing changes: what would be done otherwise, or that there is nothing to do."""
    if keep < terms.current:
        return Reason.COOLING_DOWN
    if load.paused:
        return Reason.PAUSED
    if start == terms.current:
        return _reason_up(need, terms)
    if load.backlog and terms.snapshot.pods.starting:
        return Reason.STARTING_WILL_DO
    return Reason.ENOUGH if load.jobs else Reason.COOLING_DOWN


# Holding back


def _up(wish: int, reason: Reason, terms: Terms, memory: Memory) -> Decision:
    pods = terms.snapshot.pods
    if pods.unschedulable > 0:
        return Hold(Reason.UNSCHEDULABLE, terms, memory)
    if pods.failing > 0 and pods.ready == 0:
        return Hold(Reason.PODS_FAIL, terms, memory)
    limit = terms.policy.max_pods_per_minute
    if limit is not None and wish - terms.current > limit - terms.added_last_minute:
        allowed = terms.current + max(0, limit - terms.added_last_minute)
        return _towards(allowed, Reason.MAX_PODS_PER_MINUTE, terms, memory)
    return ScaleTo(wish, reason, terms, memory)


def _down(target: int, terms: Terms, memory: Memory) -> Decision:
    most = terms.policy.max_replicas
    if terms.current > most and (target == most or terms.learning_s > 0):
        return _towards(most, Reason.MAX, terms, memory)
    if terms.learning_s > 0:
        return Hold(Reason.LEARNING, terms, memory)
    return _towards(target, Reason.SCALE_TO_ZERO if target == 0 else Reason.LESS_WORK, terms, memory)


def _down_window_s(policy: ScalingPolicy) -> float:
    return policy.scale_down_window.total_seconds() if policy.scale_down_window is not None else 0.0


def _zero_window_s(terms: Terms) -> float:
    if terms.policy.scale_to_zero_after is not None:
        return terms.policy.scale_to_zero_after.total_seconds()
    low, high = ZERO_WINDOW_S
    return min(max(4 * terms.snapshot.rates.startup.total_seconds(), low), high)


# Memory


def _seen(memory: Memory, terms: Terms, load: Load) -> Memory:
    """The memory with what this look shows. Who has just started takes the young pods for added ones."""
    at = terms.snapshot.at
    added = terms.current - memory.current if memory.current is not None else terms.snapshot.pods.young
    raises = (*memory.raises, Wish(at, added)) if added > 0 else memory.raises
    works = load.active if load.paused else load.jobs
    return Memory(
        since=at if memory.since is None else memory.since,
        keeps=tuple(kept for kept in memory.keeps if kept.at >= at - _down_window_s(terms.policy)),
        busy_at=at if works or memory.busy_at is None else memory.busy_at,
        current=terms.current,
        raises=tuple(raised for raised in raises if raised.at > at - ADDED_S),
    )


def _with_keep(keeps: tuple[Wish, ...], new: Wish) -> tuple[Wish, ...]:
    """Drop what the new number outdoes: only falling numbers can be the greatest of a window that ends now."""
    return (*(kept for kept in keeps if kept.pods > new.pods), new)


def _quiet_s(terms: Terms, memory: Memory) -> float:
    return terms.snapshot.at - memory.busy_at if memory.busy_at is not None else 0.0


def _with_history(terms: Terms, memory: Memory, *, need: Need, keep_peak: int) -> Terms:
    at = terms.snapshot.at
    learnt_s = at - memory.since if memory.since is not None else 0.0
    return replace(
        terms,
        need=need,
        keep_peak=keep_peak,
        down_window_s=_down_window_s(terms.policy),
        zero_window_s=_zero_window_s(terms),
        quiet_s=_quiet_s(terms, memory),
        learning_s=max(0.0, LEARNING_S - learnt_s),
        added_last_minute=sum(raised.pods for raised in memory.raises),
    )
