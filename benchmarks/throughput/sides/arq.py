"""arq with its fastest documented settings: uvloop, orjson, no pause between polls, no log."""

import asyncio
from datetime import timedelta
from typing import Any

import orjson
import uvloop
from arq import create_pool, func
from arq.connections import RedisSettings
from benchmarks.throughput.load import CONCURRENCY, GRACE_S, KEEP_S, URL, Job
from benchmarks.throughput.sides.side import Side, handle, main

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
QUIET = {"version": 1, "root": {"level": "ERROR"}}


async def work(ctx: dict[Any, Any], *arguments: Any, **_: Any) -> int:  # noqa: ARG001  # as arq calls it
    """Run one job."""
    return await handle(*arguments)


class WorkerSettings:
    """Settings that the `arq` command reads."""

    functions = (func(work, name="work", keep_result=KEEP_S),)
    redis_settings = RedisSettings.from_dsn(URL)
    max_jobs = CONCURRENCY
    poll_delay = 0
    job_completion_wait = GRACE_S
    job_serializer = staticmethod(orjson.dumps)
    job_deserializer = staticmethod(orjson.loads)


class Arq(Side):
    """arq's pool. It has no bulk call."""

    async def open(self) -> None:
        """Connect."""
        self._pool = await create_pool(
            WorkerSettings.redis_settings, job_serializer=orjson.dumps, job_deserializer=orjson.loads
        )

    async def close(self) -> None:
        """Disconnect."""
        await self._pool.aclose()

    async def send(self, job: Job) -> None:
        """Enqueue one job."""
        await self._pool.enqueue_job(
            "work", *job.arguments, _defer_by=timedelta(seconds=job.delay) if job.delay else None
        )


if __name__ == "__main__":
    main(Arq())
