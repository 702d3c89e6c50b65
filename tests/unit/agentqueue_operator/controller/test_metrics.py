"""The operator's metrics: its own work, and the gauges and counters of each agent."""

import threading
from datetime import timedelta

from agentqueue.spec import AgentQueue, resolve
from agentqueue_operator.autoscaling.model import (
    CHANGE_REASONS,
    Hold,
    Load,
    Memory,
    ScaleTo,
    ScalingPolicy,
    ScalingReason,
    ScalingSnapshot,
    Terms,
)
from agentqueue_operator.autoscaling.queue_metrics import QueueMetrics
from agentqueue_operator.controller.metrics import OUTCOMES, Metrics
from agentqueue_operator.controller.ports import Scaled
from agentqueue_operator.controller.status.conditions import AgentFacts
from agentqueue_operator.resources.kinds import QueueRef

REF = QueueRef("ns", "demo")
AGENT = {"name": "search", "queueName": "eu:search", "image": "agents:1", "handler": "agents:agent"}
RESOURCE = {
    "apiVersion": "agentqueue.dev/v1alpha1",
    "kind": "AgentQueue",
    "metadata": {"name": "demo", "namespace": "ns"},
    "spec": {"redis": {"managed": {}}, "agents": [AGENT]},
}
QUEUE = resolve(AgentQueue.model_validate(RESOURCE))
TERMS = Terms(snapshot=ScalingSnapshot(at=1.0, load=Load()), current=0, policy=ScalingPolicy())
LABELS = {"namespace": "ns", "agentqueue": "demo", "agent": "search", "queue": "eu:search"}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_reconciles_and_requests_are_counted() -> None:
    metrics = Metrics()
    metrics.on_reconciled(REF, 0.03, None)
    metrics.on_reconciled(REF, 20.0, "ApiUnavailable")
    metrics.on_api_call("PATCH", "deployments", 200)
    metrics.on_api_call("PROPFIND", "other", 0)
    assert value(metrics, "agentqueue_operator_reconcile_duration_seconds_count") == 2.0
    assert value(metrics, "agentqueue_operator_reconcile_errors_total", error="ApiUnavailable") == 1.0
    requests = "agentqueue_operator_api_requests_total"
    assert value(metrics, requests, verb="patch", resource="deployments", code="200") == 1.0
    assert value(metrics, requests, verb="other", resource="other", code="0") == 1.0


def test_counters_are_shown_as_0_before_they_count() -> None:
    """Prometheus sees no increase in a series that first appears with the value 50."""
    metrics = Metrics()
    assert value(metrics, "agentqueue_operator_reconcile_errors_total", error="ApiUnavailable") == 0.0
    assert value(metrics, "agentqueue_operator_reconcile_errors_total", error="Other") == 0.0
    requests = "agentqueue_operator_api_requests_total"
    for verb, resource, code in (("get", "pods", "200"), ("create", "deployments", "201"), ("patch", "pods", "409")):
        assert value(metrics, requests, verb=verb, resource=resource, code=code) == 0.0
    metrics.on_decided(REF, "search", Hold(ScalingReason.ENOUGH, TERMS, Memory()))
    decided = {"namespace": "ns", "agentqueue": "demo", "agent": "search", "decision": "ScaleTo"}
    for reason in CHANGE_REASONS:
        assert value(metrics, "agentqueue_scale_decisions_total", **decided, reason=reason.value) == 0.0


def test_a_reconcile_with_an_unknown_error_is_counted_under_a_known_name() -> None:
    metrics = Metrics()
    metrics.on_reconciled(REF, 0.1, "ZeroDivisionError")
    assert value(metrics, "agentqueue_operator_reconcile_errors_total", error="ZeroDivisionError") is None
    assert value(metrics, "agentqueue_operator_reconcile_errors_total", error="Other") == 1.0


def test_counters_work_in_any_thread() -> None:
    metrics = Metrics()

    def call() -> None:
        for _ in range(2_000):
            metrics.on_api_call("GET", "pods", 200)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = value(metrics, "agentqueue_operator_api_requests_total", verb="get", resource="pods", code="200")
    assert found == 8_000.0


