"""Render AgentQueues in tests and find their objects."""

import base64
from collections.abc import Iterator
from typing import Any

from agentqueue.spec import AgentQueue, ResolvedQueue, resolve
from agentqueue_operator.resources.kinds import Object
from agentqueue_operator.resources.render import (
    Images,
    RenderContext,
    redis_name,
    render,
    worker_name,
)
from tests.support import resources

IMAGES = Images("worker:1", "redis:1", "console:1")
IN_CLUSTER = RenderContext(
    namespace="ns",
    images=IMAGES,
    owner="0-1-2",
    replicas={"a": 3},
    password="p/w@d é",
    console_token="t",
    operator_namespace="system",
    pod_monitors=True,
)
UPSTASH = {"external": {"urlSecretRef": {"name": "s"}}}


def queue(data: Object | None = None) -> ResolvedQueue:
    return resolve(AgentQueue.model_validate(data or resources.resource()))


def rendered(data: Object | None = None, context: RenderContext = IN_CLUSTER) -> tuple[Object, ...]:
    return render(queue(data), context)


def find(manifests: tuple[Object, ...], kind: str, name: str) -> Object:
    (found,) = (it for it in manifests if (it["kind"], it["metadata"]["name"]) == (kind, name))
    return found


def kinds(manifests: tuple[Object, ...]) -> list[str]:
    return [it["kind"] for it in manifests]


def template(data: Object | None = None, context: RenderContext = IN_CLUSTER, agent: str = "a") -> Object:
    """Return the template of an agent's pods."""
    return dict(find(rendered(data, context), "Deployment", worker_name("case", agent))["spec"]["template"])


def container(data: Object | None = None, context: RenderContext = IN_CLUSTER) -> Object:
    return dict(template(data, context)["spec"]["containers"][0])


def variables(data: Object | None = None, context: RenderContext = IN_CLUSTER) -> dict[str, Any]:
    return {it["name"]: it.get("value", it.get("valueFrom")) for it in container(data, context)["env"]}


def decoded(secret: Object) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def redis_conf(data: Object | None = None) -> list[str]:
    config = find(rendered(data), "ConfigMap", redis_name("case"))
    return str(config["data"]["redis.conf"]).splitlines()


def pods(manifests: tuple[Object, ...]) -> Iterator[Object]:
    yield from (it["spec"]["template"]["spec"] for it in manifests if "template" in it.get("spec", {}))
