"""Enqueues crons' ticks: every worker of the queue tries, the server takes the first."""

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
MAX_SLEEP_S: Final = 60.0
"""Seconds: the machine's clock may be set anew in between."""
log = structlog.get_logger("agentqueue.worker")


class CronClock:
    """One cron's ticks. Of those that passed while the loop was blocked only the last is sent."""

    def __init__(self, store: Store, state: WorkerState, cron: Cron) -> None:
        self._store = store
        self._state = state
        self._cron = cron

    async def run(self) -> None:
        """Tick until cancelled."""
        tick_ms = self._cron.next_tick(now_ms())
        while True:
            await self._sleep_until(tick_ms)
            tick_ms = self._latest(tick_ms)
            if not self._state.draining:
                await self._send(tick_ms)
            tick_ms = self._cron.next_tick(max(tick_ms, now_ms() - 1))

    async def _sleep_until(self, tick_ms: int) -> None:
        while (left := (tick_ms - now_ms()) / 1000) > 0:  # noqa: ASYNC110  # it waits for the clock, not an event
            await asyncio.sleep(min(left, MAX_SLEEP_S))

    def _latest(self, tick_ms: int) -> int:
        """The last tick that has passed by now."""
        following = self._cron.next_tick(tick_ms)
        while following <= now_ms():
            tick_ms, following = following, self._cron.next_tick(following)
        return tick_ms

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
