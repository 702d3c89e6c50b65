"""Agents are merged with agentDefaults and the built-in defaults."""

from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from agentqueue.spec import AgentQueue, ExternalRedis, ManagedRedis, ResolvedAgent, ScalingMode, resolve
from agentqueue.spec import defaults as built_in
from agentqueue.spec.agents import AgentDefaults, AgentSpec, Overlay
from agentqueue.spec.worker_environment import worker_environment
from tests.support import resources


def resolved(data: Any) -> ResolvedAgent:
    return resolve(AgentQueue.model_validate(data)).agent("a")


def overlays() -> list[type[Overlay]]:
    return [kind for kind in Overlay.__subclasses__() if kind is not AgentDefaults]


def test_the_built_in_defaults_are_those_of_the_documentation() -> None:
    agent = resolved(resources.agent())
    assert (agent.name, agent.queue_name, agent.handler, agent.image) == ("a", "a", "m:a", None)
    assert (agent.concurrency, agent.job_timeout_seconds, agent.termination_grace_period_seconds) == (5, 300, 60)
    assert agent.retry == built_in.RetrySettings(
        3, 3, built_in.BackoffSettings(built_in.BackoffType.EXPONENTIAL, 2, 600, 0.1)
    )
    assert agent.retention == built_in.Retention(3_600, 86_400, 1_000, 604_800)
    assert agent.ageing == built_in.Ageing(60, 300, 900)
    assert agent.scaling == built_in.Scaling()
    assert (agent.scaling.mode, agent.scaling.min_replicas, agent.scaling.max_replicas) == (ScalingMode.AUTO, 0, 10)
    assert (agent.scaling.target_wait_seconds, agent.scaling.fallback.failure_threshold) == (30, 3)
    assert (agent.rate_limit, agent.on_dead_letter, agent.dead_letter_queue, agent.code_from) == (None,) * 4
    assert (agent.env, agent.env_from, agent.requests, agent.limits, agent.pod_templates) == ((), (), {}, {}, ())


def test_the_agent_goes_before_agent_defaults_before_the_built_in_default_field_by_field() -> None:
    shared = {
        "concurrency": 7,
        "scaling": {"minReplicas": 2, "maxReplicas": 4, "fallback": {"behavior": "Max"}},
        "retry": {"attempts": 9, "backoff": {"delaySeconds": 1}},
    }
    own = {"scaling": {"maxReplicas": 6, "fallback": {"failureThreshold": 8}}, "retry": {"backoff": {"jitter": 0}}}
    agent = resolved(resources.agent(shared, **own))
    assert (agent.concurrency, agent.retry.attempts, agent.retry.backoff.delay_seconds) == (7, 9, 1)
    assert (agent.retry.backoff.jitter, agent.retry.crashes) == (0, 3)
    assert (agent.scaling.min_replicas, agent.scaling.max_replicas, agent.scaling.target_wait_seconds) == (2, 6, 30)
    assert (agent.scaling.fallback.behavior, agent.scaling.fallback.failure_threshold) == ("Max", 8)


def test_zero_is_a_value_and_null_is_none() -> None:
    shared = {"scaling": {"minReplicas": 3}, "concurrency": 4}
    agent = resolved(resources.agent(shared, scaling={"minReplicas": 0}, concurrency=None))
    assert (agent.scaling.min_replicas, agent.concurrency) == (0, 4)


def test_a_rate_limit_is_taken_whole() -> None:
    shared = {"rateLimit": {"max": 5, "durationSeconds": 60}}
    assert resolved(resources.agent(shared)).rate_limit == built_in.RateLimit(5, 60)
    assert resolved(resources.agent(shared, rateLimit={"max": 2})).rate_limit == built_in.RateLimit(2, 1)


def test_the_delays_cap_is_never_below_the_delay() -> None:
    assert resolved(resources.agent(retry={"backoff": {"delaySeconds": 900}})).retry.backoff.max_delay_seconds == 900


def test_everyones_dead_letters_go_to_the_default_agent_but_its_own() -> None:
    data = resources.agent({"onDeadLetter": {"agent": "b"}})
    data["spec"]["agents"][1]["queueName"] = "errors:v2"
    queue = resolve(AgentQueue.model_validate(data))
    assert queue.agent("a").on_dead_letter == built_in.DeadLetterSettings("b", "dead-letter")
    assert queue.agent("a").dead_letter_queue == "errors:v2"
    assert (queue.agent("b").on_dead_letter, queue.agent("b").dead_letter_queue) == (None, None)


