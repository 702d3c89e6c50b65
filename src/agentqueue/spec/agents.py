"""Models of agents. A field is optional if `agentDefaults` or a built-in default may set it.

These fields have no default in the schema: the API server would write it into the agent, and it would override
`agentDefaults`. `resolve` fills them in field by field from `agentqueue.spec.defaults`. Each class here names its
counterpart there, from which the CRD and the reference take the default.
"""

from typing import Annotated, ClassVar

from pydantic import Field

from agentqueue.spec import defaults
from agentqueue.spec.base import (
    HANDLER,
    JOB_NAME,
    AgentName,
    Image,
    Int,
    IntOrPercent,
    Model,
    Number,
    list_map,
    unique,
)
from agentqueue.spec.pods import CodeFrom, Env, EnvFroms, PodTemplate, Resources
from agentqueue.spec.schedules import Schedules

WEEK_S = 604_800
"""A week, in seconds: the maximum for times that a job may take or wait."""
YEAR_S = 31_536_000
"""A year, in seconds: the maximum for retention."""
QUEUE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*(:[A-Za-z0-9._-]+)*$"
"""Pattern of a queue's name. Colons are allowed, because names of existing arq queues have some."""


class Overlay(Model):
    """Settings that may each be absent. `filled` is the counterpart in which all are set."""

    filled: ClassVar[type]


class BackoffSpec(Overlay):
    """The delay before a failed job is retried."""

    filled = defaults.BackoffSettings

    type: defaults.BackoffType | None = None
    """exponential doubles the delay with each attempt; fixed keeps it."""
    delay_seconds: Int | None = Field(None, ge=0, le=86_400)
    """Delay before the second attempt, in seconds."""
    max_delay_seconds: Int | None = Field(None, ge=0, le=WEEK_S)
    """Maximum delay, in seconds. It must be at least delaySeconds."""
    jitter: Number | None = Field(None, ge=0, le=1)
    """Random fraction of the delay, from 0 to 1. It spreads the retries of jobs that failed at the same time."""


class RetrySpec(Overlay):
    """The number of attempts of a job before it becomes a dead letter."""

    filled = defaults.RetrySettings

    attempts: Int | None = Field(None, ge=1, le=1_000)
    """Maximum number of attempts that end in a failure of the handler, including the first one. Drains and evictions
    don't count."""
    crashes: Int | None = Field(None, ge=1, le=1_000)
    """Number of worker crashes during a job after which it becomes a dead letter with the reason `crashed`."""
    backoff: BackoffSpec | None = None
    """The delay before a failed job is retried."""


class RateLimitSpec(Overlay):
    """A limit of `max` job starts in any window of durationSeconds, for all workers of the queue together."""

    filled = defaults.RateLimit

    max: Int = Field(ge=1, le=1_000_000)
    """Maximum number of job starts in a window."""
    duration_seconds: Int | None = Field(None, ge=1, le=86_400)
    """Length of the window, in seconds."""


class RetentionSpec(Overlay):
    """Retention of finished jobs and their results."""

    filled = defaults.Retention

    result_seconds: Int | None = Field(None, ge=0, le=YEAR_S)
    """Time that a job's result can be read by its ID, in seconds. Redis stores about this value times the jobs per
    second."""
    completed_seconds: Int | None = Field(None, ge=0, le=YEAR_S)
    """Time that a completed job stays in the queue's history, in seconds."""
    completed_count: Int | None = Field(None, ge=0, le=1_000_000)
    """Maximum number of completed jobs in the queue's history. The newest are kept."""
    dead_seconds: Int | None = Field(None, ge=60, le=YEAR_S)
    """Time that a dead letter can be inspected and replayed, in seconds."""


class AgeingSpec(Overlay):
    """The waiting time after which ready jobs of a priority level start before higher levels."""

    filled = defaults.Ageing

    high_seconds: Int | None = Field(None, ge=1, le=WEEK_S)
    """Waiting time for priority high, in seconds."""
    normal_seconds: Int | None = Field(None, ge=1, le=WEEK_S)
    """Waiting time for priority normal, in seconds."""
    low_seconds: Int | None = Field(None, ge=1, le=WEEK_S)
    """Waiting time for priority low, in seconds."""


class DeadLetterSpec(Overlay):
    """Another agent of this resource that receives a job for each dead letter."""

    filled = defaults.DeadLetterSettings

    agent: AgentName
    """Name of the agent. If agentDefaults names it, its own dead letters are excluded."""
    job: Annotated[str, Field(min_length=1, max_length=128, pattern=JOB_NAME)] | None = None
    """Name of the job that the agent receives."""


class FallbackSpec(Overlay):
    """Scaling while the queue can't be read. The fallback never removes running pods."""

    filled = defaults.Fallback

    behavior: defaults.FallbackBehavior | None = None
    """Hold keeps the number of pods; Static scales up to `replicas`; Max scales up to maxReplicas."""
    replicas: Int | None = Field(None, ge=0, le=1_000)
    """Number of worker pods. Only for behavior Static, which requires it."""
    failure_threshold: Int | None = Field(None, ge=1, le=100)
    """Number of consecutive failed reads of the queue before the fallback applies."""


