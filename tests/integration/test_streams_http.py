"""Streams over HTTP: the console's route and its tokens for one stream, the helper for Starlette, and the commands."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from structlog.testing import capture_logs

from agentqueue import Agent, Client, Context, Fatal, SyncClient
from agentqueue.cli.main import run as run_command
from agentqueue.client import Job, StreamEvent
from agentqueue.client.server_sent_events import send_events
from agentqueue.client.stream_tokens import is_stream_token, mint_stream_token
from agentqueue.console.app import create_app
from agentqueue.console.auth import AccessMiddleware
from agentqueue.errors import UsageError
from agentqueue.integrations.starlette import sse_response
from tests.support.servers import free_port
from tests.support.waiting import until
from tests.support.workers import work_off, working

TOKEN = "a-long-token"
agent = Agent("q")
go = asyncio.Event()


@agent.job
async def talk(ctx: Context) -> None:
    await ctx.emit("a")
    await ctx.emit({"b": "two\nlines"})


@agent.job
async def wait(ctx: Context) -> None:
    await ctx.emit("begins")
    await asyncio.Event().wait()


@agent.job(attempts=1)
async def die(ctx: Context) -> None:
    await ctx.emit("last words\n")
    await ctx.emit([1])
    raise Fatal("no")


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve an application on a port: the in-memory transport of httpx waits for the end of each response."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical", lifespan="off", ws="none"))
    running = asyncio.create_task(server.serve())
    await until(lambda: server.started, what="the server listens")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = server.force_exit = True
        await running


class Reader:
    """What a browser's `EventSource` gets."""

    def __init__(self, response: httpx.Response) -> None:
        self.lines = response.aiter_lines()
        self.comments = 0

    async def next(self) -> dict[str, str]:
        """Return the fields of the next event."""
        fields: dict[str, str] = {}
        async for line in self.lines:
            if not line and fields:
                return fields
            name, _, value = line.partition(": ")
            if name:
                fields[name] = value
            self.comments += line == ":"
        return fields

    async def rest(self) -> list[dict[str, str]]:
        """Return all events that follow."""
        found = []
        while event := await self.next():
            found.append(event)
        return found


@contextlib.asynccontextmanager
async def reading(url: str, **headers: str) -> AsyncIterator[tuple[httpx.Response, Reader]]:
    async with httpx.AsyncClient(timeout=10) as caller, caller.stream("GET", url, headers=headers) as response:
        yield response, Reader(response)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_the_console_sends_a_stream_as_server_sent_events(client: Client, server_url: str) -> None:
    job = await client.enqueue(talk)
    await work_off(agent, server_url)
    async with serving(create_app(client, token=TOKEN)) as url:
        async with reading(f"{url}/api/jobs/{job.id}/stream", **bearer(TOKEN)) as (response, reader):
            assert response.status_code == 200
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert response.headers["cache-control"] == "no-store"
            events = await reader.rest()
        assert events[0] == {"retry": "2000"}
        assert [(event.get("event"), json.loads(event["data"])) for event in events[1:]] == [
            (None, "a"),
            (None, {"b": "two\nlines"}),
            ("end", "completed"),
        ]
        again = {"Last-Event-ID": events[1]["id"]}
        async with reading(f"{url}/api/jobs/{job.id}/stream", **bearer(TOKEN), **again) as (_, reader):
            assert [event["data"] for event in (await reader.rest())[1:]] == ['{"b":"two\\nlines"}', '"completed"']
        at_end = {"Last-Event-ID": events[-1]["id"]}
        async with reading(f"{url}/api/jobs/{job.id}/stream", **bearer(TOKEN), **at_end) as (response, _):
            assert response.status_code == 204  # so that the browser does not connect again


async def test_errors_of_the_route_are_those_of_other_routes(client: Client) -> None:
    transport = httpx.ASGITransport(app=create_app(client, token=TOKEN))
    async with httpx.AsyncClient(transport=transport, base_url="http://console", headers=bearer(TOKEN)) as api:
        unknown = await api.get("/api/jobs/nothing/stream")
        assert (unknown.status_code, unknown.json()["title"]) == (404, "Not Found")
        await client.enqueue("q", "talk", id="one")
        wrong = await api.get("/api/jobs/one/stream", headers={"Last-Event-ID": "yesterday"})
        assert (wrong.status_code, "is no ID of a stream's event" in wrong.json()["detail"]) == (400, True)
        head = await api.head("/api/jobs/one/stream")
        assert (head.status_code, head.content) == (200, b"")


