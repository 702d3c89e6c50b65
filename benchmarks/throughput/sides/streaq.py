"""streaQ with orjson and uvloop."""

import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta

import orjson
from benchmarks.throughput.load import CONCURRENCY, GRACE_S, KEEP_S, URL, Job
from benchmarks.throughput.sides.side import Side, handle, main
from streaq import Worker

worker = Worker(
    redis_url=URL,
    concurrency=CONCURRENCY,
    queue_name="bench",
    priorities=["low", "urgent"],
    serializer=orjson.dumps,
    deserializer=orjson.loads,
    grace_period=GRACE_S,
    anyio_kwargs={"use_uvloop": True},
)


work = worker.task(name="work", ttl=KEEP_S)(handle)


class Streaq(Side):
    """streaQ's worker as a producer."""

    async def open(self) -> None:
        """Connect."""
        self._stack = AsyncExitStack()
        await self._stack.enter_async_context(worker)

    async def close(self) -> None:
        """Disconnect."""
        await self._stack.aclose()

    async def send(self, job: Job) -> None:
        """Enqueue one job."""
        delay = timedelta(seconds=job.delay) if job.delay else None
        await work.enqueue(*job.arguments).start(delay=delay, priority="urgent" if job.urgent else "low")

    async def send_many(self, jobs: Sequence[Job]) -> None:
        """Enqueue many jobs in one call."""
        await worker.enqueue_many([work.enqueue(*job.arguments).start(priority="low") for job in jobs])


if __name__ == "__main__":
    if sys.argv[1:] == ["work"]:
        worker.run_sync()  # its command line would log each job
    else:
        main(Streaq())
