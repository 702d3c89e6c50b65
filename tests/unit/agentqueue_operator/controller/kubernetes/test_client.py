"""The client: each write is fenced and bounded by the Lease, errors are translated once, and Events never raise."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import Configuration

from agentqueue_operator.controller.kubernetes.api import ApiServer
from agentqueue_operator.controller.kubernetes.client import KubernetesCluster
from agentqueue_operator.controller.kubernetes.event_recorder import SERIES_EVERY_S, EventRecorder
from agentqueue_operator.controller.ports import ApiRefused, ApiUnavailable, Gone, NotLeading
from agentqueue_operator.resources.kinds import CONFIG_MAP, POD, Object, QueueRef

Answer = tuple[int, Any]
REGARDING: Object = {
    "apiVersion": "agentqueue.dev/v1alpha1",
    "kind": "AgentQueue",
    "metadata": {"namespace": "ns", "name": "demo", "uid": "u1"},
}
MAP: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "ns", "name": "m", "uid": "u2"}}


class FakeApi:
    """An API server that returns prepared responses and records the requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], Any, dict[str, str]]] = []
        self.answers: list[Answer | Callable[[], Any]] = []
        self.tokens: list[str] = []
        self.port = 0

    async def serve(self, request: web.Request) -> web.Response:
        raw = await request.read()
        body = orjson.loads(raw) if raw else None
        self.requests.append((request.method, request.path, dict(request.query), body, dict(request.headers)))
        answer = self.answers.pop(0) if self.answers else (200, {"metadata": {}})
        if callable(answer):
            answer = await answer()
        status, content = answer
        headers = {"Retry-After": "7"} if status == 429 else {}
        return web.Response(status=status, body=orjson.dumps(content), headers=headers)

    async def access(self) -> Configuration:
        self.tokens.append(f"token-{len(self.tokens)}")
        found = Configuration(host=f"http://127.0.0.1:{self.port}")
        found.api_key["BearerToken"] = f"Bearer {self.tokens[-1]}"
        return found


@pytest.fixture
async def fake() -> AsyncIterator[FakeApi]:
    api = FakeApi()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.serve)
    async with TestServer(app) as server:
        assert server.port is not None
        api.port = server.port
        yield api


@pytest.fixture
async def api(fake: FakeApi) -> AsyncIterator[ApiServer]:
    server = ApiServer(fake.access)
    yield server
    await server.close()


@pytest.fixture
def left() -> list[float]:
    """For how long a write may take."""
    return [10.0]


@pytest.fixture
def cluster(api: ApiServer, left: list[float]) -> KubernetesCluster:
    return KubernetesCluster(api, lambda: left[0], EventRecorder("operator-0"))


def status(code: int, reason: str) -> Answer:
    return code, {"kind": "Status", "reason": reason, "message": "because"}


async def test_apply_is_forced_strict_and_bears_our_name(cluster: KubernetesCluster, fake: FakeApi) -> None:
    fake.answers = [(200, MAP)]
    assert await cluster.apply(MAP) == MAP
    method, path, query, body, headers = fake.requests[0]
    assert (method, path) == ("PATCH", "/api/v1/namespaces/ns/configmaps/m")
    assert query == {"fieldManager": "agentqueue-operator", "force": "true", "fieldValidation": "Strict"}
    assert (body, headers["Content-Type"]) == (MAP, "application/apply-patch+yaml")
    await cluster.apply(MAP, manager="agentqueue-handover")
    assert fake.requests[1][2]["fieldManager"] == "agentqueue-handover"


async def test_a_missing_object_is_none_and_an_unknown_kind_is_an_error(
    cluster: KubernetesCluster, fake: FakeApi
) -> None:
    fake.answers = [(200, MAP), status(404, "NotFound"), (404, "404 page not found")]
    assert await cluster.get(CONFIG_MAP, "ns", "m") == MAP
    assert await cluster.get(CONFIG_MAP, "ns", "m") is None
    with pytest.raises(ApiRefused, match="NoSuchKind"):
        await cluster.get(CONFIG_MAP, "ns", "m")


