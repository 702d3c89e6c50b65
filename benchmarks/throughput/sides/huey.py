"""Huey with threads. It takes a job off the queue before the run and has no setting to acknowledge it afterwards."""

from collections.abc import Sequence

from benchmarks.throughput.load import KEEP_S, NEEDS, URL, Job
from benchmarks.throughput.sides.side import Side, handle_blocking, main
from huey import PriorityRedisExpireHuey, RedisExpireHuey

_kind = PriorityRedisExpireHuey if "priority" in NEEDS else RedisExpireHuey
huey = _kind("bench", url=URL, expire_time=KEEP_S)
work = huey.task(name="work")(handle_blocking)


class HueySide(Side):
    """Huey's sender. It has no bulk call."""

    async def send(self, job: Job) -> None:
        """Enqueue one job."""
        if job.delay:
            work.schedule(job.arguments, delay=job.delay)
        elif job.urgent:
            work(*job.arguments, priority=10)
        else:
            work(*job.arguments)

    async def send_many(self, jobs: Sequence[Job]) -> None:
        """Enqueue one after the other."""
        for job in jobs:
            await self.send(job)


if __name__ == "__main__":
    main(HueySide())
