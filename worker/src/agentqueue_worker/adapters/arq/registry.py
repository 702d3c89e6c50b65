"""Registry of an arq program's functions for the claim loop."""

import asyncio
from collections.abc import Iterable, Sequence

import structlog
from redis.exceptions import RedisError

from agentqueue.model.result import ResultRecord
from agentqueue.store import CodeSet
from agentqueue_worker.adapters.arq.crons import ArqCron
from agentqueue_worker.adapters.arq.functions import ArqHandler, UnreadableHandler
from agentqueue_worker.adapters.arq.records import UNREADABLE_JOB_NAME
from agentqueue_worker.adapters.arq.worker import ArqWorker
from agentqueue_worker.app.job import Handler, RunningJob
from agentqueue_worker.app.ports import Codec, Cron, WorkerRuntime

log = structlog.get_logger("agentqueue.arq")


class ArqCodec:
    """Codec with the program's serializers. It counts jobs that ended before they started."""

    def __init__(self, worker: ArqWorker) -> None:
        self._worker = worker
        self.decode_job = worker.serializers.decode_job

    def encode_completed(self, job: RunningJob, value: object, *, queue: str, worker: str) -> None:
        """Return None: the program's serializer needs the result record."""

    def encode_result(self, record: ResultRecord) -> bytes:
        """Return the encoded result. See Serializers."""
        if record.started_ms == 0:
            self._worker.jobs_failed += 1
        return self._worker.serializers.encode_result(record)


class ArqRegistry:
    """Registry of an arq program.

    Args:
        worker: the program.
        owned: True if `stop` closes the program. Else its creator does (arq's `async_run()` leaves the worker open).
    """

    unknown_grace_ms = 0  # in arq a job of an unknown function fails at once

    def __init__(self, worker: ArqWorker, *, owned: bool) -> None:
        self.worker = worker
        self._owned = owned
        self._tasks: list[asyncio.Task[None]] = []
        self._handlers: dict[str, Handler] = {
            name: ArqHandler(worker, function) for name, function in worker.functions.items()
        }
        self._unreadable = UnreadableHandler(worker)
        crons = [(job, ArqCron(job, worker.timezone, worker.serializers)) for job in worker.cron_jobs]
        self.crons: Sequence[Cron] = [cron for job, cron in crons if job.unique or job.job_id]
        self._plain_crons = [cron for job, cron in crons if not (job.unique or job.job_id)]
        self.code = CodeSet(dict.fromkeys(self._handlers))
        self.codec: Codec = ArqCodec(worker)
        self.cancellable: bool = worker.allow_abort_jobs
        self.wants_recorded = worker.after_job_end is not None

    @property
    def names(self) -> Iterable[str]:
        """Names of the functions and crons."""
        return self._handlers

    def find(self, name: str) -> Handler | None:
        """Return the handler of the function of that name, or None."""
        return self._unreadable if name == UNREADABLE_JOB_NAME else self._handlers.get(name)

    async def start(self, runtime: WorkerRuntime) -> None:
        """Connect, run on_startup, and start arq's background tasks."""
        worker = self.worker
        if not await self._connect(runtime):
            return
        if worker.on_startup is not None:
            await worker.on_startup(worker.ctx)
        await worker.enqueue_startup_crons()
        background = [worker.keep_health(), *map(worker.tick_plainly, self._plain_crons)]
        self._tasks = [asyncio.create_task(task) for task in background]

    async def _connect(self, runtime: WorkerRuntime) -> bool:
        """Wait until Redis answers. Return False if the worker was stopped before that."""
        while True:
            try:
                await self.worker.open()
                return True
            except (RedisError, OSError) as exc:
                if not self._owned:  # arq lets the user's own program fail after `conn_retries`
                    raise
                if runtime.draining:
                    return False
                log.error("redis_unavailable", error=str(exc))  # noqa: TRY400  # the message has the reason
                await asyncio.sleep(1)

    async def stop(self) -> None:
        """Stop the background tasks, and close the program if the registry owns it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._owned:
            await self.worker.shut()

    async def on_recorded(self, job: RunningJob) -> None:
        """Run after_job_end with the job's context. A job that ended before it got a context is skipped."""
        if job.extra is not None:
            await self.worker.after_job_end(job.extra)  # type: ignore[misc]  # called only if there is one