class ScalingSpec(Overlay):
    """The number of worker pods of the agent."""

    filled = defaults.Scaling

    mode: defaults.ScalingMode | None = None
    """Auto scales with the queue; Fixed runs `replicas` pods; External leaves the Deployment's replicas to you or
    another autoscaler."""
    replicas: Int | None = Field(None, ge=0, le=1_000)
    """Number of worker pods. Only for mode Fixed, which requires it."""
    min_replicas: Int | None = Field(None, ge=0, le=1_000)
    """Minimum number of worker pods. 0 lets an idle agent scale to zero. Only for mode Auto."""
    max_replicas: Int | None = Field(None, ge=1, le=1_000)
    """Maximum number of worker pods. Only for mode Auto."""
    target_wait_seconds: Int | None = Field(None, ge=1, le=86_400)
    """Target for the time that a ready job waits before it starts, in seconds. The number of pods follows from it. Only
    for mode Auto."""
    min_idle_slots: Int | None = Field(None, ge=0, le=10_000)
    """Number of free slots to keep ready for new jobs. Only for mode Auto."""
    scale_down_window_seconds: Int | None = Field(None, ge=0, le=3_600)
    """Look-back window before a scale-down, in seconds: the highest pod count desired in it is kept. If absent, there
    is no window. Only for mode Auto."""
    scale_to_zero_after_seconds: Int | None = Field(None, ge=0, le=86_400)
    """Idle time before the last pod is removed, in seconds. If absent, it is four times the measured start time of a
    pod, within 30 to 300. Only for mode Auto."""
    max_pods_per_minute: Int | None = Field(None, ge=1, le=1_000)
    """Maximum number of pods to add per minute. If absent, there is no limit. Only for mode Auto."""
    fallback: FallbackSpec | None = None
    """Scaling while the queue can't be read. Only for mode Auto."""


class RolloutSpec(Overlay):
    """The rollout of a change of the workers. Old pods drain: their running jobs finish or return to the queue."""

    filled = defaults.Rollout

    max_surge: IntOrPercent | None = None
    """Maximum number of pods above the desired count during a rollout, as a number or a percentage."""
    max_unavailable: IntOrPercent | None = None
    """Maximum number of pods below the desired count during a rollout, as a number or a percentage."""
    progress_deadline_seconds: Int | None = Field(None, ge=10, le=86_400)
    """Time without progress after which a rollout is reported as stuck, in seconds."""


class AgentDefaults(Overlay):
    """Settings of all agents that do not set their own. Objects are merged field by field, `env` by name."""

    filled = defaults.AgentSettings

    image: Image | None = None
    """Container image with the handlers, built from the worker image. If absent, the worker image itself."""
    code_from: CodeFrom | None = None
    """Source of the handlers' code if the image does not contain it."""
    concurrency: Int | None = Field(None, ge=1, le=1_000)
    """Number of jobs that a worker pod runs at the same time (its slots)."""
    rate_limit: RateLimitSpec | None = None
    """Limit on job starts, for all workers of a queue together. If absent, there is no limit. The agent's object
    replaces that of agentDefaults."""
    retry: RetrySpec | None = None
    """Attempts of a job and the delay between them. Settings of the handler and of the job have precedence."""
    job_timeout_seconds: Int | None = Field(None, ge=1, le=WEEK_S)
    """Maximum duration of an attempt, in seconds. A longer attempt fails. Timeouts of the handler and of the job have
    precedence."""
    retention: RetentionSpec | None = None
    """Retention of finished jobs and their results."""
    ageing: AgeingSpec | None = None
    """Waiting times after which jobs start before higher priorities, so that none waits forever."""
    on_dead_letter: DeadLetterSpec | None = None
    """Another agent of this resource that receives a job for each dead letter. The agent's object replaces that of
    agentDefaults."""
    scaling: ScalingSpec | None = None
    """The number of worker pods."""
    rollout: RolloutSpec | None = None
    """The rollout of a change of the workers."""
    termination_grace_period_seconds: Int | None = Field(None, ge=10, le=86_400)
    """Time from SIGTERM to SIGKILL of a worker, in seconds. Jobs that can't finish in it are checkpointed and return to
    the queue."""
    env: Env | None = None
    """Environment variables of the worker. They can't replace variables that other fields set, such as
    AGENTQUEUE_CONCURRENCY."""
    env_from: EnvFroms | None = None
    """Secrets and ConfigMaps whose keys become environment variables. The agent's entries follow those of
    agentDefaults."""
    resources: Resources | None = None
    """Compute resources of the worker's container. They are merged by resource name."""
    pod_template: PodTemplate | None = None
    """Strategic merge patch for the worker's pod. The agent's patch is applied after that of agentDefaults."""


class AgentSpec(AgentDefaults):
    """An agent: a queue and the worker pods that run its jobs."""

    name: AgentName
    """Name of the agent, unique in this resource. `redis` and `console` are reserved."""
    queue_name: Annotated[str, Field(min_length=1, max_length=128, pattern=QUEUE_NAME)] | None = None
    """Name of the queue, unique in this resource. If absent, the agent's name."""
    handler: Annotated[str, Field(min_length=3, max_length=253, pattern=HANDLER)]
    """Import path of an Agent or an arq WorkerSettings class, as module:attribute, such as
    travel.flight_search:agent."""
    schedules: Schedules | None = None
    """Jobs that the agent runs at given times. Schedules in its code (`@agent.cron`) run beside them."""


Agents = Annotated[
    tuple[AgentSpec, ...], Field(min_length=1, max_length=64, json_schema_extra=list_map("name")), unique("name")
]
