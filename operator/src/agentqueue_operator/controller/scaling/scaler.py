"""Scaling of one AgentQueue's agents on a cluster: look, decide, mark and annotate; what to render comes back."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Final

from agentqueue.clock import now_ms
from agentqueue.errors import AgentQueueError
from agentqueue.model.times import from_ms
from agentqueue.spec import LastScale, ResolvedAgent, ResolvedQueue
from agentqueue.spec.defaults import ScalingMode
from agentqueue_operator.autoscaling.decision_record import Owner
from agentqueue_operator.autoscaling.model import DEFAULT_TIMING, Decision, ScaleTo, ScalingTiming
from agentqueue_operator.autoscaling.policy import policy_of
from agentqueue_operator.controller.ports import AgentPods, Cluster, Scaled
from agentqueue_operator.controller.scaling.agent_history import AgentMemory, View
from agentqueue_operator.controller.scaling.drain_handshake import Done, Handshake
from agentqueue_operator.controller.scaling.lease_recovery import Burials
from agentqueue_operator.controller.scaling.scale_in import (
    SETTLE_S,
    Action,
    Lower,
    Mark,
    SetCost,
    TakeBack,
    WorkerPod,
    plan_scale_in,
)
from agentqueue_operator.queues.decision_publisher import Publisher
from agentqueue_operator.queues.ports import Look, Queues

Decided = Callable[[str, Decision], None]
"""Told of each pass's decision for an agent: metrics count it by its reason."""
ASK_AGAIN_S: Final = 1.0
"""Between passes while marked workers are about to answer: they renew every 2 s."""
ANSWERS_S: Final = 10.0
"""One that has not answered by then, or still works, is asked with the ordinary passes."""
LOWER_WITHIN_S: Final = 20.0
"""After a look, replicas are lowered within this time or not at all: marks are kept for 60 s from then on, of which the
write itself may take some."""


