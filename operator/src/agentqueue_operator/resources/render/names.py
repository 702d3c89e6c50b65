"""Names and labels of an AgentQueue's objects.

A change of these orphans existing objects, since label selectors are immutable.
"""

import hashlib
from typing import Final

from agentqueue.spec import GROUP

QUEUE_LABEL: Final = f"{GROUP}/queue"
"""Label with the name of the AgentQueue."""
AGENT_LABEL: Final = f"{GROUP}/agent"
"""Label with the name of the agent, on its worker pods and their objects."""
COMPONENT_LABEL: Final = f"{GROUP}/component"
"""Label with the component, for selectors. Unlike app.kubernetes.io/component, no podTemplate may change it."""
REMOVABLE_LABEL: Final = f"{GROUP}/removable"
"""Label of worker pods that is `true` once the worker has drained and may be removed. No selector uses it."""
REMOVABLE, NOT_REMOVABLE = "true", "false"
"""Values of `REMOVABLE_LABEL`."""
WORKER, REDIS, CONSOLE = "worker", "redis", "console"
"""Values of `COMPONENT_LABEL`."""
HASH_ANNOTATION: Final = f"{GROUP}/manifest-hash"
"""Annotation of each object with the hash of the manifest that it was rendered from."""
CONFIG_ANNOTATION: Final = f"{GROUP}/config-hash"
"""Annotation of pods with the hash of the operator's configuration that they read at start. A change rolls them."""
CONTENT_ANNOTATION: Final = f"{GROUP}/content-hash"
"""Annotation of pods with the hash of the user's content that they read at start (`RenderContext.content_hashes`)."""


def object_name(queue: str, part: str) -> str:
    """Return `<queue>-<part>-<5 hex digits>`. The digits keep part c of queue a-b apart from part b-c of queue a."""
    return f"{queue}-{part}-{hashlib.sha256(f'{queue}/{part}'.encode()).hexdigest()[:5]}"


def worker_name(queue: str, agent: str) -> str:
    """Return the name of an agent's Deployment and PodDisruptionBudget."""
    return object_name(queue, agent)


def redis_name(queue: str) -> str:
    """Return the name of the managed Redis's objects, such as its StatefulSet, Service, ConfigMap and Secret."""
    return object_name(queue, REDIS)


def console_name(queue: str) -> str:
    """Return the name of the console's objects."""
    return object_name(queue, CONSOLE)


def workers_name(queue: str) -> str:
    """Return the name of the objects that all workers share: ServiceAccount and PodMonitor."""
    return object_name(queue, "workers")


def labels(queue: str, component: str, agent: str | None = None) -> dict[str, str]:
    """Return the labels of an object or pod."""
    return {
        "app.kubernetes.io/name": "agentqueue",
        "app.kubernetes.io/instance": queue,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": "agentqueue-operator",
        **selector(queue, component, agent),
    }


def selector(queue: str, component: str, agent: str | None = None) -> dict[str, str]:
    """Return labels that select the pods of a component, or those of one agent."""
    found = {QUEUE_LABEL: queue, COMPONENT_LABEL: component}
    return found if agent is None else {**found, AGENT_LABEL: agent}
