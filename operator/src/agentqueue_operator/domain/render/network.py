"""Who may reach the managed Redis and the console."""

from collections.abc import Iterator, Sequence

from agentqueue.spec import ManagedRedis, ResolvedQueue
from agentqueue_operator.domain.kinds import NETWORK_POLICY, Object
from agentqueue_operator.domain.render.given import Given
from agentqueue_operator.domain.render.names import (
    CONSOLE,
    QUEUE_LABEL,
    REDIS,
    console_name,
    labels,
    redis_name,
    selector,
)
from agentqueue_operator.domain.render.objects import made
from agentqueue_operator.domain.render.pods import HTTP

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
"""Set by the API server on each namespace."""


def network_objects(queue: ResolvedQueue, given: Given) -> Iterator[Object]:
    """NetworkPolicies. Workers get none: nobody needs to reach them but probes and Prometheus, and that is harmless."""
    if not queue.network_policy.enabled:
        return
    allowed = _allowed(queue)
    if isinstance(queue.redis, ManagedRedis):
        own: Object = {"podSelector": {"matchLabels": {QUEUE_LABEL: queue.name}}}
        yield _policy(queue, REDIS, redis_name(queue.name), [own, *_operator(given), *allowed], REDIS)
    if queue.console.enabled:
        yield _policy(queue, CONSOLE, console_name(queue.name), allowed, HTTP)


def _policy(queue: ResolvedQueue, component: str, name: str, peers: Sequence[Object], port: str) -> Object:
    """Without a peer no rule: a rule with an empty `from` lets everybody in."""
    rules = [{"from": [*peers], "ports": [{"port": port, "protocol": "TCP"}]}] if peers else []
    spec = {
        "podSelector": {"matchLabels": selector(queue.name, component)},
        "policyTypes": ["Ingress"],
        "ingress": rules,
    }
    return made(NETWORK_POLICY, name, labels(queue.name, component), spec=spec)


def _allowed(queue: ResolvedQueue) -> list[Object]:
    """As the resource says; if it doesn't, all pods of this namespace."""
    peers = queue.network_policy.allow_from
    if peers is None:
        return [{"podSelector": {}}]
    return [peer.model_dump(mode="json", by_alias=True, exclude_none=True) for peer in peers]


def _operator(given: Given) -> list[Object]:
    if given.operator_namespace is None:
        return []
    return [{"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: given.operator_namespace}}}]
