"""Execution of a scale-in plan, in an order in which no pod runs a job while it may be removed.

Only the leader writes deletion costs and replicas, so the answers of the API server are authoritative for them. Watches
may lag, those of the controllers too: the code asks whether they have caught up and never relies on elapsed time.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Final

from agentqueue_operator.autoscaling.removal import RequestDrain
from agentqueue_operator.controller.ports import AgentPods, ApiRefused, ApiUnavailable, Cluster
from agentqueue_operator.controller.scaling.agent_history import AgentView
from agentqueue_operator.controller.scaling.scale_in import Action, CancelRemoval, ScaleDown, SetDeletionCost
from agentqueue_operator.controller.scaling.worker_pods import (
    counted_pods,
    has_low_cost,
    has_seen,
    has_seen_costs,
    has_settled,
    is_leaving,
    replica_sets_of,
    replicas_of,
    with_low_cost,
    without_low_cost,
)
from agentqueue_operator.queues.ports import Queues
from agentqueue_operator.resources.kinds import DEPLOYMENT, POD, REPLICA_SET, Object
from agentqueue_operator.resources.plan import is_newer

CALLS: Final = 10
"""Concurrent requests to the API server, so that a large scale-in does not exhaust its request limits."""
TRANSIENT: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT})
"""Status codes for a pod that is gone or has changed. The next reconcile sees its new state."""


@dataclass(slots=True)
class HandshakeResult:
    """Changes of one reconcile to an agent's pods, and the objects that were read from the API server for them."""

    trouble: str = ""
    """Error that prevented the annotation of a pod, or the read of an object; empty if none did."""
    replicas: int | None = None
    """Number of replicas to lower to; None to leave it."""
    deployment: Object | None = None
    replica_sets: Sequence[Object] = ()
    pods: Mapping[str, Object] = field(default_factory=dict)
    """By name, with the newest known deletion cost."""
    has_settled: bool = False
    """No pod is left to be removed for an earlier change of replicas."""

    def may_lower(self, view: AgentView) -> bool:
        """Return whether the ReplicaSet would choose its victims by the state that the plan is based on.

        In a rollout to zero it removes all pods, so there is no choice.
        """
        if self.deployment is None:
            return False
        if view.is_split:
            return counted_pods(self.deployment) == len(view.living) and replicas_of(self.deployment) == view.current
        return has_seen(self.deployment, self.replica_sets, [*self.pods.values()], current=view.current)


