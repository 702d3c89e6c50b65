"""The watches handle ends of kopf, rights that are revoked and granted, and deletions that kopf does not report."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

import kopf
import pytest

from agentqueue_operator.controller.kubernetes import watches as module
from agentqueue_operator.controller.kubernetes.api import DEADLINE_S, ApiServer
from agentqueue_operator.controller.kubernetes.cache import StoreCache
from agentqueue_operator.controller.kubernetes.kopf_handlers import make_kopf_settings, make_registry
from agentqueue_operator.controller.kubernetes.watches import KopfThread, Watches, _WatcherFailures
from agentqueue_operator.controller.ports import ApiRefused, ApiUnavailable
from agentqueue_operator.resources.kinds import AGENT_QUEUE, POD, POD_MONITOR, Kind, Object, QueueRef

DEMO = QueueRef("ns", "demo")
NO_KIND = ApiRefused(404, "NoSuchKind", "404 page not found")
FORBIDDEN = ApiRefused(403, "Forbidden", "pods is forbidden")
OnObject = Callable[[Kind, str | None, Object], None]


def an(kind: Kind, name: str, version: int) -> Object:
    metadata = {"namespace": "ns", "name": name, "uid": name, "resourceVersion": str(version)}
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": metadata | {"labels": {"agentqueue.dev/queue": "demo"}},
    }


class FakeApi(ApiServer):
    """The lists of each kind, or the errors of the list requests."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, dict[str, Object]] = {}
        self.refused: dict[str, ApiRefused | ApiUnavailable] = {}
        self.queries: list[tuple[str, Mapping[str, str]]] = []

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        deadline_s: float = DEADLINE_S,
    ) -> Any:
        await asyncio.sleep(0)
        assert query is not None
        plural = path.rpartition("/")[2]
        self.queries.append((path, query))
        if plural in self.refused:
            raise self.refused[plural]
        items = list(self.objects.get(plural, {}).values())
        if query["limit"] == "1":
            return {"metadata": {}, "items": items[:1]}
        start = int(query.get("continue", "0"))
        more = {"continue": str(start + 2)} if start + 2 < len(items) else {}
        return {"metadata": more, "items": items[start : start + 2] or None}


class Registry(kopf.OperatorRegistry):
    """Keeps its arguments."""

    def __init__(self, kinds: Iterable[Kind], on_object: OnObject) -> None:
        super().__init__()
        self.kinds, self.on_object = tuple(kinds), on_object


class FakeKopf(KopfThread):
    """A run of kopf that the test controls."""

    runs: list["FakeKopf"]

    def __init__(
        self, registry: kopf.OperatorRegistry, settings: kopf.OperatorSettings, namespaces: Sequence[str]
    ) -> None:
        assert isinstance(registry, Registry)
        self.kinds, self.on_object = registry.kinds, registry.on_object
        self.namespaces = namespaces
        self.ended = asyncio.Event()
        self.failed = asyncio.Event()
        self.problem = "it ended"
        self.stopped = False
        self.runs.append(self)

    def start(self) -> None:
        pass

    async def stop(self) -> None:
        self.stopped = True

    def show(self, kind: Kind, live: Object, what: str | None = None) -> None:
        self.on_object(kind, what, live)

    def die(self, problem: str) -> None:
        self.problem = problem
        self.ended.set()


