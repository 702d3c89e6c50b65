"""Observation of the queue of one agent: what both hosts read, estimate, remember and decide."""

from dataclasses import dataclass, field, replace
from datetime import timedelta

from agentqueue_operator.autoscaling.decision import decide_replicas
from agentqueue_operator.autoscaling.estimates import Estimates, learn, learn_start
from agentqueue_operator.autoscaling.model import (
    DEFAULT_TIMING,
    Decision,
    Memory,
    Pods,
    Rates,
    ScalingPolicy,
    ScalingSnapshot,
    ScalingTiming,
)
from agentqueue_operator.autoscaling.queue_metrics import QueueMetrics


@dataclass(slots=True, kw_only=True)
class AgentObserver:
    """Estimates the rates of one agent's queue and decides how many pods the agent should have.

    It reads no clock and does no I/O: the operator and `agentqueue up` pass in metrics, pods and times.
    """

    timing: ScalingTiming = DEFAULT_TIMING
    failure_interval_s: float = 0.0
    """Failed reads within this time, in seconds, after one that counted are the same failure."""
    estimates: Estimates = field(default_factory=Estimates)
    memory: Memory = field(default_factory=Memory)
    metrics: QueueMetrics | None = None
    """Metrics of the last read; None if the queue could not be read."""
    readable_since: float | None = None
    """Time of the first of the reads that have succeeded without a break, in monotonic seconds."""
    was_read: bool = False
    """At least one read has succeeded."""
    failed_at: float | None = None
    """Time of the last failure that counted, in monotonic seconds; None after a success."""

    @property
    def rates(self) -> Rates:
        """Rates estimated so far."""
        return self.estimates.rates()

    @property
    def startup_s(self) -> float:
        """Start time of a pod in seconds. Delayed jobs that become due within this time count as load."""
        return self.rates.startup.total_seconds()

    def readable_s(self, at: float) -> float:
        """Return for how long reads have succeeded without a break, in seconds. `at`: monotonic seconds."""
        return 0.0 if self.readable_since is None else at - self.readable_since

    def observe(self, metrics: QueueMetrics | None, *, at: float) -> None:
        """Record the result of one read, and learn from it.

        Args:
            metrics: None if the queue could not be read.
            at: time of the read in monotonic seconds.
        """
        self.metrics = metrics
        if metrics is None:
            self.readable_since = None
            return
        self.readable_since = at if self.readable_since is None else self.readable_since
        self.was_read = True
        self.estimates = learn(self.estimates, metrics.counters_at(at))

    def observe_start(self, took: timedelta) -> None:
        """Learn from a pod that became ready `took` after it was requested."""
        self.estimates = learn_start(self.estimates, took)

    def decide(
        self,
        pods: Pods,
        *,
        current: int,
        policy: ScalingPolicy,
        at: float,
        has_server: bool = True,
        registering: bool = False,
    ) -> Decision:
        """Decide on the number of pods from the last read.

        Args:
            pods: the pods of the agent.
            current: number of pods requested at present.
            policy: the agent's scaling policy.
            at: monotonic seconds.
            has_server: a server to read from exists. Without one, and before the first successful read, nothing counts
                as a failure.
            registering: no worker of the present version has registered yet.
        """
        load = self.metrics.load if self.metrics is not None else None
        snapshot = ScalingSnapshot(at=at, load=load, pods=pods, rates=self.rates, registering=registering)
        is_new = self.failed_at is None or at >= self.failed_at + self.failure_interval_s
        counts = load is not None or (is_new and (has_server or self.was_read))
        memory = self.memory if counts else replace(self.memory, failures=max(0, self.memory.failures - 1))
        decision = decide_replicas(snapshot, current=current, policy=policy, memory=memory, timing=self.timing)
        if counts:
            self.memory = decision.memory
            self.failed_at = at if load is None else None
        return decision
