"""Writes the status of an AgentQueue when it has changed enough, and records events of the change."""

from collections.abc import Callable
from typing import Final

from agentqueue_operator.controller.ports import Cluster
from agentqueue_operator.controller.status.conditions import is_worth_writing
from agentqueue_operator.controller.status.events import events_between
from agentqueue_operator.resources.kinds import Object, QueueRef

NEVER: Final = float("-inf")
"""Time of a write that has not happened, in monotonic seconds."""


class StatusWriter:
    """Writes the status of one AgentQueue.

    Args:
        cluster: the API server.
        ref: the AgentQueue.
        clock: returns monotonic seconds.
    """

    def __init__(self, cluster: Cluster, ref: QueueRef, *, clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._ref = ref
        self._clock = clock
        self._written_at = NEVER
        self._uid = ""
        self._last: Object | None = None
        """The status that was written last. The cache may lag behind it."""

    def last(self, live: Object) -> Object | None:
        """Return the current status as far as it is known."""
        if self._uid != live["metadata"]["uid"]:
            self._uid, self._last = live["metadata"]["uid"], live.get("status")
        return self._last

    async def write_status(self, live: Object, status: Object) -> bool:
        """Write the status if it is worth it, and return whether it was written.

        Args:
            live: the AgentQueue.
            status: its whole new status.

        Raises:
            ApiRefused, ApiUnavailable, NotLeading: it was not written.
        """
        old = self.last(live)
        if not is_worth_writing(old, status, since_s=self._clock() - self._written_at):
            return False
        await self._cluster.patch_status(self._ref, status, uid=self._uid)
        self._last, self._written_at = status, self._clock()
        for event in events_between(old, status):
            await self._cluster.record_event(live, reason=event.reason, note=event.note, warning=event.warning)
        return True
