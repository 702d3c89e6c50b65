"""Functions on the memory that a decision passes to the next: recent counts, and the times without jobs."""

from agentqueue_operator.autoscaling.model import SCALE_UP_RATE_WINDOW_S, Load, Memory, Sample, ScalingPolicy, Terms


def remember_observation(memory: Memory, terms: Terms, load: Load) -> Memory:
    """Return the memory extended by one observation, without the entries that have left their windows.

    After a restart of the operator, pods created in the last minute count as added.
    """
    at = terms.snapshot.at
    added = terms.current - memory.current if memory.current is not None else terms.snapshot.pods.young
    scale_ups = (*memory.recent_scale_ups, Sample(at, added)) if added > 0 else memory.recent_scale_ups
    has_work = load.active if load.paused else load.jobs
    window_s = down_window_s(terms.policy)
    return Memory(
        since=at if memory.since is None else memory.since,
        keep_history=tuple(sample for sample in memory.keep_history if sample.at >= at - window_s),
        busy_at=at if has_work or memory.busy_at is None else memory.busy_at,
        current=terms.current,
        recent_scale_ups=tuple(sample for sample in scale_ups if sample.at > at - SCALE_UP_RATE_WINDOW_S),
    )


def append_sample(samples: tuple[Sample, ...], new: Sample) -> tuple[Sample, ...]:
    """Return the samples with a new one.

    Smaller or equal earlier samples are dropped, since they can no longer be the maximum of a window that ends now.
    """
    return (*(sample for sample in samples if sample.pods > new.pods), new)


def down_window_s(policy: ScalingPolicy) -> float:
    """Return the scale-down window in seconds; 0.0 if the policy has none."""
    return policy.scale_down_window.total_seconds() if policy.scale_down_window is not None else 0.0


def quiet_s(memory: Memory, *, at: float) -> float:
    """Return the time in seconds for which the queue has had no job. `at`: monotonic seconds."""
    return at - memory.busy_at if memory.busy_at is not None else 0.0
