"""Models of an AgentQueue's status. Frequently changing counts are updated at intervals; metrics have all others."""

from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, ConfigDict, Field

from agentqueue.spec.base import AgentName, Int, Model, list_map, unique

COUNT = 9_007_199_254_740_991
"""Maximum of counts: the largest integer that every JSON parser reads exactly."""
NOT_OBSERVED = -1
"""The observedGeneration of a resource that no operator has observed yet."""


class ConditionType(StrEnum):
    """The conditions of an AgentQueue.

    Reconciling, Stalled, Paused and ConfigurationWarning are True in an unusual state, which kstatus calls
    abnormal-true. The others are True in the normal state.
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
    """Status of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class StatusModel(Model):
    """A part of the status, which the operator creates by the fields' Python names."""

    model_config = ConfigDict(populate_by_name=True)


class Condition(StatusModel):
    """One aspect of the resource's state."""

    type: Annotated[str, Field(min_length=1, max_length=316)]
    """Type of the condition: Ready, Reconciling, Stalled, Progressing, RedisReady, MetricsAvailable, ScalingActive,
    Paused or ConfigurationWarning."""
    status: ConditionStatus
    """Status of the condition: True, False or Unknown."""
    reason: Annotated[str, Field(min_length=1, max_length=1_024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    """Reason for the status, one word for programs."""
    message: Annotated[str, Field(max_length=32_768)]
    """Message for people: the state, its cause, and the next step."""
    last_transition_time: AwareDatetime
    """Time of the last change of the status."""
    observed_generation: Int | None = Field(None, ge=0, le=COUNT)
    """Generation of the resource that the condition describes."""


class LastScale(StatusModel):
    """The last change of an agent's number of pods."""

    time: AwareDatetime
    """Time of the change."""
    from_: Int = Field(alias="from", ge=0, le=100_000)
    """Number of pods before the change."""
    to: Int = Field(ge=0, le=100_000)
    """Number of pods after the change."""
    reason: Annotated[str, Field(max_length=128)]
    """Reason for the change, in one word."""


class AgentStatus(StatusModel):
    """The observed state of an agent."""

    name: AgentName
    """Name of the agent."""
    queue_name: Annotated[str, Field(max_length=128)] | None = None
    """Name of the agent's queue."""
    deployment: Annotated[str, Field(max_length=253)] | None = None
    """Name of the agent's Deployment. In scaling mode External you set its replicas."""
    desired_replicas: Int | None = Field(None, ge=0, le=100_000)
    """Desired number of pods. More may run until they have finished their jobs."""
    ready_replicas: Int | None = Field(None, ge=0, le=100_000)
    """Number of ready pods."""
    registered_jobs: Int | None = Field(None, ge=0, le=COUNT)
    """Number of jobs that the present version of the code has. Absent until one of its workers has registered them."""
    busy_slots: Int | None = Field(None, ge=0, le=COUNT)
    """Number of running jobs."""
    draining: Int | None = Field(None, ge=0, le=100_000)
    """Number of pods that finish their jobs and claim no new ones, before they are removed."""
    waiting: Int | None = Field(None, ge=0, le=COUNT)
    """Number of waiting jobs."""
    suspended: Int | None = Field(None, ge=0, le=COUNT)
    """Number of jobs that wait for a signal, a time or their children without a slot. They need no pod."""
    dead_letters: Int | None = Field(None, ge=0, le=COUNT)
    """Number of dead letters in the queue."""
    oldest_waiting_seconds: Int | None = Field(None, ge=0, le=COUNT)
    """Waiting time of the oldest waiting job, in seconds."""
    last_scale: LastScale | None = None
    """The last change of the number of pods."""


class RedisStatus(StatusModel):
    """Address of the queue's Redis."""

    endpoint: Annotated[str, Field(max_length=316)] | None = None
    """Address of the server as host:port, without credentials."""
    secret_name: Annotated[str, Field(max_length=253)] | None = None
    """Secret with the password or URL."""


class ConsoleStatus(StatusModel):
    """Access to the web console."""

    service: Annotated[str, Field(max_length=253)]
    """Name of the console's Service."""
    port: Int = Field(ge=1, le=65_535)
    """Port of the Service."""
    secret_name: Annotated[str, Field(max_length=253)]
    """Secret with the token that the console requires."""
    secret_key: Annotated[str, Field(max_length=253)]
    """Key of the token in that Secret."""
    open_with: Annotated[str, Field(max_length=1_024)]
    """Command that forwards the console to http://localhost:8400 on your machine."""


class AgentQueueStatus(StatusModel):
    """The observed state."""

    observed_generation: Int | None = Field(None, ge=NOT_OBSERVED, le=COUNT)
    """Generation of the resource that the operator observed last. -1 if it has not observed any."""
    conditions: (
        Annotated[tuple[Condition, ...], Field(max_length=32, json_schema_extra=list_map("type")), unique("type")]
        | None
    ) = None
    """Conditions of the AgentQueue: Ready, Reconciling, Stalled, Progressing, RedisReady, MetricsAvailable,
    ScalingActive, Paused and ConfigurationWarning."""
    redis: RedisStatus | None = None
    """Address of the queue's Redis."""
    agents: (
        Annotated[tuple[AgentStatus, ...], Field(max_length=64, json_schema_extra=list_map("name")), unique("name")]
        | None
    ) = None
    """Status of each agent."""
    ready_agents: Annotated[str, Field(max_length=16)] | None = None
    """Ready agents of all agents, such as 5/6. An agent is ready if it is rolled out, has enough workers, and its queue
    can be read."""
    pods: Annotated[str, Field(max_length=32)] | None = None
    """Ready worker pods of the desired ones, for all agents, such as 3/4."""
    console: ConsoleStatus | None = None
    """Access to the web console. Absent if it is disabled."""
    dead_letters: Int | None = Field(None, ge=0, le=COUNT)
    """Number of dead letters of all agents. Absent while a queue can't be read."""
    waiting: Int | None = Field(None, ge=0, le=COUNT)
    """Number of waiting jobs of all agents. Absent while a queue can't be read."""
    suspended: Int | None = Field(None, ge=0, le=COUNT)
    """Number of suspended jobs of all agents. Absent while a queue can't be read."""
    active: Int | None = Field(None, ge=0, le=COUNT)
    """Number of running jobs of all agents. Absent while a queue can't be read."""
