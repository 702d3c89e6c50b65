"""Records and enums of a scaling decision: its inputs, its terms, its result and the memory between decisions."""

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from agentqueue.spec.defaults import Fallback, RateLimit, ScalingMode

SCALE_UP_RATE_WINDOW_S = 60.0
"""Time in seconds over which added pods are counted: one minute, as the name of maxPodsPerMinute requires."""


class ScalingReason(StrEnum):
    """Reason of a decision. Events, metrics and `status.agents[].lastScale` show these values and no others."""

    BACKLOG = "Backlog"
    ARRIVALS = "Arrivals"
    BUSY_FLOOR = "BusyFloor"
    MIN_IDLE_SLOTS = "MinIdleSlots"
    ENOUGH = "Enough"
    PODS_STARTING = "PodsStarting"
    LEARNING = "Learning"
    COOLING_DOWN = "CoolingDown"
    LESS_WORK = "LessWork"
    SCALE_TO_ZERO = "ScaleToZero"
    IDLE = "Idle"
    RATE_LIMITED = "RateLimited"
    REGISTERING = "Registering"
    MIN = "MinReplicas"
    MAX = "MaxReplicas"
    MAX_PODS_PER_MINUTE = "MaxPodsPerMinute"
    UNSCHEDULABLE = "Unschedulable"
    PODS_FAILING = "PodsFailing"
    ROLLOUT = "Rollout"
    PAUSED = "Paused"
    SUSPENDED = "Suspended"
    FIXED = "Fixed"
    EXTERNAL = "External"
    METRICS_MISSING = "MetricsMissing"
    FALLBACK_HOLD = "FallbackHold"
    FALLBACK_STATIC = "FallbackStatic"
    FALLBACK_MAX = "FallbackMax"


