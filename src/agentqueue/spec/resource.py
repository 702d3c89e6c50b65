"""The AgentQueue resource, `agentqueue.dev/v1alpha1`."""

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from agentqueue.spec.agents import AgentDefaults, Agents
from agentqueue.spec.base import (
    ATOMIC,
    Bool,
    Image,
    Int,
    IntOrPercent,
    Labels,
    Model,
    ObjectName,
    ShortText,
)
from agentqueue.spec.pods import PodTemplate, Resources, SecretKey
from agentqueue.spec.redis import ManagedRedis, Redis
from agentqueue.spec.status import AgentQueueStatus

GROUP: Final = "agentqueue.dev"
"""API group, and prefix of labels and annotations."""
VERSION: Final = "v1alpha1"
"""Version of the API group."""
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "AgentQueue"
PLURAL: Final = "agentqueues"


class ServiceType(StrEnum):
    """Types of a Service."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


class ConsoleService(Model):
    """The Service in front of the console."""

    type: ServiceType = ServiceType.CLUSTER_IP
    """Type of the Service: ClusterIP, NodePort or LoadBalancer."""
    port: Int = Field(80, ge=1, le=65_535)
    """Port of the Service."""


class Console(Model):
    """The web console and HTTP API of this queue."""

    enabled: Bool = True
    """If false, the console is not deployed."""
    image: Image | None = None
    """Container image. If absent, the operator's default."""
    replicas: Int = Field(1, ge=1, le=10)
    """Number of pods. The console is stateless."""
    token_secret_ref: SecretKey | None = None
    """Key of a Secret with the bearer token that requests must have. If absent, the operator generates one."""
    service: ConsoleService = ConsoleService()
    """The Service in front of the console."""
    resources: Resources | None = None
    """Compute resources of the container."""
    pod_template: PodTemplate | None = None
    """Strategic merge patch for the pod. The container is named `console`."""


class PodMonitor(Model):
    """A PodMonitor for the Prometheus Operator, which must be installed."""

    enabled: Bool = False
    """If true, the operator creates a PodMonitor for the workers."""
    interval_seconds: Int = Field(15, ge=1, le=3_600)
    """Time between scrapes, in seconds."""
    labels: Labels = Field(default={})
    """Labels by which your Prometheus selects PodMonitors, such as release: prometheus."""


class Monitoring(Model):
    """Collection of metrics. Workers always serve /metrics."""

    pod_monitor: PodMonitor = PodMonitor()
    """A PodMonitor for the Prometheus Operator."""


