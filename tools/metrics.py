"""The metrics that workers and the operator export, and the page of the reference that lists them."""

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

from prometheus_client import CollectorRegistry

from agentqueue.spec import AgentQueue, resolve
from agentqueue.store import Engine, Server, ServerOptions
from agentqueue_operator.autoscaling.model import (
    Hold,
    Load,
    Memory,
    ScalingPolicy,
    ScalingReason,
    ScalingSnapshot,
    Terms,
)
from agentqueue_operator.autoscaling.queue_metrics import QueueMetrics
from agentqueue_operator.controller.manager import Operator, assemble
from agentqueue_operator.controller.metrics import Metrics as OperatorMetrics
from agentqueue_operator.controller.ports import Scaled
from agentqueue_operator.controller.settings import Settings
from agentqueue_operator.controller.status.conditions import AgentFacts
from agentqueue_operator.resources.kinds import QueueRef
from agentqueue_worker.adapters.metrics import Metrics as WorkerMetrics
from agentqueue_worker.app.options import Identity, WorkerOptions
from agentqueue_worker.app.progress_writer import ProgressWriter
from agentqueue_worker.app.state import WorkerState

OURS: Final = "agentqueue_"
REF: Final = QueueRef("default", "travel")
AGENT: Final = {"name": "search", "image": "example/agents:1", "handler": "agents:agent"}
RESOURCE: Final = {
    "apiVersion": "agentqueue.dev/v1alpha1",
    "kind": "AgentQueue",
    "metadata": {"name": REF.name, "namespace": REF.namespace},
    "spec": {"redis": {"managed": {}}, "agents": [AGENT]},
}
QUEUE: Final = resolve(AgentQueue.model_validate(RESOURCE))
"""The AgentQueue `travel`."""
HEAD: Final = """\
<!-- Made by `make generated`; do not edit. -->

# Metrics

Worker pods and the operator serve these on `/metrics` of their port `http`, in Prometheus' text format or OpenMetrics,
beside the process's own (`process_*`, `python_*`). [Operations](../operations.md#metrics) describes how to scrape
them, and the alerts.

- **Every counter exists from the start, as 0.** Prometheus sees no increase in a series that first
  appears with the value 50. Only series of unexpected calls or responses of the operator appear later.
- **To count jobs, take the operator's counters** (`agentqueue_queue_…_total`, `agentqueue_queue_wait_seconds`). The
  queue's Redis keeps them, so that nothing is lost when pods come and go. A worker's own counters have the jobs' name
  or priority as a label, but end with the pod: what it did before the first scrape and after the last one is missing.
  Don't add both: they count the same jobs.
- **The operator's series have the labels of its pod**, which changes when another replica takes over. Aggregate them
  away by `max`, since two replicas may show the same queue for a moment, and take the maximum of a counter before its
  increase:
  `increase(max by (namespace, agentqueue, agent, outcome) (agentqueue_queue_outcomes_total)[15m:30s])`.
  `last_over_time(…[3m])` bridges the time without a leader. The alerts of the chart do both.
- **Waits** are measured by Redis's clock from when a job is due (its delay, or that of a retry, is over) until a worker
  claims it. Jobs that returned from another worker are excluded: they have their old position in the queue, which does
  not show when they returned. Whether an agent keeps its `scaling.targetWaitSeconds`, nine jobs of ten:
  `histogram_quantile(0.9, increase(max by (namespace, agentqueue, agent, le)
  (agentqueue_queue_wait_seconds_bucket)[15m:30s])) <= max by (namespace, agentqueue, agent)
  (agentqueue_agent_target_wait_seconds)`.
- **Histograms** are classic ones, since prometheus_client can't export native ones. Prometheus 3.4 or newer can turn
  them into native ones as it scrapes (`convert_classic_histograms_to_nhcb`).
- **Labels are bounded**: names of resources and of jobs, and words of fixed sets; never a job's id, its tags or its
  tenant.

"""
WORKER: Final = """\
## Worker

The PodMonitor adds `namespace`, `pod`, `agentqueue` and `agent`.

"""
OPERATOR: Final = """\
## Operator

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
    metrics.state = _run(_worker_state())
    registry = CollectorRegistry()
    registry.register(metrics)
    return registry


T = TypeVar("T")


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine, also where an event loop runs already, as in a test."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


async def _worker_state() -> WorkerState:
    """Return the state of a worker that has not connected to Redis."""
    engine = Engine(Server(ServerOptions("redis://localhost")), "search")
    return WorkerState(WorkerOptions("search", Identity("worker", "1")), ProgressWriter(engine, "worker/1"))


async def _operator() -> Operator:
    """Return an operator that has not connected to the API server."""
    return assemble(Settings())


def operator_metrics() -> OperatorMetrics:
    """Return the operator's metrics after its first reconcile of an AgentQueue with one agent."""
    metrics, load = _run(_operator()).metrics, Load()
    policy = ScalingPolicy(target_wait=timedelta(seconds=30))
    decision = Hold(
        ScalingReason.IDLE, Terms(snapshot=ScalingSnapshot(at=0.0, load=load), current=0, policy=policy), Memory()
    )
    look = QueueMetrics(load=load, heartbeats={}, marked={}, delayed=0, done=0, dead=0, arrived=0, run_ms=0)
    facts = AgentFacts(name="search", queue="search", deployment="travel-search", desired=0, ready=0)
    metrics.on_decided(REF, "search", decision)
    metrics.on_observed(REF, QUEUE, {"search": Scaled(replicas=0, decision=decision, metrics=look)}, {"search": facts})
    return metrics


def operator_registry() -> CollectorRegistry:
    """Return what the operator exports then."""
    return operator_metrics().registry


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
    return f"| metric | type | labels | description |\n|---|---|---|---|\n{lines}"
