"""Limits of the console's connections and requests, and its log lines."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.testing import capture_logs

from agentqueue import Client
from agentqueue.console import requests
from agentqueue.console.app import create_app
from agentqueue.console.auth import HEADERS, AccessMiddleware
from agentqueue.console.connections import MAX_CONNECTIONS, Connection, connection_limit
from agentqueue.console.repeated_logs import RepeatedLogs
from agentqueue.console.server import listen, make_server
from agentqueue.console.settings import Settings
from tests.support.waiting import until

TOKEN = "a-long-token"
PATIENCE = 30.0
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: console\r\n\r\n"


@contextlib.asynccontextmanager
async def serving(app: AccessMiddleware | None = None, **limits: Any) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """Run a console without a Redis, and yield the server and its port."""
    client = Client("redis://127.0.0.1:1")
    console = app or create_app(client, token=TOKEN)
    server = make_server(console, type("Limited", (Connection,), {"repeated_logs": console.repeated_logs, **limits}))
    with listen(Settings(port=0, token=TOKEN)) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await until(lambda: server.started)
            yield server, listener.getsockname()[1]
        finally:
            server.should_exit = server.force_exit = True
            await task
            console.repeated_logs.close()
            await client.close()


@contextlib.asynccontextmanager
async def connected(port: int, first: bytes = b"") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Return all bytes until the console closes the connection."""
    async with asyncio.timeout(PATIENCE):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Return the status and the headers of the next response."""
    async with asyncio.timeout(PATIENCE):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
    fields = dict(line.split(": ", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), {name.lower(): value for name, value in fields.items()}


def is_guarded(headers: dict[str, str]) -> bool:
    return all(headers.get(name.lower()) == value for name, value in HEADERS.items())


async def test_accepted_connections_send_at_once() -> None:
    async with serving() as (server, port), connected(port, HEALTH) as (reader, _):
        assert (await answer(reader))[0] == 200
        (one,) = server.server_state.connections
        accepted = one.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


@pytest.mark.parametrize(
    "first",
    [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-More: ", HEALTH + b"GET /hea"],
    ids=["nothing", "half a line", "half a head", "half a second head"],
)
async def test_an_incomplete_request_times_out(first: bytes) -> None:
    async with serving(head_seconds=0.05) as (_, port), connected(port, first) as (reader, writer):
        await ended(reader)
        assert reader.at_eof() or writer.is_closing()


async def test_a_head_that_arrives_byte_by_byte_gets_no_extra_time() -> None:
    async with (
        serving(head_seconds=0.2) as (server, port),
        connected(port, b"GET / HTTP/1.1\r\nX: ") as (reader, writer),
    ):
        end = asyncio.create_task(ended(reader))
        async with asyncio.timeout(PATIENCE):
            while not end.done():
                writer.write(b"x")
                await asyncio.sleep(0.01)
        await until(lambda: not server.server_state.connections)


async def test_silent_connections_do_not_keep_others_out() -> None:
    async with serving(max_connections=4) as (server, port), contextlib.AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(connected(port, b"GET /heal")) for _ in range(12)]
        await until(lambda: len(server.server_state.connections) == 4)
        async with connected(port, HEALTH) as (reader, _):
            assert (await answer(reader))[0] == 200
        for reader, _ in idle[:8]:
            assert await ended(reader) == b"", "the oldest went first"


async def test_a_running_request_is_not_closed_for_a_new_connection() -> None:
    """All connections have a running request, so the new one is closed."""
    release = asyncio.Event()
    async with serving(slow_app(release), max_connections=2) as (_, port), contextlib.AsyncExitStack() as stack:
        request = b"GET /static/x HTTP/1.1\r\nHost: x\r\n\r\n"
        busy = [await stack.enter_async_context(connected(port, request)) for _ in range(2)]
        for reader, _ in busy:
            assert (await answer(reader))[0] == 200
        async with connected(port, request) as (reader, _):
            assert await ended(reader) == b""
        release.set()
        for reader, _ in busy:
            async with asyncio.timeout(PATIENCE):
                assert await reader.readexactly(4) == b"done"


def slow_app(release: asyncio.Event) -> AccessMiddleware:
    """Return an application whose responses end when they are released."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await release.wait()
        await send({"type": "http.response.body", "body": b"done"})

    return AccessMiddleware(app, token=TOKEN, repeated_logs=RepeatedLogs(), max_requests=8)


async def test_a_peer_that_does_not_read_its_response_is_disconnected() -> None:
    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive_now(receive))["type"] != "http.disconnect":
            await send({"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": True})

    app = AccessMiddleware(endless, token=TOKEN, repeated_logs=RepeatedLogs(), max_requests=8)
    request = b"GET /static/x HTTP/1.1\r\nHost: x\r\n\r\n"
    async with serving(app, write_seconds=0.05) as (server, port):
        with socket.create_connection(("127.0.0.1", port)) as deaf:
            deaf.sendall(request)
            await until(lambda: len(server.server_state.connections) == 1)
            await until(lambda: not server.server_state.connections)


