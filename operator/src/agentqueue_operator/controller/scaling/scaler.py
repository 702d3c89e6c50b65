"""Scaling of one AgentQueue's agents on a cluster: read the queues, decide, and carry out the scale-in."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from agentqueue.clock import now_ms
from agentqueue.errors import AgentQueueError
from agentqueue.model.times import from_ms
from agentqueue.spec import LastScale, ResolvedAgent, ResolvedQueue
from agentqueue.spec.defaults import ScalingMode
from agentqueue_operator.autoscaling.decision_record import Owner
from agentqueue_operator.autoscaling.model import DEFAULT_TIMING, Decision, ScaleTo, ScalingTiming
from agentqueue_operator.autoscaling.policy import policy_of
from agentqueue_operator.autoscaling.removal import RequestDrain
from agentqueue_operator.controller.ports import AgentPods, Cluster, Scaled
from agentqueue_operator.controller.scaling.agent_history import AgentHistory, AgentView
from agentqueue_operator.controller.scaling.drain_handshake import Handshake, HandshakeResult
from agentqueue_operator.controller.scaling.lease_recovery import LeaseRecovery
from agentqueue_operator.controller.scaling.registrations import RegistrationObserver
from agentqueue_operator.controller.scaling.scale_in import (
    SETTLE_S,
    Action,
    CancelRemoval,
    ScaleDown,
    SetDeletionCost,
    WorkerPod,
    plan_scale_in,
)
from agentqueue_operator.queues.decision_publisher import Publisher
from agentqueue_operator.queues.ports import Queues

if TYPE_CHECKING:
    from agentqueue_operator.autoscaling.queue_metrics import QueueMetrics

OnDecision = Callable[[str, Decision], None]
"""Called with each decision for an agent, so that metrics can count it by its reason."""
ANSWER_POLL_S: Final = 1.0
"""Interval in seconds between reconciles while marked workers are about to confirm. They renew leases every 2 s."""
ANSWER_POLL_FOR_S: Final = 10.0
"""Time in seconds after which a worker that has not confirmed its mark is polled with the regular reconciles only."""
START_MARGIN_S: Final = 0.05
"""Time in seconds that is added before a reconcile for a delayed job, so that the job then counts as due soon."""
LOWER_WITHIN_S: Final = 20.0
"""Time in seconds after a read within which replicas may be lowered. Drain marks expire 60 s after the read, and the
write itself takes part of that time."""
MARKS_KEPT_S: Final = 60.0
"""Lifetime of a drain mark in seconds. Without an operator for this long, marked workers claim jobs again; otherwise a
queue whose workers are all marked would stand still."""
_NO_PODS: Final = AgentPods(deployment=None)


class QueueScaler:
    """`controller.ports.Scaler` of one AgentQueue.

    Nothing essential is held in memory only: drain marks are in Redis, deletion costs on the pods, and the number of
    pods in the Deployment. After a restart the rates are learned again, and no pod is removed during that time.

    Args:
        cluster: the Kubernetes API.
        on_decision: called with each decision.
        now: wall clock, with which the creation times of pods are compared.
        timing: durations to wait before pods are removed.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        on_decision: OnDecision = lambda agent, decision: None,  # noqa: ARG005
        now: Callable[[], datetime] = lambda: from_ms(now_ms()),
        timing: ScalingTiming = DEFAULT_TIMING,
    ) -> None:
        self._on_decision = on_decision
        self._now = now
        self._timing = timing
        self._agents: dict[str, AgentHistory] = {}
        self._lease_recovery = LeaseRecovery()
        self._publisher = Publisher("operator")
        self._handshake = Handshake(cluster)
        self._registrations = RegistrationObserver(cluster)

    async def scale(
        self, queue: ResolvedQueue, agents: Mapping[str, AgentPods], *, queues: Queues | None, at: float
    ) -> Mapping[str, Scaled]:
        """Scale all agents once; see `Scaler`."""
        self._agents = {
            agent.name: self._agents.get(agent.name) or AgentHistory(self._timing) for agent in queue.agents
        }
        agents = self._handshake.refresh(agents)
        metrics: Mapping[str, QueueMetrics] = {}
        if queues is not None:
            horizons_s = {agent.queue_name: self._agents[agent.name].observer.startup_s for agent in queue.agents}
            with suppress(
                AgentQueueError
            ):  # The decision has the reason MetricsMissing; the connection reports the error.
                metrics = await queues.read(horizons_s)
        registrations = await self._registrations.observe(queue, agents, metrics, queues)
        scaled: dict[str, Scaled] = {}
        decisions: dict[str, Decision] = {}
        for agent in queue.agents:
            history, policy = self._agents[agent.name], policy_of(agent, suspended=queue.suspend)
            view = history.observe(agents.get(agent.name, _NO_PODS), metrics.get(agent.queue_name), at=at)
            registration = registrations[agent.name]
            decision = history.decide(
                view,
                policy,
                at=at,
                now=self._now(),
                has_server=queues is not None,
                registering=registration.registering,
            )
            self._on_decision(agent.name, decision)
            decisions[agent.queue_name] = decision
            carried_out = await self._carry_out(agent, view, decision, queues, at)
            scaled[agent.name] = replace(carried_out, registered_jobs=registration.jobs)
        self._publisher.owner = Owner(f"{queue.namespace}/{queue.name}", queue.uid or "")
        if queues is not None:
            await self._publisher.publish(queues, decisions, at=at)
        others = {agent.name: self._publisher.shares_with(agent.queue_name, at=at) for agent in queue.agents}
        return {name: replace(one, shared_with=others[name]) for name, one in scaled.items()}

    async def release_leases(
        self, queue: ResolvedQueue, agents: Mapping[str, AgentPods], *, queues: Queues
    ) -> Iterable[str]:
        """Release the leases of crashed worker containers; see `Scaler`."""
        pods = {agent.queue_name: agents[agent.name].pods for agent in queue.agents if agent.name in agents}
        return await self._lease_recovery.release_leases(pods, queues)

    async def _carry_out(
        self, agent: ResolvedAgent, view: AgentView, decision: Decision, queues: Queues | None, at: float
    ) -> Scaled:
        pods: Sequence[WorkerPod] = ()
        actions: Sequence[Action] = ()
        result = HandshakeResult()
        if queues is not None and view.metrics is not None and view.is_observed:
            pods = self._agents[agent.name].worker_pods(view, view.metrics, at=at)
            actions = _plan(pods, view, decision)
            # A suspended AgentQueue stays suspended without an operator: its users want no job to start.
            keep_s = None if decision.terms.policy.suspended else MARKS_KEPT_S
            with suppress(AgentQueueError):  # Replicas are not lowered then, and the next reconcile plans again.
                result = await self._handshake.carry_out(agent.queue_name, view, actions, queues, keep_s)
        replicas: int | None = None  # In mode External, others set the number.
        if decision.terms.policy.mode is not ScalingMode.EXTERNAL:
            # More pods are requested at once, fewer only when victims may be removed.
            wanted = max(view.current, _wanted(view, decision))
            replicas = wanted if result.replicas is None else result.replicas
        last_scale = None
        if replicas is not None and replicas != view.current:
            last_scale = LastScale(time=self._now(), from_=view.current, to=replicas, reason=decision.reason)
        return Scaled(
            replicas=replicas,
            decision=decision,
            metrics=view.metrics,
            draining=view.leaving + sum(pod.marked_s is not None for pod in pods),
            unschedulable=decision.terms.snapshot.pods.unschedulable,
            last_scale=last_scale,
            requeue_after_s=_requeue_after_s(view, decision, pods, actions, result),
            error=result.trouble,
            lowered_on=result.deployment if result.replicas is not None else None,
            lower_deadline=at + LOWER_WITHIN_S,
        )


