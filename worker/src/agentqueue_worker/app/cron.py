"""Enqueues the ticks of an arq program's crons. Every worker tries, and the server accepts the first one."""

import asyncio
from typing import Final

import structlog

from agentqueue.clock import now_ms
from agentqueue.errors import QueueFull, QueueUnavailable, UnsupportedServer
from agentqueue.model.new_job import NewJob
from agentqueue.store import Store
from agentqueue_worker.app.ports import Cron
from agentqueue_worker.app.state import WorkerState

RETRY_DELAY_S: Final = 1.0
"""Seconds until a tick that Redis did not take is sent again. All workers of the queue retry, so it is not shorter."""
MAX_SLEEP_S: Final = 60.0
"""Maximum seconds of one sleep. The machine's clock may be set while the worker sleeps."""
log = structlog.get_logger("agentqueue.worker")


class CronClock:
    """Sends the ticks of one cron. Of several ticks that passed while the loop was blocked, only the last is sent."""

    def __init__(self, store: Store, state: WorkerState, cron: Cron) -> None:
        self._store = store
        self._state = state
        self._cron = cron

    async def run(self) -> None:
        """Send ticks until cancelled."""
        cron = self._cron
        tick_ms = cron.next_tick(now_ms())
        while True:
            while (left_s := (tick_ms - now_ms()) / 1000) > 0:  # noqa: ASYNC110  # waits for the clock, not for an event
                await asyncio.sleep(min(left_s, MAX_SLEEP_S))
            while (following_ms := cron.next_tick(tick_ms)) <= now_ms():
                tick_ms = following_ms
            if not self._state.draining:
                await self._send(tick_ms)
            tick_ms = cron.next_tick(max(tick_ms, now_ms() - 1))

    async def _send(self, tick_ms: int) -> None:
        cron, queue = self._cron, self._state.queue
        job = NewJob(queue, cron.job_id(tick_ms), cron.record(tick_ms))
        while True:
            try:
                sent_id = await self._store.tick(cron.name, tick_ms, job)
            except (QueueUnavailable, UnsupportedServer, QueueFull) as exc:
                log.warning("cron_delayed", cron=cron.name, error=str(exc))
                await asyncio.sleep(RETRY_DELAY_S)
            else:
                if sent_id is not None:
                    log.info("cron_ticked", cron=cron.name, job_id=sent_id)
                return
