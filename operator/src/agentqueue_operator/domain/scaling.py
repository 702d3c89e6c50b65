"""How many worker pods a queue should have now: a frozen snapshot in, a decision out, reasons and terms with it.

The operator, `agentqueue up` and the simulator in benchmarks/scaling call the same function. What the terms mean and
why they are there: docs/scaling.md.
"""

import math
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

UTILISATION = 0.85
"""Share of the slots that steady arrivals should keep busy: the rest takes the chance out of Poisson arrivals."""
LEAST_WAIT_S = 5.0
"""The backlog is never asked to be gone sooner than this: one look at the queue takes that long."""
DOWN_WINDOW_S = (15.0, 120.0)
"""Bounds of the scale-down window, by default twice a pod's start: what leaves now may be needed after that."""
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
    FIRST_JOB = "FirstJob"
    BUSY_FLOOR = "BusyFloor"
    MIN_IDLE_SLOTS = "MinIdleSlots"
    STARTING_WILL_DO = "StartingWillDo"
    COOLING_DOWN = "CoolingDown"
    LESS_WORK = "LessWork"
    SCALE_TO_ZERO = "ScaleToZero"
    IDLE = "Idle"
    RATE_LIMITED = "RateLimited"
    MIN = "MinReplicas"
    MAX = "MaxReplicas"
    MAX_PODS_PER_MINUTE = "MaxPodsPerMinute"
    UNSCHEDULABLE = "Unschedulable"
    ROLLOUT = "Rollout"
    PAUSED = "Paused"
    SUSPENDED = "Suspended"
    FIXED = "Fixed"
    EXTERNAL = "External"
    METRICS_MISSING = "MetricsMissing"
    FALLBACK_HOLD = "FallbackHold"
    FALLBACK_STATIC = "FallbackStatic"
    FALLBACK_MAX = "FallbackMax"


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
    oldest_ready: timedelta = timedelta()
    """Age of the oldest ready job."""
    paused: bool = False

    @property
    def backlog(self) -> int:
        """Jobs that want a slot by the time a new pod is up."""
        return self.ready + self.due_soon

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
    unschedulable: int = 0
    rolling_out: bool = False
    """Two ReplicaSets: the Deployment's controller splits a scale-in over both and would pass by the marks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What was learned from looks before this one; see `domain.estimates`."""

    arrivals_per_s: float = 0.0
    service: timedelta = timedelta(seconds=30)
    """How long a job takes."""
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

    wishes: tuple[Wish, ...] = ()
    """Falling numbers, oldest first: the greatest wish since any instant is the first one from then on."""
    busy_at: float | None = None
    """When the queue last held or ran a job."""
    current: int | None = None
    raises: tuple[Wish, ...] = ()
    """Pods added in the last minute, as seen."""
    failures: int = 0
    """Looks in a row without metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """The terms of the formula, in pods unless the unit is in the name."""

    time_left_s: float
    steady: float
    drain: float
    cap: float
    busy_floor: int
    idle_floor: int
    rate_cap: int | None
    start_too_late: bool
    pods: int
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Every input and every term of a decision, so that it can be explained."""

    snapshot: Snapshot
    current: int
    policy: ScalingPolicy
    need: Need | None = None
    """None: the mode, or missing metrics, decided without the formula."""
    wish: int | None = None
    """The formula's answer within min and max, before holding back."""
    down_window_s: float = 0.0
    zero_window_s: float = 0.0
    window_peak: int | None = None
    """The greatest wish in the scale-down window."""
    quiet_s: float = 0.0
    """For how long the queue has had no job."""
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
    suspend: then the drain waits for the jobs); never down without metrics or during a rollout.
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
    if target < terms.current and terms.snapshot.pods.rolling_out:
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


# Auto


