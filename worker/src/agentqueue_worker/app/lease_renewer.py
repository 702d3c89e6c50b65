"""Renews job leases and sends heartbeats from a background thread.

A handler that blocks the event loop therefore does not lose its lease.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from agentqueue.clock import monotonic
from agentqueue.errors import QueueUnavailable, UnsupportedServer
from agentqueue.model.outcomes import MAX_JOBS_PER_CALL, Claimed, Released, Unstarted
from agentqueue.store import Engine, RenewReply
from agentqueue_worker.app.options import Identity
from agentqueue_worker.app.telemetry import Telemetry
from agentqueue_worker.domain.leases import renewal_interval_s, to_renew
from agentqueue_worker.domain.wait_counts import Waits

LEASE_THREAD_TIMEOUT_S: Final = 2.0
"""Seconds that the lease thread waits for a reply, so that several tries fit into a lease."""
RELEASE_SEQ: Final = 2**52
"""Number of the first round trip that releases all jobs. The claim loop counts from 1 and never reaches it."""
RETRY_DELAY_S: Final = 0.5
"""Seconds until a failed renewal is tried again, so that several tries fit into a lease."""
log = structlog.get_logger("agentqueue.worker")
OnRenewed = Callable[[RenewReply, dict[str, Claimed]], None]


class LeaseRenewer:
    """The lease thread, with an event loop and a connection of its own.

    Args:
        open_engine: opens the engine. Called in the thread.
        identity: identity of the worker.
        held: returns the jobs whose leases are renewed. Called in the thread.
        unstarted: returns those of them that have not started. Called only while the event loop is blocked.
        heartbeat: returns the heartbeat's JSON. Called in the thread.
        waits: wait counts, which Redis adds to the queue's counters with each renewal. Those of a failed renewal are
            sent with the next one. They count twice if Redis had carried it out and its reply was lost.
        renewed: handles each reply and the jobs that were renewed. Called in the thread.
        failed: handles the error of a failed renewal. Called in the thread.
        telemetry: gets the duration of each renewal.
    """

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        identity: Identity,
        *,
        held: Callable[[], dict[str, Claimed]],
        unstarted: Callable[[], Iterable[Claimed]],
        heartbeat: Callable[[], bytes],
        waits: Waits,
        renewed: OnRenewed,
        failed: Callable[[Exception], None],
        telemetry: Telemetry,
    ) -> None:
        self._open_engine = open_engine
        self._identity = identity
        self._held = held
        self._unstarted = unstarted
        self._heartbeat = heartbeat
        self._waits = waits
        self._renewed = renewed
        self._failed = failed
        self._telemetry = telemetry
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="renew", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._engine: Engine | None = None
        self._stopping = False
        self._lock = threading.Lock()
        self.turned_at = monotonic()
        """Time of the last renewal, successful or not, in monotonic seconds. The thread is alive while it is recent."""

    def start(self) -> None:
        """Start the thread, which renews at once."""
        self._thread.start()

    def renew_soon(self) -> None:
        """Renew now, because the content of the heartbeat has changed."""
        with self._lock:
            if self._loop is not None and self._wake is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._wake.set)

    def stop(self, timeout: float = 2.0) -> None:
        """End the thread, and wait for it up to `timeout` seconds. If a call in it hangs, it ends with the process."""
        self._stopping = True
        self.renew_soon()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def release(self, timeout: float) -> None:
        """Release all jobs that the worker holds, from any thread, when the event loop is blocked.

        Leases that could not be released within `timeout` seconds expire.
        """
        with self._lock:
            loop, engine = self._loop, self._engine
        if loop is None or engine is None or not self._thread.is_alive():
            return
        unstarted = {claimed.id for claimed in self._unstarted()}
        outcomes = [
            (Unstarted if claimed.id in unstarted else Released)(claimed.id, claimed.level)
            for claimed in self._held().values()
        ]

        async def record() -> None:
            for number, start in enumerate(range(0, len(outcomes), MAX_JOBS_PER_CALL)):
                chunk = outcomes[start : start + MAX_JOBS_PER_CALL]
                owner, seq = self._identity.owner, RELEASE_SEQ + number
                await engine.finish_and_claim(seq=seq, owner=owner, want=0, outcomes=chunk)

        future = asyncio.run_coroutine_threadsafe(record(), loop)
        with contextlib.suppress(TimeoutError, QueueUnavailable, UnsupportedServer):
            future.result(timeout)

    async def _run(self) -> None:
        wake, engine = asyncio.Event(), self._open_engine()
        with self._lock:
            self._loop, self._wake, self._engine = asyncio.get_running_loop(), wake, engine
        interval_s = renewal_interval_s(engine.settings.lease_ms)
        try:
            while not self._stopping:
                began = monotonic()
                renewed = await self._renew(engine)
                self.turned_at = monotonic()
                next_at = began + (interval_s if renewed else RETRY_DELAY_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(next_at - self.turned_at, 0.05)):
                        await wake.wait()
                    wake.clear()
        finally:
            with self._lock:
                self._loop = None
            await engine.server.close()

    async def _renew(self, engine: Engine) -> bool:
        held, began, waits = self._held(), monotonic(), self._waits.unsent()
        owner, name = self._identity.owner, self._identity.heartbeat_field
        try:
            async with asyncio.timeout(engine.settings.lease_ms / 2000):
                reply = await engine.renew(
                    owner=owner, worker=name, heartbeat=self._heartbeat(), held=to_renew(held), counts=waits
                )
        except (QueueUnavailable, UnsupportedServer, TimeoutError) as exc:
            self._telemetry.renewed(None, monotonic() - began)
            self._failed(exc)
            return False
        self._waits.sent(waits)
        self._telemetry.renewed(reply, monotonic() - began)
        self._renewed(reply, held)
        return True