def test_the_counters_of_a_queue_are_shown_from_its_first_reconcile() -> None:
    metrics = Metrics()
    facts = {"search": AgentFacts(name="search", queue="eu:search", deployment="d", desired=0, ready=0)}
    counted = {"completed": 50, "retried": 3, "dead": 2, "run_ms": 1500, "enqueued": 60, "replayed": 1, "lost": 4}

    def queue_metrics(**counters: int) -> QueueMetrics:
        return QueueMetrics(
            load=Load(),
            heartbeats={},
            marked={},
            delayed=0,
            done=0,
            dead=0,
            arrived=0,
            run_ms=0,
            counters=counters,
        )

    def shown() -> dict[str, float | None]:
        outcomes = {it: value(metrics, "agentqueue_queue_outcomes_total", **LABELS, outcome=it) for it in OUTCOMES}
        others = {
            name: value(metrics, f"agentqueue_queue_{name}_total", **LABELS)
            for name in ("enqueued_jobs", "replayed_jobs", "signals", "lost_outcomes", "run_seconds")
        }
        return outcomes | others

    metrics.on_observed(REF, QUEUE, {"search": Scaled(replicas=0, metrics=queue_metrics())}, facts)
    assert set(shown().values()) == {0.0}
    metrics.on_observed(REF, QUEUE, {"search": Scaled(replicas=0, metrics=queue_metrics(**counted))}, facts)
    assert shown() == {
        "completed": 50.0,
        "retried": 3.0,
        "dead": 2.0,
        "cancelled": 0.0,
        "released": 0.0,
        "suspended": 0.0,
        "crashed": 0.0,
        "enqueued_jobs": 60.0,
        "replayed_jobs": 1.0,
        "signals": 0.0,
        "lost_outcomes": 4.0,
        "run_seconds": 1.5,
    }
    metrics.on_observed(REF, QUEUE, {"search": Scaled(replicas=0)}, facts)
    assert set(shown().values()) == {None}, "what can't be read is not shown as 0: that would be a reset"


def test_an_agent_s_gauges_are_shown_until_it_is_removed() -> None:
    metrics = Metrics()
    load = Load(ready=7, due_soon=1, active=2, oldest_ready=timedelta(seconds=9), paused=True)
    queue = QueueMetrics(load=load, heartbeats={}, marked={}, delayed=3, done=50, dead=4, arrived=60, run_ms=1)
    policy = ScalingPolicy(target_wait=timedelta(seconds=45))
    held = Hold(
        ScalingReason.ENOUGH, Terms(snapshot=ScalingSnapshot(at=1.0, load=load), current=2, policy=policy), Memory()
    )
    scaled = {"search": Scaled(replicas=2, metrics=queue, draining=1, unschedulable=1, decision=held)}
    facts = {"search": AgentFacts(name="search", queue="eu:search", deployment="d", desired=2, ready=1)}
    metrics.on_observed(REF, QUEUE, scaled, facts)
    metrics.on_decided(REF, "search", ScaleTo(3, ScalingReason.BACKLOG, TERMS, Memory()))
    shown = {
        "agentqueue_queue_waiting_jobs": 7.0,
        "agentqueue_queue_due_soon_jobs": 1.0,
        "agentqueue_queue_active_jobs": 2.0,
        "agentqueue_queue_delayed_jobs": 3.0,
        "agentqueue_queue_dead_letters": 4.0,
        "agentqueue_queue_oldest_waiting_seconds": 9.0,
        "agentqueue_queue_paused": 1.0,
        "agentqueue_queue_readable": 1.0,
        "agentqueue_agent_desired_replicas": 2.0,
        "agentqueue_agent_ready_replicas": 1.0,
        "agentqueue_agent_draining_replicas": 1.0,
        "agentqueue_agent_unschedulable_replicas": 1.0,
        "agentqueue_agent_target_wait_seconds": 45.0,
    }
    assert {name: value(metrics, name, **LABELS) for name in shown} == shown
    metrics.on_observed(REF, QUEUE, {"search": Scaled(replicas=2)}, facts)  # the queue can't be read
    assert value(metrics, "agentqueue_queue_waiting_jobs", **LABELS) is None
    assert value(metrics, "agentqueue_queue_readable", **LABELS) == 0.0
    decided = {"namespace": "ns", "agentqueue": "demo", "agent": "search", "decision": "ScaleTo"}
    assert value(metrics, "agentqueue_scale_decisions_total", **decided, reason="Backlog") == 1.0
    metrics.on_removed(REF)
    assert value(metrics, "agentqueue_queue_readable", **LABELS) is None
    assert value(metrics, "agentqueue_scale_decisions_total", **decided, reason="Backlog") is None
