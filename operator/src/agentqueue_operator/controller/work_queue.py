"""One task per AgentQueue: wait until woken or 5 s have passed, then a pass over it. What a pass throws ends there."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from agentqueue_operator.controller.ports import ApiRefused, ApiUnavailable, Gone, NotLeading
from agentqueue_operator.resources.kinds import QueueRef

PERIOD_S: Final = 5.0
"""Between two passes when nothing happens: the autoscaler's look at the queue."""
LEAST_GAP_S: Final = 0.2
"""Between two passes when much happens: events that come together are seen together."""
BACKOFF_S: Final = (1.0, 30.0)
"""The first wait after a pass that failed, and the longest: each pass renews the marks of workers that are to go, also
one that fails later on, and marks are kept for 60 s."""
JITTER: Final = 0.2
"""Share of a wait that is random, so that what failed together does not come back together."""
AT_ONCE: Final = 16
"""Passes at the same time; the others wait for their turn. A pass waits mostly for servers."""
log = structlog.get_logger("agentqueue.operator")


class Reconciler(Protocol):
    """An AgentQueue over time: one instance from its first pass to its end, or to the loss of the lease."""

    async def run(self) -> float | None:
        """One pass. Returns after how many seconds it wants the next one, None: it does not mind."""
        ...

    async def close(self) -> None:
        """Its connections and tasks end. Raises nothing."""
        ...


class Watcher(Protocol):
    """Who counts passes."""

    def passed(self, ref: QueueRef, seconds: float, error: str | None) -> None:
        """A pass took so long; `error`: the kind of error that it ended with."""
        ...

    def gone(self, ref: QueueRef) -> None:
        """The AgentQueue is no more."""
        ...


@dataclass(slots=True)
class _Loop:
    """One AgentQueue's."""

    woken: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None] | None" = None
    due: float = 0.0
    """When its next pass should begin, at the latest; while one runs: when it began."""
    failures: int = 0
    """In a row."""


class Loops:
    """The tasks of all AgentQueues.

    Args:
        make: an AgentQueue's reconciler.
        exists: whether there is such an AgentQueue.
        leads: whether this replica may act; while it may not, loops wait and forget what they knew.
        clock: monotonic seconds.
        watcher: told of each pass.
    """

    def __init__(
        self,
        make: Callable[[QueueRef], Reconciler],
        *,
        exists: Callable[[QueueRef], bool],
        leads: Callable[[], bool],
        clock: Callable[[], float],
        watcher: Watcher | None = None,
        period_s: float = PERIOD_S,
    ) -> None:
        self._make = make
        self._exists = exists
        self._leads = leads
        self._clock = clock
        self._watcher = watcher
        self._period_s = period_s
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._loops: dict[QueueRef, _Loop] = {}
        self._closed = False
        self._jitter = random.Random()  # noqa: S311  # of no use to guess

    def wake(self, ref: QueueRef) -> None:
        """Something about this AgentQueue has changed. To be called in the event loop's thread."""
        loop = self._loops.get(ref)
        if loop is None:
            if self._closed or not self._exists(ref):
                return
            loop = self._loops[ref] = _Loop(due=self._clock())
            loop.task = asyncio.create_task(self._run(ref, loop), name=f"agentqueue {ref}")
        loop.woken.set()

    def wake_all(self) -> None:
        """Something about all of them has changed: this replica leads by now."""
        for loop in self._loops.values():
            loop.woken.set()

    def __len__(self) -> int:
        return len(self._loops)

    def waiting(self) -> int:
        """Loops that are woken or overdue and whose pass has not begun: the queue of work."""
        return sum(loop.woken.is_set() for loop in list(self._loops.values()))  # asked from a thread

    def oldest_pass_s(self) -> float:
        """For how long the slowest loop has been at its pass or late for it; a backoff is no lateness."""
        now = self._clock()
        return max((now - loop.due for loop in list(self._loops.values()) if loop.due < now), default=0.0)

    async def close(self) -> None:
        """End all loops, for good."""
        self._closed = True
        tasks = [loop.task for loop in self._loops.values() if loop.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loops.clear()

    async def _run(self, ref: QueueRef, loop: _Loop) -> None:
        reconciler: Reconciler | None = None
        try:
            while self._exists(ref):
                loop.woken.clear()
                if not self._leads():
                    await _close(reconciler)
                    reconciler = None
                    await self._rest(loop, self._period_s)
                    continue
                reconciler = reconciler or self._make(ref)
                await self._pass(ref, loop, reconciler)
        finally:
            await _close(reconciler)
            self._loops.pop(ref, None)
            if self._watcher:
                self._watcher.gone(ref)

    async def _pass(self, ref: QueueRef, loop: _Loop, reconciler: Reconciler) -> None:
        async with self._turns:
            loop.due = began = self._clock()
            requeue_after_s, error = await self._try(ref, loop, reconciler)
        if self._watcher:
            self._watcher.passed(ref, self._clock() - began, error)
        if error:
            await self._back_off(loop, requeue_after_s or 0.0)
        else:
            await self._rest(loop, min(self._period_s, self._period_s if requeue_after_s is None else requeue_after_s))

    async def _try(self, ref: QueueRef, loop: _Loop, reconciler: Reconciler) -> tuple[float | None, str | None]:
        """A pass: after how long the next one is wanted, and what it failed with."""
        try:
            requeue_after_s = await reconciler.run()
        except NotLeading:
            return None, None
        except Gone:  # its watch says so soon, and the loop ends
            return None, None
        except ApiUnavailable as error:
            loop.failures += 1
            log.warning("pass_failed", queue=str(ref), error=str(error), failures=loop.failures)
            return error.retry_after_s, type(error).__name__
        except Exception as error:
            if isinstance(error, ApiRefused) and not self._exists(ref):
                log.debug("pass_ended", queue=str(ref), error=str(error))  # what it worked on went away under its hands
                return None, None
            loop.failures += 1
            log.exception("pass_failed", queue=str(ref), failures=loop.failures)
            return None, type(error).__name__
        loop.failures = 0
        return requeue_after_s, None

    async def _rest(self, loop: _Loop, seconds: float) -> None:
        """Until woken, but not at once: what comes together is dealt with together."""
        gap_s = min(LEAST_GAP_S, seconds)
        loop.due = self._clock() + seconds
        await asyncio.sleep(gap_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds - gap_s):
                await loop.woken.wait()
        loop.due = min(loop.due, self._clock())

    async def _back_off(self, loop: _Loop, at_least_s: float) -> None:
        """Whatever happens meanwhile: events that our own tries cause would make it a hot loop."""
        first, longest = BACKOFF_S
        seconds = max(at_least_s, min(longest, first * 2.0 ** min(loop.failures - 1, 10)))
        seconds *= 1 + self._jitter.uniform(0, JITTER)
        loop.due = self._clock() + seconds
        await asyncio.sleep(seconds)


async def _close(reconciler: Reconciler | None) -> None:
    if reconciler is not None:
        await reconciler.close()