class QueueScaler:
    """`app.cluster.ports.Scaler` of one AgentQueue.

    Nothing that matters is remembered here only: marks are in Redis, annotations on the pods, the number in the
    Deployment. After a restart rates are learned anew, and for that time nothing goes (`domain.scaling`).
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        decided: Decided = lambda agent, decision: None,  # noqa: ARG005
        now: Callable[[], datetime] = lambda: from_ms(now_ms()),
        timing: ScalingTiming = DEFAULT_TIMING,
    ) -> None:
        self._timing = timing
        self._decided = decided
        self._now = now
        self._agents: dict[str, AgentMemory] = {}
        self._burials = Burials()
        self._publisher = Publisher("operator")
        self._handshake = Handshake(cluster)

    async def scale(
        self, queue: ResolvedQueue, agents: Mapping[str, AgentPods], *, queues: Queues | None, at: float
    ) -> Mapping[str, Scaled]:
        """One pass; see `Scaler`."""
        self._agents = {agent.name: self._agents.get(agent.name) or AgentMemory(self._timing) for agent in queue.agents}
        agents = self._handshake.refresh(agents)
        looks = await self._look(queue, queues)
        scaled: dict[str, Scaled] = {}
        decisions: dict[str, Decision] = {}
        for agent in queue.agents:
            memory, policy = self._agents[agent.name], policy_of(agent, suspended=queue.suspend)
            view = memory.see(agents.get(agent.name, _NOTHING), looks.get(agent.queue_name), at=at)
            decision = memory.decide(view, policy, at=at, now=self._now(), is_reachable=queues is not None)
            self._decided(agent.name, decision)
            decisions[agent.queue_name] = decision
            scaled[agent.name] = await self._carry_out(agent, view, decision, queues, at)
        self._publisher.owner = Owner(f"{queue.namespace}/{queue.name}", queue.uid or "")
        if queues is not None:
            await self._publisher.publish(queues, decisions, at=at)
        others = {agent.name: self._publisher.shares_with(agent.queue_name, at=at) for agent in queue.agents}
        return {name: replace(one, shared_with=others[name]) for name, one in scaled.items()}

    async def bury(self, queue: ResolvedQueue, agents: Mapping[str, AgentPods], *, queues: Queues) -> Iterable[str]:
        """Give back what dead worker containers held; see `Scaler`."""
        pods = {agent.queue_name: agents[agent.name].pods for agent in queue.agents if agent.name in agents}
        return await self._burials.bury(pods, queues)

    async def _look(self, queue: ResolvedQueue, queues: Queues | None) -> Mapping[str, Look]:
        """All queues in one round trip; none if Redis does not answer."""
        if queues is None:
            return {}
        try:
            return await queues.look({a.queue_name: self._agents[a.name].horizon_s for a in queue.agents})
        except AgentQueueError:  # the decision says so, and the dial tells why
            return {}

    async def _carry_out(
        self, agent: ResolvedAgent, view: View, decision: Decision, queues: Queues | None, at: float
    ) -> Scaled:
        pods: Sequence[WorkerPod] = ()
        actions: Sequence[Action] = ()
        done = Done()
        if queues is not None and view.look is not None and view.is_observed:
            pods = self._agents[agent.name].worker_pods(view, view.look, at=at)
            actions = _actions(pods, view, decision)
            with suppress(AgentQueueError):  # nothing is lowered then, and the next look plans it again
                done = await self._handshake.carry_out(agent.queue_name, view, actions, queues, _kept_s(decision))
        replicas = _replicas(view, decision, done)
        return Scaled(
            replicas=replicas,
            decision=decision,
            look=view.look,
            draining=view.leaving + sum(pod.marked_s is not None for pod in pods),
            unschedulable=decision.terms.snapshot.pods.unschedulable,
            last_scale=self._change(view, replicas, decision),
            requeue_after_s=_requeue_after_s(view, decision, pods, actions, done),
            trouble=done.trouble,
            lowered_from=done.deployment if done.replicas is not None else None,
            lower_before=at + LOWER_WITHIN_S,
        )

    def _change(self, view: View, replicas: int | None, decision: Decision) -> LastScale | None:
        if replicas is None or replicas == view.current:
            return None
        return LastScale(time=self._now(), from_=view.current, to=replicas, reason=decision.reason)


_NOTHING: Final = AgentPods(deployment=None)
MARKS_KEPT_S: Final = 60.0
"""Without an operator for so long, marked workers go on: a queue whose workers were all to go would stand still."""


def _kept_s(decision: Decision) -> float | None:
    """A suspended AgentQueue stays so: its users have said that no job shall start."""
    return None if decision.terms.policy.suspended else MARKS_KEPT_S


def _wanted(view: View, decision: Decision) -> int:
    return decision.replicas if isinstance(decision, ScaleTo) else view.current


def _actions(pods: Sequence[WorkerPod], view: View, decision: Decision) -> tuple[Action, ...]:
    """What to do to the pods. Where somebody else sets the number, suspended workers are only told to claim no more."""
    terms = decision.terms
    if terms.policy.mode is not ScalingMode.EXTERNAL:
        wanted, rolling_out = _wanted(view, decision), terms.snapshot.pods.rolling_out
        return plan_scale_in(pods, wanted=wanted, current=view.current, rolling_out=rolling_out)
    if terms.policy.suspended:
        return tuple(Mark(pod.name) for pod in pods if pod.marked_s is None)
    return plan_scale_in(pods, wanted=len(pods), current=len(pods))


def _replicas(view: View, decision: Decision, done: Done) -> int | None:
    """What to render: more at once, fewer only as victims may go."""
    if decision.terms.policy.mode is ScalingMode.EXTERNAL:
        return None
    return max(view.current, _wanted(view, decision)) if done.replicas is None else done.replicas


def _requeue_after_s(
    view: View, decision: Decision, pods: Iterable[WorkerPod], actions: Iterable[Action], done: Done
) -> float | None:
    """When the next step of a scale-in may be due."""
    if not view.is_observed and _wanted(view, decision) < view.current:
        return SETTLE_S
    waits = done.replicas is None and any(isinstance(action, Lower | TakeBack) for action in actions)
    if waits or any(isinstance(action, SetCost) for action in actions):
        return SETTLE_S
    asked = any(pod.marked_s is not None and pod.marked_s < ANSWERS_S for pod in pods)
    return ASK_AGAIN_S if asked or any(isinstance(action, Mark) for action in actions) else None
