"""Renews leases and tells that the worker lives, from a thread: a handler that blocks the loop keeps its lease."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Final

import structlog

from agentqueue.clock import monotonic
from agentqueue.errors import QueueUnavailable, UnsupportedServer
from agentqueue.model.outcomes import MAX_JOBS_PER_CALL, Claimed, Released
from agentqueue.store import Engine, RenewReply
from agentqueue_worker.app.options import Identity
from agentqueue_worker.app.telemetry import Telemetry
from agentqueue_worker.domain.leases import renewal_interval_s, to_renew
from agentqueue_worker.domain.wait_counts import Waits

LEASE_THREAD_TIMEOUT_S: Final = 2.0
"""Seconds the renewing thread waits for an answer: several tries fit into a lease."""
RELEASE_SEQ: Final = 2**52
"""Numbers of the steps that end everything: never used by the claim loop."""
RETRY_DELAY_S: Final = 0.5
"""Seconds until a renewal that failed is tried again: several fit into a lease."""
log = structlog.get_logger("agentqueue.worker")
Renewed = Callable[[RenewReply, dict[str, Claimed]], None]


class LeaseRenewer:
    """The renewing thread, with an event loop and a connection of its own.

    Args:
        open_engine: makes the engine, in the thread.
        held: what to renew now; called in the thread.
        heartbeat: the heartbeat's JSON; called in the thread.
        waits: what Redis adds to the queue's counters with each renewal. What a renewal that failed took along goes
            with the next one too: it is counted twice if Redis had carried it out and its answer was lost.
        renewed: gets each answer and what was renewed; called in the thread.
        failed: gets why a renewal has failed; called in the thread.
    """

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        identity: Identity,
        *,
        held: Callable[[], dict[str, Claimed]],
        heartbeat: Callable[[], bytes],
        waits: Waits,
        renewed: Renewed,
        failed: Callable[[Exception], None],
        telemetry: Telemetry,
    ) -> None:
        self._open_engine = open_engine
        self._identity = identity
        self._held = held
        self._heartbeat = heartbeat
        self._waits = waits
        self._renewed = renewed
        self._failed = failed
        self._telemetry = telemetry
        self._thread = threading.Thread(target=self._main, name="renew", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._poke: asyncio.Event | None = None
        self._engine: Engine | None = None
        self._stopping = False
        self._lock = threading.Lock()
        self.turned_at = monotonic()
        """When it last got round: it lives while this is not long ago, whether Redis answers or not."""

    def start(self) -> None:
        """Renew from now on."""
        self._thread.start()

    def renew_soon(self) -> None:
        """Renew now: what the heartbeat tells has changed."""
        with self._lock:
            if self._loop is not None and self._poke is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._poke.set)

    def stop(self, timeout: float = 2.0) -> None:
        """End the thread. It may be in the middle of a call that does not come back: then it ends with the process."""
        self._stopping = True
        self.renew_soon()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def release(self, timeout: float) -> None:
        """From any thread: give back all that is held. For when the event loop is blocked and the process must end."""
        with self._lock:
            loop = self._loop
        if loop is None or not self._thread.is_alive():
            return
        held = self._held()
        future = asyncio.run_coroutine_threadsafe(self._release(held), loop)
        with contextlib.suppress(TimeoutError, QueueUnavailable, UnsupportedServer):  # then the leases run out
            future.result(timeout)

    async def _release(self, held: dict[str, Claimed]) -> None:
        assert self._engine is not None
        outcomes = [Released(claimed.id, claimed.level) for claimed in held.values()]
        for number, start in enumerate(range(0, len(outcomes), MAX_JOBS_PER_CALL)):
            await self._engine.finish_and_claim(
                seq=RELEASE_SEQ + number,
                owner=self._identity.owner,
                want=0,
                outcomes=outcomes[start : start + MAX_JOBS_PER_CALL],
            )

    def _main(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        renew_soon, engine = asyncio.Event(), self._open_engine()
        with self._lock:
            self._loop, self._poke, self._engine = asyncio.get_running_loop(), renew_soon, engine
        every = renewal_interval_s(engine.settings.lease_ms)
        try:
            while not self._stopping:
                began = monotonic()
                ok = await self._renew(engine)
                self.turned_at = monotonic()
                rest = every if ok else RETRY_DELAY_S
                await _sleep(renew_soon, max(began + rest - self.turned_at, 0.05))
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


async def _sleep(renew_soon: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await renew_soon.wait()
    except TimeoutError:
        return
    renew_soon.clear()
