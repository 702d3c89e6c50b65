"""The scaling decision: a pure function from a snapshot to a number of worker pods, with its reason and its terms.

The operator, `agentqueue up` and the simulator in benchmarks/scaling call the same function. docs/scaling.md explains
the terms.
"""

import math
from dataclasses import replace
from typing import assert_never

from agentqueue.spec.defaults import FallbackBehavior, ScalingMode
from agentqueue_operator.autoscaling.demand import compute_demand
from agentqueue_operator.autoscaling.history import append_sample, down_window_s, quiet_s, remember_observation
from agentqueue_operator.autoscaling.model import (
    DEFAULT_TIMING,
    Decision,
    Demand,
    Hold,
    Load,
    Memory,
    Sample,
    ScaleTo,
    ScalingPolicy,
    ScalingReason,
    ScalingSnapshot,
    ScalingTiming,
    Terms,
)


def decide_replicas(
    snapshot: ScalingSnapshot,
    *,
    current: int,
    policy: ScalingPolicy,
    memory: Memory,
    timing: ScalingTiming = DEFAULT_TIMING,
) -> Decision:
    """Decide how many pods the queue should have, and why.

    The result is within minReplicas and maxReplicas. It is not below the number that the busy slots need, unless the
    policy requires that (maxReplicas, mode Fixed, suspend); the drain then waits for the running jobs. Without metrics
    the number never goes down. During a rollout it goes down only to zero, where no victims have to be chosen.

    Args:
        snapshot: the load, the pods and the rates at one instant.
        current: number of pods requested at present.
        policy: the agent's policy.
        memory: the memory of the previous decision; empty for the first one.
        timing: durations to wait before pods are removed.

    Returns:
        `ScaleTo` or `Hold`, with the memory for the next call.
    """
    terms = Terms(snapshot=snapshot, current=current, policy=policy)
    if policy.mode is ScalingMode.EXTERNAL:
        return Hold(ScalingReason.EXTERNAL, terms, Memory())
    if policy.mode is ScalingMode.FIXED and not policy.suspended and policy.replicas >= current:
        return _change_to(policy.replicas, ScalingReason.FIXED, terms, Memory())
    if snapshot.load is None:
        return _decide_without_metrics(terms, memory)
    if policy.suspended:
        return _change_to(0, ScalingReason.SUSPENDED, terms, Memory())
    if policy.mode is ScalingMode.FIXED:
        return _change_to(policy.replicas, ScalingReason.FIXED, terms, Memory())
    return _decide_auto(terms, snapshot.load, memory, timing)


def _change_to(target: int, reason: ScalingReason, terms: Terms, memory: Memory) -> Decision:
    """Return the decision for a target that no other rule holds back."""
    if 0 < target < terms.current and terms.snapshot.pods.rolling_out:
        return Hold(ScalingReason.ROLLOUT, terms, memory)
    if target == terms.current:
        return Hold(reason, terms, memory)
    return ScaleTo(target, reason, terms, memory)


def _decide_without_metrics(terms: Terms, memory: Memory) -> Decision:
    """Hold at first, then apply the fallback.

    The history is dropped: when metrics return, the pods that run count as wanted.
    """
    policy, fallback, failures = terms.policy, terms.policy.fallback, memory.failures + 1
    target, reason = 0, ScalingReason.METRICS_MISSING
    if policy.mode is ScalingMode.AUTO and not policy.suspended and failures >= fallback.failure_threshold:
        match fallback.behavior:
            case FallbackBehavior.HOLD:
                reason = ScalingReason.FALLBACK_HOLD
            case FallbackBehavior.STATIC:
                target, reason = min(fallback.replicas or 0, policy.max_replicas), ScalingReason.FALLBACK_STATIC
            case FallbackBehavior.MAX:
                target, reason = policy.max_replicas, ScalingReason.FALLBACK_MAX
            case _:
                assert_never(fallback.behavior)
    terms = replace(terms, failures=failures)
    return _change_to(max(terms.current, target), reason, terms, Memory(failures=failures))


