"""From an agent of the resource to the policy that `decide_replicas` takes."""

from datetime import timedelta

from agentqueue.spec.defaults import RateLimit as RateLimitSpec
from agentqueue.spec.defaults import Scaling
from agentqueue.spec.resolve import ResolvedAgent
from agentqueue_operator.autoscaling.decision import Fallback, FallbackBehavior, Mode, RateLimit, ScalingPolicy


def policy_of(agent: ResolvedAgent, *, suspended: bool = False) -> ScalingPolicy:
    """The agent's scaling policy. `suspended`: the whole AgentQueue is."""
    scaling = agent.scaling
    return ScalingPolicy(
        mode=Mode(scaling.mode.value),
        replicas=1 if scaling.replicas is None else scaling.replicas,
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        target_wait=timedelta(seconds=scaling.target_wait_seconds),
        min_idle_slots=scaling.min_idle_slots,
        scale_down_window=_seconds(scaling.scale_down_window_seconds),
        scale_to_zero_after=_seconds(scaling.scale_to_zero_after_seconds),
        max_pods_per_minute=scaling.max_pods_per_minute,
        fallback=_fallback(scaling),
        concurrency=agent.concurrency,
        rate_limit=_rate_limit(agent.rate_limit),
        suspended=suspended,
    )


def _seconds(value: int | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)


def _fallback(scaling: Scaling) -> Fallback:
    given = scaling.fallback
    return Fallback(
        behavior=FallbackBehavior(given.behavior.value),
        replicas=given.replicas or 0,
        failure_threshold=given.failure_threshold,
    )


def _rate_limit(limit: RateLimitSpec | None) -> RateLimit | None:
    return None if limit is None else RateLimit(max=limit.max, duration=timedelta(seconds=limit.duration_seconds))
