"""The applier, on a cluster in memory."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from agentqueue_operator.controller.applier import RETRY_REJECTED_S, TRUST_READ_S, Applier
from agentqueue_operator.controller.status.reasons import Reason
from agentqueue_operator.resources.kinds import SECRET, QueueRef
from tests.support.fake_cluster import FakeCluster, refused
from tests.support.objects import OWNER, applied, child

REF = QueueRef("n", "q")


@dataclass
class Clock:
    at: float = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def applier(cluster: FakeCluster, clock: Clock) -> Applier:
    return Applier(cluster, REF, clock=clock)


def wanted(hash: str = "1") -> list[Any]:  # noqa: A002
    return [child("Service", "s", hash=hash), child("Deployment", "d", hash=hash, spec={"paused": True})]


async def test_a_missing_object_is_created_once(applier: Applier, cluster: FakeCluster) -> None:
    result = await applier.apply_all(wanted(), cluster.children(REF), OWNER)
    assert [str(key) for key in result.applied] == ["Service s", "Deployment d"]
    cluster.calls.clear()
    result = await applier.apply_all(wanted(), cluster.children(REF), OWNER)
    assert (result.applied, result.problems, cluster.calls) == ([], [], [])


async def test_a_lagging_cache_leads_to_no_second_write(applier: Applier, cluster: FakeCluster) -> None:
    old = cluster.put(applied(wanted("0")[0]))
    await applier.apply_all(wanted()[:1], [old], OWNER)
    cluster.calls.clear()
    await applier.apply_all(wanted()[:1], [old], OWNER)
    assert cluster.calls == []
    assert applier.newest(old)["metadata"]["resourceVersion"] == str(cluster.version)
    caught_up = cluster.children(REF)[0]
    assert applier.newest(caught_up) is caught_up
    assert applier.newest(old) is old  # what the cache has caught up with is forgotten


async def test_an_uncached_object_is_read_before_it_is_created(applier: Applier, cluster: FakeCluster) -> None:
    theirs = cluster.put(applied(wanted()[0]))
    theirs["metadata"]["ownerReferences"] = [{"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "x"}]
    result = await applier.apply_all(wanted()[:1], [], OWNER)
    assert [(one.reason, one.message) for one in result.problems] == [
        (Reason.FOREIGN_OBJECT, "Service s exists already and belongs to ConfigMap c")
    ]
    assert cluster.writes() == []
    theirs["metadata"]["ownerReferences"] = []
    result = await applier.apply_all(wanted()[:1], [], OWNER)
    assert result.problems[0].message.endswith("belongs to someone else")


async def test_an_object_that_is_not_desired_any_more_is_deleted(applier: Applier, cluster: FakeCluster) -> None:
    await applier.apply_all(wanted(), [], OWNER)
    result = await applier.apply_all(wanted()[:1], cluster.children(REF), OWNER)
    assert [str(key) for key in result.deleted] == ["Deployment d"]
    cluster.put(applied(wanted()[1]))
    cluster.refuse["delete", "Deployment"] = refused(403, "cannot delete", "Forbidden")
    result = await applier.apply_all(wanted()[:1], cluster.children(REF), OWNER)
    assert [one.reason for one in result.problems] == [Reason.FORBIDDEN]
    cluster.refuse["delete", "Deployment"] = refused(409, "conflict", "Conflict")
    assert (await applier.apply_all(wanted()[:1], cluster.children(REF), OWNER)).problems == []


async def test_a_rejected_object_is_reported_and_retried_with_backoff_and_the_others_are_applied(
    applier: Applier, cluster: FakeCluster, clock: Clock
) -> None:
    cluster.refuse["apply", "Service"] = refused(422, "a typo")
    tries = []
    for _ in range(300):
        result = await applier.apply_all(wanted(), cluster.children(REF), OWNER)
        assert [one.reason for one in result.problems] == [Reason.OBJECT_INVALID]
        if ("apply", "Service", "s") in cluster.calls:
            tries.append(clock.at)
        cluster.calls.clear()
        clock.at += 1
    assert ("Deployment", "d") in cluster.objects
    gaps = [round(after - before) for before, after in pairwise(tries)]
    assert gaps == [5, 10, 20, 40, 60, 60, 60]
    assert RETRY_REJECTED_S == (5.0, 60.0)
    cluster.refuse.clear()
    result = await applier.apply_all(wanted("2"), cluster.children(REF), OWNER)  # a change is tried at once
    assert result.problems == []


async def test_a_conflict_is_retried_soon(applier: Applier, cluster: FakeCluster) -> None:
    cluster.refuse["apply", "Service"] = refused(409, "another uid", "Conflict")
    result = await applier.apply_all(wanted()[:1], [], OWNER)
    assert (result.problems, result.requeue_after_s) == ([], 1.0)


async def test_an_object_that_is_being_deleted_is_waited_for(applier: Applier, cluster: FakeCluster) -> None:
    leaving = applied(wanted()[0])
    leaving["metadata"]["deletionTimestamp"] = "now"
    result = await applier.apply_all(wanted()[:1], [leaving], OWNER)
    assert (cluster.writes(), result.requeue_after_s) == ([], 1.0)


async def test_replicas_are_handed_over(applier: Applier, cluster: FakeCluster) -> None:
    cluster.put(applied(child("Deployment", "d", hash="1", spec={"replicas": 3})))
    external = [child("Deployment", "d", hash="2", spec={"paused": True})]
    await applier.apply_all(external, cluster.children(REF), OWNER)
    assert cluster.managers == ["agentqueue-handover", "agentqueue-operator"]


async def test_unwatched_secrets_are_read_once_a_minute(cluster: FakeCluster, clock: Clock) -> None:
    applier = Applier(cluster, REF, clock=clock, unwatched=frozenset({SECRET}))
    secret = child("Secret", "s", data={"a": "b"})
    cluster.shown = []
    await applier.apply_all([secret], [], OWNER)
    for _ in range(int(TRUST_READ_S) - 1):
        clock.at += 1
        await applier.apply_all([secret], [], OWNER)
    assert [call[0] for call in cluster.calls] == ["get", "apply"]
    clock.at += 2
    cluster.objects.clear()
    await applier.apply_all([secret], [], OWNER)
    assert [call[0] for call in cluster.calls] == ["get", "apply", "get", "apply"]
    other = Applier(cluster, REF, clock=clock, unwatched=frozenset({SECRET}))  # one that finds it
    await other.apply_all([secret], [], OWNER)
    await other.apply_all([secret], [], OWNER)
    assert [call[0] for call in cluster.calls[4:]] == ["get"]


# Storage


def redis(size: str) -> Any:
    claim = {"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": size}}}}
    return child("StatefulSet", "r", hash=size, spec={"replicas": 1, "volumeClaimTemplates": [claim]})


def put_claim(cluster: FakeCluster, size: str) -> None:
    spec = {"resources": {"requests": {"storage": size}}}
    cluster.put({"kind": "PersistentVolumeClaim", "metadata": {"name": "data-r-0"}, "spec": spec})


async def test_storage_grows(applier: Applier, cluster: FakeCluster) -> None:
    await applier.apply_all([redis("1Gi")], [], OWNER)
    put_claim(cluster, "1Gi")
    cluster.calls.clear()
    result = await applier.apply_all([redis("2Gi")], cluster.children(REF), OWNER)
    assert result.requeue_after_s == 1.0
    await applier.apply_all([redis("2Gi")], cluster.children(REF), OWNER)
    assert [call[0] for call in cluster.writes()] == ["patch", "orphan", "apply"]
    claim = cluster.objects["PersistentVolumeClaim", "data-r-0"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "2Gi"


async def test_storage_that_has_grown_already_needs_the_new_statefulset_only(
    applier: Applier, cluster: FakeCluster
) -> None:
    await applier.apply_all([redis("1Gi")], [], OWNER)
    put_claim(cluster, "2Gi")
    cluster.calls.clear()
    await applier.apply_all([redis("2Gi")], cluster.children(REF), OWNER)
    assert [call[0] for call in cluster.writes()] == ["orphan"]


async def test_storage_that_can_t_grow_is_reported_and_the_rest_of_redis_is_applied(
    applier: Applier, cluster: FakeCluster, clock: Clock
) -> None:
    await applier.apply_all([redis("1Gi")], [], OWNER)
    put_claim(cluster, "1Gi")
    cluster.refuse["patch", "PersistentVolumeClaim"] = refused(403, "only dynamically provisioned pvc can be resized")
    larger = redis("2Gi")
    larger["spec"]["replicas"] = 0
    cluster.calls.clear()
    for _ in range(20):
        result = await applier.apply_all([larger], cluster.children(REF), OWNER)
        assert result.storage_problem is not None
        assert (result.storage_problem.reason, result.problems) == (Reason.STORAGE_NOT_EXPANDABLE, [])
        clock.at += 1
    live = cluster.objects["StatefulSet", "r"]
    assert live["spec"]["replicas"] == 0
    assert live["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "1Gi"
    assert [call[0] for call in cluster.writes()] == ["patch", "apply", "patch", "patch"]
    cluster.refuse["apply", "StatefulSet"] = refused(422, "no")
    larger["metadata"]["annotations"]["agentqueue.dev/manifest-hash"] = "other"
    result = await applier.apply_all([larger], cluster.children(REF), OWNER)
    assert [one.reason for one in result.problems] == [Reason.OBJECT_INVALID]


# What others do to our objects


def deployment(**spec: Any) -> Any:
    return child("Deployment", "d", hash=str(sorted(spec.items())), spec=spec)


def touched(cluster: FakeCluster, manager: str, *fields: str) -> None:
    """Let another manager take over these fields of the Deployment's spec."""
    live = cluster.objects["Deployment", "d"]
    cluster.version += 1
    live["metadata"]["resourceVersion"] = str(cluster.version)
    ours, *_ = live["metadata"]["managedFields"]
    for name in fields:
        ours["fieldsV1"]["f:spec"].pop(f"f:{name}", None)
    entry = {"manager": manager, "operation": "Update", "fieldsV1": {"f:spec": {f"f:{name}": {} for name in fields}}}
    live["metadata"]["managedFields"].append(entry)


