"""The operator's Prometheus metrics: its own work, and the queues of each agent, for Grafana, KEDA and the HPA.

Labels are names of resources and words of a fixed set, never a job, a pod or a message. Every counter starts at 0
before it first counts: Prometheus sees no increase in a series that first appears with the value 50. Redis counts the
outcomes of jobs, so that no count is lost with a pod of a worker or of the operator.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from agentqueue.model.suspension import KINDS
from agentqueue.model.wait_histogram import cumulative
from agentqueue.spec import ResolvedQueue
from agentqueue_operator.autoscaling.model import CHANGE_REASONS, Decision, ScaleTo
from agentqueue_operator.autoscaling.queue_metrics import QueueMetrics
from agentqueue_operator.controller.ports import Scaled
from agentqueue_operator.controller.status.conditions import AgentFacts
from agentqueue_operator.resources.kinds import QueueRef
from agentqueue_operator.resources.rbac import LEADER_ELECTION_RULES, namespace_rules

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Buckets of the reconcile duration, in seconds. A reconcile at rest takes milliseconds, one that waits, seconds."""
VERBS: Final = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
"""HTTP method -> verb of RBAC, which is the label of API requests."""
FAILURES: Final = ("0", "403", "404", "409", "422", "429", "500", "503")
"""Expected HTTP status codes of failed requests; 0: no response."""
API_ERRORS: Final = ("ApiUnavailable", "ApiRefused")
"""Label `error` of reconciles that ended with an error of the API server."""
OTHER_ERROR: Final = "Other"
"""Label `error` of reconciles that ended with any other exception. The log has its name."""
AGENT_LABELS: Final = ("namespace", "agentqueue", "agent", "queue")
"""Labels of each agent's metrics."""
Key = tuple[str, str, str, str]
"""Values of `AGENT_LABELS`."""
Gauges = Mapping[str, float]
"""Name of a gauge -> its value."""
ReadGauge = Callable[[Scaled, AgentFacts], float | None]
"""Returns a gauge's value; None: there is no value, and the series is omitted."""


def _of_queue(read: Callable[[QueueMetrics], float]) -> ReadGauge:
    """Return a gauge of the queue. It is omitted, not zero, when the queue could not be read."""
    return lambda scaled, _facts: None if scaled.metrics is None else read(scaled.metrics)


def _target_wait(scaled: Scaled, _facts: AgentFacts) -> float | None:
    return None if scaled.decision is None else scaled.decision.terms.policy.target_wait.total_seconds()


AGENT_GAUGES: Final[Mapping[str, tuple[str, ReadGauge]]] = {
    "agentqueue_queue_waiting_jobs": ("Ready jobs that wait for a slot", _of_queue(lambda it: it.load.ready)),
    "agentqueue_queue_due_soon_jobs": (
        "Delayed jobs that come due while a pod would start",
        _of_queue(lambda it: it.load.due_soon),
    ),
    "agentqueue_queue_active_jobs": ("Running jobs", _of_queue(lambda it: it.load.active + it.load.stalled)),
    "agentqueue_queue_delayed_jobs": ("Jobs whose start time has not come yet", _of_queue(lambda it: it.delayed)),
    "agentqueue_queue_dead_letters": ("Dead letters in the queue", _of_queue(lambda it: it.dead)),
    "agentqueue_queue_oldest_waiting_seconds": (
        "How long the oldest ready job has waited",
        _of_queue(lambda it: it.load.oldest_ready.total_seconds()),
    ),
    "agentqueue_queue_paused": ("1 while the queue is paused", _of_queue(lambda it: it.load.paused)),
    "agentqueue_queue_readable": (
        "1 if the operator could read the queue in its last reconcile",
        lambda scaled, _: scaled.metrics is not None,
    ),
    "agentqueue_agent_desired_replicas": ("Desired number of worker pods", lambda _, facts: facts.desired),
    "agentqueue_agent_ready_replicas": ("Ready worker pods", lambda _, facts: facts.ready),
    "agentqueue_agent_draining_replicas": (
        "Worker pods that claim no more jobs and will end",
        lambda scaled, _: scaled.draining,
    ),
    "agentqueue_agent_unschedulable_replicas": (
        "Worker pods that no node has room for",
        lambda scaled, _: scaled.unschedulable,
    ),
    "agentqueue_agent_target_wait_seconds": (
        "How long a ready job may wait, by scaling.targetWaitSeconds",
        _target_wait,
    ),
}
"""Gauge of each agent -> its help text, and the function that reads its value."""
SUSPENDED_METRIC: Final = "agentqueue_queue_suspended_jobs"
"""Gauge of suspended jobs by what they wait for."""
OUTCOMES: Final = ("completed", "retried", "dead", "cancelled", "released", "suspended", "crashed")
"""Outcomes of a job run. Redis counts under the same names."""
OUTCOMES_METRIC: Final = "agentqueue_queue_outcomes"
"""Counter of job runs by outcome."""
REDIS_COUNTERS: Final = {
    "enqueued": ("agentqueue_queue_enqueued_jobs", "Jobs that the queue has accepted, replays included"),
    "replayed": ("agentqueue_queue_replayed_jobs", "Dead letters that were replayed"),
    "signalled": ("agentqueue_queue_signals", "Signals that jobs of the queue have got"),
    "ticks_started": ("agentqueue_queue_ticks_started", "Ticks of schedules that workers have started"),
    "ticks_missed": ("agentqueue_queue_ticks_missed", "Ticks of schedules that were left out, since they were missed"),
    "lost": ("agentqueue_queue_lost_outcomes", "Outcomes dropped because another worker had claimed the job"),
}
"""Counter in Redis -> name and help text of the metric."""


