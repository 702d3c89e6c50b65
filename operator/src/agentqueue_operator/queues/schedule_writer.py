"""Writes the schedules of a resource to its queues, for both hosts."""

from collections.abc import Iterable, Mapping, Sequence

from agentqueue.errors import AgentQueueError
from agentqueue.model.schedule import Schedule
from agentqueue_operator.queues.ports import Queues


class ScheduleWriter:
    """Keeps the schedules of the queues as the resource has them.

    Queues with schedules are compared in each round, since Redis may have been replaced by an empty one. The schedules
    of the others are removed once.
    """

    def __init__(self) -> None:
        self._cleared: set[str] = set()
        """Queues that have no schedules of the resource any more."""
        self._left: set[str] = set()
        """Queues that no agent has any more, and whose schedules are not removed yet."""

    async def write(
        self, queues: Queues, schedules: Mapping[str, Sequence[Schedule]], *, left: Iterable[str] = ()
    ) -> None:
        """Write the schedules.

        Args:
            queues: the server.
            schedules: schedules of the resource by queue. A queue without schedules has an empty list.
            left: queues that an agent had until now.

        Raises:
            QueueUnavailable: the server does not answer. The next round writes what is missing.
        """
        self._left = (self._left | set(left)) - schedules.keys()
        self._cleared &= schedules.keys()
        for queue in sorted(self._left):
            await queues.put_schedules(queue, ())
            self._left.discard(queue)
        for queue, wanted in schedules.items():
            if wanted:
                self._cleared.discard(queue)
            elif queue in self._cleared:
                continue
            await queues.put_schedules(queue, wanted)
            if not wanted:
                self._cleared.add(queue)

    async def remove_all(self, queues: Queues, names: Iterable[str]) -> None:
        """Remove the schedules of these queues, whose resource is gone, as far as the server answers."""
        for queue in names:
            try:
                await queues.put_schedules(queue, ())
            except AgentQueueError:
                return
