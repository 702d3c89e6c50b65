"""Runs one task for each AgentQueue: it waits until it is woken or a period has passed, then reconciles."""

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
"""Seconds between two reconciles without an event. The autoscaler reads the queue in each."""
MIN_GAP_S: Final = 0.2
"""Minimum seconds between two reconciles, so that one handles all events of a burst."""
BACKOFF_S: Final = (1.0, 30.0)
"""First and maximum delay after a failed reconcile, in seconds. Each reconcile renews drain marks, also one that fails
later, and marks expire after 60 s."""
JITTER: Final = 0.2
"""Fraction of a delay that is random, so that AgentQueues that failed together do not retry together."""
CONCURRENCY: Final = 16
"""Number of concurrent reconciles. A reconcile mostly waits for servers."""
log = structlog.get_logger("agentqueue.operator")


class Reconciler(Protocol):
    """Reconciles one AgentQueue, from its first reconcile until it is deleted or the lease is lost."""

    async def run(self) -> float | None:
        """Reconcile once, and return the delay until the next reconcile in seconds (None: the ordinary period)."""
        ...

    async def close(self) -> None:
        """Release connections and end background tasks. Never raises."""
        ...


class ReconcileObserver(Protocol):
    """Receives the results of reconciles, for the metrics."""

    def on_reconciled(self, ref: QueueRef, seconds: float, error: str | None) -> None:
        """Record a reconcile: its duration in seconds, and the type of the error that ended it."""
        ...

    def on_removed(self, ref: QueueRef) -> None:
        """Forget an AgentQueue that does not exist any more or that this replica has stopped to reconcile."""
        ...


@dataclass(slots=True)
class _Item:
    """An AgentQueue in the work queue."""

    woken: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None] | None" = None
    due: float = 0.0
    """Latest start of the next reconcile, in monotonic seconds; during a reconcile: its start."""
    failures: int = 0
    """Number of failed reconciles in a row."""


class WorkQueue:
    """The reconcile tasks of all AgentQueues. An error in a reconcile ends only this reconcile.

    Args:
        make: creates the reconciler of an AgentQueue.
        exists: returns whether there is such an AgentQueue.
        leads: returns whether this replica may act. While it may not, tasks wait and drop their reconcilers.
        clock: returns monotonic seconds.
        observer: receives the result of each reconcile.
        period_s: seconds between two reconciles without an event.
    """

    def __init__(
        self,
        make: Callable[[QueueRef], Reconciler],
        *,
        exists: Callable[[QueueRef], bool],
        leads: Callable[[], bool],
        clock: Callable[[], float],
        observer: ReconcileObserver | None = None,
        period_s: float = PERIOD_S,
    ) -> None:
        self._make = make
        self._exists = exists
        self._leads = leads
        self._clock = clock
        self._observer = observer
        self._period_s = period_s
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._items: dict[QueueRef, _Item] = {}
        self._closed = False
        self._random = random.Random()  # noqa: S311  # not a secret

    def wake(self, ref: QueueRef) -> None:
        """Request a reconcile of this AgentQueue. Must be called in the event loop's thread."""
        item = self._items.get(ref)
        if item is None:
            if self._closed or not self._exists(ref):
                return
            item = self._items[ref] = _Item(due=self._clock())
            item.task = asyncio.create_task(self._run(ref, item), name=f"agentqueue {ref}")
        item.woken.set()

    def wake_all(self) -> None:
        """Request a reconcile of all AgentQueues, because this replica has become the leader."""
        for item in self._items.values():
            item.woken.set()

    def __len__(self) -> int:
        return len(self._items)

    def waiting(self) -> int:
        """Return the number of AgentQueues that wait for a reconcile. May be called from any thread."""
        return sum(item.woken.is_set() for item in list(self._items.values()))

    def oldest_reconcile_s(self) -> float:
        """Return the age of the longest running or most overdue reconcile, in seconds. A backoff is not overdue."""
        now = self._clock()
        return max((now - item.due for item in list(self._items.values()) if item.due < now), default=0.0)

    async def close(self) -> None:
        """End all tasks. The work queue cannot be used afterwards."""
        self._closed = True
        tasks = [item.task for item in self._items.values() if item.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._items.clear()

    async def _run(self, ref: QueueRef, item: _Item) -> None:
        reconciler: Reconciler | None = None
        try:
            while self._exists(ref):
                item.woken.clear()
                if self._leads():
                    reconciler = reconciler or self._make(ref)
                    await self._process(ref, item, reconciler)
                    continue
                if reconciler is not None:
                    await reconciler.close()
                    reconciler = None
                await self._wait(item, self._period_s)
        finally:
            if reconciler is not None:
                await reconciler.close()
            self._items.pop(ref, None)
            if self._observer:
                self._observer.on_removed(ref)

    async def _process(self, ref: QueueRef, item: _Item, reconciler: Reconciler) -> None:
        """Reconcile once, then wait for the next reconcile, or back off after an error."""
        async with self._slots:
            item.due = began = self._clock()
            requeue_after_s, error = await self._reconcile(ref, item, reconciler)
        if self._observer:
            self._observer.on_reconciled(ref, self._clock() - began, error)
        if not error:
            await self._wait(item, min(self._period_s, self._period_s if requeue_after_s is None else requeue_after_s))
            return
        # Events do not end the backoff: the reconciler's own attempts cause some, and it would become a hot loop.
        first_s, max_s = BACKOFF_S
        seconds = max(requeue_after_s or 0.0, min(max_s, first_s * 2.0 ** min(item.failures - 1, 10)))
        seconds *= 1 + self._random.uniform(0, JITTER)
        item.due = self._clock() + seconds
        await asyncio.sleep(seconds)

    async def _reconcile(self, ref: QueueRef, item: _Item, reconciler: Reconciler) -> tuple[float | None, str | None]:
        """Reconcile once. Return the delay until the next reconcile, and the type of the error that ended this one."""
        try:
            requeue_after_s = await reconciler.run()
        except (NotLeading, Gone):  # for Gone, the watch reports the deletion soon, and the task ends
            return None, None
        except ApiUnavailable as error:
            item.failures += 1
            log.warning("reconcile_failed", agentqueue=str(ref), error=str(error), failures=item.failures)
            return error.retry_after_s, type(error).__name__
        except Exception as error:
            if isinstance(error, ApiRefused) and not self._exists(ref):
                log.debug("reconcile_abandoned", agentqueue=str(ref), error=str(error))  # it was deleted meanwhile
                return None, None
            item.failures += 1
            log.exception("reconcile_failed", agentqueue=str(ref), failures=item.failures)
            return None, type(error).__name__
        item.failures = 0
        return requeue_after_s, None

    async def _wait(self, item: _Item, seconds: float) -> None:
        """Wait until the item is woken or the time has passed, but at least the minimum gap."""
        gap_s = min(MIN_GAP_S, seconds)
        item.due = self._clock() + seconds
        await asyncio.sleep(gap_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds - gap_s):
                await item.woken.wait()
        item.due = min(item.due, self._clock())