class Counts(Collector):
    """A counter whose series begin at 0, by `begin`, before anything happens.

    Not prometheus_client's: that shows a second series (`_created`) for each. Its methods may be called in any thread.
    """

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._lock = threading.Lock()
        self._values: dict[tuple[str, ...], int] = {}
        registry.register(self)

    def begin(self, *values: str) -> None:
        """Start the series at 0."""
        self.add(*values, by=0)

    def add(self, *values: str, by: int = 1) -> None:
        """Add to the series with these label values."""
        with self._lock:
            self._values[values] = self._values.get(values, 0) + by

    def forget(self, *first: str) -> None:
        """Drop the series whose label values begin with these."""
        with self._lock:
            for values in [it for it in self._values if it[: len(first)] == first]:
                del self._values[values]

    def collect(self) -> Iterable[Metric]:
        """Return the counter at a scrape."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        with self._lock:
            values = dict(self._values)
        for labels, value in values.items():
            family.add_metric(labels, value)
        return (family,)


class Metrics:
    """The metrics of the process, and observer of reconciles (`work_queue.ReconcileObserver`)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._reconcile = Histogram(
            "agentqueue_operator_reconcile_duration_seconds",
            "Duration of a reconcile of an AgentQueue",
            buckets=SECONDS,
            registry=self.registry,
        )
        self._errors = Counts(
            "agentqueue_operator_reconcile_errors", "Failed reconciles, by error", ["error"], self.registry
        )
        self._requests = Counts(
            "agentqueue_operator_api_requests",
            "Requests to the API server, without watches; code 0: no response",
            ["verb", "resource", "code"],
            self.registry,
        )
        self._decisions = Counts(
            "agentqueue_scale_decisions",
            "Decisions on an agent's number of pods, by reason; one per reconcile",
            ["namespace", "agentqueue", "agent", "decision", "reason"],
            self.registry,
        )
        for error in (*API_ERRORS, OTHER_ERROR):
            self._errors.begin(error)
        for right in {*LEADER_ELECTION_RULES, *namespace_rules(read_secrets=True)}:
            for verb in {"get" if verb == "list" else verb for verb in right.verbs} - {"watch"}:
                for code in ("201" if verb == "create" else "200", *FAILURES):
                    self._requests.begin(verb, right.resource.partition("/")[0], code)
        self._agents = _Agents()
        self.registry.register(self._agents)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a gauge that is read at a scrape, in the probes' thread."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def counter(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a counter that is read at a scrape, in the probes' thread."""
        self.registry.register(_ReadCounter(name, text, read))

    def on_reconciled(self, ref: QueueRef, seconds: float, error: str | None) -> None:
        """Record a reconcile: its duration in seconds, and the type of the error that ended it."""
        del ref  # one histogram for all: one for each AgentQueue would be thousands of series
        self._reconcile.observe(seconds)
        if error:
            self._errors.add(error if error in API_ERRORS else OTHER_ERROR)

    def on_removed(self, ref: QueueRef) -> None:
        """Drop the series of an AgentQueue that does not exist any more or that another replica reconciles."""
        self._agents.forget(ref)
        self._decisions.forget(ref.namespace, ref.name)

    def on_api_call(self, method: str, resource: str, status: int) -> None:
        """Count a request to the API server. May be called from any thread."""
        self._requests.add(VERBS.get(method, "other"), resource, str(status))

    def on_decided(self, ref: QueueRef, agent: str, decision: Decision) -> None:
        """Count a decision on an agent's number of pods."""
        for reason in CHANGE_REASONS:
            self._decisions.begin(ref.namespace, ref.name, agent, ScaleTo.__name__, reason.value)
        self._decisions.add(ref.namespace, ref.name, agent, type(decision).__name__, decision.reason.value)

    def on_observed(
        self,
        ref: QueueRef,
        queue: ResolvedQueue,
        scaled: Mapping[str, Scaled],
        facts: Mapping[str, AgentFacts],
    ) -> None:
        """Record the gauges and counters of each agent after a reconcile."""
        gauges: dict[Key, Gauges] = {}
        counters: dict[Key, Mapping[str, int]] = {}
        suspended: dict[Key, Mapping[str, int]] = {}
        for agent in queue.agents:
            key, metrics = (ref.namespace, ref.name, agent.name, agent.queue_name), scaled[agent.name].metrics
            gauges[key] = agent_gauges(scaled[agent.name], facts[agent.name])
            if metrics is not None:
                counters[key] = {**metrics.counters, **metrics.waits}
                suspended[key] = {kind: metrics.suspended.get(kind, 0) for kind in KINDS}
        self._agents.note(ref, _Observed(gauges, counters, suspended))


