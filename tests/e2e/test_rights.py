"""Least privilege: what the operator asks of the API server over an AgentQueue's life, against what it may."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from agentqueue_operator.resources.rbac import LEADER_ELECTION_RULES, namespace_rules
from agentqueue_operator.resources.render import console_name, redis_name, worker_name
from tests.support.cluster.images import OPERATOR, REDIS, WORKER
from tests.support.cluster.kube import Kube, is_ready
from tests.support.cluster.proxy import ApiProxy, Request
from tests.support.operator import agent, agent_queue, code, install_crd
from tests.support.operator_process import OperatorProcess, grant, operators_of, write_kubeconfig

Use = tuple[str, str, str]
"""API group, resource (with its part), verb."""

PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/v\w+/namespaces/[^/]+/(?P<plural>[^/]+)(?:/[^/]+(?P<part>/[^/]+)?)?$"
)

UNSEEN = {
    ("", "configmaps", "delete"): "pruning knows one rule for all kinds",
    ("events.k8s.io", "events", "patch"): "only when the same thing happens again",
}
"""Declared, and not used in the life below."""
ABSENT = {"monitoring.coreos.com"}
"""Groups that the tests' cluster has not."""


def used(requests: Iterable[Request]) -> set[Use]:
    """What was asked for and granted. A server-side apply that made an object needed the right to create it, too."""
    found = set()
    for request in requests:
        if (match := PATH.match(request.path)) and request.status < 400:
            resource = match["plural"] + (match["part"] or "")
            found.add((match["group"] or "", resource, request.verb))
            if request.verb == "patch" and request.status == 201:
                found.add((match["group"] or "", resource, "create"))
    return found


def declared() -> set[Use]:
    """All that the Roles grant."""
    every = (*namespace_rules(read_secrets=True), *LEADER_ELECTION_RULES)
    return {(right.group, right.resource, verb) for right in every for verb in right.verbs}


@pytest.fixture
async def operator(kube: Kube, api_proxy: ApiProxy, tmp_path: Path, all_images: None) -> AsyncIterator[OperatorProcess]:
    """As a process behind the recording proxy, with the declared rights."""
    await install_crd(kube)
    await grant(kube)
    kubeconfig = await write_kubeconfig(kube, tmp_path / "operator.kubeconfig", server=api_proxy.url)
    images = {"worker_image": WORKER.name, "redis_image": REDIS.name, "console_image": OPERATOR.name}
    async with operators_of(kube, tmp_path / "operator", kubeconfig, **images) as operators:
        yield await operators.started()


@pytest.mark.timeout(600)
async def test_operator_uses_what_it_may_and_may_what_it_uses(
    operator: OperatorProcess, kube: Kube, api_proxy: ApiProxy
) -> None:
    await life(kube)
    denied = {(request.verb, request.path) for request in api_proxy.requests if request.status in (401, 403)}
    assert denied == set()
    seen = used(api_proxy.requests)
    assert seen <= declared()
    idle = {use for use in declared() - seen if use[0] not in ABSENT and use[2] != "get" and use not in UNSEEN}
    assert idle == set()  # `get` beside `list` tells nothing that the list does not


async def life(kube: Kube) -> None:
    """Made, scaled out and in, changed, with fewer parts; all kinds are made, and those that can go do."""
    agents = [agent("greetings", scaling={"minReplicas": 2}), agent("extra")]
    parts: dict[str, Any] = {
        "console": {"enabled": True},
        "podDisruptionBudget": {"workers": {"enabled": True}, "redis": {"enabled": True}},
    }
    await kube.apply(code(), agent_queue(agents=agents, **parts))
    await kube.until("agentqueue", "demo", is_ready, timeout=120)
    greetings = worker_name("demo", "greetings")
    await kube.until("deployment", greetings, replicas(2), what="two workers")
    less = {"console": {"enabled": False}, "podDisruptionBudget": None, "networkPolicy": {"enabled": False}}
    await kube.patch("agentqueue", "demo", {"spec": {"agents": [agent("greetings")], **less}})
    await kube.until("deployment", greetings, replicas(1), timeout=180, what="one worker")
    for kind, name in (
        ("deployment", worker_name("demo", "extra")),
        ("deployment", console_name("demo")),
        ("service", console_name("demo")),
        ("pdb", greetings),
        ("networkpolicy", redis_name("demo")),
    ):
        await kube.until_gone(kind, name)
    await kube.patch("agentqueue", "demo", {"spec": {"redis": {"managed": {"storage": {"size": "2Gi"}}}}})
    await kube.until("statefulset", redis_name("demo"), lambda found: "2Gi" in str(found["spec"]), what="made anew")
    async with asyncio.timeout(60):
        while not await kube.list("events.events.k8s.io"):  # noqa: ASYNC110
            await asyncio.sleep(0.2)


def replicas(count: int) -> Callable[[Any], bool]:
    """A Deployment wants so many pods, and they are ready."""
    return lambda found: (found["spec"].get("replicas"), found["status"].get("readyReplicas", 0)) == (count, count)
