"""Lists over what is stored: payloads on request only, pages bounded in bytes, and one bad entry hides no other."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentqueue import Client
from agentqueue.client import OMITTED
from agentqueue.console.app import create_app
from agentqueue.errors import UsageError
from agentqueue.model.dead_letter import DeadLetterReason, dead_letter_to_json
from agentqueue.model.job import State
from agentqueue.store import Server
from tests.support.raw_queue import RawQueue

TOKEN = "a-long-token"
LARGE = "x" * 900_000


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


@pytest.fixture
async def api(client: Client) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=create_app(client, token=TOKEN), raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://console", headers=headers) as caller:
        yield caller


async def fill(client: Client, payload: Any) -> None:
    """A job of each state, with that payload and result; the dead one has failed with a message, too."""
    for name in ("done", "dead", "active", "waiting"):
        await client.enqueue("q", "search", payload, id=name, tags=["acme"])
    await client.enqueue("q", "search", payload, id="delayed", delay=3_600)
    async with Server(client.server.options) as server:
        raw_queue = RawQueue(server, "q")
        await raw_queue.complete(await raw_queue.claim_one(), payload)
        await raw_queue.add_dead_letter(await raw_queue.claim_one())
        await raw_queue.claim_one()


@pytest.mark.parametrize("payload", [{"n": 1}, LARGE, {"a": [LARGE[:20_000], {"x": '\\"]}'}], "x": {"f": LARGE}}])
async def test_lists_have_payloads_on_request_only(client: Client, api: httpx.AsyncClient, payload: Any) -> None:
    await fill(client, payload)
    for state in ("waiting", "delayed", "active", "completed", "dead"):
        (status,) = await client.jobs("q", state)
        whole = await client.status(status.id)
        assert (status.data, status.result) == (OMITTED, OMITTED)
        for name in (
            "id",
            "name",
            "state",
            "priority",
            "attempts",
            "deliveries",
            "enqueued_at",
            "due_at",
            "started_at",
        ):
            assert getattr(status, name) == getattr(whole, name), name
        assert (status.finished_at, status.error, status.worker) == (whole.finished_at, whole.error, whole.worker)
        (asked,) = await client.jobs("q", state, fields=["data", "result"])
        assert asked == whole
        assert (await client.jobs("q", state, fields=["data"]))[0].result is OMITTED
        (row,) = (await api.get("/api/queues/q/jobs", params={"state": state})).json()["jobs"]
        assert not row.keys() & {"data", "result"}
        (row,) = (await api.get("/api/queues/q/jobs", params={"state": state, "fields": "data,result"})).json()["jobs"]
        assert row["data"] == payload
    (letter,) = await client.dead_letters("q")
    (asked_letter,) = await client.dead_letters("q", fields=["data"])
    assert (letter.data, asked_letter.data) == (OMITTED, payload)
    assert letter.errors == asked_letter.errors
    assert (await client.dead_letter("dead")) == asked_letter
    (group,) = await client.dead_groups("q")
    assert (group.newest.data, group.newest.error, group.count) == (OMITTED, letter.error, 1)
    assert [error.traceback for error in group.newest.errors] == [""]
    answer = (await api.get("/api/queues/q/dead")).json()["dead"]
    assert "data" not in answer[0]
    assert (await api.get("/api/queues/q/dead?fields=data")).json()["dead"][0]["data"] == payload


async def test_a_field_that_there_is_not_is_the_callers_mistake(client: Client, api: httpx.AsyncClient) -> None:
    await client.enqueue("q", "search")
    for fields in (["name"], ["data", "x"], "data"):
        with pytest.raises(UsageError, match="may name data and result only"):
            await client.jobs("q", fields=fields)
    with pytest.raises(UsageError, match="may name data only"):
        await client.dead_letters("q", fields=["result"])
    assert (await api.get("/api/queues/q/jobs?fields=datta")).status_code == 400


async def test_fifty_large_jobs_are_a_small_list_that_reads_little(
    client: Client, api: httpx.AsyncClient, shared_server: Any
) -> None:
    await client.enqueue_many([{"queue": "q", "name": "search", "data": LARGE, "id": f"j{n}"} for n in range(50)])

    def sent() -> int:
        with shared_server.client() as plain:
            return int(plain.info("stats")["total_net_output_bytes"])

    before = sent()
    answer = await api.get("/api/queues/q/jobs")
    assert len(answer.json()["jobs"]) == 50
    assert len(answer.content) < 50_000
    assert sent() - before < 2_000_000, "the server is not asked for the payloads"


async def test_pages_with_payloads_are_bounded_and_go_on_where_they_ended(
    client: Client, api: httpx.AsyncClient
) -> None:
    await client.enqueue_many([{"queue": "q", "name": "search", "data": LARGE, "id": f"j{n}"} for n in range(12)])
    await client.enqueue_many(
        [{"queue": "q", "name": "search", "data": LARGE, "id": f"later{n}", "delay": 3_600 + n} for n in range(3)]
    )
    seen: list[str] = []
    cursor, pages = None, 0
    while pages == 0 or cursor:
        query = {"fields": "data", "limit": "200"} | ({"cursor": cursor} if cursor else {})
        answer = await api.get("/api/queues/q/jobs", params=query)
        assert len(answer.content) < 6_000_000
        page = answer.json()
        seen += [job["id"] for job in page["jobs"]]
        cursor, pages = page["cursor"], pages + 1
    assert seen == [f"j{n}" for n in range(12)] + [f"later{n}" for n in range(3)]
    assert pages == 3


async def test_pages_of_dead_letters_are_bounded(client: Client, api: httpx.AsyncClient) -> None:
    await client.enqueue_many([{"queue": "q", "name": "search", "data": LARGE, "id": f"j{n}"} for n in range(7)])
    async with Server(client.server.options) as server:
        raw_queue = RawQueue(server, "q")
        for _ in range(7):
            await raw_queue.add_dead_letter(await raw_queue.claim_one())
    seen: list[str] = []
    cursor, pages = None, 0
    while pages == 0 or cursor:
        page = await client.dead_letters("q", fields=["data"], cursor=cursor)
        seen += [letter.id for letter in page]
        cursor, pages = page.cursor, pages + 1
    assert sorted(seen) == [f"j{n}" for n in range(7)]
    assert pages == 2
    assert len(await client.dead_letters("q")) == 7


# What others have stored


async def test_a_queue_that_cant_be_read_has_a_problem_and_hides_no_other(
    client: Client, api: httpx.AsyncClient, shared_server: Any
) -> None:
    await client.enqueue("good", "search")
    with shared_server.client() as plain:
        plain.sadd("aq:queues", "bad name <b>", b"\xff\xfe", "torn")
        plain.set("torn:urgent", "theirs")
    rows = {row["name"]: row for row in (await api.get("/api/queues")).json()["queues"]}
    assert rows.keys() == {"good", "bad name <b>", "\\udcff\\udcfe", "torn"}
    assert (rows["good"]["waiting"], rows["good"]["problem"]) == (1, None)
    assert "queue name 'bad name <b>' must have" in rows["bad name <b>"]["problem"]
    assert "WRONGTYPE" in rows["torn"]["problem"]
    plain_rows = {row["name"]: row for row in (await api.get("/api/queue/stats")).json()["stats"]}
    assert "problem" not in plain_rows["good"]
    assert "WRONGTYPE" in plain_rows["torn"]["problem"]
    assert (await api.get("/api/jobs/nobody")).status_code == 404, "the search passes over them"
    assert (await api.get("/api/queues/nowhere")).status_code == 404, "their names are among those that are known"
    run = [Path(sys.executable).with_name("agentqueue"), "stats", "--redis", shared_server.url]
    shown = await asyncio.to_thread(subprocess.run, run, capture_output=True, text=True, check=True)
    assert "good" in shown.stdout
    assert "bad name <b>" in shown.stdout


async def test_garbage_in_one_dead_letter_hides_no_other(
    client: Client, api: httpx.AsyncClient, shared_server: Any
) -> None:
    for name in ("a", "b", "c"):
        await client.enqueue("q", name, id=name)
    async with Server(client.server.options) as server:
        raw_queue = RawQueue(server, "q")
        for number in range(3):
            await raw_queue.add_dead_letter(await raw_queue.claim_one(), error=f"Error{'xyz'[number]}")
    with shared_server.client() as plain:
        plain.hset("aq:dead:a", "dead_letter", "garbage")
        plain.delete("aq:dead:b")
        plain.set("aq:dead:b", "theirs")
    letters = {letter.id: letter for letter in await client.dead_letters("q")}
    assert letters.keys() == {"a", "b", "c"}
    assert (letters["a"].reason, letters["b"].reason, letters["c"].reason) == (
        DeadLetterReason.GARBAGE,
        DeadLetterReason.GARBAGE,
        DeadLetterReason.FATAL,
    )
    assert "its dead letter can't be read: the dead letter is not valid" in letters["a"].error
    assert "WRONGTYPE" in letters["b"].error
    rows = (await api.get("/api/queues/q/dead")).json()["dead"]
    assert {row["id"]: row["diedAt"] is None for row in rows} == {"a": True, "b": True, "c": False}
    assert len((await api.get("/api/queues/q/dead/groups")).json()["groups"]) == 3
    jobs = {row["id"]: row for row in (await api.get("/api/queues/q/jobs?state=dead")).json()["jobs"]}
    assert "can't be read" in jobs["a"]["error"]
    assert "WRONGTYPE" in jobs["b"]["error"]
    assert jobs["c"]["error"] == "Errorz: no airport 'XYZ'"
    assert (await api.get("/api/jobs/a")).status_code == 200
    assert (await client.dead_letter("a")).reason is DeadLetterReason.GARBAGE
    run = [Path(sys.executable).with_name("agentqueue"), "dead", "list", "q", "--ids", "--redis", shared_server.url]
    shown = await asyncio.to_thread(subprocess.run, run, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in shown.stdout.splitlines()[1:]].count("c") == 1


SMALL = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**64), 2**64), st.floats(), st.text(max_size=5), st.just([]), st.just({}),
    st.sampled_from([10**15, 10**18, -1, "9" * 20, [1], {"a": 1}, [{}], [[]], 1e300]),
)  # fmt: skip


def mutated(raw: bytes) -> st.SearchStrategy[bytes]:
    """A record of ours, with one of its members changed at any depth, or cut, or something else."""
    value = orjson.loads(raw)

    def places(found: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        yield path
        items = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
        for key, item in items:
            yield from places(item, (*path, key))

    def put(path: tuple[Any, ...], new: Any) -> bytes:
        if not path:
            return _dump(new)
        copy = orjson.loads(raw)
        inner = copy
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = new
        return _dump(copy)

    return st.one_of(
        st.builds(put, st.sampled_from(list(places(value))), SMALL),
        st.integers(0, len(raw)).map(lambda end: raw[:end]),
        st.binary(max_size=30),
        st.just(b"[" * 600 + b"]" * 600),
    )


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.fixture
def stored(server_url: str, shared_server: Any) -> Iterator[tuple[asyncio.Runner, Client, httpx.AsyncClient, Any]]:
    with asyncio.Runner() as runner, shared_server.client() as plain:
        client = Client(server_url)
        runner.run(fill(client, {"n": 1}))
        transport = httpx.ASGITransport(app=create_app(client, token=TOKEN), raise_app_exceptions=False)
        caller = httpx.AsyncClient(
            transport=transport, base_url="http://console", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        yield runner, client, caller, plain
        runner.run(caller.aclose())
        runner.run(client.close())


FUZZED = {
    "record": ("arq:job:waiting", None),
    "running": ("arq:job:active", None),
    "holder": ("arq:in-progress:active", None),
    "result": ("arq:result:done", None),
    "result-of-dead": ("arq:result:dead", None),
    "letter": ("aq:dead:dead", "dead_letter"),
    "progress": ("aq:meta:active", "progress"),
    "errors": ("aq:meta:active", "errors"),
    "crash": ("aq:meta:active", "crash:1"),
    "counter": ("q:stats", "completed"),
    "heartbeat": ("q:workers", "w/1"),
    "drain": ("q:drain", "w/1"),
    "fingerprints": ("q:dead:fp", "abc"),
}
SEEDS = {
    "arq:in-progress:active": b'["w/1|3|5|1700000000000"]',
    "progress": orjson.dumps({"percent": 5.0, "message": "x", "at_ms": 1_700_000_000_000}),
    "errors": orjson.dumps([{"attempt": 1, "at_ms": 5, "type": "T", "message": "m", "traceback": ""}]),
    "heartbeat": orjson.dumps({"busy": 1, "slots": 2, "draining": False, "jobs": ["a"]}),
}


@pytest.mark.parametrize("what", FUZZED)
def test_whatever_is_stored_every_list_is_shown(
    stored: tuple[asyncio.Runner, Client, httpx.AsyncClient, Any], what: str
) -> None:
    runner, client, caller, plain = stored
    key, field = FUZZED[what]
    now = (plain.hget(key, field) if field else plain.get(key)) or SEEDS.get(what) or b'"1"'
    seed = now if now[:1] in b"{[" else SEEDS.get(what, b'["w/1|3|5|1700000000000"]')

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from([b"", b"1700000000000|"]) if what == "heartbeat" else st.just(b""), mutated(seed))
    def check(before: bytes, value: bytes) -> None:
        plain.hset(key, field, before + value) if field else plain.set(key, before + value)
        runner.run(show_all(client, caller))

    check()


async def show_all(client: Client, caller: httpx.AsyncClient) -> None:
    for path in (
        "/api/queues", "/api/queue/stats", "/api/queues/q", "/api/queues/q/history?minutes=2", "/api/queues/q/dead",
        "/api/queues/q/dead?fields=data", "/api/queues/q/dead/groups", "/api/jobs/done", "/api/jobs/dead",
        "/api/jobs/active", "/api/jobs/waiting",
    ):  # fmt: skip
        answer = await caller.get(path)
        assert answer.status_code == 200, (path, answer.text)
    for state, job_id in (("completed", "done"), ("dead", "dead"), ("active", "active"), ("waiting", "waiting")):
        for fields in ("", "data,result"):
            answer = await caller.get("/api/queues/q/jobs", params={"state": state, "fields": fields})
            assert [row["id"] for row in answer.json()["jobs"]] == [job_id], answer.text
    for letter in await client.dead_letters("q"):
        dead_letter_to_json(letter)


async def test_ids_that_no_job_can_have_are_listed_with_the_others(
    client: Client, api: httpx.AsyncClient, shared_server: Any
) -> None:
    await client.enqueue("q", "search", id="good")
    with shared_server.client() as plain:
        plain.zadd("q", {b"\xff\xfe <b>": 1, "good2": float("inf"), "good3": float("-inf")})
        plain.zadd("q:done", {"old": float("inf"), "older": float("-inf")})
    rows = (await api.get("/api/queues/q/jobs")).json()["jobs"]
    assert {row["id"] for row in rows} == {"good", "\\udcff\\udcfe <b>", "good2", "good3"}
    done = (await api.get("/api/queues/q/jobs?state=completed")).json()["jobs"]
    assert [row["finishedAt"] for row in done] == [None, None]
    assert {status.state for status in await client.jobs("q")} == {State.WAITING, State.DELAYED, State.ACTIVE}