async def test_a_token_for_one_stream_reads_this_stream_and_nothing_else(client: Client, server_url: str) -> None:
    job, other = await client.enqueue(talk, id="tree/a"), await client.enqueue(talk)
    await work_off(agent, server_url)
    token = client.stream_token(job.id, ttl=60, secret=TOKEN)
    late = mint_stream_token(TOKEN, job.id, expires_s=1)
    transport = httpx.ASGITransport(app=create_app(client, token=TOKEN))
    async with httpx.AsyncClient(transport=transport, base_url="http://console") as api:

        async def status(path: str, method: str = "GET", **headers: str) -> int:
            return (await api.request(method, path, headers=headers)).status_code

        with capture_logs() as logs:
            assert await status(f"/api/jobs/{job.id}/stream?token={token}") == 200
            assert await status(f"/api/jobs/{job.id}/stream", **bearer(token)) == 200
            assert await status(f"/api/jobs/{job.id}/stream?token={TOKEN}") == 401
            assert await status(f"/api/jobs/{job.id}/stream?token={late}") == 401
            assert await status(f"/api/jobs/{job.id}/stream?token={token[:-1]}") == 401
            assert await status(f"/api/jobs/{job.id}/stream") == 401
            assert await status(f"/api/jobs/{other.id}/stream?token={token}") == 401
            assert await status(f"/api/jobs/{job.id}?token={token}") == 401
            assert await status(f"/api/jobs/{job.id}", **bearer(token)) == 401
            assert await status(f"/api/jobs/{job.id}/stream?token={token}", "POST") == 401
        assert token not in repr(logs)
        assert TOKEN not in repr(logs)


def test_a_token_is_signed_with_the_consoles_token(monkeypatch: pytest.MonkeyPatch, server_url: str) -> None:
    monkeypatch.delenv("AGENTQUEUE_CONSOLE_TOKEN", raising=False)
    with SyncClient(server_url) as client:
        with pytest.raises(UsageError, match="set AGENTQUEUE_CONSOLE_TOKEN"):
            client.stream_token("one")
        monkeypatch.setenv("AGENTQUEUE_CONSOLE_TOKEN", TOKEN)
        token = client.stream_token("one", ttl=60)
    expires = int(token.split(".")[1])
    assert is_stream_token(TOKEN, "one", token, now_s=expires - 1)
    assert not is_stream_token(TOKEN, "one", token, now_s=expires)
    assert not is_stream_token("another-token", "one", token, now_s=expires - 1)
    for wrong in ("", "aqs", "aqs..x", "aqs.9.x", f"aqs.{'9' * 20}.x", "aqt" + token[3:], "aqs.ü.x"):
        assert not is_stream_token(TOKEN, "one", wrong, now_s=0)


async def test_the_number_of_open_streams_is_limited_and_they_take_no_place_of_requests(
    client: Client, server_url: str
) -> None:
    app = create_app(client, token=TOKEN, max_requests=1, max_streams=2)
    job = await client.enqueue(wait)
    async with working(agent, server_url), serving(app) as url, contextlib.AsyncExitStack() as stack:
        stream_url = f"{url}/api/jobs/{job.id}/stream"
        readers = list[Reader]()
        for _ in range(2):
            _, reader = await stack.enter_async_context(reading(stream_url, **bearer(TOKEN)))
            readers.append(reader)  # httpx closes a response whose lines nobody can read any more
            assert [await reader.next(), (await reader.next())["data"]] == [{"retry": "2000"}, '"begins"']
        async with reading(stream_url, **bearer(TOKEN)) as (response, _):
            assert (response.status_code, response.headers.get("retry-after")) == (503, "2")
        async with httpx.AsyncClient(headers=bearer(TOKEN)) as caller:
            assert (await caller.get(f"{url}/api/queues")).status_code == 200
        await stack.aclose()

        async def is_free() -> bool:
            async with reading(stream_url, **bearer(TOKEN)) as (response, _):
                return response.status_code == 200

        await until(is_free, what="the streams of readers that have gone are closed")
        await job.cancel()


# --- what is sent


