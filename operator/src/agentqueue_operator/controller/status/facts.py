"""Collects the facts for the status from the objects that a reconcile observed and from its results. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentqueue.model.wording import counted
from agentqueue.spec import ResolvedAgent, ResolvedQueue, ScalingMode
from agentqueue_operator.autoscaling.model import Load
from agentqueue_operator.controller.ports import Scaled
from agentqueue_operator.controller.status.conditions import AgentFacts
from agentqueue_operator.controller.status.pod_problems import problem_of, ready_count
from agentqueue_operator.controller.status.reasons import Problem, Reason
from agentqueue_operator.controller.status.rollout import Templates, is_rolling_out, newest_pods
from agentqueue_operator.resources.kinds import Object
from agentqueue_operator.resources.render import Reference, worker_name

MissingReferences = Mapping[str, frozenset[Reference]]
"""Secrets and ConfigMaps that do not exist, by the part of the AgentQueue that refers to them."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """A Deployment and its pods."""

    deployment: Object | None
    pods: Sequence[Object]
    rolling_out: bool
    problem: Problem | None
    """Most important problem of any pod."""
    newest_problem: Problem | None
    """Most important problem of the pods of the newest version."""


def observe_rollout(
    deployment: Object | None, pods: Sequence[Object], templates: Templates, *, now: datetime
) -> Rollout:
    """Return the state of a Deployment. A changed template is not rolled out before its controller has seen it.

    Args:
        deployment: the newest known version; None: it does not exist.
        pods: its pods.
        templates: remembers when templates changed.
        now: the time by the cluster's clock.
    """
    problem = problem_of(pods, deployment, now=now)
    if deployment is None:
        return Rollout(None, pods, rolling_out=False, problem=problem, newest_problem=None)
    is_observed = templates.is_observed(deployment)
    return Rollout(
        deployment,
        pods,
        rolling_out=is_rolling_out(deployment, is_observed=is_observed),
        problem=problem,
        newest_problem=problem_of(newest_pods(pods, deployment), deployment, now=now) if is_observed else None,
    )


def agent_facts(
    queue: ResolvedQueue,
    agent: ResolvedAgent,
    rollout: Rollout,
    scaled: Scaled,
    *,
    missing: frozenset[Reference],
    last_scale: Mapping[str, Any] | None,
) -> AgentFacts:
    """Return the facts of an agent.

    Args:
        queue: the AgentQueue.
        agent: one of its agents.
        rollout: the agent's Deployment and pods.
        scaled: the result of scaling.
        missing: Secrets and ConfigMaps that the agent refers to and that do not exist.
        last_scale: `lastScale` of the status so far.
    """
    ready, desired = ready_count(rollout.pods), scaled.wanted
    if desired is None:
        desired = rollout.deployment["spec"].get("replicas", 1) if rollout.deployment else 0
    # A pod whose volume cannot be mounted reports no problem itself.
    unmounted = missing_problem(missing) if missing and rollout.pods and not ready else None
    load = scaled.metrics.load if scaled.metrics else Load()
    return AgentFacts(
        name=agent.name,
        queue=agent.queue_name,
        deployment=worker_name(queue.name, agent.name),
        made=rollout.deployment is not None,
        desired=desired,
        ready=ready,
        needed={
            ScalingMode.AUTO: agent.scaling.min_replicas,
            ScalingMode.FIXED: agent.scaling.replicas or 0,
            ScalingMode.EXTERNAL: 1,
        }[agent.scaling.mode],
        draining=scaled.draining,
        registering=scaled.registering,
        registered_jobs=scaled.registered_jobs,
        rolling_out=rollout.rolling_out,
        problem=rollout.problem or unmounted,
        newest_problem=rollout.newest_problem or unmounted,
        auto=agent.scaling.mode is ScalingMode.AUTO,
        read=scaled.metrics is not None,
        waiting=load.ready,
        suspended=sum(scaled.metrics.suspended.values()) if scaled.metrics else 0,
        busy=load.active,
        stalled=load.stalled,
        oldest_s=int(load.oldest_ready.total_seconds()),
        dead=scaled.metrics.dead if scaled.metrics else 0,
        last_scale=scaled.last_scale.model_dump(mode="json", by_alias=True) if scaled.last_scale else last_scale,
    )


def missing_problem(missing: Iterable[Reference]) -> Problem:
    """Return the problem of Secrets and ConfigMaps that do not exist."""
    names = sorted(f"{one.kind.kind} {one.name}" for one in missing)
    return Problem(Reason.REFERENCE_MISSING, f"there is no {', no '.join(names)}", blocking=False)


def warnings_of(queue: ResolvedQueue, scaled: Mapping[str, Scaled], missing: MissingReferences) -> list[Problem]:
    """Return what may not work as the users of the AgentQueue expect.

    Args:
        queue: the AgentQueue.
        scaled: the results of scaling, by agent.
        missing: Secrets and ConfigMaps that do not exist, by part.
    """
    warnings = [missing_problem(references).about(part) for part, references in missing.items()]
    for agent in queue.agents:
        result, scaling = scaled[agent.name], agent.scaling
        if result.error:
            warnings.append(_warning(Reason.FORBIDDEN, f"{agent.name}: {result.error}"))
        if result.shared_with:
            message = f"{agent.name}: its queue {agent.queue_name} is also scaled by {result.shared_with}"
            warnings.append(_warning(Reason.QUEUE_SHARED, message))
        if scaling.mode is not ScalingMode.AUTO:
            continue
        limit = scaling.max_replicas
        for field, requested, allowed, noun in (
            ("fallback.replicas", scaling.fallback.replicas or 0, limit, "pod"),
            ("minIdleSlots", scaling.min_idle_slots, limit * agent.concurrency, "slot"),
        ):
            if requested > allowed:
                message = f"{field} of {requested} is more than the {counted(allowed, noun)} of maxReplicas"
                warnings.append(_warning(Reason.OVER_MAX_REPLICAS, f"{agent.name}: {message}"))
    return warnings


def _warning(reason: Reason, message: str) -> Problem:
    return Problem(reason, message, blocking=False)
