"""Whose an object is: what the operator puts back, what it leaves to others, and what it never touches."""

from collections.abc import Callable
from typing import Any

import pytest

from agentqueue_operator.resources.render import redis_name, worker_name
from tests.support.cluster.kube import Kube, Object, has_condition
from tests.support.operator import Operator, agent_queue, code, condition, is_ready, settled, until

AQ = "agentqueue"
REDIS, GREETINGS = redis_name("demo"), worker_name("demo", "greetings")
CHILDREN = [
    ("deployment", GREETINGS),
    ("statefulset", REDIS),
    ("service", REDIS),
    ("configmap", REDIS),
    ("secret", REDIS),
    ("networkpolicy", REDIS),
    ("serviceaccount", REDIS),
]


@pytest.fixture
async def demo(operator: Operator, kube: Kube) -> Operator:
    """An AgentQueue whose objects are all there; its pods may start still."""
    await kube.apply(code(), agent_queue())
    for kind, name in CHILDREN:
        await kube.until(kind, name, lambda _: True, what="made")
    await settled(operator)
    return operator


async def test_deleted_children_come_back(demo: Operator, kube: Kube) -> None:
    before = {(kind, name): await kube.get(kind, name) for kind, name in CHILDREN}
    for kind, name in CHILDREN:
        await kube.delete(kind, name)
    for (kind, name), old in before.items():
        uid = old["metadata"]["uid"]
        after = await kube.until(kind, name, is_another(uid), what="made anew", timeout=60)
        if kind == "secret":  # the password that Redis and the workers have
            assert after["data"] == old["data"]


def is_another(uid: str) -> Callable[[Object], bool]:
    return lambda found: bool(found["metadata"]["uid"] != uid)


EDITS: list[tuple[str, str, Object, Callable[[Object], bool]]] = [
    (  # a pod's field
        "deployment",
        GREETINGS,
        {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 99}}}},
        lambda found: found["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 10,
    ),
    (  # replicas
        "deployment",
        GREETINGS,
        {"spec": {"replicas": 7}},
        lambda found: found["spec"]["replicas"] != 7,
    ),
    (  # a selector keeps ours
        "service",
        REDIS,
        {"spec": {"selector": {"app": "other"}}},
        lambda found: "app" not in found["spec"]["selector"],
    ),
    (  # content that was taken away
        "configmap",
        REDIS,
        {"data": None},
        lambda found: bool(found.get("data")),
    ),
    (  # a list that is ours
        "networkpolicy",
        REDIS,
        {"spec": {"ingress": [{}]}},
        lambda found: found["spec"]["ingress"] != [{}],
    ),
    (  # a switch
        "serviceaccount",
        REDIS,
        {"automountServiceAccountToken": True},
        lambda found: found["automountServiceAccountToken"] is False,
    ),
]


async def test_foreign_edits_of_our_fields_are_put_back(demo: Operator, kube: Kube) -> None:
    for kind, name, edit, _ in EDITS:
        await kube.patch(kind, name, edit)
    for kind, name, edit, is_back in EDITS:
        await kube.until(kind, name, is_back, what=f"put back: {edit}", timeout=60)
    await settled(demo)


async def test_foreign_fields_are_kept(demo: Operator, kube: Kube) -> None:
    theirs = {
        "metadata": {"annotations": {"example.com/theirs": "kept"}, "labels": {"team": "blue"}},
        "spec": {"minReadySeconds": 2, "template": {"metadata": {"annotations": {"example.com/restarted": "now"}}}},
    }
    await kube.patch("deployment", GREETINGS, theirs)
    await kube.patch(AQ, "demo", {"spec": {"agents": [agent_queue()["spec"]["agents"][0] | {"concurrency": 9}]}})
    await kube.until("deployment", GREETINGS, lambda found: '"9"' in str(found).replace("'", '"'), what="changed")
    await settled(demo)
    changed = await kube.get("deployment", GREETINGS)
    assert changed["metadata"]["annotations"]["example.com/theirs"] == "kept"
    assert changed["metadata"]["labels"]["team"] == "blue"
    assert changed["spec"]["minReadySeconds"] == 2
    assert changed["spec"]["template"]["metadata"]["annotations"]["example.com/restarted"] == "now"


def foreign(kind: str, name: str, **content: Any) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, **content.pop("metadata", {})}, **content}


