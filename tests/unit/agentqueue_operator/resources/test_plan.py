"""Actions that the plan has for each state of an object."""

from typing import Any

import pytest

from agentqueue_operator.resources.children import agent_children
from agentqueue_operator.resources.comparison import HASH_ANNOTATION
from agentqueue_operator.resources.plan import (
    HANDOVER,
    Apply,
    AwaitDeletion,
    Delete,
    Foreign,
    Grow,
    HandOver,
    Skip,
    fingerprint,
    handover_manifest,
    has_grown,
    is_newer,
    key_of,
    plan,
    without_live_object,
)
from agentqueue_operator.resources.render import worker_name
from tests.support.objects import OWNER, applied, child, owned_by

Object = dict[str, Any]


def replicas_owned(live: Object, manager: str) -> Object:
    live["metadata"]["managedFields"].append(
        {"manager": manager, "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    )
    return live


def statefulset(size: str, **spec: Any) -> Object:
    claim = {"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": size}}}}
    return child("StatefulSet", "redis", spec={"replicas": 1, "volumeClaimTemplates": [claim], **spec}, hash=size)


def test_what_is_missing_is_applied_redis_before_workers() -> None:
    wanted = [child("Deployment", "w"), child("StatefulSet", "r"), child("Service", "r"), child("Secret", "r")]
    actions = plan(wanted, [], owner=OWNER)
    assert [action.manifest["kind"] if isinstance(action, Apply) else str(action) for action in actions] == [
        "Secret",
        "Service",
        "StatefulSet",
        "Deployment",
    ]


def test_what_is_as_wanted_is_left() -> None:
    manifest = child("Service", "a")
    live = applied(manifest)
    assert plan([manifest], [live], owner=OWNER) == (Skip(live, manifest),)


def test_what_has_changed_is_applied_to_that_very_object() -> None:
    live = applied(child("Service", "a", hash="1"))
    (action,) = plan([child("Service", "a", hash="2")], [live], owner=OWNER)
    assert isinstance(action, Apply)
    assert action.manifest["metadata"]["uid"] == live["metadata"]["uid"]


def test_a_state_known_to_be_right_is_not_looked_at_again() -> None:
    manifest, live = child("Service", "a"), owned_by(child("Service", "a"))  # it bears no managed fields
    assert isinstance(plan([manifest], [live], owner=OWNER)[0], Apply)
    settled = {key_of(live): fingerprint(live, manifest)}
    assert plan([manifest], [live], owner=OWNER, settled=settled) == (Skip(live, manifest),)
    live["metadata"]["resourceVersion"] = "2"
    assert isinstance(plan([manifest], [live], owner=OWNER, settled=settled)[0], Apply)


@pytest.mark.parametrize("owners", [[], [{"apiVersion": "v1", "kind": "ConfigMap", "name": "q", "uid": "x"}]])
def test_what_belongs_to_others_is_left_alone(owners: list[Object]) -> None:
    manifest = child("Service", "a")
    live = applied(manifest)
    live["metadata"]["ownerReferences"] = owners
    assert plan([manifest], [live], owner=OWNER) == (Foreign(manifest, live),)
    assert plan([], [live], owner=OWNER) == ()


def test_what_an_earlier_resource_left_is_waited_for() -> None:
    manifest = child("Service", "a")
    live = applied(manifest)
    live["metadata"]["ownerReferences"][0]["uid"] = "of-the-earlier-one"
    assert plan([manifest], [live], owner=OWNER) == (AwaitDeletion(live),)
    assert plan([], [live], owner=OWNER) == ()


def test_an_object_that_is_being_deleted_is_waited_for() -> None:
    live = applied(child("Service", "a"))
    live["metadata"]["deletionTimestamp"] = "now"
    assert plan([child("Service", "a", hash="2")], [live], owner=OWNER) == (AwaitDeletion(live),)
    assert plan([], [live], owner=OWNER) == ()


def test_what_is_wanted_no_more_goes_but_never_claims_or_pods() -> None:
    old = applied(child("Service", "a"))
    others = [owned_by({"kind": kind, "metadata": {"name": "a"}}) for kind in ("PersistentVolumeClaim", "Pod")]
    assert plan([], [old, *others], owner=OWNER) == (Delete(old),)


# Replicas