class Wire:
    """The server's side of a response, of which a test takes what it wants."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.is_read = asyncio.Event()
        self.gone = asyncio.Event()

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body" and message["body"].startswith(b"id"):
            await self.is_read.wait()
        self.chunks.append(message.get("body", b""))

    async def receive(self) -> MutableMapping[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}


async def test_a_slow_reader_is_dropped_and_costs_no_memory() -> None:
    made = 0

    async def events() -> Any:
        nonlocal made
        while True:
            made += 1
            yield StreamEvent(f"1-{made}", "data", "x" * 1_000)

    wire = Wire()
    await asyncio.wait_for(send_events(events(), wire.receive, wire.send, write_s=0.05), 5)
    assert made <= 2  # the one that nobody takes, and none is made in advance
    assert [chunk for chunk in wire.chunks if chunk] == [b"retry: 2000\n\n"]


async def test_silence_is_filled_with_comments_until_the_reader_goes() -> None:
    is_closed = asyncio.Event()

    async def events() -> Any:
        try:
            await asyncio.Event().wait()
            yield StreamEvent("1-0", "data", 1)
        finally:
            is_closed.set()

    wire = Wire()
    sending = asyncio.create_task(send_events(events(), wire.receive, wire.send, heartbeat_s=0.01))
    await until(lambda: wire.chunks.count(b":\n\n") >= 3, what="comments are sent")
    wire.gone.set()
    await asyncio.wait_for(sending, 5)
    assert is_closed.is_set()


# --- Starlette


async def test_a_starlette_application_sends_a_stream(client: Client, server_url: str) -> None:
    async def answer(request: Request) -> Response:
        return await sse_response(client, request.path_params["id"], request)

    app = Starlette(routes=[Route("/answers/{id}", answer)])
    job = await client.enqueue(talk)
    async with working(agent, server_url), serving(app) as url:
        async with reading(f"{url}/answers/{job.id}") as (_, reader):
            assert [event["data"] for event in (await reader.rest())[1:]][::2] == ['"a"', '"completed"']
        async with reading(f"{url}/answers/nothing") as (response, _):
            assert response.status_code == 404
        async with reading(f"{url}/answers/{job.id}", **{"Last-Event-ID": "x"}) as (response, _):
            assert response.status_code == 400


def test_the_middleware_knows_the_paths_of_streams() -> None:
    from agentqueue.console.auth import stream_job

    assert stream_job({"path": "/api/jobs/a/b/stream", "method": "GET"}) == "a/b"
    assert stream_job({"path": "/api/jobs/a/b", "method": "GET"}) is None
    assert stream_job({"path": "/api/jobs/a/stream", "method": "DELETE"}) is None
    assert AccessMiddleware is not None


# --- commands


@pytest.fixture
def on_server(server_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AGENTQUEUE_REDIS_URL", server_url)
    return server_url


def run_jobs(url: str, *names: str) -> list[Job[Any]]:
    async def send_and_run() -> list[Job[Any]]:
        async with Client(url) as client:
            jobs: list[Job[Any]] = [await client.enqueue("q", name) for name in names]
        await work_off(agent, url)
        return jobs

    return asyncio.run(send_and_run())


def test_tail_prints_what_a_job_emits_and_exits_with_its_end(
    on_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    job, dead = run_jobs(on_server, "talk", "die")
    capsys.readouterr()
    assert run_command(["tail", job.id]) == 0
    assert capsys.readouterr().out == 'a\n{"b": "two\\nlines"}\n'
    assert run_command(["tail", dead.id]) == 1
    shown = capsys.readouterr()
    assert shown.out == "last words\n[1]\n"
    assert f"{dead.id} is dead" in shown.err
    assert run_command(["tail", "--json", dead.id]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["type"], line["data"]) for line in lines] == [
        ("data", "last words\n"),
        ("data", [1]),
        ("end", "dead"),
    ]
    assert run_command(["tail", "--json", dead.id, "--after", lines[0]["id"]]) == 1
    assert [json.loads(line)["data"] for line in capsys.readouterr().out.splitlines()] == [[1], "dead"]
    assert run_command(["tail", "nothing"]) == 3


def test_tail_shows_where_a_job_has_begun_again(capsys: pytest.CaptureFixture[str]) -> None:
    from agentqueue.cli.tail import _Text

    text = _Text()
    for event in (
        StreamEvent("1-0", "gap", 2),
        StreamEvent("1-2", "data", "half a li"),
        StreamEvent("1-2", "rewind", 2),
        StreamEvent("2-2", "data", "a line"),
        StreamEvent("2-3", "end", "completed"),
    ):
        text.show(event)
    assert capsys.readouterr().out.splitlines() == [
        "--- 2 events are missing ---",
        "half a li",
        "--- the job runs again; its first 2 events stand, and these follow: ---",
        "a line",
    ]


def test_the_command_prints_a_token(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AGENTQUEUE_CONSOLE_TOKEN", TOKEN)
    assert run_command(["stream-token", "one", "--ttl", "60"]) == 0
    assert is_stream_token(TOKEN, "one", capsys.readouterr().out.strip(), now_s=0)
    assert run_command(["stream-token", "one", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "one"
