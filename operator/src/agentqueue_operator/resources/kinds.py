"""Kinds of Kubernetes objects that the operator reads or writes."""

from dataclasses import dataclass
from typing import Any, Final

from agentqueue.spec import API_VERSION, KIND, PLURAL

Object = dict[str, Any]
"""A Kubernetes object as JSON."""


@dataclass(frozen=True, slots=True, order=True)
class QueueRef:
    """Namespace and name of an AgentQueue."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of namespaced objects."""

    api_version: str
    kind: str
    plural: str

    @property
    def group(self) -> str:
        """API group. Empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """Version of the API group, such as v1."""
        return self.api_version.rpartition("/")[2]

    def __str__(self) -> str:
        return self.plural


AGENT_QUEUE: Final = Kind(API_VERSION, KIND, PLURAL)
CONFIG_MAP: Final = Kind("v1", "ConfigMap", "configmaps")
SECRET: Final = Kind("v1", "Secret", "secrets")
SERVICE: Final = Kind("v1", "Service", "services")
SERVICE_ACCOUNT: Final = Kind("v1", "ServiceAccount", "serviceaccounts")
VOLUME_CLAIM: Final = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
POD: Final = Kind("v1", "Pod", "pods")
DEPLOYMENT: Final = Kind("apps/v1", "Deployment", "deployments")
REPLICA_SET: Final = Kind("apps/v1", "ReplicaSet", "replicasets")
STATEFUL_SET: Final = Kind("apps/v1", "StatefulSet", "statefulsets")
NETWORK_POLICY: Final = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
DISRUPTION_BUDGET: Final = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
POD_MONITOR: Final = Kind("monitoring.coreos.com/v1", "PodMonitor", "podmonitors")
EVENT: Final = Kind("events.k8s.io/v1", "Event", "events")
LEASE: Final = Kind("coordination.k8s.io/v1", "Lease", "leases")

PRUNED: Final = (
    CONFIG_MAP,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    DEPLOYMENT,
    STATEFUL_SET,
    NETWORK_POLICY,
    DISRUPTION_BUDGET,
    POD_MONITOR,
)
"""Kinds that are deleted once they are no longer rendered. Volume claims are not among them: they hold the jobs."""
