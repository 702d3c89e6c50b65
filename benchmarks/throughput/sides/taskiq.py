"""taskiq with Redis streams, which it acknowledges after the result is saved, and orjson.

Delayed jobs need a scheduler process, which moves the due ones to the stream.
"""

import time
from datetime import UTC, datetime

from benchmarks.throughput.load import KEEP_S, URL, Job
from benchmarks.throughput.sides.side import Side, handle, main
from taskiq import TaskiqScheduler
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import ListRedisScheduleSource, RedisAsyncResultBackend, RedisStreamBroker

results: RedisAsyncResultBackend[int] = RedisAsyncResultBackend(URL, result_ex_time=KEEP_S)
broker = (
    RedisStreamBroker(URL, queue_name="bench", consumer_id="0")  # "0" reads what came before the first worker
    .with_result_backend(results)
    .with_serializer(ORJSONSerializer())
)
source = ListRedisScheduleSource(URL)
scheduler = TaskiqScheduler(broker, [source])
work = broker.task(task_name="work")(handle)


class Taskiq(Side):
    """taskiq's broker. It has no bulk call."""

    async def open(self) -> None:
        """Connect."""
        await broker.startup()
        await source.startup()

    async def close(self) -> None:
        """Disconnect."""
        await source.shutdown()
        await broker.shutdown()

    async def send(self, job: Job) -> None:
        """Enqueue one job."""
        if job.delay:
            moment = datetime.fromtimestamp(time.clock_gettime(time.CLOCK_REALTIME) + job.delay, UTC)
            await work.schedule_by_time(source, moment, *job.arguments)
        else:
            await work.kiq(*job.arguments)


if __name__ == "__main__":
    main(Taskiq())
