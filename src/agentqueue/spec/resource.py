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
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "AgentQueue"
PLURAL: Final = "agentqueues"


class ServiceType(StrEnum):
    """How a Service is reached."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


class ConsoleService(Model):
    """The Service in front of the console."""

    type: ServiceType = ServiceType.CLUSTER_IP
    """ClusterIP, NodePort or LoadBalancer."""
    port: Int = Field(80, ge=1, le=65_535)
    """Port of the Service."""


class Console(Model):
    """The web console and HTTP API of this queue."""

    enabled: Bool = True
    """If false, no console runs."""
    image: Image | None = None
    """Container image; the operator's own choice if absent."""
    replicas: Int = Field(1, ge=1, le=10)
    """Pods of the console; it keeps no state."""
    token_secret_ref: SecretKey | None = None
    """Key of a Secret with the bearer token that requests must carry; a generated one if absent."""
    service: ConsoleService = ConsoleService()
    """The Service in front of it."""
    resources: Resources | None = None
    """Compute resources of the container."""
    pod_template: PodTemplate | None = None
    """Laid over the pod by strategic merge; the container is named `console`."""


class PodMonitor(Model):
    """A PodMonitor for the Prometheus Operator, which must be installed."""

    enabled: Bool = False
    """If true, a PodMonitor is made for the workers."""
    interval_seconds: Int = Field(15, ge=1, le=3_600)
    """Time between scrapes."""
    labels: Labels = Field(default={})
    """Labels by which your Prometheus selects PodMonitors, such as release: prometheus."""


class Monitoring(Model):
    """How metrics are collected. Workers serve /metrics in any case."""

    pod_monitor: PodMonitor = PodMonitor()
    """A PodMonitor for the Prometheus Operator."""


class LabelExpression(Model):
    """A requirement on a label."""

    key: Annotated[str, Field(min_length=1, max_length=316)]
    """Label to look at."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """In, NotIn, Exists or DoesNotExist."""
    values: (
        Annotated[tuple[Annotated[str, Field(max_length=63)], ...], Field(max_length=32, json_schema_extra=ATOMIC)]
        | None
    ) = None
    """Values to compare with, for In and NotIn."""


class LabelSelector(Model):
    """Objects with these labels; an empty selector selects all."""

    match_labels: Labels | None = None
    """Labels they must have."""
    match_expressions: Annotated[tuple[LabelExpression, ...], Field(max_length=16, json_schema_extra=ATOMIC)] | None = (
        None
    )
    """Requirements that must hold."""


class IpBlock(Model):
    """A range of addresses."""

    cidr: Annotated[str, Field(min_length=4, max_length=43, pattern=r"^[0-9a-fA-F:.]+/[0-9]{1,3}$")]
    """The range, such as 10.0.0.0/8."""
    except_: (
        Annotated[tuple[Annotated[str, Field(max_length=43)], ...], Field(max_length=16, json_schema_extra=ATOMIC)]
        | None
    ) = Field(None, alias="except")
    """Ranges in it that are left out."""


class NetworkPeer(Model):
    """Who may connect: pods by label, or addresses."""

    pod_selector: LabelSelector | None = None
    """Pods, in this namespace unless namespaceSelector is given."""
    namespace_selector: LabelSelector | None = None
    """Namespaces; all their pods unless podSelector is given."""
    ip_block: IpBlock | None = None
    """Addresses; instead of the selectors."""


Peers = Annotated[tuple[NetworkPeer, ...], Field(max_length=32, json_schema_extra=ATOMIC)]


class RedisNetworkPolicy(Model):
    """Who may reach the managed Redis."""

    allow_from: Peers | None = None
    """Who may connect besides the workers, the console and the operator; if absent, every pod of this namespace."""


class ConsoleNetworkPolicy(Model):
    """Who may reach the console."""

    allow_from: Peers | None = None
    """Who may connect, such as an Ingress controller; if absent, every pod of this namespace."""


class NetworkPolicy(Model):
    """Who may reach the managed Redis and the console. It needs a network plug-in that enforces policies."""

    enabled: Bool = True
    """If false, no NetworkPolicy is made."""
    redis: RedisNetworkPolicy = RedisNetworkPolicy()
    """Who may reach the managed Redis. Clients of the console need no entry here."""
    console: ConsoleNetworkPolicy = ConsoleNetworkPolicy()
    """Who may reach the console. An entry here gives no access to Redis."""


class RedisBudget(Model):
    """A PodDisruptionBudget for the managed Redis."""

    enabled: Bool = False
    """If true, a budget with maxUnavailable 1 that lets a node drain evict an unhealthy Redis."""


class WorkerBudget(Model):
    """PodDisruptionBudgets for the workers, one per agent."""

    enabled: Bool = False
    """If true, each agent gets one. Evicted workers hand their jobs back in any case."""
    max_unavailable: IntOrPercent = "50%"
    """Workers that may be evicted at once, as a number or a percentage; not 0, or a node drain would never end."""


class PodDisruptionBudgets(Model):
    """Limits on how many pods a node drain may evict at once."""

    redis: RedisBudget = RedisBudget()
    """For the managed Redis."""
    workers: WorkerBudget = WorkerBudget()
    """For the workers."""


class AgentQueueSpec(Model):
    """What is wanted: a Redis, and agents whose workers follow their queues."""

    suspend: Bool = False
    """If true, all workers drain and go to zero; jobs wait. Set it before deleting, so that running jobs can end."""
    redis: Redis = Redis(managed=ManagedRedis())
    """The queue's Redis: managed by the operator, or external."""
    agent_defaults: AgentDefaults | None = None
    """What all agents have unless they say otherwise."""
    agents: Agents
    """The agents, each a queue with its workers."""
    console: Console = Console()
    """The web console and HTTP API."""
    monitoring: Monitoring = Monitoring()
    """How metrics are collected."""
    network_policy: NetworkPolicy = NetworkPolicy()
    """Who may reach the managed Redis and the console."""
    pod_disruption_budget: PodDisruptionBudgets = PodDisruptionBudgets()
    """Limits on how many pods a node drain may evict at once."""


class Metadata(Model):
    """Kubernetes' own metadata; only the name and the namespace mean something here."""

    name: ObjectName
    """Name of the AgentQueue: at most 30 characters, since the names of its objects are made from it."""
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
    """AI agents behind queues: one Redis, and per agent a queue with workers that scale with it."""

    api_version: Literal["agentqueue.dev/v1alpha1"]
    kind: Literal["AgentQueue"]
    metadata: Metadata
    spec: AgentQueueSpec
    """What is wanted."""
    status: AgentQueueStatus | None = None
    """What the operator sees."""
