"""RQ as a pool of workers that run jobs in their own process (SimpleWorker); one process runs one job at a time."""

from collections.abc import Sequence
from datetime import timedelta

from benchmarks.throughput.load import KEEP_S, URL, Job
from benchmarks.throughput.sides.side import Side, handle_blocking, main
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

URGENT, LOW = "bench-urgent", "bench"


class Rq(Side):
    """RQ's queues, an urgent one and a usual one: workers read the urgent one first."""

    async def open(self) -> None:
        """Connect."""
        self._redis = Redis.from_url(URL)
        self._urgent, self._low = (
            Queue(name, connection=self._redis, serializer=JSONSerializer) for name in (URGENT, LOW)
        )

    async def close(self) -> None:
        """Disconnect."""
        self._redis.close()

    async def send(self, job: Job) -> None:
        """Enqueue one job."""
        queue = self._urgent if job.urgent else self._low
        if job.delay:
            queue.enqueue_in(timedelta(seconds=job.delay), handle_blocking, args=job.arguments, result_ttl=KEEP_S)
        else:
            queue.enqueue(handle_blocking, args=job.arguments, result_ttl=KEEP_S)

    async def send_many(self, jobs: Sequence[Job]) -> None:
        """Enqueue many jobs in one call."""
        self._low.enqueue_many(
            [Queue.prepare_data(handle_blocking, args=job.arguments, result_ttl=KEEP_S) for job in jobs]
        )


if __name__ == "__main__":
    main(Rq())
