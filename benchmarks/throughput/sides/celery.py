"""Celery with threads and late acknowledgement, so that a killed worker loses no job.

Of its pools that run jobs side by side, threads are the fastest on these jobs: gevent reaches less than half of them.
"""

from collections.abc import Sequence

from benchmarks.throughput.load import KEEP_S, URL, Job
from benchmarks.throughput.sides.side import Side, handle_blocking, main
from celery import Celery

URGENT, LOW = 0, 9
"""The Redis transport takes the lowest number first."""

app = Celery("bench", broker=URL, backend=URL)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    result_expires=KEEP_S,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"queue_order_strategy": "priority"},
)
work = app.task(name="work")(handle_blocking)


class CelerySide(Side):
    """Celery's producer. It has no bulk call; one producer serves all sends."""

    async def open(self) -> None:
        """Connect."""
        self._producer = app.amqp.Producer(app.connection_for_write())

    async def close(self) -> None:
        """Disconnect."""
        self._producer.close()

    async def send(self, job: Job) -> None:
        """Enqueue one job."""
        work.apply_async(
            job.arguments,
            priority=URGENT if job.urgent else LOW,
            countdown=job.delay or None,
            producer=self._producer,
        )

    async def send_many(self, jobs: Sequence[Job]) -> None:
        """Enqueue one after the other."""
        for job in jobs:
            await self.send(job)


if __name__ == "__main__":
    main(CelerySide())