def test_replicas_are_handed_over_before_they_are_dropped() -> None:
    live = applied(child("Deployment", "w", spec={"replicas": 3, "paused": True}))
    manifest = child("Deployment", "w", spec={"paused": True}, hash="external")
    (action,) = plan([manifest], [live], owner=OWNER)
    assert isinstance(action, HandOver)
    assert action.replicas == 3
    assert handover_manifest(manifest, 3) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "w", "namespace": "n"},
        "spec": {"replicas": 3},
    }


def test_replicas_that_were_handed_over_are_dropped() -> None:
    live = replicas_owned(applied(child("Deployment", "w", spec={"replicas": 3})), HANDOVER)
    (action,) = plan([child("Deployment", "w", spec={}, hash="external")], [live], owner=OWNER)
    assert isinstance(action, Apply)


def test_replicas_that_never_were_ours_need_no_handover() -> None:
    live = applied(child("Deployment", "w", spec={"paused": True}))
    (action,) = plan([child("Deployment", "w", spec={"paused": False}, hash="2")], [live], owner=OWNER)
    assert isinstance(action, Apply)


# Storage


def test_storage_grows_by_way_of_the_claims() -> None:
    live = applied(statefulset("1Gi"))
    (action,) = plan([statefulset("2Gi")], [live], owner=OWNER)
    assert isinstance(action, Grow)
    assert (action.claims, action.size) == (("data-redis-0",), "2Gi")
    assert action.live is live
    (template,) = action.fallback["spec"]["volumeClaimTemplates"]
    assert template["spec"]["resources"]["requests"] == {"storage": "1Gi"}
    assert action.fallback["metadata"]["annotations"][HASH_ANNOTATION] != "2Gi"


def test_the_same_storage_in_other_words_is_no_growth() -> None:
    live = applied(statefulset("1Gi"))
    (action,) = plan([statefulset("1024Mi", replicas=2)], [live], owner=OWNER)
    assert isinstance(action, Apply)


def test_a_claim_of_another_name_does_not_grow() -> None:
    live = applied(statefulset("1Gi"))
    live["spec"]["volumeClaimTemplates"][0]["metadata"]["name"] = "other"
    (action,) = plan([statefulset("2Gi")], [live], owner=OWNER)
    assert isinstance(action, Apply)


def test_claims_that_are_not_ours_stay_in_the_fallback() -> None:
    wanted = statefulset("2Gi")
    wanted["spec"]["volumeClaimTemplates"].append(
        {"metadata": {"name": "more"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}
    )
    (action,) = plan([wanted], [applied(statefulset("1Gi"))], owner=OWNER)
    assert isinstance(action, Grow)
    assert action.fallback["spec"]["volumeClaimTemplates"][1] == wanted["spec"]["volumeClaimTemplates"][1]


def test_has_grown() -> None:
    claim = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    assert has_grown(claim, "2048Mi")
    assert not has_grown(claim, "3Gi")


# What is what


def test_newer() -> None:
    one, other = child("Service", "a"), child("Service", "a")
    one["metadata"] |= {"uid": "u", "resourceVersion": "10"}
    other["metadata"] |= {"uid": "u", "resourceVersion": "9"}
    assert is_newer(one, other)
    assert not is_newer(other, one)
    other["metadata"]["uid"] = "v"
    assert not is_newer(one, other)
    other["metadata"] |= {"uid": "u", "resourceVersion": "not-a-number"}
    assert not is_newer(one, other)


def test_unseen() -> None:
    wanted = [child("Service", "a"), child("Secret", "a")]
    assert list(without_live_object(wanted, [applied(wanted[0])])) == [wanted[1]]
    assert str(key_of(wanted[1])) == "Secret a"


def test_parts_of_agents() -> None:
    mine = owned_by(child("Deployment", worker_name("q", "a")))
    theirs = owned_by(child("Deployment", worker_name("q", "b")), uid="another")
    pod = {"kind": "Pod", "metadata": {"name": "p", "labels": {"agentqueue.dev/agent": "a"}}}
    unlabelled = {"kind": "Pod", "metadata": {"name": "q"}}
    parts = agent_children("q", ["a", "b", "c"], [mine, theirs, pod, unlabelled], OWNER)
    assert (parts["a"].deployment, list(parts["a"].pods)) == (mine, [pod])
    assert (parts["b"].deployment, list(parts["b"].pods)) == (None, [])  # somebody else's
    assert parts["c"].deployment is None
