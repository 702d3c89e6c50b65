"""What the arq tests share: a pool of arq's real client, workers that run beside a test, processes."""

import asyncio
import contextlib
import os
import pickle  # noqa: TID251  # arq's default, which its users may ask for
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import arq
from arq.connections import ArqRedis, RedisSettings, create_pool

from agentqueue.arq import dumps, loads
from agentqueue.clock import now_ms
from agentqueue.model.times import from_ms

QUEUE = "arq:queue"
JSON: dict[str, Any] = {"job_serializer": dumps, "job_deserializer": loads}
PICKLE: dict[str, Any] = {"job_serializer": pickle.dumps, "job_deserializer": pickle.loads}


def moment() -> datetime:
    """Now, in UTC."""
    return from_ms(now_ms())


def settings_of(url: str) -> RedisSettings:
    """The server as arq is told of it."""
    return RedisSettings.from_dsn(url)


@contextlib.asynccontextmanager
async def arq_client(url: str, **options: Any) -> AsyncIterator[ArqRedis]:
    """arq's own client; JSON unless a serializer is given (None: arq's default, pickle)."""
    pool = await create_pool(settings_of(url), **(JSON | options))
    try:
        yield pool
    finally:
        await pool.aclose(close_connection_pool=True)


@contextlib.asynccontextmanager
async def running(worker: arq.Worker) -> AsyncIterator[arq.Worker]:
    """The worker at work beside the test; closed as arq's users close it. Its own errors fail the test."""
    task = asyncio.create_task(worker.async_run())
    try:
        yield worker
    finally:
        try:
            await worker.close()
        except asyncio.CancelledError:  # arq's own trips over a job that it cancels as the result is being written
            worker.tasks.clear()
            await worker.close()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def command(name: str) -> str:
    """A program of this environment: agentqueue, arq."""
    return str(Path(sys.executable).parent / name)


def surroundings(url: str, **more: str) -> dict[str, str]:
    """The environment of a program that finds Redis by REDIS_URL alone."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGENTQUEUE_")}
    return inherited | {"REDIS_URL": url, "PYTHONUNBUFFERED": "1"} | more


def execute(*words: str, folder: Path, env: dict[str, str], code: int = 0) -> str:
    """Run a program to its end; what it said on both channels. Another exit code fails the test."""
    done = subprocess.run(
        words, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
    )
    assert done.returncode == code, f"{words} exited {done.returncode}:\n{done.stdout}"
    return done.stdout
