"""An arq program as the claim loop sees it."""

import asyncio
from collections.abc import Iterable, Sequence

import structlog
from redis.exceptions import RedisError

from agentqueue.model.result import ResultRecord
from agentqueue_worker.adapters.arq.crons import ArqCron
from agentqueue_worker.adapters.arq.functions import ArqHandler, UnreadableHandler
from agentqueue_worker.adapters.arq.records import UNREADABLE_JOB_NAME
from agentqueue_worker.adapters.arq.worker import ArqWorker
from agentqueue_worker.app.job import Handler, RunningJob
from agentqueue_worker.app.ports import Codec, Cron, WorkerRuntime

log = structlog.get_logger("agentqueue.arq")


class ArqCodec:
    """The program's serializers; counts the jobs that ended without having started."""

    def __init__(self, worker: ArqWorker) -> None:
        self._worker = worker
        self.decode_job = worker.serializers.decode_job

    def encode_result(self, record: ResultRecord) -> bytes:
        """See Serializers."""
        if record.started_ms == 0:
            self._worker.jobs_failed += 1
        return self._worker.serializers.encode_result(record)


class ArqRegistry:
    """An arq program as the claim loop sees it.

    Args:
        worker: the program.
        owned: stopping closes it; else whoever made it does (arq's `async_run()` leaves the worker open).
    """

    unknown_grace_ms = 0  # to arq a function that it does not know is final

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
        self.codec: Codec = ArqCodec(worker)
        self.cancellable: bool = worker.allow_abort_jobs
        self.wants_recorded = worker.after_job_end is not None

    @property
    def names(self) -> Iterable[str]:
        """The names of its functions and crons."""
        return self._handlers

    def find(self, name: str) -> Handler | None:
        """The function of that name."""
        return self._unreadable if name == UNREADABLE_JOB_NAME else self._handlers.get(name)

    async def start(self, runtime: WorkerRuntime) -> None:
        """Connect, run on_startup, and begin what arq does beside its jobs."""
        worker = self.worker
        if not await self._connect(runtime):
            return
        if worker.on_startup is not None:
            await worker.on_startup(worker.ctx)
        await worker.enqueue_startup_crons()
        besides = [worker.keep_health(), *map(worker.tick_plainly, self._plain_crons)]
        self._tasks = [asyncio.create_task(it) for it in besides]

    async def _connect(self, runtime: WorkerRuntime) -> bool:
        """Until Redis answers, as every worker waits for it. False: it was stopped before that."""
        while True:
            try:
                await self.worker.open()
                return True
            except (RedisError, OSError) as exc:
                if not self._owned:  # a program of the user's own: arq has it fail after `conn_retries`
                    raise
                if runtime.draining:
                    return False
                log.error("redis_unavailable", error=str(exc))  # noqa: TRY400  # the message says all
                await asyncio.sleep(1)

    async def stop(self) -> None:
        """End what `start` began; close the program if it is ours to close."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._owned:
            await self.worker.shut()

    async def recorded(self, job: RunningJob) -> None:
        """after_job_end, with the context that the job had; one that never got so far has none."""
        if job.extra is not None:
            await self.worker.after_job_end(job.extra)  # type: ignore[misc]  # asked for only if there is one