CHANGE_REASONS = (
    ScalingReason.BACKLOG,
    ScalingReason.ARRIVALS,
    ScalingReason.BUSY_FLOOR,
    ScalingReason.MIN_IDLE_SLOTS,
    ScalingReason.LESS_WORK,
    ScalingReason.SCALE_TO_ZERO,
    ScalingReason.RATE_LIMITED,
    ScalingReason.REGISTERING,
    ScalingReason.MIN,
    ScalingReason.MAX,
    ScalingReason.MAX_PODS_PER_MINUTE,
    ScalingReason.SUSPENDED,
    ScalingReason.FIXED,
    ScalingReason.FALLBACK_STATIC,
    ScalingReason.FALLBACK_MAX,
)
"""Reasons that a `ScaleTo` can have. Their counters are exported from the start, before the first change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingTiming:
    """Durations, in seconds, that a decision waits before it removes pods. Tests shorten them."""

    learning_s: float = 60.0
    """Time without scale-down after the first observation and after missing metrics. Rates are means over a minute."""
    min_zero_window_s: float = 30.0
    """Lower bound of the default time without a job before the last pod goes."""
    max_zero_window_s: float = 300.0
    """Upper bound of that time. In between it is four times the start time of a pod."""


DEFAULT_TIMING = ScalingTiming()
"""Timing of both hosts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPolicy:
    """The resolved `scaling`, `concurrency` and `rateLimit` of an agent, and the queue's `suspend`."""

    mode: ScalingMode = ScalingMode.AUTO
    replicas: int = 1
    """Pods in mode Fixed."""
    min_replicas: int = 0
    max_replicas: int = 10
    target_wait: timedelta = timedelta(seconds=30)
    """Longest time that a ready job should wait before it starts."""
    min_idle_slots: int = 0
    scale_down_window: timedelta | None = None
    scale_to_zero_after: timedelta | None = None
    max_pods_per_minute: int | None = None
    fallback: Fallback = field(default_factory=Fallback)
    concurrency: int = 5
    """Slots per pod."""
    rate_limit: RateLimit | None = None
    suspended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Content of a queue at one instant. The unit is jobs unless a field states another."""

    ready: int = 0
    due_soon: int = 0
    """Delayed jobs that become due within the start time of a pod."""
    active: int = 0
    """Busy slots of workers with a live heartbeat."""
    stalled: int = 0
    """Started jobs that no live worker holds. They become ready again when their lease expires."""
    oldest_ready: timedelta = timedelta()
    """Age of the oldest ready job."""
    paused: bool = False

    @property
    def backlog(self) -> int:
        """Jobs that want a slot by the time a new pod is ready."""
        return self.ready + self.due_soon + self.stalled

    @property
    def jobs(self) -> int:
        """Jobs that run or want a slot."""
        return self.backlog + self.active


@dataclass(frozen=True, slots=True, kw_only=True)
class Pods:
    """Number of worker pods by their state, without pods that terminate."""

    ready: int = 0
    starting: int = 0
    """Pods that are not Ready yet, and that the scheduler has not refused."""
    silent: int = 0
    """Pods that were Ready and send no heartbeats any more (a lost node, a hung process). They are no capacity."""
    unschedulable: int = 0
    failing: int = 0
    """Scheduled pods that will not become Ready: they crash repeatedly, or their container cannot be created."""
    young: int = 0
    """Pods of any of these states that were created in the last minute."""
    rolling_out: bool = False
    """Two ReplicaSets have pods. A scale-in would then be split over both, regardless of which pods have drained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Rates estimated from earlier observations; see `autoscaling.estimates`."""

    arrivals_per_s: float = 0.0
    busy: float = 0.0
    """Mean number of busy slots over the last minute."""
    service: timedelta = timedelta(seconds=30)
    """Time that a job takes."""
    service_known: timedelta | None = None
    """None if `service` was measured. Before a job has ended, `service` is a guess; this is the age of running jobs."""
    startup: timedelta = timedelta(seconds=20)
    """Time from the request for a pod until it is Ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingSnapshot:
    """Everything that a decision depends on, at one instant."""

    at: float
    """Monotonic seconds."""
    load: Load | None
    """None if the queue could not be read."""
    pods: Pods = Pods()
    rates: Rates = Rates()
    registering: bool = False
    """No worker of the present version has registered its jobs and schedules yet. One pod runs until one has."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A number of pods at an instant."""

    at: float
    """Monotonic seconds."""
    pods: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """State that one decision passes to the next. The first decision starts from an empty one."""

    since: float | None = None
    """Time of the first observation since the queue could last not be read, in monotonic seconds."""
    keep_history: tuple[Sample, ...] = ()
    """Monotonic queue of desired pod counts; the first entry in a window is its maximum."""
    busy_at: float | None = None
    """Last time at which the queue held or ran a job, in monotonic seconds."""
    current: int | None = None
    """Number of pods requested at the last observation."""
    recent_scale_ups: tuple[Sample, ...] = ()
    """Pods added in the last minute, as observed."""
    failures: int = 0
    """Consecutive observations without metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Terms of the formula. The unit is jobs, or pods where a field states it."""

    steady: float
    """Jobs that run at the same time in the long run."""
    expected: float
    """Jobs that will be present when a pod requested now is ready."""
    time_left_s: float
    """Time within which the backlog should be cleared, in seconds."""
    slots_to_clear: float
    """Jobs that must run at the same time to clear the backlog within that time."""
    wanted: float
    """Jobs that should have a slot: those expected, unless fewer slots clear the backlog in time."""
    sigma: float
    """Standard deviation of the number of jobs that arrive while a pod starts."""
    busy_floor: int
    """Pods that the running jobs need."""
    idle_floor: int
    """Pods that the running jobs and minIdleSlots need."""
    rate_cap: int | None
    """Pods that the rate limit can supply with jobs; None without a limit."""
    start_below: int
    """Pods below which some are started."""
    remove_above: int
    """Pods above which some may be removed."""
    reason: ScalingReason
    """The term that determines `start_below`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Every input and every term of a decision, so that it can be explained."""

    snapshot: ScalingSnapshot
    current: int
    """Number of pods requested at present."""
    policy: ScalingPolicy
    demand: Demand | None = None
    """None if the mode, or missing metrics, decided without the formula."""
    down_window_s: float = 0.0
    zero_window_s: float = 0.0
    keep_peak: int | None = None
    """Maximum of the pods to keep in the scale-down window, within minReplicas and maxReplicas."""
    quiet_s: float = 0.0
    """Time for which the queue has had no job, in seconds."""
    learning_s: float = 0.0
    """Time in seconds before pods may be removed, because the rates are not known well enough yet."""
    added_last_minute: int = 0
    failures: int = 0
    """Consecutive observations without metrics."""


@dataclass(frozen=True, slots=True)
class ScaleTo:
    """Set the number of pods to `replicas`."""

    replicas: int
    reason: ScalingReason
    terms: Terms
    memory: Memory


@dataclass(frozen=True, slots=True)
class Hold:
    """Leave the number of pods unchanged."""

    reason: ScalingReason
    terms: Terms
    memory: Memory


Decision = ScaleTo | Hold
