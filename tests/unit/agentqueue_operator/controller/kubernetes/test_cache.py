"""The cache updates itself from events and lists."""

from typing import Any

import pytest

from agentqueue_operator.controller.kubernetes.cache import Address, Scope, StoreCache
from agentqueue_operator.resources.kinds import AGENT_QUEUE, DEPLOYMENT, POD, Kind, Object, QueueRef

DEMO = QueueRef("default", "demo")
ALL_PODS = Scope("pods", None)


def an(kind: Kind, name: str, version: int, *, queue: str | None = "demo", **more: Any) -> Object:
    labels = {} if queue is None else {"agentqueue.dev/queue": queue}
    metadata = {"namespace": "default", "name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}
    metadata |= {"labels": labels} | more.pop("metadata", {})
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata} | more


class Woken(list[QueueRef]):
    def take(self) -> list[QueueRef]:
        out = list(self)
        self.clear()
        return out


@pytest.fixture
def woken() -> Woken:
    return Woken()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    at = [100.0]
    monkeypatch.setattr("agentqueue_operator.controller.kubernetes.cache.monotonic", lambda: at[0])
    return at


@pytest.fixture
def cache(woken: Woken, now: list[float]) -> StoreCache:
    return StoreCache(woken.append)


def test_children_are_found_by_their_label_and_wake_their_queue(cache: StoreCache, woken: Woken) -> None:
    cache.put(AGENT_QUEUE, an(AGENT_QUEUE, "demo", 1, queue=None))
    cache.put(DEPLOYMENT, an(DEPLOYMENT, "a", 2))
    cache.put(POD, an(POD, "a-1", 3))
    cache.put(POD, an(POD, "stray", 4, queue=None))
    assert cache.queue(DEMO) is not None
    assert cache.queues() == [DEMO]
    assert [child["metadata"]["name"] for child in cache.children(DEMO)] == ["a", "a-1"]
    assert woken.take() == [DEMO] * 3
    assert len(cache) == 3


def test_an_older_version_changes_nothing(cache: StoreCache, woken: Woken) -> None:
    cache.put(POD, an(POD, "a", 5, status={"phase": "Running"}))
    woken.clear()
    cache.put(POD, an(POD, "a", 4, status={"phase": "Pending"}))
    cache.put(POD, an(POD, "a", 5, status={"phase": "Pending"}))
    assert cache.children(DEMO)[0]["status"] == {"phase": "Running"}
    assert woken.take() == []


