"""What the operator tells about an AgentQueue. Volatile numbers come at intervals; the rest are metrics."""

from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, ConfigDict, Field

from agentqueue.spec.base import AgentName, Int, Model, list_map, unique

COUNT = 9_007_199_254_740_991
"""The largest whole number that JSON carries everywhere."""


NOT_OBSERVED = -1
"""The observedGeneration of a resource that no operator has acted on."""


class ConditionType(StrEnum):
    """The conditions of an AgentQueue.

    Reconciling, Stalled, Paused and ConfigurationWarning are True when there is something to know (kstatus calls that
    abnormal-true), the others when all is well.
    """

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    PROGRESSING = "Progressing"
    REDIS_READY = "RedisReady"
    METRICS_AVAILABLE = "MetricsAvailable"
    SCALING_ACTIVE = "ScalingActive"
    PAUSED = "Paused"
    CONFIGURATION_WARNING = "ConfigurationWarning"


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class StatusModel(Model):
    """Status is also built in Python, by the fields' Python names."""

    model_config = ConfigDict(populate_by_name=True)


class Condition(StatusModel):
    """One aspect of the state, as of the generation it names."""

    type: Annotated[str, Field(min_length=1, max_length=316)]
    """Ready, Reconciling, Stalled, Progressing, RedisReady, MetricsAvailable, ScalingActive, Paused or
    ConfigurationWarning."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: Annotated[str, Field(min_length=1, max_length=1_024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    """One word for programs."""
    message: Annotated[str, Field(max_length=32_768)]
    """A sentence for people: what is so, why, and what to do."""
    last_transition_time: AwareDatetime
    """When the status last changed."""
    observed_generation: Int | None = Field(None, ge=0, le=COUNT)
    """The resource's generation that this was said of."""


class LastScale(StatusModel):
    """The last change of an agent's number of pods."""

    time: AwareDatetime
    """When."""
    from_: Int = Field(alias="from", ge=0, le=100_000)
    """Pods before."""
    to: Int = Field(ge=0, le=100_000)
    """Pods after."""
    reason: Annotated[str, Field(max_length=128)]
    """Why, in one word."""


class AgentStatus(StatusModel):
    """What the operator sees of an agent."""

    name: AgentName
    """Name of the agent."""
    queue_name: Annotated[str, Field(max_length=128)] | None = None
    """Name of its queue."""
    deployment: Annotated[str, Field(max_length=253)] | None = None
    """Name of its Deployment; in scaling mode External its replicas are yours to set."""
    desired_replicas: Int | None = Field(None, ge=0, le=100_000)
    """Pods wanted; more may run, until they have ended what they run."""
    ready_replicas: Int | None = Field(None, ge=0, le=100_000)
    """Pods ready."""
    busy_slots: Int | None = Field(None, ge=0, le=COUNT)
    """Jobs that run."""
    draining: Int | None = Field(None, ge=0, le=100_000)
    """Pods that take no more jobs and will go."""
    waiting: Int | None = Field(None, ge=0, le=COUNT)
    """Jobs that wait."""
    dead_letters: Int | None = Field(None, ge=0, le=COUNT)
    """Dead letters that the queue keeps."""
    oldest_waiting_seconds: Int | None = Field(None, ge=0, le=COUNT)
    """How long the oldest of them has waited."""
    last_scale: LastScale | None = None
    """The last change of the number of pods."""


class RedisStatus(StatusModel):
    """Where the queue's Redis is."""

    endpoint: Annotated[str, Field(max_length=316)] | None = None
    """host:port of the server, without credentials."""
    secret_name: Annotated[str, Field(max_length=253)] | None = None
    """Secret that holds its password or url."""


class ConsoleStatus(StatusModel):
    """How the web console is reached."""

    service: Annotated[str, Field(max_length=253)]
    """Name of its Service."""
    port: Int = Field(ge=1, le=65_535)
    """Port of the Service."""
    secret_name: Annotated[str, Field(max_length=253)]
    """Secret that holds the token it asks for."""
    secret_key: Annotated[str, Field(max_length=253)]
    """Key of the token in that Secret."""
    open_with: Annotated[str, Field(max_length=1_024)]
    """Command that makes it http://localhost:8400 on your machine."""


class AgentQueueStatus(StatusModel):
    """What the operator sees."""

    observed_generation: Int | None = Field(None, ge=NOT_OBSERVED, le=COUNT)
    """The generation of the resource that the operator last acted on; -1 if it never did."""
    conditions: (
        Annotated[tuple[Condition, ...], Field(max_length=32, json_schema_extra=list_map("type")), unique("type")]
        | None
    ) = None
    """Ready, Reconciling, Stalled, Progressing, RedisReady, MetricsAvailable, ScalingActive, Paused and
    ConfigurationWarning."""
    redis: RedisStatus | None = None
    """Where the queue's Redis is."""
    agents: (
        Annotated[tuple[AgentStatus, ...], Field(max_length=64, json_schema_extra=list_map("name")), unique("name")]
        | None
    ) = None
    """Each agent."""
    ready_agents: Annotated[str, Field(max_length=16)] | None = None
    """Agents that are rolled out, have the workers that they need and whose queue can be read, of all: 5/6."""
    pods: Annotated[str, Field(max_length=32)] | None = None
    """Worker pods ready, of those wanted, over all agents: 3/4."""
    console: ConsoleStatus | None = None
    """How the web console is reached; absent if there is none."""
    dead_letters: Int | None = Field(None, ge=0, le=COUNT)
    """Dead letters, over all agents; absent while a queue can't be read."""
    waiting: Int | None = Field(None, ge=0, le=COUNT)
    """Jobs that wait, over all agents; absent while a queue can't be read."""
    active: Int | None = Field(None, ge=0, le=COUNT)
    """Jobs that run, over all agents; absent while a queue can't be read."""
