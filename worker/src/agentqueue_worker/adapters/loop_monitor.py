"""Sees from a thread whether the event loop turns: what runs on the loop can't tell that it stands still."""

import asyncio
import contextlib
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Final

import structlog

from agentqueue.clock import monotonic
from agentqueue.model.exceptions import name_exception
from agentqueue_worker.app.state import WorkerState

TICK_INTERVAL_S: Final = 1.0
WARN_AFTER_S: Final = 10.0
"""Seconds without a turn that are told."""
MAX_LOGGED_JOBS: Final = 10
log = structlog.get_logger("agentqueue.worker")


class LoopMonitor:
    """How late the event loop of a worker is, for other threads.

    Args:
        state: whose loop, and what it runs.
        hidden: folders whose code is not the user's.
        every: seconds from one turn to the next.
        warn_after: seconds without a turn after which it is told, once.
    """

    def __init__(
        self,
        state: WorkerState,
        *,
        hidden: tuple[str, ...] = (),
        every: float = TICK_INTERVAL_S,
        warn_after: float = WARN_AFTER_S,
    ) -> None:
        self._state = state
        self._hidden = hidden
        self._every = every
        self._warn_after = warn_after
        self._late = 0.0
        self._turned_at = monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="loop-watch", daemon=True)

    @property
    def lag(self) -> float:
        """Seconds: how late the last turn was, or how late the next one already is."""
        return max(self._late, monotonic() - self._turned_at - self._every)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch for a while; inside the loop."""
        self._turned_at = monotonic()
        turning = asyncio.create_task(self._turn())
        self._thread.start()
        try:
            yield
        finally:
            turning.cancel()
            self._ended.set()
            self._thread.join(0.5)

    async def _turn(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            now = monotonic()
            self._late = max(now - self._turned_at - self._every, 0.0)
            self._turned_at = now

    def _look(self) -> None:
        told = 0.0
        while not self._ended.wait(self._every):
            turned = self._turned_at
            seconds = monotonic() - turned
            if turned != told and seconds > self._warn_after:
                told = turned
                self._tell(seconds)

    def _tell(self, seconds: float) -> None:
        jobs = [f"{job.handler.name} {job.id}" for job in tuple(self._state.running.values())[:MAX_LOGGED_JOBS]]
        frame = sys._current_frames().get(self._state.thread)  # noqa: SLF001  # documented, in spite of its name
        try:
            at = place(traceback.extract_stack(frame), self._hidden) if frame is not None else ""
        except Exception as exc:  # noqa: BLE001  # a module's own loader, asked for its source
            at = f"(its source can't be read: {name_exception(exc).line})"
        log.warning("loop_blocked", seconds=round(seconds, 1), jobs=jobs, at=at)


def place(stack: Sequence[traceback.FrameSummary], hidden: tuple[str, ...]) -> str:
    """Where a thread is: the innermost call, and the handler's, which is the outermost one above hidden code."""
    calls = stack[::-1]
    own = list(takewhile(lambda call: not call.filename.startswith(hidden), calls)) or calls[:1]
    told = (own[0], own[-1]) if len(own) > 1 else own
    return ", called from ".join(f"{call.name} ({call.filename}:{call.lineno})" for call in told)
