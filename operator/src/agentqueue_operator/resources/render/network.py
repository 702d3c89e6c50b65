"""Who may reach the managed Redis and the console."""

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
from agentqueue_operator.resources.render.objects import made
from agentqueue_operator.resources.render.pod_templates import HTTP

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
"""Set by the API server on each namespace."""


def network_objects(queue: ResolvedQueue, context: RenderContext) -> Iterator[Object]:
    """NetworkPolicies. Workers get none: nobody needs to reach them but probes and Prometheus, and that is harmless."""
    if not queue.network_policy.enabled:
        return
    policy = queue.network_policy
    if isinstance(queue.redis, ManagedRedis):
        own: Object = {"podSelector": {"matchLabels": {QUEUE_LABEL: queue.name}}}
        peers = [own, *_operator(context), *_allowed(policy.redis.allow_from)]
        yield _policy(queue, REDIS, redis_name(queue.name), peers, REDIS)
    if queue.console.enabled:
        yield _policy(queue, CONSOLE, console_name(queue.name), _allowed(policy.console.allow_from), HTTP)


def _policy(queue: ResolvedQueue, component: str, name: str, peers: Sequence[Object], port: str) -> Object:
    """Without a peer no rule: a rule with an empty `from` lets everybody in."""
    rules = [{"from": [*peers], "ports": [{"port": port, "protocol": "TCP"}]}] if peers else []
    spec = {
        "podSelector": {"matchLabels": selector(queue.name, component)},
        "policyTypes": ["Ingress"],
        "ingress": rules,
    }
    return made(NETWORK_POLICY, name, labels(queue.name, component), spec=spec)


def _allowed(peers: Sequence[NetworkPeer] | None) -> list[Object]:
    """Return the peers that the resource names; if it names none, all pods of this namespace."""
    if peers is None:
        return [{"podSelector": {}}]
    return [peer.model_dump(mode="json", by_alias=True, exclude_none=True) for peer in peers]


def _operator(context: RenderContext) -> list[Object]:
    if context.operator_namespace is None:
        return []
    return [{"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: context.operator_namespace}}}]