async def test_patches_create_and_status(cluster: KubernetesCluster, fake: FakeApi) -> None:
    await cluster.patch(POD, "ns", "p", {"metadata": {"annotations": {"a": None}}})
    await cluster.create(MAP)
    await cluster.patch_status(QueueRef("ns", "demo"), {"waiting": 1}, uid="u1")
    merge, create, replace = fake.requests
    assert (merge[0], merge[4]["Content-Type"]) == ("PATCH", "application/merge-patch+json")
    assert (create[0], create[1], create[3]) == ("POST", "/api/v1/namespaces/ns/configmaps", MAP)
    assert replace[1] == "/apis/agentqueue.dev/v1alpha1/namespaces/ns/agentqueues/demo/status"
    assert replace[2]["fieldValidation"] == "Ignore", "a definition of an older release drops what it does not know"
    assert [step["op"] for step in replace[3]] == ["test", "add"]
    assert replace[4]["Content-Type"] == "application/json-patch+json"


@pytest.mark.parametrize(
    ("refused", "then", "raised"),
    [
        pytest.param(status(404, "NotFound"), status(404, "NotFound"), Gone, id="deleted"),
        pytest.param(status(422, "Invalid"), (200, {"metadata": {"uid": "u2"}}), Gone, id="another-took-its-place"),
        pytest.param(
            status(422, "Invalid"), (200, {"metadata": {"uid": "u1"}}), ApiRefused, id="the-status-is-refused"
        ),
    ],
)
async def test_the_status_of_a_deleted_agent_queue_raises_gone(
    cluster: KubernetesCluster, fake: FakeApi, refused: Answer, then: Answer, raised: type[Exception]
) -> None:
    fake.answers = [refused, then]
    with pytest.raises(raised):
        await cluster.patch_status(QueueRef("ns", "demo"), {"waiting": 1}, uid="u1")


@pytest.mark.parametrize("answer", [(200, {}), status(404, "NotFound"), status(409, "Conflict")])
async def test_delete_is_done_when_the_object_is_gone_or_another(
    cluster: KubernetesCluster, fake: FakeApi, answer: Answer
) -> None:
    fake.answers = [answer]
    await cluster.delete(MAP, orphan=True)
    assert fake.requests[0][3]["preconditions"] == {"uid": "u2"}
    assert fake.requests[0][3]["propagationPolicy"] == "Orphan"


async def test_a_rejected_delete_is_raised(cluster: KubernetesCluster, fake: FakeApi) -> None:
    fake.answers = [status(403, "Forbidden")]
    with pytest.raises(ApiRefused, match="403 Forbidden"):
        await cluster.delete(MAP)
    assert fake.requests[0][3]["propagationPolicy"] == "Background"


@pytest.mark.parametrize(
    "write",
    [
        lambda it: it.apply(MAP),
        lambda it: it.create(MAP),
        lambda it: it.patch(POD, "ns", "p", {}),
        lambda it: it.patch_status(QueueRef("ns", "demo"), {}, uid="u"),
        lambda it: it.delete(MAP),
    ],
    ids=["apply", "create", "patch", "status", "delete"],
)
async def test_a_replica_that_does_not_lead_sends_nothing(
    cluster: KubernetesCluster, fake: FakeApi, left: list[float], write: Any
) -> None:
    left[0] = 0.0
    with pytest.raises(NotLeading):
        await write(cluster)
    await cluster.record_event(REGARDING, reason="Scaled", note="1 -> 2")
    assert fake.requests == []
    assert await cluster.get(CONFIG_MAP, "ns", "m") is not None  # reading is free


async def test_a_write_is_aborted_before_another_replica_may_lead(
    cluster: KubernetesCluster, fake: FakeApi, left: list[float]
) -> None:
    async def never() -> Answer:
        await asyncio.sleep(1)
        return 200, {}

    fake.answers, left[0] = [never], 0.2
    with pytest.raises(ApiUnavailable, match=r"no response within 0\.2 s"):
        await cluster.apply(MAP)


async def test_rejected_credentials_are_renewed_once(api: ApiServer, fake: FakeApi) -> None:
    fake.answers = [status(401, "Unauthorized"), (200, {"ok": True}), *[status(401, "Unauthorized")] * 2]
    assert await api.call("GET", "/version") == {"ok": True}
    assert [request[4]["Authorization"] for request in fake.requests] == ["Bearer token-0", "Bearer token-1"]
    with pytest.raises(ApiRefused, match="401 Unauthorized"):
        await api.call("GET", "/version")


