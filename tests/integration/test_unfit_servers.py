"""Servers that are loading, full, demoted, locked, hung, or no Redis at all: said clearly, and nothing is lost."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import redis

from agentqueue import Agent, Backoff, Client, Context, Fatal
from agentqueue.errors import QueueFull, QueueUnavailable, UnsupportedServer
from agentqueue.model.job import State
from tests.support.servers import RunningServer, free_port
from tests.support.workers import Work, final, until, worker_for, worker_process, working

StartServer = Callable[..., RunningServer]
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]


def _program(folder: Path) -> Path:
    (folder / "handlers.py").write_text(
        "from agentqueue import Agent, Context\n"
        "agent = Agent('q')\n"
        "@agent.job\n"
        "async def job(ctx: Context) -> str:\n"
        "    return 'done'\n"
    )
    return folder


# --- loading


@pytest.mark.slow
async def test_a_server_that_is_loading_is_waited_for(start_server: StartServer) -> None:
    server = start_server()
    work = Work()
    work.go.set()
    async with Client(server.url) as client:
        job = await client.enqueue(work.job)
        with server.client() as plain:
            with plain.pipeline() as pipe:
                for number in range(500):
                    pipe.set(f"ballast:{number}", "x" * 2_000)
                pipe.execute()
            plain.save()
        server.kill()
        server.config |= {"key-load-delay": "40000", "loading-process-events-interval-bytes": "1024"}  # 20 s
        server.start(wait=False)
        await until(lambda: _is_loading(server), what="the server is loading")
        with pytest.raises(QueueUnavailable, match="is loading its data"):
            await client.status(job.id, queue="q")
        async with working(work.agent, server.url):
            await asyncio.sleep(0.2)  # it asks every 0.05 s at first
            assert work.runs == []
            with server.client() as plain:
                plain.config_set("key-load-delay", 0)
            assert (await final(job)).result == "done"


def _is_loading(server: RunningServer) -> bool:
    try:
        with server.client(socket_timeout=5) as client:
            client.get("x")
    except redis.BusyLoadingError:
        return True
    except (redis.ConnectionError, redis.TimeoutError):
        return False
    raise AssertionError("the server has loaded all already")


# --- a replica


async def test_a_replica_is_refused_at_start(start_server: StartServer, tmp_path: Path) -> None:
    primary = start_server()
    replica = start_server(replicaof=f"127.0.0.1 {primary.port}")
    with pytest.raises(UnsupportedServer, match="read-only replica; give the primary's address"):
        await worker_for(Work().agent, replica.url).run()
    with worker_process("handlers:agent", _program(tmp_path), replica.url) as worker:
        assert await worker.exit() == 1
    assert "read-only replica" in worker.output
    assert "Traceback" not in worker.output


async def test_a_primary_that_is_demoted_and_comes_back_has_the_outcomes_recorded(start_server: StartServer) -> None:
    server = start_server()
    work = Work()
    async with Client(server.url) as client, working(work.agent, server.url) as worker:
        job = await client.enqueue(work.job)
        await until(lambda: work.runs, what="it runs")
        with server.client() as plain:
            plain.replicaof("127.0.0.1", free_port())  # nobody: its data stay
            work.go.set()
            await until(lambda: not worker.state.running, what="it has ended")
            with pytest.raises(QueueUnavailable, match="has become a read-only replica"):
                await client.enqueue(work.job)
            plain.replicaof("NO", "ONE")
        status = await final(job)
        assert (status.result, status.deliveries, work.runs) == ("done", 1, [job.id])


# --- full


async def test_a_full_server_is_worked_off(start_server: StartServer) -> None:
    """Claims, retries, dead letters, results and hand-backs go on where an enqueue is refused."""
    server = start_server()
    agent = Agent("q")

    @agent.job(attempts=2, backoff=Backoff("fixed", delay=0.01, jitter=0.0))
    async def job(ctx: Context, kind: str) -> str:
        if kind == "fatal":
            raise Fatal("no")
        if kind == "flaky" and ctx.attempt == 1:
            raise ValueError("not yet")
        await ctx.checkpoint({"kind": kind})
        return kind

    async with Client(server.url) as client:
        jobs = {kind: await client.enqueue(job, kind) for kind in ("plain", "flaky", "fatal")}
        with server.client() as plain:
            plain.config_set("maxmemory", "1mb")
        with pytest.raises(QueueFull, match="is full"):
            await client.enqueue(job, "plain")
        async with working(agent, server.url):
            ends = {kind: (await final(job)).state for kind, job in jobs.items()}
        assert ends == {"plain": State.COMPLETED, "flaky": State.COMPLETED, "fatal": State.DEAD}


# --- a password


async def test_a_password_that_is_missing_is_said_and_the_worker_waits(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server()
    async with Client(server.url) as client:
        job = await client.enqueue("q", "job")
        with server.client() as plain:
            plain.config_set("requirepass", "s3cret")
            with worker_process("handlers:agent", _program(tmp_path), server.url) as worker:
                await worker.said("check the password in the URL")
                assert worker.process.poll() is None, "a secret may come later than the worker"
                plain.config_set("requirepass", "")
                assert (await final(job)).result == "done"
                assert "s3cret" not in worker.output


async def test_a_password_that_changes_under_a_running_job_loses_nothing(start_server: StartServer) -> None:
    server = start_server()
    work = Work()
    async with Client(server.url) as client, working(work.agent, server.url) as worker:
        job = await client.enqueue(work.job)
        await until(lambda: work.runs, what="it runs")
        with server.client() as plain:
            plain.config_set("requirepass", "s3cret")
            plain.client_kill_filter(_type="normal", skipme=True)
            work.go.set()
            await until(lambda: not worker.state.running, what="it has ended")
            with pytest.raises(QueueUnavailable, match="refuses the credentials"):
                await client.queues()
            with pytest.raises(QueueUnavailable):  # Redis closes on a large command: its words may not get through
                await client.enqueue(work.job)
            plain.config_set("requirepass", "")
        await until(lambda: worker.state.finished == 1, what="its outcome is recorded")
        assert (await final(job)).deliveries == 1
        assert work.runs == [job.id]


# --- hung


@pytest.mark.slow
async def test_a_server_that_hangs_for_a_while_loses_nothing(start_server: StartServer) -> None:
    """Longer than the renewing thread waits for an answer (2 s)."""
    server = start_server()
    work = Work()
    async with Client(server.url) as client, working(work.agent, server.url) as worker:
        jobs = [await client.enqueue(work.job) for _ in range(3)]
        await until(lambda: len(work.runs) == 3, what="they run")
        server.freeze()
        work.go.set()
        await until(lambda: not worker.state.running, what="they have ended")
        with pytest.raises(QueueUnavailable, match="does not answer"):
            async with Client(server.url, timeout=3.0):
                raise AssertionError("connected")
        server.thaw()
        assert [(await final(job)).deliveries for job in jobs] == [1, 1, 1]
        assert len(work.runs) == 3


# --- not Redis


async def _http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()
    writer.close()


async def _banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()


async def _noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\0" + os.urandom(63).replace(b"\r", b"x") + b"\r\n")  # a random first byte may begin a valid reply
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()


@contextlib.asynccontextmanager
async def stranger(answer: Answer) -> AsyncIterator[int]:
    """A server that speaks something else; its port."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("answer", [_http, _banner, _noise], ids=["http", "ssh", "noise"])
async def test_what_is_no_redis_is_named(tmp_path: Path, answer: Answer) -> None:
    async with stranger(answer) as port:
        url = f"redis://127.0.0.1:{port}"
        with pytest.raises(UnsupportedServer, match=rf"127\.0\.0\.1:{port} is not Redis .*check host and port"):
            async with Client(url, timeout=5):
                raise AssertionError("connected")
        with worker_process("handlers:agent", _program(tmp_path), url) as worker:
            assert await worker.exit() == 1
        assert f"127.0.0.1:{port} is not Redis" in worker.output
        assert "Traceback" not in worker.output


async def test_what_takes_connections_and_ends_them_at_once_is_waited_for_until_a_signal(tmp_path: Path) -> None:
    """As a proxy or a Service whose pod is not there yet."""

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with stranger(close) as port:
        url = f"redis://127.0.0.1:{port}"
        with worker_process("handlers:agent", _program(tmp_path), url) as worker:
            await worker.said("does not answer")
            worker.send(signal.SIGTERM)
            assert await worker.exit() == 0
        assert "Traceback" not in worker.output