def _decide_auto(terms: Terms, load: Load, memory: Memory, timing: ScalingTiming) -> Decision:
    snapshot, policy, current = terms.snapshot, terms.policy, terms.current
    demand = compute_demand(snapshot, load, policy=policy)
    observed = remember_observation(memory, terms, load)
    startup_s = snapshot.rates.startup.total_seconds()
    zero_window_s = min(max(4 * startup_s, timing.min_zero_window_s), timing.max_zero_window_s)
    if policy.scale_to_zero_after is not None:
        zero_window_s = policy.scale_to_zero_after.total_seconds()
    terms = replace(
        terms,
        demand=demand,
        down_window_s=down_window_s(policy),
        zero_window_s=zero_window_s,
        quiet_s=quiet_s(observed, at=snapshot.at),
        learning_s=max(0.0, timing.learning_s - (snapshot.at - (observed.since or 0.0))),
        added_last_minute=sum(sample.pods for sample in observed.recent_scale_ups),
    )
    start_below = _within_bounds(demand.start_below, terms)
    keep = _within_bounds(_pods_to_keep(demand, load, terms), terms)
    keep_history = append_sample(observed.keep_history, Sample(snapshot.at, keep))
    peak = min(keep_history[0].pods, policy.max_replicas)
    terms, observed = replace(terms, keep_peak=peak), replace(observed, keep_history=keep_history)
    if start_below > current:
        return _scale_up(start_below, _reason_to_start(demand, terms), terms, observed)
    if peak < current:
        return _scale_down(peak, terms, observed)
    return Hold(_reason_to_hold(demand, load, terms, start_below=start_below, keep=keep), terms, observed)


def _pods_to_keep(demand: Demand, load: Load, terms: Terms) -> int:
    """Return the pods above which some may go.

    Pods that a known job could use stay, and one pod stays until the queue has had no job for long enough.
    """
    jobs = load.active if load.paused else load.jobs
    useful = min(terms.current, math.ceil(jobs / terms.policy.concurrency))
    if jobs or terms.quiet_s < terms.zero_window_s:
        return max(demand.remove_above, useful, 1)
    return demand.idle_floor


def _within_bounds(pods: int, terms: Terms) -> int:
    """Return the pods to request so that `pods` of them work, within minReplicas and maxReplicas.

    A version whose workers have not registered yet needs one. Silent pods are added, because they do not work. If no
    pod is wanted, the silent ones may go too.
    """
    snapshot, policy = terms.snapshot, terms.policy
    working = max(policy.min_replicas, pods, int(snapshot.registering))
    return min(working + snapshot.pods.silent if working else 0, policy.max_replicas)


def _reason_to_start(demand: Demand, terms: Terms) -> ScalingReason:
    policy = terms.policy
    if demand.start_below + terms.snapshot.pods.silent > policy.max_replicas:
        return ScalingReason.MAX
    if demand.start_below < policy.min_replicas:
        return ScalingReason.MIN
    return ScalingReason.REGISTERING if terms.snapshot.registering and demand.start_below == 0 else demand.reason


def _reason_to_hold(demand: Demand, load: Load, terms: Terms, *, start_below: int, keep: int) -> ScalingReason:
    """Return why the number does not change: the rule that prevents a change, or that no change is needed."""
    if keep < terms.current:
        return ScalingReason.COOLING_DOWN
    reason = _reason_to_start(demand, terms)
    if load.paused and reason is not ScalingReason.REGISTERING:
        return ScalingReason.PAUSED
    if start_below == terms.current:
        return reason
    if load.backlog and terms.snapshot.pods.starting:
        return ScalingReason.PODS_STARTING
    return ScalingReason.ENOUGH if load.jobs else ScalingReason.COOLING_DOWN


def _scale_up(target: int, reason: ScalingReason, terms: Terms, memory: Memory) -> Decision:
    """Return the decision to add pods, held back while pods do not start and by maxPodsPerMinute."""
    pods = terms.snapshot.pods
    if pods.unschedulable > 0:
        return Hold(ScalingReason.UNSCHEDULABLE, terms, memory)
    if pods.failing > 0 and pods.ready == 0:
        return Hold(ScalingReason.PODS_FAILING, terms, memory)
    limit = terms.policy.max_pods_per_minute
    if limit is not None and target - terms.current > limit - terms.added_last_minute:
        allowed = terms.current + max(0, limit - terms.added_last_minute)
        return _change_to(allowed, ScalingReason.MAX_PODS_PER_MINUTE, terms, memory)
    return ScaleTo(target, reason, terms, memory)


def _scale_down(target: int, terms: Terms, memory: Memory) -> Decision:
    """Return the decision to remove pods, held back while the rates are being learned."""
    highest = terms.policy.max_replicas
    if terms.current > highest and (target == highest or terms.learning_s > 0):
        return _change_to(highest, ScalingReason.MAX, terms, memory)
    if terms.learning_s > 0:
        return Hold(ScalingReason.LEARNING, terms, memory)
    return _change_to(target, ScalingReason.SCALE_TO_ZERO if target == 0 else ScalingReason.LESS_WORK, terms, memory)