def test_variables_merge_by_name_and_sources_follow_each_other() -> None:
    shared = {
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}],
        "envFrom": [{"secretRef": {"name": "s"}}],
    }
    own = {
        "env": [{"name": "B", "value": "2"}, {"name": "C", "value": "2"}],
        "envFrom": [{"configMapRef": {"name": "c"}}],
    }
    agent = resolved(resources.agent(shared, **own))
    assert [(var.name, var.value) for var in agent.env] == [("A", "1"), ("B", "2"), ("C", "2")]
    assert [source.secret_ref is not None for source in agent.env_from] == [True, False]


def test_resources_merge_by_name_and_templates_are_laid_in_order() -> None:
    shared = {
        "resources": {"requests": {"cpu": 1, "memory": "1Gi"}},
        "podTemplate": {"spec": {"nodeSelector": {"a": "b"}, "x": None}},
        "image": "shared:1",
        "codeFrom": {"configMap": {"name": "code"}},
    }
    own = {"resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "2Gi"}}, "podTemplate": {"metadata": {}}}
    agent = resolved(resources.agent(shared, **own))
    assert (agent.requests, agent.limits) == ({"cpu": "500m", "memory": "1Gi"}, {"memory": "2Gi"})
    first, second = (t.model_dump(by_alias=True, exclude_unset=True) for t in agent.pod_templates)
    assert first == {"spec": {"nodeSelector": {"a": "b"}, "x": None}}
    assert second == {"metadata": {}}
    assert agent.image == "shared:1"
    assert agent.code_from is not None
    assert agent.code_from.config_map.name == "code"


def test_the_queue_as_a_whole() -> None:
    data = resources.resource("q", suspend=True)
    data["metadata"]["namespace"] = "prod"
    queue = resolve(AgentQueue.model_validate(data))
    assert (queue.name, queue.namespace, queue.suspend, len(queue.agents)) == ("q", "prod", True, 2)
    assert isinstance(queue.redis, ManagedRedis)
    assert (queue.redis.storage.size, queue.redis.persistence.appendfsync) == ("1Gi", "always")
    assert (queue.console.enabled, queue.network_policy.enabled, queue.monitoring.pod_monitor.enabled) == (
        True,
        True,
        False,
    )
    assert queue.pod_disruption_budget.workers.max_unavailable == "50%"
    assert isinstance(resolve(AgentQueue.model_validate(resources.EXTERNAL)).redis, ExternalRedis)
    with pytest.raises(KeyError):
        queue.agent("c")


def test_a_resolved_agent_can_be_told_to_a_worker() -> None:
    told = worker_environment(resolved(resources.agent({"rateLimit": {"max": 3}}, queueName="q")))
    assert {"AGENTQUEUE_QUEUE": "q", "AGENTQUEUE_RATE_LIMIT_MAX": "3"}.items() <= told.items()


@pytest.mark.parametrize("overlay", overlays(), ids=lambda kind: kind.__name__)
def test_each_overlay_has_the_fields_of_its_filled_in_twin(overlay: type[Overlay]) -> None:
    assert is_dataclass(overlay.filled)
    assert set(overlay.model_fields) == {field.name for field in fields(overlay.filled)}


def test_the_agents_settings_are_among_what_the_resource_and_agent_defaults_have() -> None:
    settings = {field.name for field in fields(built_in.AgentSettings)}
    assert settings < set(AgentDefaults.model_fields)
    elsewhere = {"image", "code_from", "env", "env_from", "resources", "pod_template"}
    assert set(AgentDefaults.model_fields) - settings == elsewhere
    assert set(AgentSpec.model_fields) - set(AgentDefaults.model_fields) == {
        "name",
        "queue_name",
        "handler",
        "schedules",
    }


@pytest.mark.parametrize("overlay", [*overlays(), AgentDefaults], ids=lambda kind: kind.__name__)
def test_no_default_in_an_agent_masks_agent_defaults(overlay: type[Overlay]) -> None:
    assert [
        name for name, info in overlay.model_fields.items() if not info.is_required() and info.default is not None
    ] == []
