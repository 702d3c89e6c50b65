"""Names and labels of an AgentQueue's objects. A change here orphans what exists: selectors can't be changed."""

import hashlib
from typing import Final

from agentqueue.spec import GROUP

QUEUE_LABEL: Final = f"{GROUP}/queue"
AGENT_LABEL: Final = f"{GROUP}/agent"
COMPONENT_LABEL: Final = f"{GROUP}/component"
"""As app.kubernetes.io/component, but no podTemplate may change it: selectors go by this one."""
REMOVABLE_LABEL: Final = f"{GROUP}/removable"
"""On worker pods, but in no selector: whether a worker has drained and may be removed."""
REMOVABLE, NOT_REMOVABLE = "true", "false"
WORKER, REDIS, CONSOLE = "worker", "redis", "console"
HASH_ANNOTATION: Final = f"{GROUP}/manifest-hash"
"""On each object: what it was rendered as."""
CONFIG_ANNOTATION: Final = f"{GROUP}/config-hash"
"""On pods: what they read at their start of what is ours. A change rolls them."""
CONTENT_ANNOTATION: Final = f"{GROUP}/content-hash"
"""Pod annotation: the hash of the user's content that the pod reads at its start (`RenderContext.content_hashes`)."""


def object_name(queue: str, part: str) -> str:
    """`<queue>-<part>-<5 hex of both>`: without these, a-b's c and a's b-c would meet."""
    return f"{queue}-{part}-{hashlib.sha256(f'{queue}/{part}'.encode()).hexdigest()[:5]}"


def worker_name(queue: str, agent: str) -> str:
    """Of an agent's Deployment and PodDisruptionBudget."""
    return object_name(queue, agent)


def redis_name(queue: str) -> str:
    """Of all that belongs to the managed Redis: StatefulSet, Service, ConfigMap, Secret, …"""
    return object_name(queue, REDIS)


def console_name(queue: str) -> str:
    """Of all that belongs to the console."""
    return object_name(queue, CONSOLE)


def workers_name(queue: str) -> str:
    """Of what all workers share: ServiceAccount and PodMonitor."""
    return object_name(queue, "workers")


def labels(queue: str, component: str, agent: str | None = None) -> dict[str, str]:
    """On all objects and pods."""
    return {
        "app.kubernetes.io/name": "agentqueue",
        "app.kubernetes.io/instance": queue,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": "agentqueue-operator",
        **selector(queue, component, agent),
    }


def selector(queue: str, component: str, agent: str | None = None) -> dict[str, str]:
    """What selects a component's pods, one agent's, or those of all agents."""
    found = {QUEUE_LABEL: queue, COMPONENT_LABEL: component}
    return found if agent is None else {**found, AGENT_LABEL: agent}
