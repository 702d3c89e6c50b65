"""The rendered NetworkPolicies."""

from dataclasses import replace

import pytest

from agentqueue_operator.resources.kinds import Object
from agentqueue_operator.resources.render import (
    RenderContext,
    console_name,
    redis_name,
)
from tests.support import resources
from tests.support.rendering import IN_CLUSTER, UPSTASH, find, kinds, rendered


def ingress(data: Object | None, name: str, context: RenderContext = IN_CLUSTER) -> list[Object]:
    return list(find(rendered(data, context), "NetworkPolicy", name)["spec"]["ingress"])


OWN = {"podSelector": {"matchLabels": {"agentqueue.dev/queue": "case"}}}
OPERATOR = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "system"}}}


NAMESPACE: list[Object] = [{"podSelector": {}}]
ADDRESSES: list[Object] = [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]
PEERS = [
    pytest.param({}, NAMESPACE, id="this-namespace"),
    pytest.param({"allowFrom": []}, [], id="nobody"),
    pytest.param({"allowFrom": ADDRESSES}, ADDRESSES, id="addresses"),
]


@pytest.mark.parametrize(("redis", "to_redis"), PEERS)
@pytest.mark.parametrize(("console", "to_console"), PEERS)
def test_redis_and_the_console_admit_their_own_peers_only(
    redis: Object, to_redis: list[Object], console: Object, to_console: list[Object]
) -> None:
    data = resources.resource(networkPolicy={"redis": redis, "console": console})
    (rule,) = ingress(data, redis_name("case"))
    assert rule == {"from": [OWN, OPERATOR, *to_redis], "ports": [{"port": "redis", "protocol": "TCP"}]}
    expected = [{"from": to_console, "ports": [{"port": "http", "protocol": "TCP"}]}] if to_console else []
    assert ingress(data, console_name("case")) == expected, "an empty `from` would let everybody in"


def test_an_operator_outside_of_the_cluster_is_no_peer() -> None:
    (rule,) = ingress(None, redis_name("case"), replace(IN_CLUSTER, operator_namespace=None))
    assert rule["from"] == [OWN, {"podSelector": {}}]


def test_policies_are_rendered_for_existing_parts_only() -> None:
    assert "NetworkPolicy" not in kinds(rendered(resources.resource(networkPolicy={"enabled": False})))
    without = resources.resource(redis=UPSTASH, console={"enabled": False})
    assert "NetworkPolicy" not in kinds(rendered(without))