async def test_a_change_by_others_is_undone_and_reported_once(applier: Applier, cluster: FakeCluster) -> None:
    manifest = deployment(replicas=1, paused=True)
    await applier.apply_all([manifest], cluster.children(REF), OWNER)
    touched(cluster, "kubectl", "replicas")
    result = await applier.apply_all([manifest], cluster.children(REF), OWNER)
    assert result.undone == ["Deployment d: spec.replicas was changed by kubectl and is set by the operator again"]
    result = await applier.apply_all([manifest], cluster.children(REF), OWNER)
    assert (result.undone, result.problems, result.applied) == ([], [], [])


async def test_a_change_that_can_t_be_undone_is_not_reported_as_undone(applier: Applier, cluster: FakeCluster) -> None:
    manifest = deployment(replicas=1, paused=True)
    await applier.apply_all([manifest], cluster.children(REF), OWNER)
    touched(cluster, "kubectl", "replicas")
    cluster.refuse["apply", "Deployment"] = refused(403, 'User "u" cannot patch resource', "Forbidden")
    result = await applier.apply_all([manifest], cluster.children(REF), OWNER)
    assert result.undone == []
    assert [one.reason for one in result.problems] == [Reason.FORBIDDEN]


async def test_replicas_that_are_taken_over_from_mode_external_are_no_drift(
    applier: Applier, cluster: FakeCluster
) -> None:
    await applier.apply_all([deployment(paused=True)], cluster.children(REF), OWNER)
    touched(cluster, "keda", "replicas")
    result = await applier.apply_all([deployment(paused=True)], cluster.children(REF), OWNER)
    assert (result.undone, result.problems) == ([], [])
    result = await applier.apply_all([deployment(paused=True, replicas=2)], cluster.children(REF), OWNER)
    assert (len(result.applied), result.undone) == (1, [])


