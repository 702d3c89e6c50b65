"""The part of arq's Worker that is independent of its engine: arguments, hooks and counters."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import structlog
from arq import worker as arq_worker
from arq.connections import ArqRedis, create_pool
from arq.cron import CronJob
from arq.utils import ms_to_datetime
from arq.worker import Function
from redis.exceptions import RedisError

from agentqueue.clock import now_ms
from agentqueue.model.retry_policy import MAX_DURATION_S
from agentqueue.store import KEEP_FOREVER, Server, ServerOptions, close_sentinels
from agentqueue_worker.adapters.arq.connect import lazy_pool, pool_at
from agentqueue_worker.adapters.arq.crons import ArqCron
from agentqueue_worker.adapters.arq.records import Serializers
from agentqueue_worker.adapters.arq.user_pool import server_like
from agentqueue_worker.app.job import Ending, RunningJob
from agentqueue_worker.app.options import WorkerOptions
from agentqueue_worker.domain.verdict import Failed, Snoozed, Verdict

log = structlog.get_logger("agentqueue.arq")


class ArqWorker(arq_worker.Worker):
    """arq's Worker with its arguments, hooks and counters. `agentqueue_worker.arq.Worker` adds the engine.

    Args:
        functions: as in arq, like every argument that is not listed here.
        pickle: read and write pickles, which is arq's default. Without it (and without a `job_deserializer`) records
            are JSON, and a pickled one becomes a dead letter with this reason. Unpickling runs code that the record
            names, so use it only for a Redis that nobody else can write to.
        server: address of Redis. It overrides `redis_settings`, which can't express everything.
    """

    def __init__(
        self,
        functions: Sequence[Any] = (),
        *,
        pickle: bool = False,
        redis_pool: ArqRedis | None = None,
        server: ServerOptions | None = None,
        **options: Any,
    ) -> None:
        self._server = server
        write, read = options.pop("job_serializer", None), options.pop("job_deserializer", None)
        if redis_pool is not None:  # the pool's serializers are used if the worker has none
            write, read = write or redis_pool.job_serializer, read or redis_pool.job_deserializer
        self.serializers = Serializers.choose(write, read, pickled=pickle)
        super().__init__(
            functions,
            redis_pool=redis_pool,
            job_serializer=self.serializers.write,
            job_deserializer=self.serializers.read,
            **options,
        )
        # arq accepts longer durations, which fail with an OverflowError while it works.
        own = {"job_completion_wait": self._job_completion_wait, "keep_result": self.keep_result_s}
        own |= {"poll_delay": self.poll_delay_s, "health_check_interval": self.health_check_interval}
        kept = {f"{name}: keep_result": function.keep_result_s for name, function in self.functions.items()}
        for name, seconds in {**own, **kept}.items():
            if seconds is not None and not abs(seconds) <= MAX_DURATION_S:  # NaN fails the comparison
                hint = "; keep_result_forever=True keeps it" if name.endswith("keep_result") else ""
                raise ValueError(f"{name}={seconds}: must be up to {MAX_DURATION_S:.0f} seconds{hint}")

    @property
    def completion_wait(self) -> float:
        """Seconds that running jobs get after a signal (`job_completion_wait`)."""
        return float(self._job_completion_wait or 0)

    async def open(self) -> None:
        """Connect arq's pool if it is not connected, and put it into the context."""
        if self._pool is None:
            terms: dict[str, Any] = {
                "job_serializer": self.serializers.write,
                "job_deserializer": self.serializers.read,
                "default_queue_name": self.queue_name,
                "expires_extra_ms": self.expires_extra_ms,
            }
            ours = pool_at(self._server, **terms) if self._server is not None else None
            self._pool = ours or await create_pool(self.redis_settings, **terms)
        # Functions enqueue through this pool, in the form that this worker reads. The user's pool stays unchanged.
        pool, (write, read) = self.pool, (self.serializers.write, self.serializers.read)
        if (pool.job_serializer, pool.job_deserializer) != (write, read):
            pool = ArqRedis(
                pool.connection_pool,
                job_serializer=write,
                job_deserializer=read,
                default_queue_name=pool.default_queue_name,
                expires_extra_ms=pool.expires_extra_ms,
            )
        self.ctx["redis"] = pool

    async def shut(self) -> None:
        """Do what arq's close() does with Redis and the user's code."""
        if self._pool is None:
            return
        await self.pool.delete(self.health_check_key)
        if self.on_shutdown is not None:
            await self.on_shutdown(self.ctx)
        await self.pool.aclose(close_connection_pool=True)
        await close_sentinels(self.pool.connection_pool)
        self._pool = None

    def context_of(self, job: RunningJob) -> dict[Any, Any]:
        """Return the context of a job, which is the worker's context with arq's four keys."""
        return self.ctx | {
            "job_id": job.id,
            "job_try": job.attempt,
            "enqueue_time": ms_to_datetime(job.record.enqueued_ms),
            "score": int(job.claimed.score),
        }

    def count_failure(self, verdict: Verdict, job: RunningJob) -> None:
        """Update arq's counters for a job that raised."""
        match job.ending:
            case Ending.LOST:
                pass
            case Ending.DRAIN:
                self.jobs_retried += 1
            case None if isinstance(verdict, Failed | Snoozed):
                self.jobs_retried += 1
            case _:
                self.jobs_failed += 1

    def adjust(self, options: WorkerOptions) -> WorkerOptions:
        """Return the claim loop's options with the values of arq's arguments."""
        limited = options.burst and self.max_burst_jobs >= 0
        return replace(
            options,
            poll=self.poll_delay_s,
            keep_ms=keep_ms_of(self),
            burst_delayed=True,
            start_limit=self.max_burst_jobs if limited else None,
        )

    def open_server(self, for_lease_thread: bool, *, allow_eviction: bool = False) -> Server:  # noqa: FBT001  # the opener's shape
        """Open a connection pool for the claim loop, to the server of arq's own pool."""
        pool = lazy_pool(self.redis_settings) if self._pool is None else self._pool.connection_pool
        return server_like(pool, for_lease_thread=for_lease_thread, allow_eviction=allow_eviction)

    async def keep_health(self) -> None:
        """Write the record that `arq --check` reads, until cancelled."""
        while True:
            try:
                await self.record_health()
            except (RedisError, OSError) as exc:  # the claim loop reports the error
                log.debug("health_not_recorded", error=str(exc))
            await asyncio.sleep(max(self.health_check_interval, 0.01))
            self._last_health_check = 0  # by arq's clock the sleep may end a little early

    async def tick_plainly(self, cron: ArqCron) -> None:
        """Enqueue the ticks of a cron with `unique=False` until cancelled. Every worker enqueues its own."""
        tick_ms = cron.next_tick(now_ms())
        while True:
            await asyncio.sleep(max(tick_ms - now_ms(), 0) / 1000)
            try:
                await self.pool.enqueue_job(cron.job.name, _queue_name=self.queue_name)
            except (RedisError, OSError) as exc:
                log.warning("cron_delayed", cron=cron.name, error=str(exc))
            tick_ms = cron.next_tick(max(tick_ms, now_ms()))

    async def enqueue_startup_crons(self) -> None:
        """Enqueue crons with `run_at_startup`. Every worker that starts does it, as in arq."""
        for job in self.cron_jobs:
            if job.run_at_startup:
                own = job.job_id or (f"{job.name}:{now_ms()}" if job.unique else None)
                await self.ctx["redis"].enqueue_job(job.name, _job_id=own, _queue_name=self.queue_name)


def keep_ms_of(worker: "ArqWorker", function: Function | CronJob | None = None) -> int:
    """Return the milliseconds that a result is kept, set by the function or else by the worker."""
    own_forever = own_seconds = None
    if function is not None:
        own_forever, own_seconds = function.keep_result_forever, function.keep_result_s
    if worker.keep_result_forever if own_forever is None else own_forever:
        return KEEP_FOREVER
    return round((worker.keep_result_s if own_seconds is None else own_seconds) * 1000)
