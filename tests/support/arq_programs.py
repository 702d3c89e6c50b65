"""What the arq tests share: a pool of arq's real client, workers that run beside a test, waiting for conditions."""

import asyncio
import contextlib
import pickle  # noqa: TID251  # arq's default, which its users may ask for
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any

import arq
from arq.connections import ArqRedis, RedisSettings, create_pool

from agentqueue.arq import dumps, loads
from agentqueue.clock import from_ms, now_ms

QUEUE = "arq:queue"
DEADLINE = 15.0
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


async def until(condition: Callable[[], Any], *, what: str = "the condition", deadline: float = DEADLINE) -> Any:
    """The first true value of the condition (a plain or async function), asked every 5 ms."""

    async def ask() -> Any:
        while True:
            value = condition()
            if isinstance(value, Awaitable):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.005)

    try:
        return await asyncio.wait_for(ask(), deadline)
    except TimeoutError:
        raise AssertionError(f"{what} did not hold within {deadline} s") from None


@contextlib.asynccontextmanager
async def running(worker: arq.Worker) -> AsyncIterator[arq.Worker]:
    """The worker at work beside the test; closed as arq's users close it. Its own errors fail the test."""
    task = asyncio.create_task(worker.async_run())
    try:
        yield worker
    finally:
        await worker.close()
        with contextlib.suppress(asyncio.CancelledError):
            await task
