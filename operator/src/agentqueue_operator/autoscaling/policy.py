"""Converts the resolved settings of an agent to the policy that `decide_replicas` takes."""

from datetime import timedelta

from agentqueue.spec.resolve import ResolvedAgent
from agentqueue_operator.autoscaling.model import ScalingPolicy


def policy_of(agent: ResolvedAgent, *, suspended: bool = False) -> ScalingPolicy:
    """Return the scaling policy of an agent. `suspended`: the whole AgentQueue is suspended."""
    scaling = agent.scaling
    return ScalingPolicy(
        mode=scaling.mode,
        replicas=1 if scaling.replicas is None else scaling.replicas,
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        target_wait=timedelta(seconds=scaling.target_wait_seconds),
        min_idle_slots=scaling.min_idle_slots,
        scale_down_window=_duration(scaling.scale_down_window_seconds),
        scale_to_zero_after=_duration(scaling.scale_to_zero_after_seconds),
        max_pods_per_minute=scaling.max_pods_per_minute,
        fallback=scaling.fallback,
        concurrency=agent.concurrency,
        rate_limit=agent.rate_limit,
        suspended=suspended,
    )


def _duration(seconds: int | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