def _auto(terms: Terms, load: Load, memory: Memory) -> Decision:
    if load.paused:
        load = Load(active=load.active, paused=True)
    memory = _seen(memory, terms, load)
    need = compute_need(terms.snapshot, load, current=terms.current, policy=terms.policy)
    wish, reason = _within_bounds(need, terms.policy)
    memory = replace(memory, wishes=_with_wish(memory.wishes, Wish(terms.snapshot.at, wish)))
    terms = replace(
        terms,
        need=need,
        wish=wish,
        down_window_s=_down_window_s(terms),
        zero_window_s=_zero_window_s(terms),
        quiet_s=terms.snapshot.at - (memory.busy_at or 0.0),
        added_last_minute=sum(raised.pods for raised in memory.raises),
    )
    if wish > terms.current:
        return _up(wish, reason, terms, memory)
    if wish < terms.current:
        return _down(terms, memory)
    return Hold(reason, terms, memory)


def compute_need(snapshot: Snapshot, load: Load, *, current: int, policy: ScalingPolicy) -> Need:
    """The formula: how many pods the work calls for, without regard to min, max and history."""
    slots = policy.concurrency
    service_s = snapshot.rates.service.total_seconds()
    time_left_s = _time_left_s(snapshot, load, policy)
    steady, drain, cap = _terms(snapshot, load, service_s=service_s, time_left_s=time_left_s, slots=slots)
    too_late = _start_too_late(snapshot, load, policy)
    busy_floor = math.ceil(load.active / slots)
    idle_floor = math.ceil((load.active + policy.min_idle_slots) / slots)
    rate_cap = _rate_cap(policy, service_s)
    pods, reason = _first_wish(load, steady=steady, drain=drain, cap=cap)
    if pods > current and too_late:
        pods, reason = current, Reason.STARTING_WILL_DO
    if rate_cap is not None and pods > rate_cap:
        pods, reason = rate_cap, Reason.RATE_LIMITED
    if pods < idle_floor:
        pods, reason = idle_floor, Reason.BUSY_FLOOR if idle_floor == busy_floor else Reason.MIN_IDLE_SLOTS
    return Need(
        time_left_s=time_left_s,
        steady=steady,
        drain=drain,
        cap=cap,
        busy_floor=busy_floor,
        idle_floor=idle_floor,
        rate_cap=rate_cap,
        start_too_late=too_late,
        pods=pods,
        reason=reason,
    )


def _time_left_s(snapshot: Snapshot, load: Load, policy: ScalingPolicy) -> float:
    """In which time the backlog should be gone. Pods that start were asked for with the age in mind: no second alarm."""
    target_s = policy.target_wait.total_seconds()
    rates = snapshot.rates
    spent = load.oldest_ready + rates.startup if snapshot.pods.starting == 0 else timedelta()
    return max(target_s - spent.total_seconds(), min(rates.service.total_seconds(), target_s) / 2, LEAST_WAIT_S)


def _terms(
    snapshot: Snapshot, load: Load, *, service_s: float, time_left_s: float, slots: int
) -> tuple[float, float, float]:
    arrivals = snapshot.rates.arrivals_per_s
    steady = arrivals * service_s / (slots * UTILISATION)
    drain = (load.backlog / time_left_s + arrivals) * service_s / slots if load.backlog else 0.0
    return steady, drain, load.jobs / slots


def _first_wish(load: Load, *, steady: float, drain: float, cap: float) -> tuple[int, Reason]:
    """A slot for each job is always enough, and arrivals to come get at most one pod more than that."""
    if load.jobs == 0:
        return 0, Reason.IDLE
    if load.paused:
        return 0, Reason.PAUSED
    backlog = min(max(drain, steady), cap)
    ahead = min(steady, cap + 1)
    pods = math.ceil(max(backlog, ahead) - 1e-9)
    if pods <= 1 and load.active == 0:
        return 1, Reason.FIRST_JOB
    return max(pods, 1), Reason.BACKLOG if drain > steady else Reason.ARRIVALS


