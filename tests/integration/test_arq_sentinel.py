"""Redis behind a Sentinel, a Unix socket, a password, TLS settings: where arq's settings lead, ours connect too."""

import asyncio
import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as sync_redis
from arq import func
from arq.connections import RedisSettings, create_pool

from agentqueue.store import close_sentinels
from agentqueue_worker.arq import Worker
from tests.support.arq_programs import JSON, QUEUE
from tests.support.servers import RunningServer, free_port, run_server
from tests.support.workers import until


@contextlib.contextmanager
def sentinel(folder: Path, master: RunningServer) -> Iterator[int]:
    """A real Sentinel that watches the server; its port."""
    port, config = free_port(), folder / "sentinel.conf"
    lines = (f"port {port}", "bind 127.0.0.1", f"dir {folder}", f"sentinel monitor mymaster 127.0.0.1 {master.port} 1")
    config.write_text("\n".join(lines))
    binary = shutil.which("redis-server")
    assert binary is not None
    with (folder / "sentinel.log").open("wb") as log:
        process = subprocess.Popen([binary, str(config), "--sentinel"], stdout=log, stderr=log, start_new_session=True)
    try:
        _wait(port)
        yield port
    finally:
        process.kill()
        process.wait(10)


def _wait(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with sync_redis.Redis(port=port, socket_timeout=1) as client:
                client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
                return
        except sync_redis.ConnectionError:
            assert time.monotonic() < deadline, "the sentinel does not answer"
            time.sleep(0.01)


async def run_one_job(settings: RedisSettings, **options: Any) -> None:
    """Enqueue with arq's client, run until the renewing thread has been heard of too."""
    client = await create_pool(settings, **JSON)
    pool = await create_pool(settings, **JSON) if options.pop("own_pool", False) else None
    try:

        async def work(ctx: dict[str, Any]) -> str:
            await until(lambda: ctx["redis"].hlen(f"{QUEUE}:workers"), what="a heartbeat")
            return "done"

        job = await client.enqueue_job("work")
        assert job is not None
        reach = {"redis_settings": settings} if pool is None else {"redis_pool": pool}
        worker = Worker([func(work, name="work")], burst=True, handle_signals=False, **reach, **JSON)
        assert await asyncio.wait_for(worker.run_check(), 30) == 1
        await worker.close()
        assert await job.result(timeout=5) == "done"
    finally:
        await client.aclose(close_connection_pool=True)
        await close_sentinels(client.connection_pool)


@pytest.fixture
def redis_server(_redis_installed: None) -> Iterator[RunningServer]:
    with run_server("redis") as server:
        yield server


@pytest.mark.parametrize("own_pool", [False, True], ids=["redis_settings", "redis_pool"])
async def test_a_primary_that_a_sentinel_names(redis_server: RunningServer, tmp_path: Path, own_pool: bool) -> None:
    with sentinel(tmp_path, redis_server) as port:
        settings = RedisSettings(host=[("127.0.0.1", port)], sentinel=True, sentinel_master="mymaster")
        await run_one_job(settings, own_pool=own_pool)


@pytest.mark.parametrize("own_pool", [False, True], ids=["redis_settings", "redis_pool"])
async def test_a_server_with_a_password_and_another_database(
    start_server: Callable[..., RunningServer], own_pool: bool
) -> None:
    server = start_server(requirepass="s3cret")
    settings = RedisSettings(port=server.port, password="s3cret", database=3)
    await run_one_job(settings, own_pool=own_pool)
    with sync_redis.Redis(port=server.port, password="s3cret") as first:
        assert first.dbsize() == 0


async def test_a_unix_socket(start_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    path = str(tmp_path / "redis.sock")
    start_server(unixsocket=path)
    await run_one_job(RedisSettings(unix_socket_path=path))
