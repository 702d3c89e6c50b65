"""The REST API against real servers: the responses of each endpoint, to valid and invalid requests."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from structlog.testing import capture_logs

from agentqueue import Client
from agentqueue.console.app import create_app
from agentqueue.console.requests import MAX_BODY
from agentqueue.errors import UsageError
from agentqueue.model.job import decode_job
from agentqueue.model.schedule import Schedule
from agentqueue.store import Schedules, Server
from tests.support.raw_queue import RawQueue
from tests.support.servers import RunningServer, free_port

TOKEN = "a-long-token"
PROBLEM = "application/problem+json"


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


@contextlib.asynccontextmanager
async def console(client: Client, *, token: str | None = TOKEN) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the API. An unexpected error is a response here, too."""
    transport = httpx.ASGITransport(app=create_app(client, token=TOKEN), raise_app_exceptions=False)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://console", headers=headers) as caller:
        yield caller


@pytest.fixture
async def api(client: Client) -> AsyncIterator[httpx.AsyncClient]:
    async with console(client) as caller:
        yield caller


def problem(answer: httpx.Response, status: int) -> str:
    """Check the form of a problem response (RFC 9457), and return its detail."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    body = answer.json()
    assert body.keys() == {"type", "title", "status", "detail", "instance"}
    assert (body["status"], body["instance"]) == (status, answer.request.url.path)
    return str(body["detail"])


@contextlib.asynccontextmanager
async def raw_queue(client: Client, queue: str = "flights") -> AsyncIterator[RawQueue]:
    async with Server(client.server.options) as server:
        yield RawQueue(server, queue)


# --- access


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer ü"],
)
@pytest.mark.parametrize("path", ["/api/queue/stats", "/api/queues", "/api/jobs/x", "/api/nothing", "/docs"])
async def test_a_request_without_the_token_gets_401(client: Client, path: str, header: str | None) -> None:
    async with console(client, token=None) as stranger:
        headers = {} if header is None else {b"Authorization": header.encode()}
        answer = await stranger.get(path, headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"error": "Unauthorized"})
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_caller_without_the_token_cannot_change_anything(client: Client) -> None:
    job = await client.enqueue("flights", "search")
    async with console(client, token="wrong-token") as stranger:
        for call in (
            stranger.post("/api/queues/flights/jobs", json={"name": "search"}),
            stranger.post("/api/queues/flights/pause"),
            stranger.post("/api/queues/flights/dead/discard", json={"all": True}),
            stranger.delete(f"/api/jobs/{job.id}"),
        ):
            assert (await call).status_code == 401
    stats = await client.stats("flights")
    assert (stats.waiting, stats.paused) == (1, False)


async def test_the_page_is_open_and_every_answer_is_guarded(client: Client) -> None:
    async with console(client, token=None) as stranger:
        page = await stranger.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        for asset in ("console.js", "console.css", "icon.svg"):
            assert asset in page.text
            assert (await stranger.get(f"/static/{asset}")).status_code == 200
        refused = await stranger.get("/api/queues")
        for answer in (page, refused):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert refused.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/static/../api.py", "/static/%2e%2e/api.py", "/static//etc/passwd"])
async def test_only_the_pages_files_are_served(client: Client, path: str) -> None:
    async with console(client, token=None) as stranger:
        assert (await stranger.get(path)).status_code in (401, 404)


@pytest.mark.parametrize("token", ["", "short", " spaces-around "])
def test_an_invalid_token_is_refused(token: str) -> None:
    with pytest.raises(UsageError, match="token must have at least 8"):
        create_app(Client("redis://localhost:1"), token=token)


# --- health


async def test_healthy(api: httpx.AsyncClient) -> None:
    assert (await api.get("/healthz")).text == "ok\n"
    answer = await api.get("/api/health/queue")
    assert (answer.status_code, answer.json()) == (200, {"status": "healthy", "redis": "connected"})


async def test_an_unhealthy_response_has_the_address_only_with_the_token() -> None:
    url = f"redis://:s3cret@127.0.0.1:{free_port()}"
    client = Client(url)
    async with console(client) as authorized, console(client, token=None) as stranger:
        mine, theirs = await authorized.get("/api/health/queue"), await stranger.get("/api/health/queue")
        assert mine.status_code == theirs.status_code == 503
        assert mine.json()["status"] == theirs.json()["status"] == "unhealthy"
        assert "127.0.0.1" in mine.json()["error"]
        assert "s3cret" not in mine.text
        assert "127.0.0.1" not in theirs.text
        assert (await stranger.get("/healthz")).status_code == 200, "the process itself is well"
        answer = await authorized.get("/api/queues")
        assert "does not answer" in problem(answer, 503)
        assert answer.headers["retry-after"] == "2"
    await client.close()


async def test_a_server_that_evicts_jobs_is_unhealthy(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(maxmemory="50mb", maxmemory_policy="allkeys-lru")
    client = Client(server.url)
    async with console(client) as caller:
        answer = await caller.get("/api/health/queue")
        assert answer.status_code == 503
        assert "may evict jobs" in answer.json()["error"]
    await client.close()


async def test_a_full_server_refuses_jobs_and_answers_the_rest(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(maxmemory="3mb")
    with server.client() as plain, contextlib.suppress(Exception):
        for number in range(1_000):
            plain.set(f"fill:{number}", "x" * 20_000)
    client = Client(server.url)
    async with console(client) as caller:
        answer = await caller.post("/api/queues/flights/jobs", json={"name": "search"})
        assert "is full" in problem(answer, 507)
        assert (await caller.get("/api/queue/stats")).status_code == 200
    await client.close()


# --- queues


async def test_stats_in_the_words_of_other_consoles(client: Client, api: httpx.AsyncClient) -> None:
    assert (await api.get("/api/queue/stats")).json() == {"stats": []}
    await client.enqueue_many([{"queue": "flights", "name": "search"}] * 4)
    await client.enqueue("flights", "search", delay=60)
    async with raw_queue(client) as worker:
        await worker.complete(await worker.claim_one())
        await worker.add_dead_letter(await worker.claim_one())
        await worker.claim_one()
    await client.pause("flights")
    assert (await api.get("/api/queue/stats")).json() == {
        "stats": [
            {
                "name": "flights",
                "waiting": 1,
                "active": 1,
                "completed": 1,
                "failed": 1,
                "delayed": 1,
                "paused": True,
            }
        ]
    }


async def test_all_of_a_queue(client: Client, api: httpx.AsyncClient) -> None:
    await client.enqueue("flights", "search", priority="urgent")
    one = (await api.get("/api/queues/flights")).json()
    assert one["byPriority"] == {"urgent": 1, "high": 0, "normal": 0, "low": 0}
    assert (one["workers"], one["slots"], one["busy"]) == ([], 0, 0)
    assert [queue["name"] for queue in (await api.get("/api/queues")).json()["queues"]] == ["flights"]


async def test_the_history_of_a_queue(client: Client, api: httpx.AsyncClient) -> None:
    await client.enqueue_many([{"queue": "flights", "name": "search"}] * 3)
    found = (await api.get("/api/queues/flights/history?minutes=5")).json()
    assert found["minutes"] == 5
    assert found["since"].endswith("Z") or "+00:00" in found["since"]
    assert len(found["enqueued"]) == len(found["completed"]) == len(found["retried"]) == len(found["dead"]) == 5
    assert sum(found["enqueued"]) == 3
    for minutes in ("0", "1441", "x", "-1", "1.5"):
        assert "minutes" in problem(await api.get(f"/api/queues/flights/history?minutes={minutes}"), 400)


async def test_pause_and_resume(client: Client, api: httpx.AsyncClient) -> None:
    await client.enqueue("flights", "search")
    assert (await api.post("/api/queues/flights/pause", json={"note": "airline down"})).json() == {
        "paused": True,
        "changed": True,
    }
    assert (await client.stats("flights")).paused_note == "airline down"
    assert (await api.post("/api/queues/flights/pause")).json()["changed"] is False
    assert (await api.post("/api/queues/flights/resume")).json() == {"paused": False, "changed": True}
    assert (await api.post("/api/queues/flights/resume")).json() == {"paused": False, "changed": False}


async def test_schedules(client: Client, api: httpx.AsyncClient) -> None:
    nightly = Schedule("nightly", cron="0 3 * * *", timezone="Europe/Berlin", job="report", data={"day": 1})
    await Schedules(client.server).put("flights", source="resource", schedules=[nightly])
    at = "/api/queues/flights/schedules"
    (found,) = (await api.get(at)).json()["schedules"]
    assert (found["name"], found["cron"], found["timezone"], found["data"]) == (
        "nightly",
        "0 3 * * *",
        "Europe/Berlin",
        {"day": 1},
    )
    assert found["nextAt"].endswith(":00:00.000Z")
    paused = await api.post(f"{at}/nightly/pause", json={"note": "no flights"})
    assert paused.json() == {"paused": True, "changed": True}
    (found,) = (await api.get(at)).json()["schedules"]
    assert (found["paused"], found["nextAt"]) == ("no flights", None)
    run = await api.post(f"{at}/nightly/run")
    assert run.status_code == 202
    job = (await api.get(run.headers["Location"])).json()
    assert (job["id"], job["name"], job["schedule"]) == (run.json()["id"], "report", "nightly")
    assert (await api.post(f"{at}/nightly/resume")).json() == {"paused": False, "changed": True}
    assert "no schedule 'weekly'; it has nightly" in problem(await api.post(f"{at}/weekly/run"), 404)


QUEUE_CALLS = [
    ("GET", ""),
    ("GET", "/history"),
    ("GET", "/schedules"),
    ("POST", "/schedules/nightly/run"),
    ("POST", "/schedules/nightly/pause"),
    ("POST", "/schedules/nightly/resume"),
    ("GET", "/jobs"),
    ("GET", "/dead"),
    ("GET", "/dead/groups"),
    ("POST", "/pause"),
    ("POST", "/resume"),
    ("POST", "/jobs"),
    ("POST", "/dead/replay"),
    ("POST", "/dead/discard"),
]
BODIES: dict[str, Any] = {
    "/jobs": {"name": "search"},
    "/dead/replay": {"all": True},
    "/dead/discard": {"all": True},
}


@pytest.mark.parametrize(("method", "path"), QUEUE_CALLS)
async def test_a_mistyped_queue_is_refused_with_the_nearest(
    client: Client, api: httpx.AsyncClient, method: str, path: str
) -> None:
    await client.enqueue("flight-search", "search")
    body = BODIES.get(path) if method == "POST" else None
    answer = await api.request(method, f"/api/queues/flight-serch{path}", json=body)
    assert "no queue 'flight-serch' is known here; did you mean 'flight-search'?" in problem(answer, 404)


@pytest.mark.parametrize(("method", "path"), QUEUE_CALLS)
async def test_an_invalid_queue_name_is_refused(api: httpx.AsyncClient, method: str, path: str) -> None:
    body = BODIES.get(path) if method == "POST" else None
    assert "a b" in problem(await api.request(method, f"/api/queues/a%20b{path}", json=body), 422)


# --- jobs


async def test_a_job_from_enqueue_to_result(client: Client, api: httpx.AsyncClient) -> None:
    sent = await api.post(
        "/api/queues/flights/jobs",
        json={"name": "search", "data": {"from": "BER"}, "priority": "high", "id": "trip-1", "tags": ["acme"]},
    )
    assert sent.status_code == 202
    assert sent.json() == {"id": "trip-1", "queue": "flights", "name": "search", "deduplicated": False}
    place = sent.headers["location"]
    assert place == "/api/jobs/trip-1"
    waiting = (await api.get(place)).json()
    assert (waiting["state"], waiting["priority"], waiting["data"]) == ("waiting", "high", {"from": "BER"})
    assert waiting["errors"] == []
    async with raw_queue(client) as worker:
        await worker.complete(await worker.claim_one(), {"to": "LIS"})
    done = (await api.get(place)).json()
    assert (done["state"], done["result"]) == ("completed", {"to": "LIS"})
    again = await api.post("/api/queues/flights/jobs", json={"name": "other", "id": "trip-1"})
    assert (again.status_code, again.headers["location"]) == (202, place)
    first = {"id": "trip-1", "queue": "flights", "name": "search", "state": "completed"}
    assert again.json() == first | {"deduplicated": True}


async def test_a_job_shows_where_it_comes_from_and_whom_it_is_for(client: Client, api: httpx.AsyncClient) -> None:
    origin = {"tags": ["acme"], "tenant": "acme", "trace": "00-1-2-01"}
    await api.post("/api/queues/flights/jobs", json={"name": "search", "id": "trip", **origin})
    (listed,) = (await api.get("/api/queues/flights/jobs")).json()["jobs"]
    for wire in (listed, (await api.get("/api/jobs/trip")).json()):
        assert {name: wire[name] for name in (*origin, "parent")} == origin | {"parent": None}


async def test_null_is_a_payload(client: Client, api: httpx.AsyncClient) -> None:
    for body in ({"name": "search"}, {"name": "search", "data": None}):
        assert (await api.post("/api/queues/flights/jobs", json=body)).status_code == 202
    async with raw_queue(client) as worker:
        assert [decode_job(job.record or b"").args for job in await worker.claim(2)] == [[], [None]]


async def test_an_id_of_any_kind_has_an_address(client: Client, api: httpx.AsyncClient) -> None:
    sent = await api.post("/api/queues/flights/jobs", json={"name": "search", "id": "a:b.c@d"})
    assert sent.status_code == 202, sent.text
    assert (await api.get(sent.headers["location"])).json()["id"] == "a:b.c@d"


async def test_every_attempts_error_is_shown(client: Client, api: httpx.AsyncClient) -> None:
    job = await client.enqueue("flights", "search")
    async with raw_queue(client) as worker:
        await worker.fail(await worker.claim_one(), delay_ms=0)
        waiting = (await api.get(f"/api/jobs/{job.id}")).json()
        assert [(error["attempt"], error["type"]) for error in waiting["errors"]] == [(1, "ValueError")]
        await worker.add_dead_letter(await worker.claim_one(), "no airport 'XYZ'")
    shown = (await api.get(f"/api/jobs/{job.id}")).json()
    assert (shown["state"], shown["error"]) == ("dead", "Fatal: no airport 'XYZ'")
    assert [(error["type"], error["traceback"]) for error in shown["errors"]] == [("Fatal", "Traceback: …")]


async def test_pages_of_jobs(client: Client, api: httpx.AsyncClient) -> None:
    await client.enqueue_many([{"queue": "flights", "name": "search", "id": f"j{n}"} for n in range(5)])
    await client.enqueue("flights", "search", id="later", delay=60)
    first = (await api.get("/api/queues/flights/jobs?limit=3")).json()
    second = (await api.get("/api/queues/flights/jobs", params={"limit": 3, "cursor": first["cursor"]})).json()
    assert [job["id"] for job in first["jobs"] + second["jobs"]] == ["j0", "j1", "j2", "j3", "j4", "later"]
    last = (await api.get("/api/queues/flights/jobs", params={"limit": 3, "cursor": second["cursor"]})).json()
    assert last == {"jobs": [], "cursor": None}
    delayed = (await api.get("/api/queues/flights/jobs?state=delayed")).json()["jobs"]
    assert [job["id"] for job in delayed] == ["later"]
    assert delayed[0]["dueAt"] > delayed[0]["enqueuedAt"]
    assert (await api.get("/api/jobs/later")).json()["dueAt"] == delayed[0]["dueAt"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("state=wating", "state 'wating' can't be listed"),
        ("state=cancelled", "cancelled jobs are known by id"),
        ("cursor=x", "invalid cursor"),
        ("cursor=done:5", "is in state 'done'"),
        ("limit=0", "limit 0 must be"),
        ("limit=1001", "limit 1001 must be"),
        ("limit=many", "must be a whole number"),
    ],
)
async def test_invalid_pages(client: Client, api: httpx.AsyncClient, query: str, says: str) -> None:
    await client.enqueue("flights", "search")
    assert says in problem(await api.get(f"/api/queues/flights/jobs?{query}"), 400)


async def test_cancelling(client: Client, api: httpx.AsyncClient) -> None:
    waiting = await client.enqueue("flights", "search")
    answer = await api.delete(f"/api/jobs/{waiting.id}")
    assert (answer.status_code, answer.json()) == (200, {"id": waiting.id, "cancellation": "cancelled"})
    assert "has already ended" in problem(await api.delete(f"/api/jobs/{waiting.id}"), 409)
    running = await client.enqueue("flights", "search")
    async with raw_queue(client) as worker:
        await worker.claim_one()
        answer = await api.delete(f"/api/jobs/{running.id}")
    assert (answer.status_code, answer.json()["cancellation"]) == (202, "requested")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_unknown_job(api: httpx.AsyncClient, method: str) -> None:
    assert "no job nobody" in problem(await api.request(method, "/api/jobs/nobody"), 404)
    problem(await api.request(method, "/api/jobs/a%20b"), 422)


async def test_a_mistyped_job_is_refused_with_the_nearest_that_is_registered(
    client: Client, api: httpx.AsyncClient
) -> None:
    async with raw_queue(client) as worker:
        await worker.register("search-flights", "tick")
    answer = await api.post("/api/queues/flights/jobs", json={"name": "serch-flights"})
    assert "did you mean 'search-flights'? Send it anyway with ?force=true." in problem(answer, 404)
    forced = await api.post("/api/queues/flights/jobs?force=true", json={"name": "serch-flights"})
    assert forced.status_code == 202


async def test_the_first_job_of_a_server_needs_no_force(api: httpx.AsyncClient) -> None:
    assert (await api.post("/api/queues/flights/jobs", json={"name": "search"})).status_code == 202


# --- bad requests


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        pytest.param({}, 400, "must name the job", id="empty"),
        pytest.param({"name": "search", "dta": 1}, 400, "no field 'dta'; it may have", id="unknown-field"),
        pytest.param({"name": 5}, 400, "'name' must not be a int", id="name-type"),
        pytest.param({"name": "search", "attempts": True}, 400, "'attempts' must not be a bool", id="bool-for-int"),
        pytest.param({"name": "search", "priority": "soon"}, 422, "soon", id="priority"),
        pytest.param({"name": "search", "delay": -1}, 400, "delay", id="delay"),
        pytest.param({"name": "search", "delay": 1e300}, 400, "delay", id="long-delay"),
        pytest.param({"name": "search", "id": "a b"}, 422, "a b", id="id"),
        pytest.param({"name": "se arch"}, 422, "se arch", id="name"),
        pytest.param({"name": "search", "tags": ["x" * 1_000]}, 422, "tag", id="tag"),
        pytest.param({"name": "search", "tags": [5]}, 422, "tag", id="tag-type"),
        pytest.param({"name": "search", "attempts": 0}, 400, "attempts", id="attempts"),
        pytest.param({"name": "search", "timeout": 0}, 400, "timeout", id="timeout"),
        pytest.param({"name": "search", "backoff": {"type": "linear"}}, 400, "linear", id="backoff"),
        pytest.param({"name": "search", "data": "x" * 1_048_576}, 422, "1,048,576", id="too-large"),
    ],
)
async def test_an_invalid_job(
    client: Client, api: httpx.AsyncClient, body: dict[str, Any], status: int, says: str
) -> None:
    answer = await api.post("/api/queues/flights/jobs", json=body)
    assert says in problem(answer, status)
    assert await client.queues() == []


@pytest.mark.parametrize(
    ("content", "kind", "status", "says"),
    [
        pytest.param(b'{"name":', "application/json", 400, "is not JSON", id="half"),
        pytest.param(b'{"name": "x", "data": NaN}', "application/json", 400, "is not JSON", id="nan"),
        pytest.param(b"\xff\xfe", "application/json", 400, "is not JSON", id="no-text"),
        pytest.param(
            b'{"name": "x", "data": 12345678901234567890123}', "application/json", 400, "is over 64 bits", id="rounded"
        ),
        pytest.param(b'{"name": "x", "name": "y"}', "application/json", 400, "the name 'name' twice", id="name-twice"),
        pytest.param(b"[" * 100_000, "application/json", 400, "is nested deeper than 700 levels", id="deep-body"),
        pytest.param(b"[]", "application/json", 400, "must be a JSON object", id="list"),
        pytest.param(b'{"name": "x"}', "text/plain", 415, "Content-Type: application/json", id="kind"),
        pytest.param(b'{"name": "x"}', None, 415, "not 'none'", id="no-kind"),
        pytest.param(b" " * (MAX_BODY + 1), "application/json", 413, "the body is over", id="large"),
        pytest.param(
            b'{"name":"x","data":' + b"[" * 600 + b"]" * 600 + b"}", "application/json", 422, "deep", id="deep"
        ),
    ],
)
async def test_an_invalid_body(
    api: httpx.AsyncClient, content: bytes, kind: str | None, status: int, says: str
) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = await api.post("/api/queues/flights/jobs", content=content, headers=headers)
    assert says in problem(answer, status)


async def test_json_of_any_charset_parameter_is_json(api: httpx.AsyncClient) -> None:
    answer = await api.post(
        "/api/queues/flights/jobs",
        content=orjson.dumps({"name": "search"}),
        headers={"Content-Type": "Application/JSON; charset=utf-8"},
    )
    assert answer.status_code == 202


async def test_unknown_paths_and_methods(api: httpx.AsyncClient) -> None:
    assert "the console's page is at /" in problem(await api.get("/api/nothing"), 404)
    answer = await api.put("/api/queues/flights/pause")
    assert "method PUT is not allowed here" in problem(answer, 405)
    assert answer.headers["allow"] == "POST"


async def test_an_invalid_boolean(api: httpx.AsyncClient) -> None:
    answer = await api.post("/api/queues/flights/jobs?force=maybe", json={"name": "search"})
    assert "must be true or false" in problem(answer, 400)


async def test_the_response_to_a_bug_has_no_details(
    client: Client, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("s3cret inside")

    monkeypatch.setattr(client, "stats", broken)
    answer = await api.get("/api/queues")
    assert "its log has the details" in problem(answer, 500)
    assert "s3cret" not in answer.text


# --- dead letters


@pytest.fixture
async def letters(client: Client) -> None:
    for number in range(3):
        await client.enqueue("flights", "search", {"n": number}, id=f"j{number}")
    await client.enqueue("flights", "book", id="other")
    async with raw_queue(client) as worker:
        for _ in range(3):
            await worker.add_dead_letter(await worker.claim_one(), "no airport 'XYZ'")
        await worker.add_dead_letter(await worker.claim_one(), "sold out")


async def test_dead_letters_by_page_and_by_kind(letters: None, api: httpx.AsyncClient) -> None:
    first = (await api.get("/api/queues/flights/dead?limit=3")).json()
    second = (await api.get("/api/queues/flights/dead", params={"cursor": first["cursor"], "limit": 3})).json()
    assert [letter["id"] for letter in first["dead"] + second["dead"]] == ["other", "j2", "j1", "j0"]
    groups = (await api.get("/api/queues/flights/dead/groups")).json()["groups"]
    assert [(group["count"], group["newest"]["id"]) for group in groups] == [(3, "j2"), (1, "other")]
    like = (await api.get("/api/queues/flights/dead", params={"like": groups[0]["fingerprint"]})).json()["dead"]
    assert [letter["id"] for letter in like] == ["j2", "j1", "j0"]
    assert like[0]["errors"][-1]["type"] == "Fatal"


async def test_replaying(letters: None, client: Client, api: httpx.AsyncClient) -> None:
    path = "/api/queues/flights/dead/replay"
    assert (await api.post(path, json={"ids": ["j1", "nobody"]})).json() == {
        "replayed": 1,
        "unknown": ["nobody"],
        "live": [],
        "bare": [],
    }
    groups = (await api.get("/api/queues/flights/dead/groups")).json()["groups"]
    fingerprint = next(group["fingerprint"] for group in groups if group["count"] == 2)
    assert (await api.post(path, json={"like": fingerprint})).json()["replayed"] == 2
    assert (await api.post(path, json={"all": True})).json()["replayed"] == 1
    stats = await client.stats("flights")
    assert (stats.waiting, stats.dead) == (4, 0)


async def test_discarding(letters: None, client: Client, api: httpx.AsyncClient) -> None:
    path = "/api/queues/flights/dead/discard"
    assert (await api.post(path, json={"ids": ["j0", "nobody"]})).json() == {"discarded": 1}
    assert (await api.post(path, json={"all": True})).json() == {"discarded": 3}
    assert (await client.stats("flights")).dead == 0


@pytest.mark.parametrize("what", ["replay", "discard"])
@pytest.mark.parametrize(
    "body",
    [{}, {"all": False}, {"all": True, "ids": ["j0"]}, {"ids": ["j0"], "like": "x"}],
    ids=["nothing", "false", "two", "two-others"],
)
async def test_a_selection_is_required(letters: None, api: httpx.AsyncClient, what: str, body: dict[str, Any]) -> None:
    answer = await api.post(f"/api/queues/flights/dead/{what}", json=body)
    assert "by exactly one of" in problem(answer, 400)


async def test_invalid_ids(letters: None, api: httpx.AsyncClient) -> None:
    assert "5" in problem(await api.post("/api/queues/flights/dead/replay", json={"ids": [5]}), 422)


# --- the process


@pytest.fixture
def console_process(server_url: str, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run `python -m agentqueue.console`, as a pod does."""
    env = {
        **os.environ,
        "AGENTQUEUE_REDIS_URL": server_url,
        "AGENTQUEUE_CONSOLE_PORT": str(free_port()),
        "AGENTQUEUE_CONSOLE_TOKEN": f" {TOKEN}\n",
        "PYTHONUNBUFFERED": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "agentqueue.console"],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda it: it.name)
