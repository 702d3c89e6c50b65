"""Drives plans from outside: sends jobs and signals, cancels and replays, and checks what has become of them."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from agentqueue import Client
from agentqueue.client.status import JobStatus
from agentqueue.clock import monotonic
from agentqueue.errors import JobEnded, JobNotFound, QueueFull, QueueUnavailable
from agentqueue.keys import Level
from agentqueue.model.job import State
from tests.support.plans.plan import QUEUES, Plan
from tests.support.plans.recorder import Recorder

T = TypeVar("T")
REPLAYS: Final = 40
"""How often a root that has died is replayed. Its plan has fewer parts that die once, in all levels."""


@dataclass
class Driver:
    """The world around the plans."""

    client: Client
    recorder: Recorder
    chance: random.Random
    roots: dict[str, Plan] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)
    """Every plan by its path."""
    sent: dict[str, int] = field(default_factory=dict)
    """Signals that were accepted, by data, and how often."""
    started: dict[str, str] = field(default_factory=dict)
    """Job IDs of plans that have started, by path."""
    cancelled: set[str] = field(default_factory=set)
    replays: Counter[str] = field(default_factory=Counter)
    ended: dict[str, JobStatus] = field(default_factory=dict)
    """Final states of roots."""
    has_more: bool = False
    """More plans will be sent, so `run` goes on when all have ended."""
    _to_cancel: dict[str, float] = field(default_factory=dict)
    """When to cancel a root, in monotonic seconds."""
    _sending: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def send(self, plans: Sequence[Plan], *, cancels: float = 0.0) -> None:
        """Enqueue plans, and send their signals from now on.

        Args:
            plans: the plans.
            cancels: chance that a plan is cancelled within two seconds.
        """
        for plan in plans:
            self.plans |= {each.path: each for each in plan.walk()}
            name = "plain" if plan.is_plain else "run"
            level = self.chance.choice(list(Level)).label
            await self.again(
                lambda plan=plan, name=name, level=level: self.client.enqueue(  # type: ignore[misc]
                    plan.queue, name, plan.model_dump(), id=plan.path, priority=level
                )
            )
            self.roots[plan.path] = plan
            if self.chance.random() < cancels:
                self._to_cancel[plan.path] = monotonic() + self.chance.uniform(0.0, 2.0)
            if self.chance.random() < 0.3:
                self._begin_signals(plan, plan.path)

    async def again(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call until the server answers, and return its reply."""
        while True:
            try:
                return await call()
            except (QueueUnavailable, QueueFull):
                await asyncio.sleep(0.05)

    # --- signals

    def _begin_signals(self, plan: Plan, job_id: str) -> None:
        if plan.path not in self._sending:
            self._sending[plan.path] = asyncio.create_task(self._send_signals(plan, job_id))

    async def _send_signals(self, plan: Plan, job_id: str) -> None:
        """Send each signal once or twice, at any time. Those of one name are sent in order."""
        names = plan.signals()
        self.chance.shuffle(names)
        for name, count in names:
            for number in range(count):
                if self.chance.random() < 0.5:
                    await asyncio.sleep(self.chance.uniform(0.0, 0.4))
                data = f"{name}:{number}"
                for _ in range(self.chance.choice((1, 1, 2))):
                    await self._send_signal(plan, job_id, name, data)

    async def _send_signal(self, plan: Plan, job_id: str, name: str, data: str) -> None:
        """Send a signal. A dead letter takes none, so it is sent again until the job is replayed or its root ends."""
        while True:
            try:
                new = await self.again(lambda: self.client.signal(job_id, name, data, id=data))
            except (JobEnded, JobNotFound):
                if plan.path.partition(".")[0] in self.ended:
                    return
                await asyncio.sleep(0.05)
            else:
                self.sent[data] = self.sent.get(data, 0) + bool(new)
                return

    # --- the course of the plans

    async def run(self, *, deadline: float) -> None:
        """Send signals, cancel and replay until every root has ended as it should, and nothing is left to do.

        Args:
            deadline: seconds, after which this fails with what is left.
        """
        began = monotonic()
        while not await self._look():
            if monotonic() - began > deadline:
                raise AssertionError(await self.describe_stuck())
            await asyncio.sleep(0.02)
        await asyncio.gather(*self._sending.values())

    async def _look(self) -> bool:
        for event in self.recorder.news():
            if event.kind == "start":
                self.started[event.key] = event.job_id
                self._begin_signals(self.plans[event.key], event.job_id)
        for path in [path for path, at in self._to_cancel.items() if monotonic() > at]:
            del self._to_cancel[path]
            self.cancelled.add(path)
            await self.again(lambda p=path: self.client.cancel(p))  # type: ignore[misc]
        for path in self.roots.keys() - self.ended.keys():
            await self._follow(path)
        has_left = self.has_more or self._to_cancel or self.ended.keys() != self.roots.keys()
        return not has_left and await self._is_quiet()

    async def _follow(self, path: str) -> None:
        status = await self.again(lambda: self.client.status(path))
        if status.state is State.DEAD and self.replays[path] < REPLAYS:  # also if it had died before it was cancelled
            self.replays[path] += 1
            await self.again(lambda: self.client.replay(self.roots[path].queue, ids=[path]))
        elif status.is_final:
            self.ended[path] = status

    async def _is_quiet(self) -> bool:
        stats = [await self.again(lambda q=queue: self.client.stats(q)) for queue in QUEUES]  # type: ignore[misc]
        return not any(one.waiting + one.active + one.delayed for one in stats)

    async def describe_stuck(self) -> str:
        """Return what has not ended, for people."""
        lines = []
        for path, job_id in sorted(self.started.items() | {(path, path) for path in self.roots}):
            with contextlib.suppress(JobNotFound):
                status = await self.client.status(job_id)
                if not status.is_final:
                    lines.append(
                        f"{path} ({job_id}) in {status.queue}: {status.state}, {status.attempts} attempts, "
                        f"{status.deliveries} deliveries, due {status.due_at}, error {status.error}, "
                        f"waits for {status.waits_for}, by {status.worker}; {status.data}"
                    )
        return f"{len(lines)} jobs have not ended:\n" + "\n".join(lines)