def _wanted(view: AgentView, decision: Decision) -> int:
    return decision.replicas if isinstance(decision, ScaleTo) else view.current


def _plan(pods: Sequence[WorkerPod], view: AgentView, decision: Decision) -> tuple[Action, ...]:
    """Return the actions on the pods. In mode External, suspended workers only stop claiming jobs."""
    terms = decision.terms
    if terms.policy.mode is not ScalingMode.EXTERNAL:
        wanted, rolling_out = _wanted(view, decision), terms.snapshot.pods.rolling_out
        return plan_scale_in(pods, wanted=wanted, current=view.current, rolling_out=rolling_out)
    if terms.policy.suspended:
        return tuple(RequestDrain(pod.name) for pod in pods if pod.marked_s is None)
    return plan_scale_in(pods, wanted=len(pods), current=len(pods))


def _requeue_after_s(
    view: AgentView,
    decision: Decision,
    pods: Iterable[WorkerPod],
    actions: Sequence[Action],
    result: HandshakeResult,
) -> float | None:
    """Return the time in seconds until the next step may be due; None if the ordinary period is soon enough.

    That is a step of a scale-in, or the time at which a pod must be requested for the next delayed job.
    """
    # The controllers have to catch up before the next step.
    if not view.is_observed and _wanted(view, decision) < view.current:
        return SETTLE_S
    if any(isinstance(action, SetDeletionCost) for action in actions):
        return SETTLE_S
    if result.replicas is None and any(isinstance(action, ScaleDown | CancelRemoval) for action in actions):
        return SETTLE_S
    # Workers have to confirm their marks.
    if any(isinstance(action, RequestDrain) for action in actions):
        return ANSWER_POLL_S
    if any(pod.marked_s is not None and pod.marked_s < ANSWER_POLL_FOR_S for pod in pods):
        return ANSWER_POLL_S
    due_s = None if view.metrics is None else view.metrics.next_due_s
    until_start_s = -1.0 if due_s is None else due_s - decision.terms.snapshot.rates.startup.total_seconds()
    return until_start_s + START_MARGIN_S if until_start_s >= 0 else None
