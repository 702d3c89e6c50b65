"""Housekeeping for queues that may have no worker: expired leases, retention and old records."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from agentqueue.errors import AgentQueueError
from agentqueue.spec import ResolvedAgent
from agentqueue.store import HOUSEKEEPING_INTERVAL_S
from agentqueue_operator.queues.ports import HousekeepingResult, Queues, Retention

EVERY_S: Final = HOUSEKEEPING_INTERVAL_S
"""Interval in seconds. Rounds more than 4 s apart would count as outages, and no expired lease would ever be released
(ENGINE 4)."""


def retention_of(agent: ResolvedAgent) -> Retention:
    """Return the retention of the agent's queue."""
    return Retention(dead_s=agent.retention.dead_seconds, history_s=agent.retention.completed_seconds)


class Housekeeper:
    """Runs the housekeeping of the queues of one server.

    It is independent of the loops that read the queues: those may wait for an API server, or fail.

    Args:
        queues: returns the queues, or None while there is no server.
        on_result: called with the result of each round that released jobs or skipped work.
        may_act: returns whether the process may write now.
    """

    def __init__(
        self,
        queues: Callable[[], Queues | None],
        on_result: Callable[[HousekeepingResult], None],
        *,
        may_act: Callable[[], bool] = lambda: True,
    ) -> None:
        self._queues = queues
        self._on_result = on_result
        self._may_act = may_act
        self.retentions: Mapping[str, Retention] = {}
        """Retention by queue, for each queue to look after."""

    async def run(self) -> None:
        """Run rounds until cancelled."""
        while True:
            server = self._queues()
            if server is not None and self.retentions and self._may_act():
                try:
                    result = await server.run_housekeeping(self.retentions)
                except AgentQueueError:
                    result = HousekeepingResult()  # The loop that reads the queues reports the problem.
                if result.released or result.skipped:
                    self._on_result(result)
            await asyncio.sleep(EVERY_S)
