"""Detects a blocked event loop from a separate thread."""

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
"""Seconds between two ticks of the event loop, and between two checks of the thread. Scrapes are less frequent."""
WARN_AFTER_S: Final = 10.0
"""Seconds without a tick after which a warning is logged. Shorter pauses happen in healthy workers."""
MAX_LOGGED_JOBS: Final = 10
"""Maximum number of running jobs that a warning lists, to keep the line readable."""
log = structlog.get_logger("agentqueue.worker")


class LoopMonitor:
    """Measures how late the event loop of a worker is.

    Args:
        state: state of the worker, with its loop and its running jobs.
        hidden: folders whose code is not the user's.
        every: seconds between two ticks.
        warn_after: seconds without a tick after which one warning is logged.
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
        self._ticked_at = monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._check, name="loop-monitor", daemon=True)

    @property
    def lag(self) -> float:
        """Seconds by which the last tick was late, or by which the next one is late already."""
        return max(self._late, monotonic() - self._ticked_at - self._every)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Monitor the loop while the block runs. Enter it inside the loop."""

        async def tick() -> None:
            while True:
                await asyncio.sleep(self._every)
                now = monotonic()
                self._late = max(now - self._ticked_at - self._every, 0.0)
                self._ticked_at = now

        self._ticked_at = monotonic()
        ticking = asyncio.create_task(tick())
        self._thread.start()
        try:
            yield
        finally:
            ticking.cancel()
            self._ended.set()
            self._thread.join(0.5)

    def _check(self) -> None:
        warned_at = 0.0
        while not self._ended.wait(self._every):
            ticked_at = self._ticked_at
            seconds = monotonic() - ticked_at
            if ticked_at != warned_at and seconds > self._warn_after:
                warned_at = ticked_at
                self._warn(seconds)

    def _warn(self, seconds: float) -> None:
        jobs = [f"{job.handler.name} {job.id}" for job in tuple(self._state.running.values())[:MAX_LOGGED_JOBS]]
        frame = sys._current_frames().get(self._state.thread)  # noqa: SLF001  # documented, despite its name
        try:
            at = place(traceback.extract_stack(frame), self._hidden) if frame is not None else ""
        except Exception as exc:  # noqa: BLE001  # the loader of a module raised when it was asked for the source
            at = f"(its source can't be read: {name_exception(exc).line})"
        log.warning("loop_blocked", seconds=round(seconds, 1), jobs=jobs, at=at)


def place(stack: Sequence[traceback.FrameSummary], hidden: tuple[str, ...]) -> str:
    """Return the place where a thread is: the innermost call, and the outermost call of the user's code.

    Args:
        stack: the frames of the thread, the innermost last.
        hidden: folders whose code is not the user's.
    """
    calls = stack[::-1]
    own = list(takewhile(lambda call: not call.filename.startswith(hidden), calls)) or calls[:1]
    shown = (own[0], own[-1]) if len(own) > 1 else own
    return ", called from ".join(f"{call.name} ({call.filename}:{call.lineno})" for call in shown)
