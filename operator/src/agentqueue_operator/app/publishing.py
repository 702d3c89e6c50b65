"""Leaves the last decision on each queue in Redis, so that `agentqueue explain` can tell why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from agentqueue.clock import now_ms
from agentqueue.errors import AgentQueueError
from agentqueue_operator.app.ports import Queues
from agentqueue_operator.domain.published import Change, Published, encode
from agentqueue_operator.domain.scaling import Decision, Reason, ScaleTo

EVERY_S: Final = 5.0
"""An unchanged decision is published again after so long: its inputs have changed meanwhile."""


@dataclass(slots=True)
class _Told:
    """What was decided on a queue last, and what was said of it."""

    current: int
    """Pods asked for when it was looked at last."""
    why: Reason
    """Of the last decision to change that, or of the last one."""
    what: tuple[int, int, Reason] | None = None
    at: float = float("-inf")
    """Monotonic seconds."""
    change: Change | None = None


class Publisher:
    """Remembers what was published, and the last change of each queue's number. `by`: who decides."""

    def __init__(self, by: str, *, now: Callable[[], int] = now_ms) -> None:
        self._by = by
        self._now = now
        self._told: dict[str, _Told] = {}

    async def publish(self, queues: Queues, decisions: Mapping[str, Decision], *, at: float) -> None:
        """Publish what is new, in one round trip. `at`: monotonic seconds.

        Nothing depends on it: what Redis does not take (it is full, or gone) is said with the next look. Where it could
        not be read just now, it is not asked again.
        """
        read = {queue: decision for queue, decision in decisions.items() if decision.terms.snapshot.load is not None}
        fresh = {queue: decision for queue, decision in read.items() if self._is_news(queue, decision, at)}
        if not fresh:
            return
        try:
            await queues.publish({queue: encode(self._published(queue, decision)) for queue, decision in fresh.items()})
        except AgentQueueError:
            for queue in fresh:
                self._told[queue].at = float("-inf")

    def _is_news(self, queue: str, decision: Decision, at: float) -> bool:
        current = decision.terms.current
        told = self._told.setdefault(queue, _Told(current, decision.reason))
        if current != told.current:
            told.change = Change(self._now(), told.current, current, told.why)
            told.current = current
        wanted = current
        if isinstance(decision, ScaleTo):
            wanted, told.why = decision.replicas, decision.reason
        what = (current, wanted, decision.reason)
        if what == told.what and at < told.at + EVERY_S:
            return False
        told.what, told.at = what, at
        return True

    def _published(self, queue: str, decision: Decision) -> Published:
        return Published(by=self._by, at_ms=self._now(), decision=decision, change=self._told[queue].change)
