"""Hands back at once what dead worker containers held, instead of when their leases have run out (rule 4)."""

from collections.abc import Mapping, Sequence

from agentqueue.errors import AgentQueueError
from agentqueue_operator.controller.scaling.crashed_workers import death_of
from agentqueue_operator.queues.ports import Death, Queues
from agentqueue_operator.resources.kinds import Object


class Burials:
    """Each death once. After a restart of the operator old ones are met again, and nothing is held by them any more."""

    def __init__(self) -> None:
        self._done: set[Death] = set()

    async def bury(self, pods: Mapping[str, Sequence[Object]], queues: Queues) -> list[str]:
        """Deal with the deaths that the pods (by queue) tell of. Returns the workers.

        What Redis does not take now is tried again in the next pass, for as long as the pod tells of it.
        """
        deaths = {death: queue for queue, own in pods.items() for pod in own if (death := death_of(pod)) is not None}
        self._done &= deaths.keys()
        buried = []
        for death, queue in deaths.items():
            if death in self._done:
                continue
            try:
                await queues.bury_container(queue, death)
            except AgentQueueError:
                break
            self._done.add(death)
            buried.append(death.worker)
        return buried
