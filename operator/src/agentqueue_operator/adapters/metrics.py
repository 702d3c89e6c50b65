"""The operator's Prometheus metrics: its own work, and the queues of each agent, for Grafana, KEDA and the HPA.

Labels are names of resources and words of a fixed set: never a job, a pod or a message.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agentqueue.spec import ResolvedQueue
from agentqueue_operator.app.cluster.ports import Scaled
from agentqueue_operator.domain.kinds import QueueRef
from agentqueue_operator.domain.scaling import Decision
from agentqueue_operator.domain.status import AgentFacts

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
VERBS: Final = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
AGENT_LABELS: Final = ("namespace", "agentqueue", "agent", "queue")
Key = tuple[str, str, str, str]
Figures = Mapping[str, float]
HELP: Final = {
    "agentqueue_queue_waiting_jobs": "Jobs that are ready and wait for a slot",
    "agentqueue_queue_due_soon_jobs": "Delayed jobs that come due while a pod would start",
    "agentqueue_queue_active_jobs": "Jobs that run",
    "agentqueue_queue_delayed_jobs": "Jobs that wait for their time",
    "agentqueue_queue_dead_letters": "Dead letters that are kept",
    "agentqueue_queue_oldest_waiting_seconds": "How long the oldest ready job has waited",
    "agentqueue_queue_paused": "1 while the queue is paused",
    "agentqueue_queue_readable": "1 if the operator could read the queue in its last pass",
    "agentqueue_agent_desired_replicas": "Worker pods wanted",
    "agentqueue_agent_ready_replicas": "Worker pods ready",
    "agentqueue_agent_draining_replicas": "Worker pods that take no more jobs and will go",
    "agentqueue_agent_unschedulable_replicas": "Worker pods that no node has room for",
}


class Metrics:
    """What is counted; also `app.cluster.loops.Watcher`. One per process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._reconcile = Histogram(
            "agentqueue_operator_reconcile_duration_seconds",
            "How long a pass over an AgentQueue took",
            buckets=SECONDS,
            registry=self.registry,
        )
        self._errors = Counter(
            "agentqueue_operator_reconcile_errors", "Passes that failed", ["error"], registry=self.registry
        )
        self._requests = Counter(
            "agentqueue_operator_api_requests",
            "Calls to the API server, watches left out; code 0: no answer",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self._decisions = Counter(
            "agentqueue_scale_decisions",
            "Decisions on an agent's number of pods, by reason",
            ["namespace", "agentqueue", "agent", "decision", "reason"],
            registry=self.registry,
        )
        self._agents = _Agents()
        self.registry.register(self._agents)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A number that is read when somebody asks; in the probes' thread."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def passed(self, ref: QueueRef, seconds: float, error: str | None) -> None:
        """A pass took so long."""
        del ref  # one histogram for all: an AgentQueue each would be thousands of series
        self._reconcile.observe(seconds)
        if error:
            self._errors.labels(error).inc()

    def gone(self, ref: QueueRef) -> None:
        """The AgentQueue is no more, or another replica's to tell of."""
        self._agents.forget(ref)
        self._decisions.remove_by_labels({"namespace": ref.namespace, "agentqueue": ref.name})

    def called(self, method: str, resource: str, status: int) -> None:
        """A call to the API server; from any thread."""
        self._requests.labels(VERBS.get(method, "other"), resource, str(status)).inc()

    def decided(self, ref: QueueRef, agent: str, decision: Decision) -> None:
        """A decision on an agent's number of pods."""
        kind = type(decision).__name__
        self._decisions.labels(ref.namespace, ref.name, agent, kind, decision.reason.value).inc()

    def looked(
        self,
        ref: QueueRef,
        queue: ResolvedQueue,
        scaled: Mapping[str, Scaled],
        facts: Mapping[str, AgentFacts],
    ) -> None:
        """What a pass saw of each agent."""
        self._agents.note(
            ref,
            {
                (ref.namespace, ref.name, agent.name, agent.queue_name): figures(scaled[agent.name], facts[agent.name])
                for agent in queue.agents
            },
        )


def figures(scaled: Scaled, facts: AgentFacts) -> Figures:
    """An agent in numbers. A queue that could not be read has none: that is better than a wrong one."""
    own = {
        "agentqueue_queue_readable": float(scaled.look is not None),
        "agentqueue_agent_desired_replicas": float(facts.desired),
        "agentqueue_agent_ready_replicas": float(facts.ready),
        "agentqueue_agent_draining_replicas": float(scaled.draining),
        "agentqueue_agent_unschedulable_replicas": float(scaled.unschedulable),
    }
    if (look := scaled.look) is None:
        return own
    return own | {
        "agentqueue_queue_waiting_jobs": float(look.load.ready),
        "agentqueue_queue_due_soon_jobs": float(look.load.due_soon),
        "agentqueue_queue_active_jobs": float(look.load.active),
        "agentqueue_queue_delayed_jobs": float(look.delayed),
        "agentqueue_queue_dead_letters": float(look.dead),
        "agentqueue_queue_oldest_waiting_seconds": look.load.oldest_ready.total_seconds(),
        "agentqueue_queue_paused": float(look.load.paused),
    }


class _Agents(Collector):
    """The last figures of each agent."""

    def __init__(self) -> None:
        self._seen: dict[QueueRef, Mapping[Key, Figures]] = {}

    def note(self, ref: QueueRef, agents: Mapping[Key, Figures]) -> None:
        """In place of what was known of the AgentQueue."""
        self._seen[ref] = agents

    def forget(self, ref: QueueRef) -> None:
        """The AgentQueue is gone."""
        self._seen.pop(ref, None)

    def collect(self) -> Iterable[Metric]:
        """At a scrape, in the probes' thread."""
        families = {name: GaugeMetricFamily(name, text, labels=AGENT_LABELS) for name, text in HELP.items()}
        for agents in list(self._seen.values()):
            for key, numbers in agents.items():
                for name, value in numbers.items():
                    families[name].add_metric(key, value)
        return families.values()