async def test_a_busy_or_unavailable_server_is_reported_with_its_retry_delay(fake: FakeApi) -> None:
    calls: list[tuple[str, str, int]] = []
    api = ApiServer(fake.access, on_call=lambda *call: calls.append(call))
    fake.answers = [(200, {}), status(429, "TooManyRequests")]
    await api.call("GET", "/api/v1/pods")
    assert api.silent_s < 5
    with pytest.raises(ApiUnavailable) as caught:
        await api.call("GET", "/api/v1/pods")
    assert caught.value.retry_after_s == 7.0
    await api.close()
    fake.port = 1
    with pytest.raises(ApiUnavailable, match="/api/v1/pods"):
        await api.call("GET", "/api/v1/pods")
    await api.close()
    assert calls == [("GET", "pods", 200), ("GET", "pods", 429), ("GET", "pods", 0)]


async def test_an_event_names_object_reason_and_reporter(cluster: KubernetesCluster, fake: FakeApi) -> None:
    await cluster.record_event(REGARDING, reason="Degraded", note="é" * 800, warning=True)
    method, path, _, body, _ = fake.requests[0]
    assert (method, path) == ("POST", "/apis/events.k8s.io/v1/namespaces/ns/events")
    assert (body["type"], body["reason"], body["action"]) == ("Warning", "Degraded", "Reconcile")
    assert body["regarding"]["uid"] == "u1"
    assert body["reportingInstance"] == "operator-0"
    assert len(body["note"].encode()) <= 1_000
    assert body["eventTime"].endswith("Z")


async def test_a_repeated_event_increases_its_count_and_is_written_once_a_minute(
    cluster: KubernetesCluster, fake: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("agentqueue_operator.controller.kubernetes.event_recorder.monotonic", lambda: now[0])
    for _ in range(5):
        await cluster.record_event(REGARDING, reason="Scaled", note="1 -> 2")
    now[0] += SERIES_EVERY_S
    await cluster.record_event(REGARDING, reason="Scaled", note="1 -> 2")
    await cluster.record_event(REGARDING, reason="Scaled", note="2 -> 1")
    series = [body["series"]["count"] for method, _, _, body, _ in fake.requests if method == "PATCH"]
    assert [method for method, *_ in fake.requests] == ["POST", "PATCH", "PATCH", "POST"]
    assert series == [2, 6]


async def test_an_expired_event_is_written_again(cluster: KubernetesCluster, fake: FakeApi) -> None:
    fake.answers = [(201, {}), status(404, "NotFound"), (201, {})]
    for _ in range(2):
        await cluster.record_event(REGARDING, reason="Scaled", note="1 -> 2")
    assert [method for method, *_ in fake.requests] == ["POST", "PATCH", "POST"]


@pytest.mark.parametrize("answers", [[status(403, "Forbidden")], [(201, {}), status(500, "InternalError")]])
async def test_an_event_that_can_t_be_written_stops_nothing(
    cluster: KubernetesCluster, fake: FakeApi, answers: list[Answer]
) -> None:
    fake.answers = [*answers]
    for _ in range(len(answers)):
        await cluster.record_event(REGARDING, reason="Scaled", note="1 -> 2")
    assert len(fake.requests) == len(answers)


@pytest.mark.parametrize(
    ("answer", "lines"),
    [
        ((404, {"kind": "Status", "reason": "NotFound", "message": 'namespaces "ns" not found'}), 0),
        ((403, {"kind": "Status", "reason": "Forbidden", "message": "ns because it is being terminated"}), 0),
        (status(403, "Forbidden"), 1),
    ],
)
async def test_an_event_in_a_deleted_namespace_is_dropped(
    cluster: KubernetesCluster, fake: FakeApi, answer: Answer, lines: int
) -> None:
    fake.answers = [answer]
    with structlog.testing.capture_logs() as logs:
        await cluster.record_event(REGARDING, reason="Scaled", note="1 -> 2")
    assert len(logs) == lines


async def test_the_number_of_remembered_events_is_limited(
    cluster: KubernetesCluster, fake: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentqueue_operator.controller.kubernetes.event_recorder.MAX_REMEMBERED", 2)
    for note in ("a", "b", "c", "a"):
        await cluster.record_event(REGARDING, reason="Scaled", note=note)
    assert [method for method, *_ in fake.requests] == ["POST"] * 4
