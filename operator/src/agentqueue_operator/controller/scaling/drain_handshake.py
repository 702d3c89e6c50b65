"""Carries out what `domain.drain` plans for an agent's pods, in an order in which no pod works while it may be removed.

Costs and numbers are written by the leader alone, so what the API server has answered is the truth about them. Its
watches may lag, and so may the controllers': that they have caught up is asked for, never waited for by time.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Final

from agentqueue_operator.controller.ports import AgentPods, ApiRefused, ApiUnavailable, Cluster
from agentqueue_operator.controller.scaling.agent_history import View
from agentqueue_operator.controller.scaling.scale_in import Action, Lower, Mark, SetCost, TakeBack
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
from agentqueue_operator.resources.plan import newer

CALLS: Final = 10
"""Pods asked for or patched at the same time."""
PASSING: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT})
"""The pod is gone, or has changed: the next pass sees how it is."""


@dataclass(slots=True)
class Done:
    """Result of one pass over an agent's pods: its changes, and the objects it read from the API server for them."""

    trouble: str = ""
    """Why a pod could not be annotated, or an object not be read."""
    replicas: int | None = None
    """The number to lower to."""
    deployment: Object | None = None
    replica_sets: Sequence[Object] = ()
    pods: Mapping[str, Object] = field(default_factory=dict)
    """By name, as new as their cost can be."""
    has_settled: bool = False
    """Nothing is left to be removed for an earlier change of replicas."""

    def may_lower(self, view: View) -> bool:
        """Return whether the ReplicaSet would choose by what was planned with. In a rollout to zero, it takes all."""
        if self.deployment is None:
            return False
        if view.is_split:
            return counted_pods(self.deployment) == len(view.living) and replicas_of(self.deployment) == view.current
        return has_seen(self.deployment, self.replica_sets, [*self.pods.values()], current=view.current)