def test_a_console_pod_serves_and_ends_cleanly(
    console_process: "subprocess.Popen[str]", number: signal.Signals
) -> None:
    assert console_process.stdout is not None
    line = console_process.stdout.readline()
    address = line.removeprefix("console: ").strip()
    assert address.startswith("http://127.0.0.1:")
    assert TOKEN not in line, "the token that was given is not printed"
    with httpx.Client(base_url=address.rstrip("/"), trust_env=False) as caller:
        assert caller.get("/healthz").status_code == 200
        assert caller.get("/api/queue/stats").status_code == 401
        answer = caller.get("/api/queue/stats", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.json() == {"stats": []}
        assert "server" not in answer.headers
    console_process.send_signal(number)
    _, err = console_process.communicate(timeout=20)
    assert console_process.returncode == 0
    logged = [orjson.loads(line) for line in err.splitlines()]
    assert [line["event"] for line in logged] == ["console_started", "request_refused", "console_stopped"]
    assert TOKEN not in err


def started(process: "subprocess.Popen[str]") -> str:
    """Return the address of a started console."""
    assert process.stdout is not None
    return process.stdout.readline().removeprefix("console: ").strip().rstrip("/")


async def test_changes_are_logged_with_their_caller(client: Client, console_process: "subprocess.Popen[str]") -> None:
    await client.enqueue("flights", "search", id="j0")
    await client.enqueue("flights", "search", id="j1")
    await client.enqueue("flights", "search", id="j2")
    async with raw_queue(client) as worker:
        await worker.add_dead_letter(await worker.claim_one())
        await worker.add_dead_letter(await worker.claim_one())
    at = "/api/queues/flights"
    async with httpx.AsyncClient(base_url=started(console_process), trust_env=False) as caller:
        for guess in range(50):
            headers = {"Authorization": f"Bearer guess-{guess}"}
            refusal = await caller.post(f"{at}/dead/discard", json={"all": True}, headers=headers)
            assert refusal.status_code == 401
        caller.headers = httpx.Headers({"Authorization": f"Bearer {TOKEN}", "X-Forwarded-For": "10.9.8.7"})
        for method, path, body in (
            ("POST", f"{at}/pause", {"note": "airline down"}),
            ("POST", f"{at}/resume", None),
            ("POST", f"{at}/dead/replay", {"ids": ["j0", "nobody"]}),
            ("POST", f"{at}/dead/discard", {"all": True}),
            ("DELETE", "/api/jobs/j2", None),
            ("DELETE", "/api/jobs/nobody", None),
            ("POST", f"{at}/jobs", {"nme": "search"}),
            ("GET", "/api/queues/nowhere", None),
        ):
            await caller.request(method, path, json=body)
    console_process.send_signal(signal.SIGTERM)
    _, err = console_process.communicate(timeout=20)
    logged = [orjson.loads(line) for line in err.splitlines()]
    assert "guess" not in err
    assert TOKEN not in err
    assert all(line.keys() >= {"timestamp", "level"} for line in logged)
    changes = [line for line in logged if "forwarded_for" in line]
    assert {(line["peer"], line["forwarded_for"]) for line in changes} == {("127.0.0.1", "10.9.8.7")}
    wanted: dict[str, dict[str, object]] = {
        "queue_paused": {"queue": "flights", "changed": True, "note": "airline down"},
        "queue_resumed": {"queue": "flights", "changed": True},
        "dead_letters_replayed": {"queue": "flights", "count": 1, "left": 1, "ids": ["j0", "nobody"]},
        "dead_letters_discarded": {"queue": "flights", "count": 1, "all": True},
        "job_cancelled": {"id": "j2", "cancellation": "cancelled"},
    }
    assert {line["event"]: {name: line[name] for name in wanted[line["event"]]} for line in changes[:5]} == wanted
    assert [(line["event"], line["status"]) for line in changes[5:]] == [
        ("request_failed", 404),
        ("request_failed", 400),
    ]
    refused = [line for line in logged if line["event"] == "request_refused"]
    assert (refused[0]["peer"], refused[0]["path"]) == ("127.0.0.1", f"{at}/dead/discard")
    assert sum(line.get("count", 1) for line in refused) == 50
    assert len(refused) < 10, "wrong tokens do not fill the log"


async def test_an_outage_of_redis_is_logged(start_server: Callable[..., RunningServer], client: Client) -> None:
    server = start_server()
    own = Client(server.url)
    async with console(own) as caller:
        with capture_logs() as logged:
            assert (await caller.get("/api/queues")).status_code == 200
            server.kill()
            for path in ("/api/queues", "/api/queues", "/api/health/queue"):
                assert (await caller.get(path)).status_code == 503
            server.start()
            assert (await caller.get("/api/queues")).status_code == 200
            assert (await caller.get("/api/queues")).status_code == 200
    events = [(line["event"], line.get("count")) for line in logged if line["event"].startswith("redis_")]
    assert events == [("redis_unavailable", None), ("redis_unavailable", 2), ("redis_recovered", None)]
    await own.close()


@pytest.mark.slow
def test_health_responds_while_others_keep_connections_half_open(console_process: "subprocess.Popen[str]") -> None:
    """The console has fewer file descriptors than connections."""
    address = started(console_process)
    resource.prlimit(console_process.pid, resource.RLIMIT_NOFILE, (256, 256))
    port = httpx.URL(address).port
    with contextlib.ExitStack() as stack:
        for _ in range(400):
            half = stack.enter_context(socket.create_connection(("127.0.0.1", port or 0)))
            half.sendall(b"GET /healthz HTTP/1.1\r\nHost:")
        for _ in range(3):
            assert httpx.get(f"{address}/healthz", timeout=20, trust_env=False).status_code == 200
