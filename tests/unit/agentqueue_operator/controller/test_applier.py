"""Carrying out the plan, on a cluster in memory."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from agentqueue_operator.controller.applier import CONFIRMED_S, REFUSED_S, Keeper
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
def keeper(cluster: FakeCluster, clock: Clock) -> Keeper:
    return Keeper(cluster, REF, clock=clock)


def wanted(hash: str = "1") -> list[Any]:  # noqa: A002
    return [child("Service", "s", hash=hash), child("Deployment", "d", hash=hash, spec={"paused": True})]


async def test_what_is_missing_is_made_once(keeper: Keeper, cluster: FakeCluster) -> None:
    kept = await keeper.keep(wanted(), cluster.children(REF), OWNER)
    assert [str(key) for key in kept.made] == ["Service s", "Deployment d"]
    cluster.calls.clear()
    kept = await keeper.keep(wanted(), cluster.children(REF), OWNER)
    assert (kept.made, kept.hurdles, cluster.calls) == ([], [], [])


async def test_a_cache_that_is_behind_leads_to_no_second_write(keeper: Keeper, cluster: FakeCluster) -> None:
    old = cluster.put(applied(wanted("0")[0]))
    await keeper.keep(wanted()[:1], [old], OWNER)
    cluster.calls.clear()
    await keeper.keep(wanted()[:1], [old], OWNER)
    assert cluster.calls == []
    assert keeper.newest(old)["metadata"]["resourceVersion"] == str(cluster.version)
    caught_up = cluster.children(REF)[0]
    assert keeper.newest(caught_up) is caught_up
    assert keeper.newest(old) is old  # what the cache has caught up with is forgotten


async def test_what_the_cache_does_not_show_is_asked_for_before_it_is_made(
    keeper: Keeper, cluster: FakeCluster
) -> None:
    theirs = cluster.put(applied(wanted()[0]))
    theirs["metadata"]["ownerReferences"] = [{"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "x"}]
    kept = await keeper.keep(wanted()[:1], [], OWNER)
    assert [(one.reason, one.said) for one in kept.hurdles] == [
        (Reason.FOREIGN_OBJECT, "Service s is there already and belongs to ConfigMap c")
    ]
    assert cluster.writes() == []
    theirs["metadata"]["ownerReferences"] = []
    kept = await keeper.keep(wanted()[:1], [], OWNER)
    assert kept.hurdles[0].said.endswith("belongs to somebody else")


async def test_what_is_wanted_no_more_goes(keeper: Keeper, cluster: FakeCluster) -> None:
    await keeper.keep(wanted(), [], OWNER)
    kept = await keeper.keep(wanted()[:1], cluster.children(REF), OWNER)
    assert [str(key) for key in kept.deleted] == ["Deployment d"]
    cluster.put(applied(wanted()[1]))
    cluster.refuse["delete", "Deployment"] = refused(403, "cannot delete", "Forbidden")
    kept = await keeper.keep(wanted()[:1], cluster.children(REF), OWNER)
    assert [one.reason for one in kept.hurdles] == [Reason.FORBIDDEN]
    cluster.refuse["delete", "Deployment"] = refused(409, "conflict", "Conflict")
    assert (await keeper.keep(wanted()[:1], cluster.children(REF), OWNER)).hurdles == []


async def test_what_is_refused_is_told_tried_less_often_and_the_rest_goes_on(
    keeper: Keeper, cluster: FakeCluster, clock: Clock
) -> None:
    cluster.refuse["apply", "Service"] = refused(422, "a typo")
    tries = []
    for _ in range(300):
        kept = await keeper.keep(wanted(), cluster.children(REF), OWNER)
        assert [one.reason for one in kept.hurdles] == [Reason.OBJECT_INVALID]
        if ("apply", "Service", "s") in cluster.calls:
            tries.append(clock.at)
        cluster.calls.clear()
        clock.at += 1
    assert ("Deployment", "d") in cluster.objects
    gaps = [round(after - before) for before, after in pairwise(tries)]
    assert gaps == [5, 10, 20, 40, 60, 60, 60]
    assert REFUSED_S == (5.0, 60.0)
    cluster.refuse.clear()
    kept = await keeper.keep(wanted("2"), cluster.children(REF), OWNER)  # a change is tried at once
    assert kept.hurdles == []


async def test_a_conflict_is_tried_again_soon(keeper: Keeper, cluster: FakeCluster) -> None:
    cluster.refuse["apply", "Service"] = refused(409, "another uid", "Conflict")
    kept = await keeper.keep(wanted()[:1], [], OWNER)
    assert (kept.hurdles, kept.requeue_after_s) == ([], 1.0)


async def test_what_is_on_its_way_out_is_waited_for(keeper: Keeper, cluster: FakeCluster) -> None:
    leaving = applied(wanted()[0])
    leaving["metadata"]["deletionTimestamp"] = "now"
    kept = await keeper.keep(wanted()[:1], [leaving], OWNER)
    assert (cluster.writes(), kept.requeue_after_s) == ([], 1.0)


async def test_replicas_are_handed_over(keeper: Keeper, cluster: FakeCluster) -> None:
    cluster.put(applied(child("Deployment", "d", hash="1", spec={"replicas": 3})))
    external = [child("Deployment", "d", hash="2", spec={"paused": True})]
    await keeper.keep(external, cluster.children(REF), OWNER)
    assert cluster.managers == ["agentqueue-handover", "agentqueue-operator"]


async def test_secrets_that_no_watch_shows_are_read_now_and_then(cluster: FakeCluster, clock: Clock) -> None:
    keeper = Keeper(cluster, REF, clock=clock, unwatched=frozenset({SECRET}))
    secret = child("Secret", "s", data={"a": "b"})
    cluster.shown = []
    await keeper.keep([secret], [], OWNER)
    for _ in range(int(CONFIRMED_S) - 1):
        clock.at += 1
        await keeper.keep([secret], [], OWNER)
    assert [call[0] for call in cluster.calls] == ["get", "apply"]
    clock.at += 2
    cluster.objects.clear()
    await keeper.keep([secret], [], OWNER)
    assert [call[0] for call in cluster.calls] == ["get", "apply", "get", "apply"]
    other = Keeper(cluster, REF, clock=clock, unwatched=frozenset({SECRET}))  # one that finds it
    await other.keep([secret], [], OWNER)
    await other.keep([secret], [], OWNER)
    assert [call[0] for call in cluster.calls[4:]] == ["get"]


# Storage


def redis(size: str) -> Any:
    claim = {"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": size}}}}
    return child("StatefulSet", "r", hash=size, spec={"replicas": 1, "volumeClaimTemplates": [claim]})


def put_claim(cluster: FakeCluster, size: str) -> None:
    spec = {"resources": {"requests": {"storage": size}}}
    cluster.put({"kind": "PersistentVolumeClaim", "metadata": {"name": "data-r-0"}, "spec": spec})


async def test_storage_grows(keeper: Keeper, cluster: FakeCluster) -> None:
    await keeper.keep([redis("1Gi")], [], OWNER)
    put_claim(cluster, "1Gi")
    cluster.calls.clear()
    kept = await keeper.keep([redis("2Gi")], cluster.children(REF), OWNER)
    assert kept.requeue_after_s == 1.0
    await keeper.keep([redis("2Gi")], cluster.children(REF), OWNER)
    assert [call[0] for call in cluster.writes()] == ["patch", "orphan", "apply"]
    claim = cluster.objects["PersistentVolumeClaim", "data-r-0"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "2Gi"


async def test_storage_that_has_grown_already_needs_the_new_statefulset_only(
    keeper: Keeper, cluster: FakeCluster
) -> None:
    await keeper.keep([redis("1Gi")], [], OWNER)
    put_claim(cluster, "2Gi")
    cluster.calls.clear()
    await keeper.keep([redis("2Gi")], cluster.children(REF), OWNER)
    assert [call[0] for call in cluster.writes()] == ["orphan"]


async def test_storage_that_can_t_grow_is_told_and_the_rest_of_redis_is_kept(
    keeper: Keeper, cluster: FakeCluster, clock: Clock
) -> None:
    await keeper.keep([redis("1Gi")], [], OWNER)
    put_claim(cluster, "1Gi")
    cluster.refuse["patch", "PersistentVolumeClaim"] = refused(403, "only dynamically provisioned pvc can be resized")
    larger = redis("2Gi")
    larger["spec"]["replicas"] = 0
    cluster.calls.clear()
    for _ in range(20):
        kept = await keeper.keep([larger], cluster.children(REF), OWNER)
        assert kept.storage is not None
        assert (kept.storage.reason, kept.hurdles) == (Reason.STORAGE_NOT_EXPANDABLE, [])
        clock.at += 1
    live = cluster.objects["StatefulSet", "r"]
    assert live["spec"]["replicas"] == 0
    assert live["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "1Gi"
    assert [call[0] for call in cluster.writes()] == ["patch", "apply", "patch", "patch"]
    cluster.refuse["apply", "StatefulSet"] = refused(422, "no")
    larger["metadata"]["annotations"]["agentqueue.dev/manifest-hash"] = "other"
    kept = await keeper.keep([larger], cluster.children(REF), OWNER)
    assert [one.reason for one in kept.hurdles] == [Reason.OBJECT_INVALID]


# What others do to our objects


def deployment(**spec: Any) -> Any:
    return child("Deployment", "d", hash=str(sorted(spec.items())), spec=spec)


def touched(cluster: FakeCluster, manager: str, *fields: str) -> None:
    """Somebody has written these fields of the Deployment's spec; those that were ours are not any more."""
    live = cluster.objects["Deployment", "d"]
    cluster.version += 1
    live["metadata"]["resourceVersion"] = str(cluster.version)
    ours, *_ = live["metadata"]["managedFields"]
    for name in fields:
        ours["fieldsV1"]["f:spec"].pop(f"f:{name}", None)
    entry = {"manager": manager, "operation": "Update", "fieldsV1": {"f:spec": {f"f:{name}": {} for name in fields}}}
    live["metadata"]["managedFields"].append(entry)


