"""Release of the leases of crashed worker containers, without waiting until the leases expire (rule 4)."""

from collections.abc import Mapping, Sequence

from agentqueue.errors import AgentQueueError
from agentqueue_operator.controller.scaling.crashed_workers import crash_of
from agentqueue_operator.queues.ports import Queues, WorkerCrash
from agentqueue_operator.resources.kinds import Object


class LeaseRecovery:
    """Handles each crash once. After a restart of the operator old crashes are seen again, but they hold no leases."""

    def __init__(self) -> None:
        self._done: set[WorkerCrash] = set()

    async def release_leases(self, pods: Mapping[str, Sequence[Object]], queues: Queues) -> list[str]:
        """Release the leases of the crashed containers in these pods. Return the names of their workers.

        A crash that Redis does not accept now is handled in a later reconcile, while the pod still shows it.

        Args:
            pods: by queue.
            queues: the server.
        """
        crashes = {crash: queue for queue, own in pods.items() for pod in own if (crash := crash_of(pod)) is not None}
        self._done &= crashes.keys()
        workers = []
        for crash, queue in crashes.items():
            if crash in self._done:
                continue
            try:
                await queues.release_leases_of_container(queue, crash)
            except AgentQueueError:
                break
            self._done.add(crash)
            workers.append(crash.worker)
        return workers