class FakeWorld:
    """Watches, cache and API server."""

    def __init__(self, kinds: Sequence[Kind], namespaces: Sequence[str]) -> None:
        self.api = FakeApi()
        self.cache = StoreCache(lambda ref: None)
        self.synced = 0
        self.watches = Watches(
            self.api,
            self.cache,
            kinds,
            namespaces,
            make_registry=Registry,
            make_settings=make_kopf_settings,
            on_synced=self._synced,
        )
        self.task: asyncio.Task[None] | None = None

    def _synced(self) -> None:
        self.synced += 1

    @property
    def kopf(self) -> FakeKopf:
        return FakeKopf.runs[-1]

    def put(self, kind: Kind, name: str, version: int, *, shown: bool = True) -> None:
        live = an(kind, name, version)
        self.api.objects.setdefault(kind.plural, {})[name] = live
        if shown:
            self.kopf.show(kind, live)

    def start(self) -> None:
        self.task = asyncio.create_task(self.watches.run())

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not holds():  # the watches have no event for each step
                assert self.task is not None
                assert not self.task.done(), self.task.exception()
                await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten all periods to milliseconds, and replace kopf."""
    FakeKopf.runs = []
    monkeypatch.setattr(module, "KopfThread", FakeKopf)
    monkeypatch.setattr(module, "RESTARTS", (0.001, 0.002))
    for name, seconds in (("AUDIT_S", 0.05), ("AUDIT_SOON_S", 0.01), ("AUDIT_FAILED_S", 0.02), ("MAX_LAG_S", 0.1)):
        monkeypatch.setattr(module, name, seconds)


MakeWorld = Callable[..., FakeWorld]


@pytest.fixture
async def make() -> AsyncIterator[MakeWorld]:
    worlds: list[FakeWorld] = []

    def made(*kinds: Kind, namespaces: Iterable[str] = ()) -> FakeWorld:
        worlds.append(FakeWorld(kinds or (AGENT_QUEUE, POD), tuple(namespaces)))
        return worlds[-1]

    yield made
    for world in worlds:
        if world.task is not None:
            world.task.cancel()
            await asyncio.gather(world.task, return_exceptions=True)


async def test_the_cache_is_synced_once_kopf_has_delivered_the_listed_objects(make: MakeWorld) -> None:
    world = make()
    for number in range(5):
        world.put(POD, f"p{number}", number + 1, shown=False)
    world.start()
    await world.until(lambda: FakeKopf.runs)
    for number in range(4):
        world.kopf.show(POD, world.api.objects["pods"][f"p{number}"])
    await world.until(lambda: len(world.cache) == 4)
    assert not world.watches.synced
    world.kopf.show(POD, world.api.objects["pods"]["p4"])
    await world.until(lambda: world.watches.synced)
    assert world.synced == 1
    assert world.watches.watches(POD)
    assert ("/api/v1/pods", {"limit": "500", "labelSelector": "agentqueue.dev/queue"}) in world.api.queries
    assert ("/api/v1/pods", {"limit": "500", "continue": "2", "labelSelector": "agentqueue.dev/queue"}) in (
        world.api.queries
    )


async def test_each_namespace_of_a_list_is_watched(make: MakeWorld) -> None:
    world = make(namespaces=["a", "b"])
    world.start()
    await world.until(lambda: world.watches.synced)
    assert world.kopf.namespaces == ["a", "b"]
    assert {path for path, _ in world.api.queries if path.endswith("pods")} == {
        "/api/v1/namespaces/a/pods",
        "/api/v1/namespaces/b/pods",
    }


async def test_without_the_crd_nothing_is_synced_and_the_problem_names_the_remedy(make: MakeWorld) -> None:
    world = make()
    world.api.refused["agentqueues"] = NO_KIND
    world.start()
    await world.until(world.cache.watch_problems)
    assert "agentqueue crd | kubectl apply" in world.cache.watch_problems()[0]
    await asyncio.sleep(0.05)
    assert not world.watches.synced
    del world.api.refused["agentqueues"]
    await world.until(lambda: world.watches.synced)
    assert world.kopf.kinds == (AGENT_QUEUE, POD)
    assert world.watches.down == 0


async def test_a_missing_optional_kind_is_no_problem_and_is_watched_when_it_appears(make: MakeWorld) -> None:
    world = make(AGENT_QUEUE, POD, POD_MONITOR)
    world.api.refused["podmonitors"] = NO_KIND
    world.start()
    await world.until(lambda: world.watches.synced)
    assert (world.kopf.kinds, world.cache.watch_problems()) == ((AGENT_QUEUE, POD), [])
    assert not world.watches.watches(POD_MONITOR)
    del world.api.refused["podmonitors"]
    await world.until(lambda: world.watches.watches(POD_MONITOR))


async def test_the_other_kinds_are_watched_after_a_right_is_revoked(make: MakeWorld) -> None:
    world = make()
    world.start()
    await world.until(lambda: world.watches.synced)
    world.put(POD, "p", 1)
    await world.until(lambda: world.cache.children(DEMO))
    world.api.refused["pods"] = FORBIDDEN
    world.kopf.die("APIForbiddenError: pods")
    await world.until(lambda: world.watches.starts == 2)
    assert world.kopf.kinds == (AGENT_QUEUE,)
    assert world.cache.watch_problems() == ["pods: 403 Forbidden: pods is forbidden"]
    assert len(world.cache.children(DEMO)) == 1  # old, but better than nothing
    del world.api.refused["pods"]
    await world.until(lambda: world.kopf.kinds == (AGENT_QUEUE, POD))
    assert world.cache.watch_problems() == []
    assert FakeKopf.runs[0].stopped


async def test_the_objects_of_a_deleted_crd_are_removed(make: MakeWorld) -> None:
    world = make()
    world.start()
    await world.until(lambda: world.watches.synced)
    world.put(AGENT_QUEUE, "demo", 1)
    await world.until(lambda: world.cache.queue(DEMO))
    world.api.refused["agentqueues"] = NO_KIND
    await world.until(lambda: world.cache.queue(DEMO) is None)


async def test_an_unavailable_api_server_is_a_problem_and_removes_nothing(make: MakeWorld) -> None:
    world = make()
    world.start()
    await world.until(lambda: world.watches.synced)
    world.put(POD, "p", 1)
    away = ApiUnavailable("no answer")
    world.api.refused |= {"agentqueues": away, "pods": away}
    world.kopf.die("it broke off")
    await world.until(lambda: world.watches.down == 2)
    assert len(world.cache.children(DEMO)) == 1
    world.api.refused.clear()
    await world.until(lambda: world.watches.down == 0 and world.watches.watches(POD))


async def test_missed_deletions_are_found_when_kopf_lists_again(
    make: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AUDIT_S", 60.0)
    world = make()
    world.start()
    await world.until(lambda: world.watches.synced)
    world.put(POD, "stays", 1)
    world.put(POD, "goes", 2)
    await world.until(lambda: len(world.cache.children(DEMO)) == 2)
    del world.api.objects["pods"]["goes"]
    world.put(POD, "stays", 3)  # of a listing: its type is None
    await world.until(lambda: [it["metadata"]["name"] for it in world.cache.children(DEMO)] == ["stays"])
    assert world.watches.starts == 1


async def test_events_change_the_cache(make: MakeWorld) -> None:
    world = make()
    world.start()
    await world.until(lambda: world.watches.synced)
    world.put(POD, "p", 1, shown=False)
    world.kopf.show(POD, an(POD, "p", 1), "ADDED")
    await world.until(lambda: world.cache.children(DEMO))
    world.kopf.show(POD, an(POD, "p", 2), "DELETED")
    await world.until(lambda: not world.cache.children(DEMO))


async def test_a_lagging_watch_is_restarted(make: MakeWorld) -> None:
    world = make()
    world.start()
    await world.until(lambda: world.watches.synced)
    world.put(POD, "unseen", 1, shown=False)
    await world.until(lambda: world.watches.starts == 2)
    world.kopf.show(POD, an(POD, "unseen", 1))
    await world.until(lambda: world.cache.children(DEMO))


def test_kopf_watches_children_by_label_and_leaves_no_traces() -> None:
    settings = make_kopf_settings([AGENT_QUEUE, POD])
    assert settings.watching.label_selectors["", "v1", "pods"] == "agentqueue.dev/queue"
    assert ("agentqueue.dev", "v1alpha1", "agentqueues") not in settings.watching.label_selectors
    assert settings.scanning.disabled
    assert not settings.posting.enabled
    assert settings.process.ultimate_exiting_timeout is None


async def test_an_event_s_kind_and_object_are_passed_on() -> None:
    on_object: list[tuple[Kind, str | None, Object]] = []
    registry = make_registry([AGENT_QUEUE, POD], lambda *news: on_object.append(news))
    handlers: dict[str, Any] = {handler.id: handler.fn for handler in registry._watching.get_all_handlers()}
    assert set(handlers) == {"agentqueues", "pods"}
    await handlers["pods"](event={"type": None, "object": {"a": 1}}, logger=None)
    assert on_object == [(POD, None, {"a": 1})]


def test_a_failed_watcher_is_detected_only_in_kopfs_own_thread() -> None:
    failures: list[str] = []
    listener = _WatcherFailures(failures.append)
    logger = logging.getLogger("kopf._core.reactor.running")
    logging.getLogger("kopf").addHandler(listener)
    try:
        logger.error("Something else has failed")
        other = threading.Thread(target=logger.error, args=("Watcher for %s has failed: gone", "services.v1"))
        other.start()
        other.join()
        logger.error("Watcher for %s has failed: gone", "pods.v1")
    finally:
        logging.getLogger("kopf").removeHandler(listener)
    assert failures == ["Watcher for pods.v1 has failed: gone"]