async def test_a_change_of_ours_by_somebody_is_undone_and_reported_once(keeper: Keeper, cluster: FakeCluster) -> None:
    manifest = deployment(replicas=1, paused=True)
    await keeper.keep([manifest], cluster.children(REF), OWNER)
    touched(cluster, "kubectl", "replicas")
    kept = await keeper.keep([manifest], cluster.children(REF), OWNER)
    assert kept.undone == ["Deployment d: spec.replicas was changed by kubectl and is set by the operator again"]
    kept = await keeper.keep([manifest], cluster.children(REF), OWNER)
    assert (kept.undone, kept.foreign, kept.made) == ([], [], [])


async def test_a_change_that_can_t_be_undone_is_not_reported_as_undone(keeper: Keeper, cluster: FakeCluster) -> None:
    manifest = deployment(replicas=1, paused=True)
    await keeper.keep([manifest], cluster.children(REF), OWNER)
    touched(cluster, "kubectl", "replicas")
    cluster.refuse["apply", "Deployment"] = refused(403, 'User "u" cannot patch resource', "Forbidden")
    kept = await keeper.keep([manifest], cluster.children(REF), OWNER)
    assert kept.undone == []
    assert [one.reason for one in kept.hurdles] == [Reason.FORBIDDEN]


async def test_replicas_that_are_taken_over_from_mode_external_are_no_drift(
    keeper: Keeper, cluster: FakeCluster
) -> None:
    await keeper.keep([deployment(paused=True)], cluster.children(REF), OWNER)
    touched(cluster, "keda", "replicas")
    kept = await keeper.keep([deployment(paused=True)], cluster.children(REF), OWNER)
    assert (kept.undone, kept.foreign) == ([], [])
    kept = await keeper.keep([deployment(paused=True, replicas=2)], cluster.children(REF), OWNER)
    assert (len(kept.made), kept.undone) == (1, [])


