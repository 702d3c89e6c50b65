"""An agent's settings with everything filled in, and so the one place of their built-in defaults.

These are plain frozen dataclasses: what runs jobs, renders manifests or decides replicas takes them and never the
resource itself, where an absent field may still be set by `agentDefaults`. The resource's twins, where all is
optional, are in `agentqueue.spec.agents`; a test holds the two together by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from agentqueue.service.environment import DEAD_LETTER_JOB


class BackoffType(StrEnum):
    """How the delay before a retry grows."""

    EXPONENTIAL = "exponential"
    FIXED = "fixed"


class ScalingMode(StrEnum):
    """Who decides the number of worker pods."""

    AUTO = "Auto"
    FIXED = "Fixed"
    EXTERNAL = "External"


class FallbackBehavior(StrEnum):
    """What scaling does when the queue can't be read."""

    HOLD = "Hold"
    STATIC = "Static"
    MAX = "Max"


@dataclass(frozen=True, slots=True)
class Backoff:
    """The delay before a failed job is tried again. `max_delay_seconds` is never below `delay_seconds`."""

    type: BackoffType = BackoffType.EXPONENTIAL
    delay_seconds: int = 2
    max_delay_seconds: int = 600
    jitter: float = 0.1


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a job is tried before it goes to the dead letters."""

    attempts: int = 3
    crashes: int = 3
    backoff: Backoff = field(default_factory=Backoff)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `max` starts in any window of `duration_seconds`, over all workers of the queue."""

    max: int
    duration_seconds: int = 1

    @property
    def per_second(self) -> float:
        """Jobs per second that the limit allows."""
        return self.max / self.duration_seconds


@dataclass(frozen=True, slots=True)
class Retention:
    """How long final jobs are kept. The result and the history are two things: clients read the first."""

    result_seconds: int = 3_600
    completed_seconds: int = 86_400
    completed_count: int = 1_000
    dead_seconds: int = 604_800


@dataclass(frozen=True, slots=True)
class Ageing:
    """A ready job that has waited longer than its level's limit goes before higher levels."""

    high_seconds: int = 60
    normal_seconds: int = 300
    low_seconds: int = 900


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Which agent gets a job for each dead letter, and that job's name."""

    agent: str
    job: str = DEAD_LETTER_JOB


@dataclass(frozen=True, slots=True)
class Fallback:
    """What scaling does once the queue could not be read `failure_threshold` times in a row."""

    behavior: FallbackBehavior = FallbackBehavior.HOLD
    replicas: int | None = None
    failure_threshold: int = 3


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many worker pods run. None in a window or a rate means: follows the measured start time, or no limit."""

    mode: ScalingMode = ScalingMode.AUTO
    replicas: int | None = None
    min_replicas: int = 0
    max_replicas: int = 10
    target_wait_seconds: int = 30
    min_idle_slots: int = 0
    scale_down_window_seconds: int | None = None
    scale_to_zero_after_seconds: int | None = None
    max_pods_per_minute: int | None = None
    fallback: Fallback = field(default_factory=Fallback)


@dataclass(frozen=True, slots=True)
class Rollout:
    """How a change of the workers is rolled out: new pods first, then the old ones drain."""

    max_surge: int | str = "25%"
    max_unavailable: int | str = 0
    progress_deadline_seconds: int = 600


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What an agent does unless the resource says otherwise."""

    concurrency: int = 5
    rate_limit: RateLimit | None = None
    retry: Retry = field(default_factory=Retry)
    job_timeout_seconds: int = 300
    retention: Retention = field(default_factory=Retention)
    ageing: Ageing = field(default_factory=Ageing)
    on_dead_letter: DeadLetter | None = None
    scaling: Scaling = field(default_factory=Scaling)
    rollout: Rollout = field(default_factory=Rollout)
    termination_grace_period_seconds: int = 60
