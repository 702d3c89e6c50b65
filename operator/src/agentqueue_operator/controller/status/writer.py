"""Writes an AgentQueue's status when there is something to say, and records what happened as events."""

from collections.abc import Callable
from typing import Final

from agentqueue_operator.controller.ports import Cluster
from agentqueue_operator.controller.status.conditions import is_worth_writing
from agentqueue_operator.controller.status.events import happenings
from agentqueue_operator.resources.kinds import Object, QueueRef

NEVER: Final = float("-inf")


class Report:
    """Of one AgentQueue."""

    def __init__(self, cluster: Cluster, ref: QueueRef, *, clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._ref = ref
        self._clock = clock
        self._written_at = NEVER
        self._uid = ""
        self._last: Object | None = None
        """What was written last; the cache may not show it yet."""

    def last(self, live: Object) -> Object | None:
        """The status as it is, as far as is known."""
        if self._uid != live["metadata"]["uid"]:
            self._uid, self._last = live["metadata"]["uid"], live.get("status")
        return self._last

    async def tell(self, live: Object, status: Object) -> bool:
        """Write it if it is worth it. Returns whether it was.

        Raises:
            ApiRefused, ApiUnavailable, NotLeading: it was not written.
        """
        old = self.last(live)
        if not is_worth_writing(old, status, since_s=self._clock() - self._written_at):
            return False
        await self._cluster.patch_status(self._ref, status, uid=self._uid)
        self._last, self._written_at = status, self._clock()
        for one in happenings(old, status):
            await self._cluster.tell(live, reason=one.reason, note=one.note, warning=one.warning)
        return True