def _start_too_late(snapshot: Snapshot, load: Load, policy: ScalingPolicy) -> bool:
    """The pods that are ready clear the backlog before a new one could help."""
    if snapshot.pods.ready == 0 or load.oldest_ready >= policy.target_wait / 2:
        return False
    cleared_in = snapshot.rates.service * load.backlog / (policy.concurrency * snapshot.pods.ready)
    return load.backlog > 0 and cleared_in <= snapshot.rates.startup


def _rate_cap(policy: ScalingPolicy, service_s: float) -> int | None:
    """Pods that the rate limit can feed, and one slot to spare; more would idle."""
    if policy.rate_limit is None:
        return None
    return math.ceil((policy.rate_limit.per_second * service_s / UTILISATION + 1) / policy.concurrency)


def _within_bounds(need: Need, policy: ScalingPolicy) -> tuple[int, Reason]:
    if need.pods > policy.max_replicas:
        return policy.max_replicas, Reason.MAX
    if need.pods < policy.min_replicas:
        return policy.min_replicas, Reason.MIN
    return need.pods, need.reason


# Holding back


def _up(wish: int, reason: Reason, terms: Terms, memory: Memory) -> Decision:
    if terms.snapshot.pods.unschedulable > 0:
        return Hold(Reason.UNSCHEDULABLE, terms, memory)
    limit = terms.policy.max_pods_per_minute
    if limit is not None and wish - terms.current > limit - terms.added_last_minute:
        allowed = terms.current + max(0, limit - terms.added_last_minute)
        return _towards(allowed, Reason.MAX_PODS_PER_MINUTE, terms, memory)
    return ScaleTo(wish, reason, terms, memory)


def _down(terms: Terms, memory: Memory) -> Decision:
    """Only to the greatest wish in the window; the last pod goes after a longer quiet time."""
    peak = max(w.pods for w in memory.wishes if w.at >= terms.snapshot.at - terms.down_window_s)
    terms = replace(terms, window_peak=peak)
    target = peak
    if peak == 0 and terms.quiet_s < terms.zero_window_s:
        target = 1
    target = min(target, terms.policy.max_replicas)
    if target >= terms.current:
        return Hold(Reason.COOLING_DOWN, terms, memory)
    return _towards(target, _reason_down(target, terms), terms, memory)


def _reason_down(target: int, terms: Terms) -> Reason:
    if terms.current > terms.policy.max_replicas:
        return Reason.MAX
    return Reason.SCALE_TO_ZERO if target == 0 else Reason.LESS_WORK


def _down_window_s(terms: Terms) -> float:
    given = terms.policy.scale_down_window
    return given.total_seconds() if given is not None else _times_startup(2, terms, DOWN_WINDOW_S)


def _zero_window_s(terms: Terms) -> float:
    given = terms.policy.scale_to_zero_after
    return given.total_seconds() if given is not None else _times_startup(4, terms, ZERO_WINDOW_S)


def _times_startup(times: int, terms: Terms, bounds: tuple[float, float]) -> float:
    low, high = bounds
    return min(max(times * terms.snapshot.rates.startup.total_seconds(), low), high)


# Memory


def _seen(memory: Memory, terms: Terms, load: Load) -> Memory:
    """The memory with what this look shows; at the first look, what runs counts as wished for."""
    at = terms.snapshot.at
    wishes = memory.wishes or (Wish(at, terms.current),)
    keep_s = max(_down_window_s(terms), _zero_window_s(terms))
    added = terms.current - memory.current if memory.current is not None else 0
    raises = (*memory.raises, Wish(at, added)) if added > 0 else memory.raises
    return Memory(
        wishes=tuple(w for w in wishes if w.at >= at - keep_s),
        busy_at=at if load.jobs or memory.busy_at is None else memory.busy_at,
        current=terms.current,
        raises=tuple(r for r in raises if r.at > at - 60),
    )


def _with_wish(wishes: tuple[Wish, ...], new: Wish) -> tuple[Wish, ...]:
    """Drop what the new wish outdoes: only falling numbers can be the greatest of a window that ends now."""
    return (*(w for w in wishes if w.pods > new.pods), new)
