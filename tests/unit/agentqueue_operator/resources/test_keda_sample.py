"""The sample for KEDA refers to the Deployment of an External agent and to existing metrics."""

import re
from pathlib import Path
from typing import Any

import yaml

from agentqueue.spec import load_file, resolve
from agentqueue.spec.defaults import ScalingMode
from agentqueue_operator.controller.metrics import AGENT_GAUGES, AGENT_LABELS
from agentqueue_operator.resources.render import worker_name

SAMPLE = Path(__file__).parents[4] / "manifests/samples/scaledobject.yaml"


def scaled_object() -> Any:
    return next(one for one in yaml.safe_load_all(SAMPLE.read_text()) if one["kind"] == "ScaledObject")


def test_it_scales_the_deployment_of_an_external_agent() -> None:
    queue = resolve(load_file(SAMPLE).one())
    (agent,) = queue.agents
    assert agent.scaling.mode.value == ScalingMode.EXTERNAL
    assert scaled_object()["spec"]["scaleTargetRef"]["name"] == worker_name(queue.name, agent.name)


def test_it_counts_waiting_and_running_jobs_by_metrics_that_there_are() -> None:
    (trigger,) = scaled_object()["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    names = set(re.findall(r"agentqueue_\w+", query))
    assert {"agentqueue_queue_waiting_jobs", "agentqueue_queue_active_jobs"} <= names <= AGENT_GAUGES.keys()
    assert set(re.findall(r"(\w+)=", query)) <= set(AGENT_LABELS)
    assert int(trigger["metadata"]["threshold"]) == load_file(SAMPLE).one().spec.agents[0].concurrency
