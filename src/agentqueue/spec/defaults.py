"""Settings of an agent with every field set, and their built-in defaults.

Code that runs jobs, renders manifests or scales takes these plain dataclasses, never the resource itself, in which
`agentDefaults` may still set an absent field. The optional counterparts are in `agentqueue.spec.agents`; a test checks
that both have the same names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from agentqueue.service.environment import DEAD_LETTER_JOB


class BackoffType(StrEnum):
    """Growth of the delay before a retry."""

    EXPONENTIAL = "exponential"
    FIXED = "fixed"


class ScalingMode(StrEnum):
    """Source of the number of worker pods."""

    AUTO = "Auto"
    FIXED = "Fixed"
    EXTERNAL = "External"


class FallbackBehavior(StrEnum):
    """Reaction of scaling if the queue can't be read."""

    HOLD = "Hold"
    STATIC = "Static"
    MAX = "Max"


@dataclass(frozen=True, slots=True)
class BackoffSettings:
    """The delay before a failed job is retried. `max_delay_seconds` is never below `delay_seconds`."""

    type: BackoffType = BackoffType.EXPONENTIAL
    delay_seconds: int = 2
    max_delay_seconds: int = 600
    jitter: float = 0.1


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """The number of attempts of a job before it becomes a dead letter."""

    attempts: int = 3
    crashes: int = 3
    backoff: BackoffSettings = field(default_factory=BackoffSettings)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A limit of `max` job starts in any window of `duration_seconds`, for all workers of the queue together."""

    max: int
    duration_seconds: int = 1

    @property
    def per_second(self) -> float:
        """Number of job starts per second that the limit allows."""
        return self.max / self.duration_seconds


@dataclass(frozen=True, slots=True)
class Retention:
    """Retention of finished jobs. Clients read results by job ID; the history is a list for people."""

    result_seconds: int = 3_600
    completed_seconds: int = 86_400
    completed_count: int = 1_000
    dead_seconds: int = 604_800


@dataclass(frozen=True, slots=True)
class Ageing:
    """Waiting time per priority level, in seconds, after which a ready job starts before higher levels."""

    high_seconds: int = 60
    normal_seconds: int = 300
    low_seconds: int = 900


@dataclass(frozen=True, slots=True)
class DeadLetterSettings:
    """The agent that receives a job for each dead letter, and the name of that job."""

    agent: str
    job: str = DEAD_LETTER_JOB


@dataclass(frozen=True, slots=True)
class Fallback:
    """Scaling after `failure_threshold` consecutive failed reads of the queue."""

    behavior: FallbackBehavior = FallbackBehavior.HOLD
    replicas: int | None = None
    failure_threshold: int = 3


@dataclass(frozen=True, slots=True)
class Scaling:
    """The number of worker pods. A window or rate of None is unlimited or follows the measured start time."""

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
    """The rollout of a change of the workers: new pods start first, then old pods drain."""

    max_surge: int | str = "25%"
    max_unavailable: int | str = 0
    progress_deadline_seconds: int = 600


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Settings of an agent that the resource may override."""

    concurrency: int = 5
    rate_limit: RateLimit | None = None
    retry: RetrySettings = field(default_factory=RetrySettings)
    job_timeout_seconds: int = 300
    retention: Retention = field(default_factory=Retention)
    ageing: Ageing = field(default_factory=Ageing)
    on_dead_letter: DeadLetterSettings | None = None
    scaling: Scaling = field(default_factory=Scaling)
    rollout: Rollout = field(default_factory=Rollout)
    termination_grace_period_seconds: int = 60