@pytest.mark.parametrize("labelled", [False, True], ids=["without-our-label", "with-our-label"])
async def test_an_object_of_somebody_else_is_never_touched(operator: Operator, kube: Kube, labelled: bool) -> None:
    labels = {"agentqueue.dev/queue": "demo"} if labelled else {}
    theirs = foreign("ConfigMap", REDIS, metadata={"labels": labels}, data={"theirs": "yes"})
    before = await kube.create(theirs)
    await kube.apply(code(), agent_queue())
    found = await kube.until(AQ, "demo", has_condition("ConfigurationWarning", reason="ForeignObject"))
    assert f"ConfigMap {REDIS}" in condition(found, "ConfigurationWarning")["message"]
    assert condition(found, "Ready")["reason"] == "ForeignObject"
    await kube.until("deployment", GREETINGS, lambda _: True, what="made: the other objects go on")
    assert await kube.get("configmap", REDIS) == before
    await kube.delete("configmap", REDIS)
    await kube.until("configmap", REDIS, lambda one: "theirs" not in one["data"], what="ours", timeout=30)
    await kube.until(AQ, "demo", has_condition("ConfigurationWarning", "False"), timeout=30)


async def test_a_foreign_owner_is_named(operator: Operator, kube: Kube) -> None:
    owner = await kube.create(foreign("ConfigMap", "their-owner"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "their-owner", "uid": owner["metadata"]["uid"]}
    await kube.create(foreign("Secret", REDIS, metadata={"ownerReferences": [reference | {"controller": True}]}))
    await kube.apply(code(), agent_queue())
    found = await kube.until(AQ, "demo", has_condition("Ready", "False", reason="ForeignObject"))
    assert f"Secret {REDIS} exists already and belongs to ConfigMap their-owner" in condition(found, "Ready")["message"]
    assert "data" not in await kube.get("secret", REDIS)


async def test_a_resource_made_anew_takes_over_when_the_old_objects_are_gone(demo: Operator, kube: Kube) -> None:
    old = await kube.get(AQ, "demo")
    await kube.delete(AQ, "demo")
    await kube.apply(agent_queue())

    async def is_all_new() -> bool:
        found = [await kube.find(kind, name) for kind, name in CHILDREN]
        owners = {ref["uid"] for one in found if one for ref in one["metadata"]["ownerReferences"]}
        return all(found) and old["metadata"]["uid"] not in owners

    await until(is_all_new, timeout=90)


async def test_from_auto_to_external_the_number_stays(demo: Operator, kube: Kube) -> None:
    spec = agent_queue()["spec"]["agents"][0]
    await kube.patch(AQ, "demo", {"spec": {"agents": [spec | {"scaling": {"minReplicas": 2}}]}})
    await kube.until("deployment", GREETINGS, lambda found: found["spec"]["replicas"] == 2, what="at 2")
    await kube.patch(AQ, "demo", {"spec": {"agents": [spec | {"scaling": {"mode": "External"}}]}})
    await kube.until(AQ, "demo", has_condition("ScalingActive", "False", reason="NoAutoScaling"))
    await settled(demo)
    assert (await kube.get("deployment", GREETINGS))["spec"]["replicas"] == 2
    await kube.kubectl("scale", f"deployment/{GREETINGS}", "--replicas=3")
    await settled(demo, quiet_s=6)
    assert (await kube.get("deployment", GREETINGS))["spec"]["replicas"] == 3
    await kube.patch(AQ, "demo", {"spec": {"agents": [spec | {"scaling": {"mode": "Fixed", "replicas": 1}}]}})
    await kube.until("deployment", GREETINGS, lambda found: found["spec"]["replicas"] == 1, what="at 1")


async def test_who_changes_our_objects_is_reported(operator: Operator, kube: Kube) -> None:
    await kube.apply(code(), agent_queue())
    await kube.until(AQ, "demo", is_ready, timeout=90)
    await kube.kubectl("scale", f"deployment/{GREETINGS}", "--replicas=3")

    async def notes() -> str:
        events = await kube.list("events")
        return "\n".join(one["message"] for one in events if one["reason"] == "DriftUndone")

    async def is_undone() -> bool:
        return f"Deployment {GREETINGS}: spec.replicas was changed by kubectl" in await notes()

    await until(is_undone, timeout=30)
    await kube.kubectl("set", "env", f"deployment/{GREETINGS}", "DEBUG=1")
    found = await kube.until(AQ, "demo", has_condition("ConfigurationWarning", reason="Drift"), timeout=60)
    said = condition(found, "ConfigurationWarning")["message"]
    assert f"Deployment {GREETINGS}: spec.template.spec.containers[worker].env[DEBUG] was set by kubectl-set." in said
    await kube.kubectl("set", "env", f"deployment/{GREETINGS}", "DEBUG-")
    await kube.until(AQ, "demo", has_condition("ConfigurationWarning", "False"), timeout=60)
