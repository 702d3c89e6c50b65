"""The connections of round trips and sends: no reply reaches another call; the pool's errors and recoveries hold."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from agentqueue import Client
from agentqueue.errors import QueueUnavailable
from agentqueue.store import Server
from agentqueue.store.options import ServerOptions
from agentqueue.store.scripts import Script, load
from tests.support.servers import RunningServer
from tests.support.workers import until

COUNTERS = load("increment_counters", allow_oom=True)


@pytest.fixture
async def server(server_url: str) -> AsyncIterator[Server]:
    async with Server(ServerOptions(server_url, timeout=0.5)) as connected:
        yield connected


async def echo(server: Server, text: str) -> Script:
    """Load a script that returns the text."""
    source = f"#!lua\nreturn '{text}'"
    return Script("echo", source, await server.redis.execute_command("SCRIPT LOAD", source))


async def run_echo(server: Server, text: str) -> bytes:
    """Return what the script that returns the text replies."""
    reply = await server.run_dedicated(await echo(server, text), "q", ())
    assert isinstance(reply, bytes)
    return reply


def connections(server: RunningServer) -> set[str]:
    """Return the IDs of the connections whose last command was a script."""
    with server.client() as admin:
        return {it["id"] for it in admin.client_list() if it["cmd"] == "evalsha"}


async def test_calls_in_turn_share_one_connection(server: Server, shared_server: RunningServer) -> None:
    await run_echo(server, "a")
    first = connections(shared_server)
    await run_echo(server, "b")
    assert len(first) == 1
    assert connections(shared_server) == first


async def test_overlapping_calls_get_their_own_replies(server: Server) -> None:
    texts = [f"text-{number}" for number in range(20)]
    assert await asyncio.gather(*(run_echo(server, text) for text in texts)) == [text.encode() for text in texts]


async def test_the_late_reply_of_a_timed_out_call_answers_no_other_call(
    server: Server, shared_server: RunningServer
) -> None:
    assert await run_echo(server, "before") == b"before"
    script = await echo(server, "late")
    shared_server.freeze()
    try:
        with pytest.raises(QueueUnavailable, match="does not answer"):
            await server.run_dedicated(script, "q", ())
    finally:
        shared_server.thaw()
    assert await run_echo(server, "after") == b"after"


async def test_a_cancelled_call_leaves_no_reply_behind(server: Server, shared_server: RunningServer) -> None:
    assert await run_echo(server, "before") == b"before"
    script = await echo(server, "late")
    shared_server.freeze()
    try:
        call = asyncio.create_task(server.run_dedicated(script, "q", ()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
    finally:
        shared_server.thaw()
    assert await run_echo(server, "after") == b"after"


async def test_a_connection_that_the_server_has_closed_is_replaced_without_an_error(
    server: Server, shared_server: RunningServer
) -> None:
    await run_echo(server, "before")
    closed = connections(shared_server)
    with shared_server.client() as admin:
        admin.client_kill_filter(_type="normal", skipme=True)
    await until(lambda: not connections(shared_server) & closed, what="the connection is closed")
    for _ in range(2):
        await asyncio.sleep(0)  # the event loop sees the end of the connection
    await server.run_dedicated(COUNTERS, "q", ["completed", 1])
    assert await server.redis.execute_command("HGET", "q:stats", "completed") == b"1"


async def test_a_script_that_the_server_has_lost_is_loaded_again(server: Server, shared_server: RunningServer) -> None:
    await server.run_dedicated(COUNTERS, "q", ["completed", 1])
    with shared_server.client() as admin:
        admin.script_flush()
    await server.run_dedicated(COUNTERS, "q", ["completed", 1])
    assert await server.redis.execute_command("HGET", "q:stats", "completed") == b"2"


async def test_close_ends_the_connection(server_url: str, shared_server: RunningServer) -> None:
    async with Server(ServerOptions(server_url)) as server:
        await server.run_dedicated(COUNTERS, "q", ["completed", 1])
        opened = connections(shared_server)
        assert opened
    await until(lambda: not connections(shared_server) & opened, what="the connection is closed")


async def test_no_idle_connection_to_a_demoted_server_is_used_again(
    server: Server, shared_server: RunningServer
) -> None:
    script = await echo(server, "text")
    await asyncio.gather(*(server.run_dedicated(script, "q", ()) for _ in range(3)))
    idle = connections(shared_server)
    assert len(idle) == 3
    with shared_server.client() as admin:
        admin.replicaof("127.0.0.1", "1")
        try:
            with pytest.raises(QueueUnavailable, match="has become a read-only replica"):
                await server.run_dedicated(COUNTERS, "q", ["completed", 1])
        finally:
            admin.replicaof("NO", "ONE")
    await until(lambda: not connections(shared_server) & idle, what="the connections are closed")
    await server.run_dedicated(COUNTERS, "q", ["completed", 1])


def test_a_closed_server_serves_another_event_loop(server_url: str) -> None:
    server = Server(ServerOptions(server_url))

    async def count() -> None:
        await server.run_dedicated(COUNTERS, "q", ["completed", 1])
        await server.close()

    for _ in range(2):
        asyncio.run(count())


async def test_a_cancelled_send_leaves_its_reply_to_no_other_send(
    server_url: str, shared_server: RunningServer
) -> None:
    async with Client(server_url, timeout=5) as client:
        first = await client.enqueue("q", "job", id="known", force=True)
        shared_server.freeze()
        try:
            cancelled = asyncio.create_task(client.enqueue("q", "job", id="known", force=True))
            for _ in range(5):
                await asyncio.sleep(0)
            cancelled.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await cancelled
        finally:
            shared_server.thaw()
        second = await client.enqueue("q", "job", id="new", force=True)
    assert (first.deduplicated, second.deduplicated) == (False, False)