class Handshake:
    """Carries out scale-in plans for the agents of one AgentQueue."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._limit = asyncio.Semaphore(CALLS)
        self._known: dict[str, Object] = {}
        """Pods by UID as the API server has returned them, because the cache shows patches later."""

    def refresh(self, agents: Mapping[str, AgentPods]) -> Mapping[str, AgentPods]:
        """Return the agents with the newest known version of each pod. Pods that are gone are forgotten."""
        present = {pod["metadata"]["uid"] for agent in agents.values() for pod in agent.pods}
        self._known = {uid: pod for uid, pod in self._known.items() if uid in present}
        return {name: replace(agent, pods=[*map(self._newest, agent.pods)]) for name, agent in agents.items()}

    async def carry_out(
        self, queue: str, view: AgentView, actions: Sequence[Action], queues: Queues, keep_s: float | None
    ) -> HandshakeResult:
        """Carry out the actions. A pod that cannot be annotated stays unchanged and does not affect the others.

        Args:
            queue: name of the agent's queue.
            view: the pods that the plan is based on.
            actions: the plan.
            queues: the server with the drain marks.
            keep_s: lifetime of the drain marks in seconds; None for marks that stay.

        Raises:
            QueueUnavailable: Redis did not accept a mark, so replicas must not be lowered.
            NotLeading: another replica of the operator leads.
        """
        await self._mark(queue, view, actions, queues, keep_s)
        result, wanted = HandshakeResult(), [action for action in actions if not isinstance(action, RequestDrain)]
        if not wanted:
            return result
        await self._observe(view, result)
        if not result.has_settled:
            return result
        back = {action.worker: action for action in wanted if isinstance(action, CancelRemoval)}
        bearing = [pod for pod in back if has_low_cost(result.pods[pod])]
        free = await self._present([result.pods[pod] for pod in back.keys() - bearing], result)
        if has_seen_costs(result.replica_sets, [*result.pods.values()]):
            free |= await self._change_costs(bearing, wanted, result)
            if not back:
                lower = next((action for action in wanted if isinstance(action, ScaleDown)), None)
                is_still = not any(isinstance(action, SetDeletionCost) for action in wanted)
                result.replicas = lower.replicas if lower and is_still and result.may_lower(view) else None
        for pod in sorted(free):
            if not back[pod].keep_mark:
                # A frozen operator may no longer lead, and the next leader relies on the mark.
                self._cluster.check_leads()
                await queues.mark(queue, pod, drain=False)
        return result

    async def _mark(
        self, queue: str, view: AgentView, actions: Iterable[Action], queues: Queues, keep_s: float | None
    ) -> None:
        for action in actions:
            if isinstance(action, RequestDrain):
                await queues.mark(queue, action.worker, drain=True, keep_s=keep_s)
        for worker in view.orphans:
            self._cluster.check_leads()
            await queues.mark(queue, worker, drain=False)
        if view.metrics is not None and view.metrics.marked:
            await queues.keep_marks(queue, keep_s)

    async def _observe(self, view: AgentView, result: HandshakeResult) -> None:
        """Read from the API server which changes the controllers have carried out and observed.

        Each pod is read once. After that, the answers to our own patches contain its newest deletion cost.
        """
        if view.deployment is None:
            return
        namespace, name = view.deployment["metadata"]["namespace"], view.deployment["metadata"]["name"]
        await self._present([pod for pod in view.living if pod["metadata"]["uid"] not in self._known], result)
        try:
            result.deployment = await self._cluster.get(DEPLOYMENT, namespace, name)
            found = [await self._cluster.get(REPLICA_SET, namespace, owner) for owner in replica_sets_of(view.living)]
        except (ApiRefused, ApiUnavailable) as error:
            result.trouble = str(error)
            return
        result.pods = {pod["metadata"]["name"]: self._newest(pod) for pod in view.living}
        are_known = all(pod["metadata"]["uid"] in self._known and not is_leaving(pod) for pod in result.pods.values())
        result.has_settled = are_known and has_settled(result.deployment, found)
        result.replica_sets = [one for one in found if one is not None]

    async def _change_costs(
        self, bearing: Sequence[str], wanted: Iterable[Action], result: HandshakeResult
    ) -> frozenset[str]:
        """Change costs in one direction at a time; see `has_seen_costs`. Return the pods whose cost was removed."""
        if bearing:
            return await self._patch({pod: without_low_cost(result.pods[pod]) for pod in bearing}, result)
        going = [action.worker for action in wanted if isinstance(action, SetDeletionCost)]
        await self._patch({pod: with_low_cost(result.pods[pod]) for pod in going}, result)
        return frozenset()

    async def _patch(self, changes: Mapping[str, Object], result: HandshakeResult) -> frozenset[str]:
        """Patch pods. Return the names of those that were patched and do not terminate."""

        async def one(pod: str, change: Object) -> Object | None:
            meta = result.pods[pod]["metadata"]
            return await self._cluster.patch(POD, meta["namespace"], pod, change)

        calls = [self._answer(result.pods[pod], one(pod, change), result) for pod, change in changes.items()]
        return frozenset(filter(None, await asyncio.gather(*calls)))

    async def _present(self, pods: Iterable[Object], result: HandshakeResult) -> frozenset[str]:
        """Return the names of the pods that do not terminate. The cache may not show a termination yet."""

        async def one(pod: Object) -> Object | None:
            return await self._cluster.get(POD, pod["metadata"]["namespace"], pod["metadata"]["name"])

        return frozenset(filter(None, await asyncio.gather(*(self._answer(pod, one(pod), result) for pod in pods))))

    async def _answer(self, pod: Object, call: Awaitable[Object | None], result: HandshakeResult) -> str | None:
        """Remember the answer of the API server about a pod. Return its name unless it terminates or is gone."""
        uid = pod["metadata"]["uid"]
        self._known.pop(uid, None)
        try:
            async with self._limit:
                live = await call
        except (ApiRefused, ApiUnavailable) as error:
            if not (isinstance(error, ApiRefused) and error.status in TRANSIENT):
                result.trouble = str(error)
            return None
        if live is None or live["metadata"]["uid"] != uid:
            return None
        self._known[uid] = live
        return None if is_leaving(live) else str(live["metadata"]["name"])

    def _newest(self, pod: Object) -> Object:
        known = self._known.get(pod["metadata"]["uid"], pod)
        return known if is_newer(known, pod) else pod