@pytest.mark.parametrize(
    ("change", "wakes"),
    [
        pytest.param({"status": {"waiting": 3}}, False, id="its-own-status"),
        pytest.param({"metadata": {"generation": 2}}, True, id="the-spec"),
        pytest.param({"metadata": {"annotations": {"agentqueue.dev/paused": "true"}}}, True, id="an-annotation"),
        pytest.param({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, True, id="deletion"),
        pytest.param({"metadata": {"uid": "another"}}, True, id="another-by-its-name"),
    ],
)
def test_a_queue_is_woken_by_changes_of_users(cache: StoreCache, woken: Woken, change: Any, wakes: bool) -> None:
    cache.put(AGENT_QUEUE, an(AGENT_QUEUE, "demo", 1))
    woken.clear()
    cache.put(AGENT_QUEUE, an(AGENT_QUEUE, "demo", 2, **change))
    assert bool(woken.take()) is wakes


def test_a_deleted_object_is_removed_and_its_successor_is_not(cache: StoreCache, woken: Woken) -> None:
    cache.put(POD, an(POD, "a", 1))
    cache.put(POD, an(POD, "a", 3, metadata={"uid": "successor"}))
    cache.drop(POD, an(POD, "a", 2))  # delivered late
    assert [pod["metadata"]["uid"] for pod in cache.children(DEMO)] == ["successor"]
    woken.clear()
    cache.drop(POD, an(POD, "a", 4, metadata={"uid": "successor"}))
    cache.drop(POD, an(POD, "a", 4, metadata={"uid": "successor"}))
    assert (cache.children(DEMO), woken.take()) == ([], [DEMO])


def test_a_child_that_changes_its_label_moves(cache: StoreCache, woken: Woken) -> None:
    cache.put(POD, an(POD, "a", 1))
    woken.clear()
    cache.put(POD, an(POD, "a", 2, queue="other"))
    assert cache.children(DEMO) == []
    assert len(cache.children(QueueRef("default", "other"))) == 1
    assert set(woken.take()) == {DEMO, QueueRef("default", "other")}


def test_a_list_removes_objects_that_were_deleted_during_an_interruption(
    cache: StoreCache, woken: Woken, now: list[float]
) -> None:
    cache.put(POD, an(POD, "stays", 1))
    cache.put(POD, an(POD, "went", 2))
    cache.put(DEPLOYMENT, an(DEPLOYMENT, "other-kind", 3))
    now[0] += 1
    asked_at = now[0]
    cache.put(POD, an(POD, "made-since", 9))
    woken.clear()
    assert cache.audit(ALL_PODS, {Address("pods", "default", "stays"): 1}, asked_at=asked_at) == frozenset()
    assert {child["metadata"]["name"] for child in cache.children(DEMO)} == {"stays", "made-since", "other-kind"}
    assert woken.take() == [DEMO]


def test_the_cache_is_complete_when_the_watch_has_delivered_the_listed_objects(cache: StoreCache) -> None:
    first, second, third = (Address("pods", "default", name) for name in ("a", "b", "c"))
    assert not cache.is_complete([ALL_PODS])
    assert cache.audit(ALL_PODS, {first: 1, second: 2, third: 3}, asked_at=0.0) == {first, second, third}
    cache.put(POD, an(POD, "a", 1))
    cache.put(POD, an(POD, "b", 1))  # older than listed
    assert not cache.is_complete([ALL_PODS])
    cache.put(POD, an(POD, "b", 2))
    cache.drop(POD, an(POD, "c", 4))  # never seen, and gone by now
    assert cache.is_complete([ALL_PODS])
    assert not cache.is_complete([ALL_PODS, Scope("secrets", None)])


def test_a_scope_s_end_takes_its_objects(cache: StoreCache) -> None:
    cache.put(POD, an(POD, "a", 1))
    cache.put(POD, an(POD, "b", 1, metadata={"namespace": "other"}))
    cache.audit(ALL_PODS, {}, asked_at=0.0)
    cache.forget_scope(Scope("pods", "default"))
    assert cache.children(DEMO) == []
    assert len(cache.children(QueueRef("other", "demo"))) == 1


def test_fields_that_nothing_reads_are_not_kept(cache: StoreCache) -> None:
    scaled: dict[str, Any] = {"f:spec": {"f:replicas": {}}}
    managed = [
        {"manager": "kube-controller-manager", "fieldsV1": {"f:metadata": {"f:annotations": {}}, "f:status": {}}},
        {"manager": "agentqueue-operator", "fieldsV1": {"f:spec": {}, "f:metadata": {"f:labels": {}}}},
        {"manager": "kubectl", "fieldsV1": {"f:metadata": {"f:annotations": {}}, **scaled}, "subresource": "scale"},
    ]
    cache.put(DEPLOYMENT, an(DEPLOYMENT, "d", 1, metadata={"managedFields": managed}, spec={"replicas": 1}))
    container = {"name": "worker", "image": "i", "env": [{"name": "A"}], "resources": {"limits": {}}}
    spec = {"nodeName": "n", "containers": [container], "volumes": [{"name": "v"}], "tolerations": [{}]}
    cache.put(POD, an(POD, "p", 1, metadata={"managedFields": managed}, spec=spec, status={"phase": "Running"}))
    deployment, pod = cache.children(DEMO)
    assert deployment["metadata"]["managedFields"] == [managed[1], {**managed[2], "fieldsV1": scaled}]
    assert deployment["spec"] == {"replicas": 1}
    assert "managedFields" not in pod["metadata"]
    kept = {"name": "worker", "image": "i", "resources": {"limits": {}}}
    assert pod["spec"] == {"nodeName": "n", "containers": [kept]}
    assert pod["status"] == {"phase": "Running"}


def test_watch_problems_are_described(cache: StoreCache) -> None:
    assert cache.watch_problems() == []
    cache.watch_errors |= {"pods": "forbidden", "deployments": "no answer"}
    assert cache.watch_problems() == ["deployments: no answer", "pods: forbidden"]