async def test_what_somebody_adds_stays_and_is_reported_while_it_is_there(keeper: Keeper, cluster: FakeCluster) -> None:
    manifest = deployment(replicas=1)
    await keeper.keep([manifest], cluster.children(REF), OWNER)
    touched(cluster, "kubectl-edit", "minReadySeconds")
    for _ in range(2):
        kept = await keeper.keep([manifest], cluster.children(REF), OWNER)
        assert [(one.reason, one.said) for one in kept.foreign] == [
            (Reason.DRIFT, "Deployment d: spec.minReadySeconds was set by kubectl-edit")
        ]
    cluster.objects["Deployment", "d"]["metadata"]["managedFields"].pop()
    cluster.objects["Deployment", "d"]["metadata"]["resourceVersion"] = "later"
    assert (await keeper.keep([manifest], cluster.children(REF), OWNER)).foreign == []


async def test_an_object_that_somebody_deletes_is_made_again_and_reported(keeper: Keeper, cluster: FakeCluster) -> None:
    kept = await keeper.keep(wanted(), cluster.children(REF), OWNER)
    assert kept.undone == []
    await keeper.keep(wanted(), cluster.children(REF), OWNER)
    del cluster.objects["Deployment", "d"]
    kept = await keeper.keep(wanted(), cluster.children(REF), OWNER)
    assert kept.undone == ["Deployment d was deleted by somebody and is made again"]


async def test_objects_that_went_with_an_earlier_agent_queue_were_not_deleted_by_somebody(
    keeper: Keeper, cluster: FakeCluster
) -> None:
    await keeper.keep(wanted(), cluster.children(REF), OWNER)
    cluster.objects.clear()
    another = {**OWNER, "metadata": {**OWNER["metadata"], "uid": "another"}}
    kept = await keeper.keep(wanted(), cluster.children(REF), another)
    assert (len(kept.made), kept.undone) == (2, [])
