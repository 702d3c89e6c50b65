"""Publish the last decision on each queue in Redis, so that `agentqueue explain` can show its reason.

What stood there before may be somebody else's: two that scale one queue pull it to and fro, and each should know.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from agentqueue.clock import now_ms
from agentqueue.errors import AgentQueueError
from agentqueue_operator.autoscaling.decision_record import ANYBODY, Change, Owner, Published, decode, encode
from agentqueue_operator.autoscaling.model import Decision, ScaleTo, ScalingReason
from agentqueue_operator.queues.ports import Queues

EVERY_S: Final = 5.0
"""An unchanged decision is published again after so long: its inputs have changed meanwhile."""
SHARED_S: Final = 60.0
"""Another's decision that was not seen again for so long is of one that scales the queue no more."""


@dataclass(frozen=True, slots=True)
class _Other:
    """Somebody else who scales a queue."""

    who: str
    owner: Owner
    seen: int
    """How often its decision stood where ours belongs. An AgentQueue that was deleted leaves one behind, not two."""
    at: float


@dataclass(slots=True)
class _Told:
    """What was decided on a queue last, and what was said of it."""

    current: int
    """Pods asked for when it was looked at last."""
    why: ScalingReason
    """Of the last decision to change that, or of the last one."""
    what: tuple[int, int, ScalingReason] | None = None
    at: float = float("-inf")
    """Monotonic seconds."""
    change: Change | None = None


class Publisher:
    """Remembers what was published, and the last change of each queue's number. `by`: who decides."""

    def __init__(self, by: str, *, owner: Owner = ANYBODY, now: Callable[[], int] = now_ms) -> None:
        self._by = by
        self.owner = owner
        """For which the queues are scaled."""
        self._others: dict[str, _Other] = {}
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
            before = await queues.publish({queue: encode(self._published(queue, one)) for queue, one in fresh.items()})
        except AgentQueueError:
            for queue in fresh:
                self._told[queue].at = float("-inf")
            return
        for queue, raw in before.items():
            self._notice(queue, raw, at)

    def shares_with(self, queue: str, *, at: float) -> str:
        """Return who else scales the queue; empty if nobody does. `at`: monotonic seconds."""
        other = self._others.get(queue)
        return other.who if other is not None and other.seen > 1 and at < other.at + SHARED_S else ""

    def _notice(self, queue: str, raw: bytes | None, at: float) -> None:
        try:
            found = decode(raw) if raw is not None else None
        except ValueError:  # of another version: it does not say whose it is
            return
        if found is None or (found.by, found.owner) == (self._by, self.owner):
            return
        known = self._others.get(queue)
        again = known is not None and known.owner == found.owner and at < known.at + SHARED_S
        seen = known.seen + 1 if known is not None and again else 1
        self._others[queue] = _Other(_name(found, self.owner), found.owner, seen, at)

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
        change = self._told[queue].change
        return Published(by=self._by, at_ms=self._now(), decision=decision, change=change, owner=self.owner)


def _name(found: Published, ours: Owner) -> str:
    if found.owner == ANYBODY:
        return f"`agentqueue {found.by}`"
    where = " of another cluster" if found.owner.name == ours.name else ""
    return f"the AgentQueue {found.owner.name}{where}"
