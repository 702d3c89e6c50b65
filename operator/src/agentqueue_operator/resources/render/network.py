"""NetworkPolicies of the managed Redis and the console."""

from collections.abc import Iterator, Sequence

from agentqueue.spec import ManagedRedis, ResolvedQueue
from agentqueue.spec.resource import NetworkPeer
from agentqueue_operator.resources.kinds import NETWORK_POLICY, Object
from agentqueue_operator.resources.render.inputs import RenderContext
from agentqueue_operator.resources.render.names import (
    CONSOLE,
    QUEUE_LABEL,
    REDIS,
    console_name,
    labels,
    redis_name,
    selector,
)
from agentqueue_operator.resources.render.objects import new_object
from agentqueue_operator.resources.render.pod_templates import HTTP

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
"""Label with the name of a namespace, which the API server sets."""


def network_objects(queue: ResolvedQueue, context: RenderContext) -> Iterator[Object]:
    """Yield the NetworkPolicies. Workers need none: their only port serves probes and metrics, which are harmless."""
    if not queue.network_policy.enabled:
        return
    policy = queue.network_policy
    if isinstance(queue.redis, ManagedRedis):
        own: Object = {"podSelector": {"matchLabels": {QUEUE_LABEL: queue.name}}}
        peers = [own, *_allowed(policy.redis.allow_from)]
        if context.operator_namespace is not None:
            operator = {"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: context.operator_namespace}}}
            peers.insert(1, operator)
        yield _policy(queue, REDIS, redis_name(queue.name), peers, REDIS)
    if queue.console.enabled:
        yield _policy(queue, CONSOLE, console_name(queue.name), _allowed(policy.console.allow_from), HTTP)


def _policy(queue: ResolvedQueue, component: str, name: str, peers: Sequence[Object], port: str) -> Object:
    """Return a policy that admits the peers alone. Without peers it has no rule, as an empty `from` admits everyone."""
    rules = [{"from": [*peers], "ports": [{"port": port, "protocol": "TCP"}]}] if peers else []
    spec = {
        "podSelector": {"matchLabels": selector(queue.name, component)},
        "policyTypes": ["Ingress"],
        "ingress": rules,
    }
    return new_object(NETWORK_POLICY, name, labels(queue.name, component), spec=spec)


def _allowed(peers: Sequence[NetworkPeer] | None) -> list[Object]:
    """Return the peers that the resource names, or all pods of the namespace if it has no list."""
    if peers is None:
        return [{"podSelector": {}}]
    return [peer.model_dump(mode="json", by_alias=True, exclude_none=True) for peer in peers]
