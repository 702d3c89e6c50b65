"""What workers do for their queues beside running jobs, done for queues that may have no worker: whatever has none."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from agentqueue.errors import AgentQueueError
from agentqueue.spec import ResolvedAgent
from agentqueue.store import HOUSEKEEPING_INTERVAL_S
from agentqueue_operator.queues.ports import Queues, Retention, Tended

EVERY_S: Final = HOUSEKEEPING_INTERVAL_S
"""More than 4 s apart, visits would count as the ends of outages: nothing would ever be reaped (ENGINE 4)."""


def retention_of(agent: ResolvedAgent) -> Retention:
    """What the agent's queue keeps."""
    return Retention(dead_s=agent.retention.dead_seconds, history_s=agent.retention.completed_seconds)


class Housekeeper:
    """Keeps house for the queues of one server, for as long as `run` runs.

    It does not depend on looks or passes: those may wait for an API server, or fail.

    Args:
        queues: the server's; None while there is none.
        on_visit: called with the result of each visit that gave jobs back or left something out.
        may: whether it may act now.
    """

    def __init__(
        self,
        queues: Callable[[], Queues | None],
        on_visit: Callable[[Tended], None],
        *,
        may: Callable[[], bool] = lambda: True,
    ) -> None:
        self._queues = queues
        self._on_visit = on_visit
        self._may = may
        self.retentions: Mapping[str, Retention] = {}
        """The queues to look after, each with what it keeps."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._visit()
            await asyncio.sleep(EVERY_S)

    async def _visit(self) -> None:
        server = self._queues()
        if server is None or not self.retentions or not self._may():
            return
        try:
            tended = await server.tend(self.retentions)
        except AgentQueueError:
            return  # the loop that reads the queues reports what is wrong
        if tended.given_back or tended.left_out:
            self._on_visit(tended)