class Handshake:
    """Of one AgentQueue's agents."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._turns = asyncio.Semaphore(CALLS)
        self._known: dict[str, Object] = {}
        """By uid: pods as the API server has answered, since its patches show in the cache later."""

    def refresh(self, agents: Mapping[str, AgentPods]) -> Mapping[str, AgentPods]:
        """Return the agents with each pod as new as it is known; pods that are gone are forgotten."""
        present = {pod["metadata"]["uid"] for agent in agents.values() for pod in agent.pods}
        self._known = {uid: pod for uid, pod in self._known.items() if uid in present}
        return {name: replace(agent, pods=[*map(self._newest, agent.pods)]) for name, agent in agents.items()}

    async def carry_out(
        self, queue: str, view: View, actions: Sequence[Action], queues: Queues, keep_s: float | None
    ) -> Done:
        """Mark, annotate and take back. A pod that can't be annotated stays as it is, and the others go on.

        Raises:
            QueueUnavailable: Redis took no mark; nothing may be lowered.
            NotLeading: another replica leads.
        """
        await self._mark(queue, view, actions, queues, keep_s)
        done, wanted = Done(), [action for action in actions if not isinstance(action, Mark)]
        if not wanted:
            return done
        await self._observe(view, done)
        if not done.has_settled:
            return done
        back = {action.pod: action for action in wanted if isinstance(action, TakeBack)}
        bearing = [pod for pod in back if has_low_cost(done.pods[pod])]
        free = await self._present([done.pods[pod] for pod in back.keys() - bearing], done)
        if has_seen_costs(done.replica_sets, [*done.pods.values()]):
            free |= await self._change_costs(bearing, wanted, done)
            if not back:
                lower = next((action for action in wanted if isinstance(action, Lower)), None)
                is_still = not any(isinstance(action, SetCost) for action in wanted)
                done.replicas = lower.replicas if lower and is_still and done.may_lower(view) else None
        for pod in sorted(free):
            if not back[pod].keep_mark:
                # A replica that was frozen in this pass may not lead any more: the next one relies on the mark.
                self._cluster.check_leads()
                await queues.mark(queue, pod, drain=False)
        return done

    async def _mark(
        self, queue: str, view: View, actions: Iterable[Action], queues: Queues, keep_s: float | None
    ) -> None:
        for action in actions:
            if isinstance(action, Mark):
                await queues.mark(queue, action.pod, drain=True, keep_s=keep_s)
        for worker in view.orphans:
            self._cluster.check_leads()
            await queues.mark(queue, worker, drain=False)
        if view.look is not None and view.look.marked:
            await queues.keep_marks(queue, keep_s)

    async def _observe(self, view: View, done: Done) -> None:
        """Ask the API server what the controllers have carried out and seen. Each pod is asked for once: from then on
        our own patches' answers are as new as its cost can be."""
        if view.deployment is None:
            return
        namespace, name = view.deployment["metadata"]["namespace"], view.deployment["metadata"]["name"]
        await self._present([pod for pod in view.living if pod["metadata"]["uid"] not in self._known], done)
        try:
            done.deployment = await self._cluster.get(DEPLOYMENT, namespace, name)
            found = [await self._cluster.get(REPLICA_SET, namespace, owner) for owner in replica_sets_of(view.living)]
        except (ApiRefused, ApiUnavailable) as error:
            done.trouble = str(error)
            return
        done.pods = {pod["metadata"]["name"]: self._newest(pod) for pod in view.living}
        are_known = all(pod["metadata"]["uid"] in self._known and not is_leaving(pod) for pod in done.pods.values())
        done.has_settled = are_known and has_settled(done.deployment, found)
        done.replica_sets = [one for one in found if one is not None]

    async def _change_costs(self, bearing: Sequence[str], wanted: Iterable[Action], done: Done) -> frozenset[str]:
        """In one direction at a time; see `has_seen_costs`. Returns the pods whose cost was taken back."""
        if bearing:
            return await self._patch({pod: without_low_cost(done.pods[pod]) for pod in bearing}, done)
        going = [action.pod for action in wanted if isinstance(action, SetCost)]
        await self._patch({pod: with_low_cost(done.pods[pod]) for pod in going}, done)
        return frozenset()

    async def _patch(self, changes: Mapping[str, Object], done: Done) -> frozenset[str]:
        """Patch pods. Returns those that are as they should be now, and do not terminate."""

        async def one(pod: str, change: Object) -> Object | None:
            meta = done.pods[pod]["metadata"]
            return await self._cluster.patch(POD, meta["namespace"], pod, change)

        calls = [self._answer(done.pods[pod], one(pod, change), done) for pod, change in changes.items()]
        return frozenset(filter(None, await asyncio.gather(*calls)))

    async def _present(self, pods: Iterable[Object], done: Done) -> frozenset[str]:
        """Return those that do not terminate: the cache may not show it yet."""

        async def one(pod: Object) -> Object | None:
            return await self._cluster.get(POD, pod["metadata"]["namespace"], pod["metadata"]["name"])

        return frozenset(filter(None, await asyncio.gather(*(self._answer(pod, one(pod), done) for pod in pods))))

    async def _answer(self, pod: Object, call: Awaitable[Object | None], done: Done) -> str | None:
        """Keep what the API server answers about a pod. Returns the pod's name unless it terminates or is gone."""
        uid = pod["metadata"]["uid"]
        self._known.pop(uid, None)
        try:
            async with self._turns:
                live = await call
        except (ApiRefused, ApiUnavailable) as error:
            if not (isinstance(error, ApiRefused) and error.status in PASSING):
                done.trouble = str(error)
            return None
        if live is None or live["metadata"]["uid"] != uid:
            return None
        self._known[uid] = live
        return None if is_leaving(live) else str(live["metadata"]["name"])

    def _newest(self, pod: Object) -> Object:
        known = self._known.get(pod["metadata"]["uid"], pod)
        return known if newer(known, pod) else pod
