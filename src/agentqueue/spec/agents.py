"""Agents as the resource has them: all is optional where `agentDefaults` or a built-in default may step in.

None of these fields has a default in the schema, since the API server would write it into the agent and so mask
`agentDefaults`. `resolve` fills them in from `agentqueue.spec.defaults`, field by field; each class here names its
filled-in twin there, from which the CRD's descriptions and the reference take the default.
"""

from typing import Annotated, ClassVar

from pydantic import Field

from agentqueue.spec import defaults
from agentqueue.spec.base import HANDLER, AgentName, Image, Int, IntOrPercent, Model, Number, list_map, unique
from agentqueue.spec.pods import CodeFrom, Env, EnvFroms, PodTemplate, Resources

WEEK_S = 604_800
YEAR_S = 31_536_000
QUEUE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*(:[A-Za-z0-9._-]+)*$"


class Overlay(Model):
    """Settings of which each may be absent; `filled` is the class that has them all."""

    filled: ClassVar[type]


class BackoffSpec(Overlay):
    """The delay before a failed job is tried again."""

    filled = defaults.Backoff

    type: defaults.BackoffType | None = None
    """exponential: the delay doubles with each attempt; fixed: it stays the same."""
    delay_seconds: Int | None = Field(None, ge=0, le=86_400)
    """Delay before the second attempt."""
    max_delay_seconds: Int | None = Field(None, ge=0, le=WEEK_S)
    """The delay never grows beyond this; at least delaySeconds."""
    jitter: Number | None = Field(None, ge=0, le=1)
    """Share of the delay that is random, from 0 to 1, so that jobs that failed together don't come back together."""


class RetrySpec(Overlay):
    """How often a job is tried before it goes to the dead letters."""

    filled = defaults.Retry

    attempts: Int | None = Field(None, ge=1, le=1_000)
    """Runs that may end in the handler's own failure, the first one included. Drains and evictions don't count."""
    crashes: Int | None = Field(None, ge=1, le=1_000)
    """Workers that may die under a job before it is a dead letter with the reason `crashed`."""
    backoff: BackoffSpec | None = None
    """The delay before a failed job is tried again."""


class RateLimitSpec(Overlay):
    """At most `max` starts in any window of durationSeconds, over all workers of the queue."""

    filled = defaults.RateLimit

    max: Int = Field(ge=1, le=1_000_000)
    """Starts allowed in a window."""
    duration_seconds: Int | None = Field(None, ge=1, le=86_400)
    """Length of the window."""


class RetentionSpec(Overlay):
    """How long final jobs are kept."""

    filled = defaults.Retention

    result_seconds: Int | None = Field(None, ge=0, le=YEAR_S)
    """How long a job's result can be read by its id. Redis needs about this times the rate of jobs in records."""
    completed_seconds: Int | None = Field(None, ge=0, le=YEAR_S)
    """How long a completed job stays in the queue's history."""
    completed_count: Int | None = Field(None, ge=0, le=1_000_000)
    """How many completed jobs stay in the queue's history; the newest are kept."""
    dead_seconds: Int | None = Field(None, ge=60, le=YEAR_S)
    """How long a dead letter can be looked at and replayed."""


class AgeingSpec(Overlay):
    """How long a ready job of a level may wait before it goes before the levels above it."""

    filled = defaults.Ageing

    high_seconds: Int | None = Field(None, ge=1, le=WEEK_S)
    """Limit for priority high."""
    normal_seconds: Int | None = Field(None, ge=1, le=WEEK_S)
    """Limit for priority normal."""
    low_seconds: Int | None = Field(None, ge=1, le=WEEK_S)
    """Limit for priority low."""


class DeadLetterSpec(Overlay):
    """Another agent of this resource that gets a job for each dead letter."""

    filled = defaults.DeadLetter

    agent: AgentName
    """Name of the agent. Under agentDefaults that agent itself is left out."""
    job: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.:-]+$")] | None = None
    """Name of the job it gets."""


class FallbackSpec(Overlay):
    """What scaling does while the queue can't be read. It never goes below the pods that run."""

    filled = defaults.Fallback

    behavior: defaults.FallbackBehavior | None = None
    """Hold: stay; Static: go up to `replicas`; Max: go up to maxReplicas."""
    replicas: Int | None = Field(None, ge=0, le=1_000)
    """Worker pods to have, with behavior Static and only then."""
    failure_threshold: Int | None = Field(None, ge=1, le=100)
    """Reads of the queue that must fail in a row first."""