class LabelExpression(Model):
    """A requirement on a label."""

    key: Annotated[str, Field(min_length=1, max_length=316)]
    """Key of the label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """Operator: In, NotIn, Exists or DoesNotExist."""
    values: (
        Annotated[tuple[Annotated[str, Field(max_length=63)], ...], Field(max_length=32, json_schema_extra=ATOMIC)]
        | None
    ) = None
    """Values to compare with. Only for In and NotIn."""


class LabelSelector(Model):
    """A selector of objects by their labels. An empty selector selects all objects."""

    match_labels: Labels | None = None
    """Labels that the objects must have."""
    match_expressions: Annotated[tuple[LabelExpression, ...], Field(max_length=16, json_schema_extra=ATOMIC)] | None = (
        None
    )
    """Requirements that the objects must meet."""


class IpBlock(Model):
    """A range of addresses."""

    cidr: Annotated[str, Field(min_length=4, max_length=43, pattern=r"^[0-9a-fA-F:.]+/[0-9]{1,3}$")]
    """The range, such as 10.0.0.0/8."""
    except_: (
        Annotated[tuple[Annotated[str, Field(max_length=43)], ...], Field(max_length=16, json_schema_extra=ATOMIC)]
        | None
    ) = Field(None, alias="except")
    """Ranges inside it that are excluded."""


class NetworkPeer(Model):
    """A peer that may connect: pods by label, or IP addresses."""

    pod_selector: LabelSelector | None = None
    """Pods that may connect, of this namespace unless namespaceSelector is set."""
    namespace_selector: LabelSelector | None = None
    """Namespaces whose pods may connect, all pods unless podSelector is set."""
    ip_block: IpBlock | None = None
    """IP addresses that may connect. It excludes the selectors."""


Peers = Annotated[tuple[NetworkPeer, ...], Field(max_length=32, json_schema_extra=ATOMIC)]


class RedisNetworkPolicy(Model):
    """Access to the managed Redis."""

    allow_from: Peers | None = None
    """Peers that may connect besides the workers, the console and the operator. If absent, every pod of this
    namespace."""


class ConsoleNetworkPolicy(Model):
    """Access to the console."""

    allow_from: Peers | None = None
    """Peers that may connect, such as an Ingress controller. If absent, every pod of this namespace."""


class NetworkPolicy(Model):
    """Access to the managed Redis and the console. It requires a network plug-in that enforces NetworkPolicies."""

    enabled: Bool = True
    """If false, the operator creates no NetworkPolicy."""
    redis: RedisNetworkPolicy = RedisNetworkPolicy()
    """Access to the managed Redis. Clients of the console need no entry here."""
    console: ConsoleNetworkPolicy = ConsoleNetworkPolicy()
    """Access to the console. It does not include access to Redis."""


class RedisBudget(Model):
    """A PodDisruptionBudget for the managed Redis."""

    enabled: Bool = False
    """If true, the operator creates a budget with maxUnavailable 1. A node drain may always evict an unhealthy
    Redis."""


class WorkerBudget(Model):
    """PodDisruptionBudgets for the workers, one per agent."""

    enabled: Bool = False
    """If true, the operator creates one per agent. With or without it, jobs of evicted workers return to the queue."""
    max_unavailable: IntOrPercent = "50%"
    """Maximum number of workers that are evicted at the same time, as a number or a percentage. It must not be 0,
    because a node drain would never end."""


class PodDisruptionBudgets(Model):
    """Limits on the number of pods that a node drain evicts at the same time."""

    redis: RedisBudget = RedisBudget()
    """Budget of the managed Redis."""
    workers: WorkerBudget = WorkerBudget()
    """Budgets of the workers."""


class AgentQueueSpec(Model):
    """The desired state: a Redis, and agents whose workers scale with their queues."""

    suspend: Bool = False
    """If true, all workers drain and scale to zero, and jobs wait. Set it before you delete the resource, so that
    running jobs can finish."""
    redis: Redis = Redis(managed=ManagedRedis())
    """The queue's Redis: managed by the operator, or external."""
    agent_defaults: AgentDefaults | None = None
    """Settings of all agents that do not set their own."""
    agents: Agents
    """The agents, each with a queue and workers."""
    console: Console = Console()
    """The web console and HTTP API of this queue."""
    monitoring: Monitoring = Monitoring()
    """Collection of metrics."""
    network_policy: NetworkPolicy = NetworkPolicy()
    """Access to the managed Redis and the console."""
    pod_disruption_budget: PodDisruptionBudgets = PodDisruptionBudgets()
    """Limits on the number of pods that a node drain evicts at the same time."""


class Metadata(Model):
    """Metadata of the Kubernetes object."""

    name: ObjectName
    """Name of the AgentQueue, at most 30 characters, because names of other objects contain it."""
    namespace: Annotated[str, Field(max_length=63)] | None = None
    uid: Annotated[str, Field(max_length=63)] | None = None
    generation: Int | None = None
    labels: dict[str, ShortText] = Field(default={})
    annotations: dict[str, str] = Field(default={})
    resource_version: str | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    generate_name: str | None = None
    self_link: str | None = None
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[dict[str, Any], ...] = ()
    managed_fields: tuple[dict[str, Any], ...] = ()


class AgentQueue(Model):
    """AI agents that process jobs from queues: one Redis, and a queue with scaled workers for each agent."""

    api_version: Literal["agentqueue.dev/v1alpha1"]
    kind: Literal["AgentQueue"]
    metadata: Metadata
    spec: AgentQueueSpec
    """The desired state."""
    status: AgentQueueStatus | None = None
    """The observed state."""
