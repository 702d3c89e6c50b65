"""Dramatiq with threads and its Redis broker; messages are acknowledged after the run."""

from collections.abc import Sequence

import dramatiq
from benchmarks.throughput.load import KEEP_S, NEEDS, URL, Job
from benchmarks.throughput.sides.side import Side, handle_blocking, main
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

broker = RedisBroker(url=URL)
broker.add_middleware(Results(backend=RedisBackend(url=URL), store_results=True, result_ttl=1_000 * KEEP_S))
dramatiq.set_broker(broker)
work = dramatiq.actor(actor_name="work", priority=10)(handle_blocking)
# Priorities order what a worker has prefetched: a queue of their own brings urgent messages there past a backlog.
_queue = "urgent" if "priority" in NEEDS else "default"
urgent = dramatiq.actor(actor_name="urgent", priority=0, queue_name=_queue)(handle_blocking)


class Dramatiq(Side):
    """Dramatiq's sender. It has no bulk call."""

    async def send(self, job: Job) -> None:
        """Enqueue one job."""
        actor = urgent if job.urgent else work
        actor.send_with_options(args=job.arguments, delay=round(1_000 * job.delay) or None)

    async def send_many(self, jobs: Sequence[Job]) -> None:
        """Enqueue one after the other."""
        for job in jobs:
            await self.send(job)


if __name__ == "__main__":
    main(Dramatiq())
