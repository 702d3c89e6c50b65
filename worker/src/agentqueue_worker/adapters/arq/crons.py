"""Crons of arq programs. arq computes the times, and each tick is enqueued once over all workers."""

from datetime import datetime, timedelta, tzinfo
from typing import Any

from arq.cron import CronJob, next_cron
from arq.utils import to_unix_ms

from agentqueue_worker.adapters.arq.records import Serializers


class ArqCron:
    """A cron whose ticks are enqueued once over all workers."""

    def __init__(self, job: CronJob, timezone: tzinfo | None, serializers: Serializers) -> None:
        def part(value: Any) -> str:
            if value is None:
                return "*"
            return ",".join(map(str, sorted(value))) if isinstance(value, set | list | tuple) else str(value)

        self.job = job
        self.timezone = timezone
        self.serializers = serializers
        schedule = (job.month, job.day, job.weekday, job.hour, job.minute, job.second, job.microsecond)
        # Two schedules of one function have its name in common, and each stores its last tick.
        self.name = f"{job.name} {' '.join(map(part, schedule))}"

    def next_tick(self, after_ms: int) -> int:
        """Return the first tick after that time. Both are in ms since the epoch."""
        job = self.job
        moment = datetime.fromtimestamp(after_ms / 1000, tz=self.timezone) - timedelta(seconds=1)
        tick_ms = after_ms
        while tick_ms <= after_ms:  # next_cron searches from one second later
            moment = next_cron(
                moment,
                month=job.month,
                day=job.day,
                weekday=job.weekday,
                hour=job.hour,
                minute=job.minute,
                second=job.second,
                microsecond=job.microsecond,
            )
            tick_ms = to_unix_ms(moment)
        return tick_ms

    def job_id(self, tick_ms: int) -> str:
        """Return arq's own ID of the tick. Programs read it, and plain arq workers of the queue enqueue it too.

        It does not contain the queue. If a job of another queue has it, `Store.tick` uses another ID.
        """
        return self.job.job_id or f"{self.job.name}:{tick_ms}"

    def record(self, tick_ms: int) -> bytes:  # noqa: ARG002  # every tick's record is the same
        """Return the encoded job."""
        return self.serializers.encode_job(self.job.name)
