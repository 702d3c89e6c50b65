"""SAQ with uvloop and orjson."""

import asyncio
import time
from typing import Any

import orjson
import uvloop
from benchmarks.throughput.load import CONCURRENCY, GRACE_S, KEEP_S, URL, Job
from benchmarks.throughput.sides.side import Side, handle, main
from saq import Queue

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
queue = Queue.from_url(URL, name="bench", dump=orjson.dumps, load=orjson.loads)


async def work(_ctx: Any, *, n: int, seconds: float, payload: str) -> int:
    """Run one job."""
    return await handle(n, seconds, payload)


settings = {
    "queue": queue,
    "functions": [work],
    "concurrency": CONCURRENCY,
    "shutdown_grace_period_s": GRACE_S,
    "dequeue_timeout": 1.0,  # an idle slot that waits without end would keep the worker for the whole grace period
}


class Saq(Side):
    """SAQ's queue. It has no bulk call; it keeps 20 sends in flight itself."""

    async def open(self) -> None:
        """Connect."""
        await queue.connect()

    async def close(self) -> None:
        """Disconnect."""
        await queue.disconnect()

    async def send(self, job: Job) -> None:
        """Enqueue one job."""
        # SAQ counts `scheduled` in whole seconds.
        scheduled = {"scheduled": round(time.clock_gettime(time.CLOCK_REALTIME) + job.delay)} if job.delay else {}
        await queue.enqueue("work", ttl=KEEP_S, n=job.n, seconds=job.seconds, payload=job.payload, **scheduled)


if __name__ == "__main__":
    main(Saq())