async def receive_now(receive: Receive) -> Any:
    """Return the bytes received so far."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.001):
            return await receive()
    return {"type": "http.request"}


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"x" * 100_000,
    ],
    ids=["nonsense", "two hosts", "bytes in the path", "a head that never ends"],
)
async def test_bytes_that_are_not_a_request_get_an_error_response(request_: bytes) -> None:
    async with serving() as (_, port), connected(port, request_) as (reader, _):
        status, headers = await answer(reader)
        assert (status, headers["content-type"]) == (400, "application/problem+json")
        assert is_guarded(headers)
        assert orjson.loads(await ended(reader))["status"] == 400


async def test_an_upgrade_request_gets_an_ordinary_response() -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    async with serving() as (_, port), connected(port, request) as (reader, _):
        assert (await answer(reader))[0] == 200


async def test_a_body_that_does_not_arrive_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "BODY_SECONDS", 0.05)
    head = (
        f"POST /api/queues/q/pause HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9\r\n\r\n{{"
    )
    async with serving() as (_, port), connected(port, head.encode()) as (reader, _):
        status, headers = await answer(reader)
        assert (status, headers["connection"], is_guarded(headers)) == (408, "close", True)
        await ended(reader)


async def test_requests_above_the_limit_get_503_but_the_health_check_responds() -> None:
    release, inside = asyncio.Event(), 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal inside
        if scope["path"] != "/healthz":
            inside += 1
            await release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    console = AccessMiddleware(app, token=TOKEN, repeated_logs=RepeatedLogs(), max_requests=2)
    known, unknown = f"Bearer {TOKEN}", ""
    waiting = [asyncio.create_task(call(console, "/api/queues", known)) for _ in range(2)]
    waiting.append(asyncio.create_task(call(console, "/", unknown)))
    await until(lambda: inside == 3)
    with capture_logs() as logged:
        assert [await call(console, path, header) for path, header in (("/api/queues", known), ("/", unknown))] == [
            503,
            503,
        ]
    assert [line["event"] for line in logged] == ["too_many_requests"]
    assert await call(console, "/healthz", unknown) == 200
    release.set()
    assert await asyncio.gather(*waiting) == [200] * 3
    console.repeated_logs.close()


async def call(app: ASGIApp, path: str, authorization: str) -> int:
    """Return the status of a response."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    headers = [(b"authorization", authorization.encode())] if authorization else []
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": headers,
        "client": ("1.2.3.4", 5),
    }
    await app(scope, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize(("files", "most"), [(64, 8), (256, 64), (1_024, 256), (1_048_576, 256), (-1, MAX_CONNECTIONS)])
def test_connections_leave_file_descriptors_for_other_uses(
    files: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (files, files))
    assert connection_limit() == most


# The log


async def test_a_frequent_event_is_one_line_per_period() -> None:
    repeated_logs = RepeatedLogs(period=0.05)
    with capture_logs() as logged:
        for number in range(50):
            repeated_logs.warn("request_refused", peer=f"10.0.0.{number}", reason="the token is wrong")
        await until(lambda: len(logged) == 2)
        repeated_logs.warn("request_refused", peer="10.0.1.1", reason="the token is wrong")
        repeated_logs.close()
    first, second, third = logged
    assert (first["peer"], "count" in first) == ("10.0.0.0", False)
    assert (second["count"], len(second["peers"]), second["reason"]) == (49, 20, "the token is wrong")
    assert (third["count"], third["peers"]) == (1, ["10.0.1.1"])


async def test_a_recovery_is_one_line() -> None:
    repeated_logs = RepeatedLogs()
    with capture_logs() as logged:
        repeated_logs.recovered("redis_unavailable", "redis_recovered")
        for _ in range(3):
            repeated_logs.warn("redis_unavailable", error="refused")
        for _ in range(2):
            repeated_logs.recovered("redis_unavailable", "redis_recovered")
        repeated_logs.warn("redis_unavailable", error="again")
        repeated_logs.close()
    assert [(line["event"], line.get("count")) for line in logged] == [
        ("redis_unavailable", None),
        ("redis_unavailable", 2),
        ("redis_recovered", None),
        ("redis_unavailable", None),
    ]


async def test_a_peer_that_disconnects_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    asked, gone, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.set()
        await gone.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 1_000_000})
        answered.set()

    console = AccessMiddleware(app, token=TOKEN, repeated_logs=RepeatedLogs(), max_requests=8)
    with capture_logs() as logged:
        async with serving(console) as (server, port):
            with socket.create_connection(("127.0.0.1", port)) as peer:
                peer.sendall(b"GET /static/x HTTP/1.1\r\nHost: x\r\n\r\n")
                await asked.wait()
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            gone.set()
            await answered.wait()
            await until(lambda: not server.server_state.connections)
    assert (logged, [record for record in caplog.records if record.levelname != "DEBUG"]) == ([], [])


@pytest.mark.parametrize(
    ("fields", "start"),
    [("Content-Length: 1000", b'{"na'), ("Content-Length: 2", b""), ("Transfer-Encoding: chunked", b'4\r\n{"na\r\n')],
)
async def test_a_peer_that_disconnects_during_its_body_is_not_logged(
    fields: str, start: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    head = f"POST /api/queues/q/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n{fields}\r\n\r\n"
    with capture_logs() as logged:
        async with serving() as (server, port):
            async with connected(port, head.encode() + start):
                await until(lambda: server.server_state.tasks)
            await until(lambda: not server.server_state.tasks)
    assert (logged, [record for record in caplog.records if record.levelname != "DEBUG"]) == ([], [])
