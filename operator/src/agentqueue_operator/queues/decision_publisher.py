"""Publication of the last decision on each queue in Redis, for `agentqueue explain`.

The decision that was stored before may be another autoscaler's. Two autoscalers of one queue work against each other,
so each of them reports the other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from agentqueue.clock import now_ms
from agentqueue.errors import AgentQueueError
from agentqueue_operator.autoscaling.decision_record import (
    NO_OWNER,
    Change,
    Owner,
    PublishedDecision,
    decode,
    encode,
)
from agentqueue_operator.autoscaling.model import Decision, ScaleTo, ScalingReason
from agentqueue_operator.queues.ports import Queues

EVERY_S: Final = 5.0
"""Interval in seconds at which an unchanged decision is published again, because its inputs change."""
SHARED_S: Final = 60.0
"""Time in seconds after which another autoscaler whose decisions are no longer seen counts as gone."""


@dataclass(frozen=True, slots=True)
class _OtherAutoscaler:
    """Another autoscaler whose decision was found on a queue."""

    name: str
    owner: Owner
    seen: int
    """Number of times its decision was found. A deleted AgentQueue leaves one decision behind, not two."""
    at: float
    """Last time, in monotonic seconds."""


@dataclass(slots=True)
class _Publication:
    """State of one queue: its number of pods, and the decision that was published last."""

    current: int
    """Pods requested at the last observation."""
    change_reason: ScalingReason
    """Reason of the last decision to change that number; of the last decision if there was none."""
    content: tuple[int, int, ScalingReason] | None = None
    """Pods, wanted pods and reason that were published."""
    at: float = float("-inf")
    """Time of the publication in monotonic seconds."""
    change: Change | None = None


class Publisher:
    """Publishes decisions, and remembers the last change of each queue's number of pods.

    Args:
        by: program that decides.
        owner: AgentQueue for which the queues are scaled.
        now: current time in Unix milliseconds.
    """

    def __init__(self, by: str, *, owner: Owner = NO_OWNER, now: Callable[[], int] = now_ms) -> None:
        self._by = by
        self.owner = owner
        self._now = now
        self._others: dict[str, _OtherAutoscaler] = {}
        self._publications: dict[str, _Publication] = {}

    async def publish(self, queues: Queues, decisions: Mapping[str, Decision], *, at: float) -> None:
        """Publish the decisions that are new, in one round trip.

        A decision that Redis does not accept is published with the next one, since nothing depends on it. Queues that
        could not be read just now are skipped.

        Args:
            queues: the server.
            decisions: by queue.
            at: monotonic seconds.
        """
        read = {queue: decision for queue, decision in decisions.items() if decision.terms.snapshot.load is not None}
        due = {queue: decision for queue, decision in read.items() if self._is_due(queue, decision, at)}
        if not due:
            return
        records: dict[str, bytes] = {}
        for queue, decision in due.items():
            change, now = self._publications[queue].change, self._now()
            record = PublishedDecision(by=self._by, at_ms=now, decision=decision, change=change, owner=self.owner)
            records[queue] = encode(record)
        try:
            before = await queues.publish(records)
        except AgentQueueError:
            for queue in due:
                self._publications[queue].at = float("-inf")
            return
        for queue, raw in before.items():
            self._detect_other(queue, raw, at)

    def shares_with(self, queue: str, *, at: float) -> str:
        """Return the name of another autoscaler of the queue; empty if there is none. `at`: monotonic seconds."""
        other = self._others.get(queue)
        return other.name if other is not None and other.seen > 1 and at < other.at + SHARED_S else ""

    def _detect_other(self, queue: str, raw: bytes | None, at: float) -> None:
        try:
            found = decode(raw) if raw is not None else None
        except ValueError:  # A record of another version does not name its owner.
            return
        if found is None or (found.by, found.owner) == (self._by, self.owner):
            return
        known = self._others.get(queue)
        is_same = known is not None and known.owner == found.owner and at < known.at + SHARED_S
        seen = known.seen + 1 if known is not None and is_same else 1
        name = f"`agentqueue {found.by}`"
        if found.owner != NO_OWNER:
            where = " of another cluster" if found.owner.name == self.owner.name else ""
            name = f"the AgentQueue {found.owner.name}{where}"
        self._others[queue] = _OtherAutoscaler(name, found.owner, seen, at)

    def _is_due(self, queue: str, decision: Decision, at: float) -> bool:
        """Record a change of the number of pods, and return whether the decision has to be published."""
        current = decision.terms.current
        last = self._publications.setdefault(queue, _Publication(current, decision.reason))
        if current != last.current:
            last.change = Change(self._now(), last.current, current, last.change_reason)
            last.current = current
        wanted = current
        if isinstance(decision, ScaleTo):
            wanted, last.change_reason = decision.replicas, decision.reason
        content = (current, wanted, decision.reason)
        if content == last.content and at < last.at + EVERY_S:
            return False
        last.content, last.at = content, at
        return True