def agent_gauges(scaled: Scaled, facts: AgentFacts) -> Gauges:
    """Return the values of an agent's gauges after a reconcile."""
    values = {name: read(scaled, facts) for name, (_, read) in AGENT_GAUGES.items()}
    return {name: float(value) for name, value in values.items() if value is not None}


class _ReadCounter(Collector):
    """A counter whose value is kept elsewhere."""

    def __init__(self, name: str, text: str, read: Callable[[], float]) -> None:
        self._name, self._text, self._read = name, text, read

    def collect(self) -> Iterable[Metric]:
        """Return the counter at a scrape."""
        return (CounterMetricFamily(self._name, self._text, value=self._read()),)


@dataclass(frozen=True, slots=True)
class _Observed:
    """What the last reconcile of an AgentQueue has observed of its agents."""

    gauges: Mapping[Key, Gauges]
    counters: Mapping[Key, Mapping[str, int]]
    suspended: Mapping[Key, Mapping[str, int]]
    """Suspended jobs by kind."""


class _Agents(Collector):
    """The latest gauges and counters of each agent."""

    def __init__(self) -> None:
        self._seen: dict[QueueRef, _Observed] = {}

    def note(self, ref: QueueRef, observed: _Observed) -> None:
        """Replace the gauges and counters of the AgentQueue."""
        self._seen[ref] = observed

    def forget(self, ref: QueueRef) -> None:
        """Drop the gauges and counters of the AgentQueue."""
        self._seen.pop(ref, None)

    def collect(self) -> Iterable[Metric]:
        """Return the agents' gauges and counters at a scrape, in the probes' thread."""
        seen = list(self._seen.values())
        families = {
            name: GaugeMetricFamily(name, text, labels=AGENT_LABELS) for name, (text, _) in AGENT_GAUGES.items()
        }
        for observed in seen:
            for key, numbers in observed.gauges.items():
                for name, value in numbers.items():
                    families[name].add_metric(key, value)
        yield from families.values()
        suspended = GaugeMetricFamily(
            SUSPENDED_METRIC, "Jobs that wait without a slot, by what they wait for", labels=(*AGENT_LABELS, "kind")
        )
        for key, kinds in [item for observed in seen for item in observed.suspended.items()]:
            for kind, number in kinds.items():
                suspended.add_metric((*key, kind), number)
        yield suspended
        # Redis keeps the counters since the queue was first used. An event that has not happened yet counts 0.
        outcomes = CounterMetricFamily(
            OUTCOMES_METRIC, "Job runs by outcome, counted in Redis", labels=(*AGENT_LABELS, "outcome")
        )
        seconds = CounterMetricFamily(
            "agentqueue_queue_run_seconds", "Total run time of completed jobs", labels=AGENT_LABELS
        )
        waits = HistogramMetricFamily(
            "agentqueue_queue_wait_seconds",
            "Time from when a job was due until a worker claimed it",
            labels=AGENT_LABELS,
        )
        counted = {
            it: CounterMetricFamily(name, text, labels=AGENT_LABELS) for it, (name, text) in REDIS_COUNTERS.items()
        }
        for key, counts in [item for observed in seen for item in observed.counters.items()]:
            for outcome in OUTCOMES:
                outcomes.add_metric((*key, outcome), counts.get(outcome, 0))
            seconds.add_metric(key, counts.get("run_ms", 0) / 1000)
            waits.add_metric(key, *cumulative(counts))
            for field, family in counted.items():
                family.add_metric(key, counts.get(field, 0))
        yield from (outcomes, seconds, waits, *counted.values())
