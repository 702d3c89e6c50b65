"""The metrics that workers and the operator export, and the page of the reference that lists them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Final

from prometheus_client import CollectorRegistry

from agentqueue_operator.adapters.metrics import Metrics as OperatorMetrics
from agentqueue_operator.app.cluster.ports import Scaled
from agentqueue_operator.app.ports import Look
from agentqueue_operator.domain.kinds import QueueRef
from agentqueue_operator.domain.scaling import Hold, Load, Memory, Reason, ScalingPolicy, Snapshot, Terms
from agentqueue_operator.domain.status import AgentFacts
from agentqueue_operator.process import add_gauges
from agentqueue_worker.adapters.metrics import Metrics as WorkerMetrics

OURS: Final = "agentqueue_"
HEAD: Final = """\
<!-- Made by `make generated`; do not edit. -->

# Metrics

Worker pods and the operator serve these on `/metrics` of their port `http`, in Prometheus' text format or OpenMetrics,
beside the process's own (`process_*`, `python_*`). [Operations](../operations.md#metrics) says how to have them
scraped, and which alerts there are.

- **Every counter is there from the start, as 0.** Prometheus can't tell that a series that appears with the value 50
  has grown by 50. Only a call or an answer that the operator does not expect begins later.
- **To count jobs, take the operator's counters** (`agentqueue_queue_…_total`). The queue's Redis keeps them, so that
  nothing is lost when pods come and go. A worker's own counters tell jobs apart by their name, but end with the pod:
  what it did before the first scrape and after the last one is missing. Don't add the two up: they count the same jobs.
- **The operator's series bear the labels of its pod**, which changes when another replica takes over. Aggregate them
  away by `max`, since two replicas may show the same queue for a moment, and take the maximum of a counter before its
  increase:
  `increase(max by (namespace, agentqueue, agent, outcome) (agentqueue_queue_outcomes_total)[15m:30s])`.
  `last_over_time(…[3m])` bridges the time in which none leads. The alerts of the chart do so.
- **Labels are bounded**: names of resources and of jobs, and words of fixed sets; never a job's id, its tags or its
  tenant.

"""
WORKER: Final = """\
## Of a worker

The PodMonitor adds `namespace`, `pod`, `agentqueue` and `agent`.

"""
OPERATOR: Final = """\
## Of the operator

"""


@dataclass(frozen=True, slots=True)
class Row:
    """A metric as Prometheus sees it."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str


def worker_registry() -> CollectorRegistry:
    """Return what a worker exports that has just started and knows one job."""
    metrics = WorkerMetrics("search", "search")
    metrics.expect(["find-flights"])
    outbox = type("Outbox", (), {"__len__": lambda _: 0, "blocked_until": None})()
    state: Any = SimpleNamespace(
        running={}, outbox=outbox, options=SimpleNamespace(concurrency=5), draining=False, marked=False, abandoned=0
    )
    metrics.state = state
    registry = CollectorRegistry()
    registry.register(metrics)
    return registry


def operator_registry() -> CollectorRegistry:
    """Return what the operator exports after its first pass over an AgentQueue with one agent."""
    metrics, ref, load = OperatorMetrics(), QueueRef("default", "travel"), Load()
    policy = ScalingPolicy(target_wait=timedelta(seconds=30))
    decision = Hold(Reason.IDLE, Terms(snapshot=Snapshot(at=0.0, load=load), current=0, policy=policy), Memory())
    look = Look(load=load, reports={}, marked=frozenset(), delayed=0, done=0, dead=0, arrived=0, run_ms=0)
    queue: Any = SimpleNamespace(agents=(SimpleNamespace(name="search", queue_name="search"),))
    facts = AgentFacts(name="search", queue="search", deployment="travel-search", desired=0, ready=0)
    metrics.decided(ref, "search", decision)
    metrics.looked(ref, queue, {"search": Scaled(replicas=0, decision=decision, look=look)}, {"search": facts})
    part = type("Part", (), {"__len__": lambda _: 1, "waiting": lambda _: 0, "oldest_pass_s": lambda _: 0.0})()
    nothing = SimpleNamespace(leads=True, synced=True, down=0, begun=0, age_s=0.0)
    operator: Any = SimpleNamespace(
        metrics=metrics, elector=nothing, watches=nothing, cache=part, loops=part, pulse=nothing
    )
    add_gauges(operator)
    return metrics.registry


def rows(registry: CollectorRegistry) -> Iterator[Row]:
    """Yield the metrics of AgentQueue's own that the registry exports, by name."""
    for family in sorted(registry.collect(), key=lambda family: family.name):
        if family.name.startswith(OURS):
            labels = {label: None for sample in family.samples for label in sample.labels if label != "le"}
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield Row(name, family.type, tuple(labels), family.documentation)


def page() -> str:
    """Return docs/reference/metrics.md."""
    return HEAD + WORKER + _table(worker_registry()) + "\n" + OPERATOR + _table(operator_registry())


def _table(registry: CollectorRegistry) -> str:
    lines = "".join(
        f"| `{row.name}` | {row.type} | {', '.join(f'`{label}`' for label in row.labels)} | {row.help}. |\n"
        for row in rows(registry)
    )
    return f"| metric | type | labels | what it is |\n|---|---|---|---|\n{lines}"