class ScalingSpec(Overlay):
    """How many worker pods the agent has."""

    filled = defaults.Scaling

    mode: defaults.ScalingMode | None = None
    """Auto: follows the queue; Fixed: `replicas` pods; External: something else sets the Deployment's replicas."""
    replicas: Int | None = Field(None, ge=0, le=1_000)
    """Worker pods, in mode Fixed and only there."""
    min_replicas: Int | None = Field(None, ge=0, le=1_000)
    """Fewest worker pods; 0 lets an idle agent go to zero. Auto only."""
    max_replicas: Int | None = Field(None, ge=1, le=1_000)
    """Most worker pods. Auto only."""
    target_wait_seconds: Int | None = Field(None, ge=1, le=86_400)
    """How long a ready job may wait before it starts; the pods' number is chosen so. Auto only."""
    min_idle_slots: Int | None = Field(None, ge=0, le=10_000)
    """Free slots to keep ready for jobs to come. Auto only."""
    scale_down_window_seconds: Int | None = Field(None, ge=0, le=3_600)
    """Look-back before pods go: as many stay as were wanted at most in it; no look-back if absent. Auto only."""
    scale_to_zero_after_seconds: Int | None = Field(None, ge=0, le=86_400)
    """Quiet time before the last pod goes; if absent, four times the measured start time, 30 to 300 s. Auto only."""
    max_pods_per_minute: Int | None = Field(None, ge=1, le=1_000)
    """Most pods to add in a minute; no limit if absent. Auto only."""
    fallback: FallbackSpec | None = None
    """What to do while the queue can't be read. Auto only."""


class RolloutSpec(Overlay):
    """How a change of the workers is rolled out. Old pods drain: their running jobs finish or are handed back."""

    filled = defaults.Rollout

    max_surge: IntOrPercent | None = None
    """Pods above the wanted number while rolling out, as a number or a percentage."""
    max_unavailable: IntOrPercent | None = None
    """Pods below the wanted number while rolling out, as a number or a percentage."""
    progress_deadline_seconds: Int | None = Field(None, ge=10, le=86_400)
    """A rollout without progress for this long is reported as stuck."""


class AgentDefaults(Overlay):
    """What all agents have unless they say otherwise. Merged field by field; lists of env by name."""

    filled = defaults.AgentSettings

    image: Image | None = None
    """Container image with the handlers, made from the worker image; that image itself if absent."""
    code_from: CodeFrom | None = None
    """Code without an image of its own: a ConfigMap laid on the import path of the worker image."""
    concurrency: Int | None = Field(None, ge=1, le=1_000)
    """Slots of a worker pod: jobs it runs at once."""
    rate_limit: RateLimitSpec | None = None
    """Most starts in a window, over all workers of a queue; no limit if absent. Taken whole, not field by field."""
    retry: RetrySpec | None = None
    """How often a job is tried, and how long between. A handler's own settings and a job's go first."""
    job_timeout_seconds: Int | None = Field(None, ge=1, le=WEEK_S)
    """An attempt that runs longer has failed. A handler's own timeout and a job's go first."""
    retention: RetentionSpec | None = None
    """How long final jobs are kept."""
    ageing: AgeingSpec | None = None
    """When waiting jobs go before higher priorities, so that none waits for ever."""
    on_dead_letter: DeadLetterSpec | None = None
    """Another agent of this resource that gets a job for each dead letter. Taken whole."""
    scaling: ScalingSpec | None = None
    """How many worker pods there are."""
    rollout: RolloutSpec | None = None
    """How a change of the workers is rolled out."""
    termination_grace_period_seconds: Int | None = Field(None, ge=10, le=86_400)
    """Time a worker has from SIGTERM to SIGKILL. Jobs that can't end in it are checkpointed and handed back."""
    env: Env | None = None
    """Environment variables of the worker. Those that other fields set (AGENTQUEUE_CONCURRENCY) stay as they are."""
    env_from: EnvFroms | None = None
    """Secrets and ConfigMaps whose keys become environment variables; the agent's come after the defaults'."""
    resources: Resources | None = None
    """Compute resources of the worker's container; merged by resource name."""
    pod_template: PodTemplate | None = None
    """Laid over the worker's pod by strategic merge: first that of agentDefaults, then the agent's."""


class AgentSpec(AgentDefaults):
    """An agent: a queue, and the worker pods that run its jobs."""

    name: AgentName
    """Name of the agent, unique here; `redis` and `console` are taken."""
    queue_name: Annotated[str, Field(min_length=1, max_length=128, pattern=QUEUE_NAME)] | None = None
    """Name of its queue, unique here; the agent's name if absent."""
    handler: Annotated[str, Field(min_length=3, max_length=253, pattern=HANDLER)]
    """What runs the jobs: module:attribute, an Agent or an arq WorkerSettings class; travel.flight_search:agent."""


Agents = Annotated[
    tuple[AgentSpec, ...], Field(min_length=1, max_length=64, json_schema_extra=list_map("name")), unique("name")
]