async def test_a_field_that_others_add_stays_and_is_reported(applier: Applier, cluster: FakeCluster) -> None:
    manifest = deployment(replicas=1)
    await applier.apply_all([manifest], cluster.children(REF), OWNER)
    touched(cluster, "kubectl-edit", "minReadySeconds")
    for _ in range(2):
        result = await applier.apply_all([manifest], cluster.children(REF), OWNER)
        assert [(one.reason, one.message) for one in result.problems] == [
            (Reason.DRIFT, "Deployment d: spec.minReadySeconds was set by kubectl-edit")
        ]
    cluster.objects["Deployment", "d"]["metadata"]["managedFields"].pop()
    cluster.objects["Deployment", "d"]["metadata"]["resourceVersion"] = "later"
    assert (await applier.apply_all([manifest], cluster.children(REF), OWNER)).problems == []


async def test_an_object_that_was_deleted_is_created_again_and_reported(applier: Applier, cluster: FakeCluster) -> None:
    result = await applier.apply_all(wanted(), cluster.children(REF), OWNER)
    assert result.undone == []
    await applier.apply_all(wanted(), cluster.children(REF), OWNER)
    del cluster.objects["Deployment", "d"]
    result = await applier.apply_all(wanted(), cluster.children(REF), OWNER)
    assert result.undone == ["Deployment d was deleted and is created again"]


async def test_objects_of_an_earlier_agent_queue_are_not_reported_as_deleted(
    applier: Applier, cluster: FakeCluster
) -> None:
    await applier.apply_all(wanted(), cluster.children(REF), OWNER)
    cluster.objects.clear()
    another = {**OWNER, "metadata": {**OWNER["metadata"], "uid": "another"}}
    result = await applier.apply_all(wanted(), cluster.children(REF), another)
    assert (len(result.applied), result.undone) == (2, [])
