"""arq's names on this engine. Change `from arq import …` and `from arq.worker import …` to this module.

`Worker`, `run_worker` and `create_worker` take arq's arguments and `pickle=True`. The other names are arq's own
objects. docs/migrate-from-arq.md lists the differences.
"""

import asyncio
import uuid
from signal import Signals
from typing import Any

from agentqueue.service.signals import unblock_sigterm
from agentqueue_worker.adapters.arq import (
    ArqRedis,
    ArqRegistry,
    ArqWorker,
    CronJob,
    FailedJobs,
    Function,
    JobExecutionFailed,
    RedisSettings,
    Retry,
    RetryJob,
    check_health,
    create_pool,
    cron,
    func,
    get_kwargs,
)
from agentqueue_worker.app.worker import Worker as Engine
from agentqueue_worker.process import Program, make_worker
from agentqueue_worker.settings import Settings, default_name

__all__ = [
    "ArqRedis",
    "CronJob",
    "FailedJobs",
    "Function",
    "JobExecutionFailed",
    "RedisSettings",
    "Retry",
    "RetryJob",
    "Worker",
    "check_health",
    "create_pool",
    "create_worker",
    "cron",
    "func",
    "get_kwargs",
    "run_worker",
]
STOP_MARGIN_S = 5.0
"""Seconds after `job_completion_wait` in which cancelled jobs end and are released."""


class Worker(ArqWorker):
    """arq's Worker on this engine, with the same arguments, attributes and methods. `pickle=True` is arq's default."""

    _engine: Engine | None = None

    async def main(self) -> None:
        """Serve the queue until the worker is stopped, or in burst mode until the queue is empty."""
        unblock_sigterm()  # arq's constructor has installed the handler
        wait = self.completion_wait
        settings = Settings().override(
            concurrency=self.max_jobs,
            burst=self.burst,
            # Two workers of one process must not share heartbeats and drain marks.
            name=f"{default_name()}-{uuid.uuid4().hex[:6]}",
            grace=wait + min(STOP_MARGIN_S, wait),
            drain_margin=min(STOP_MARGIN_S, wait) or STOP_MARGIN_S,
        )
        registry = ArqRegistry(self, owned=False)
        program = Program(registry, settings, self.queue_name, self.adjust, self.open_server)
        engine = self._engine = make_worker(program)
        serving = asyncio.create_task(engine.run())
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            engine.stop(grace=0.0)
            await serving
            raise
        finally:
            self._engine = None

    def handle_sig(self, signum: Signals) -> None:
        """Drain the worker. Running jobs get `job_completion_wait` seconds, a second signal stops them."""
        if self._engine is not None:
            self._engine.stop()
        elif self.main_task is not None:
            self.main_task.cancel()
        if self.on_stop is not None:
            self.on_stop(Signals(signum))

    handle_sig_wait_for_completion = handle_sig

    async def close(self) -> None:
        """Stop at once and release running jobs, then run on_shutdown and close the connections."""
        main = self.main_task
        if main is not None and not main.done():
            if self._engine is None:
                main.cancel()
            else:
                self._engine.stop(grace=0.0)
            await asyncio.wait({main})
        await self.shut()


def create_worker(settings_cls: Any, **kwargs: Any) -> Worker:
    """Return the worker of a WorkerSettings class or dict. Keywords override its values."""
    return Worker(**{**get_kwargs(settings_cls), **kwargs})


def run_worker(settings_cls: Any, **kwargs: Any) -> Worker:
    """Run the worker of a WorkerSettings class or dict until SIGTERM or Ctrl-C."""
    worker = create_worker(settings_cls, **kwargs)
    worker.run()
    return worker
