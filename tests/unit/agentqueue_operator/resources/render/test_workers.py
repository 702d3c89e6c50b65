"""The rendered objects of workers."""

from dataclasses import replace
from typing import Any

import pytest

from agentqueue.errors import InvalidSpec
from agentqueue.service import environment
from agentqueue.spec.worker_environment import worker_environment
from agentqueue_operator.resources.kinds import Object
from agentqueue_operator.resources.render import (
    redis_name,
    worker_name,
)
from tests.support import resources
from tests.support.rendering import IN_CLUSTER, container, find, kinds, queue, rendered, template, variables


def test_a_worker_reads_its_settings_the_servers_address_and_its_own_name_from_the_environment() -> None:
    found = variables()
    resolved = queue().agent("a")
    assert worker_environment(resolved).items() <= found.items()
    assert found[environment.REDIS_URL] == {"secretKeyRef": {"name": redis_name("case"), "key": "url"}}
    assert found[environment.WORKER_NAME] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert found[environment.POD_UID] == {"fieldRef": {"fieldPath": "metadata.uid"}}
    (port,) = container()["ports"]
    assert found[environment.PROBE_PORT] == str(port["containerPort"])


def test_replicas_are_the_autoscalers_and_left_out_for_others() -> None:
    made = rendered()
    assert find(made, "Deployment", worker_name("case", "a"))["spec"]["replicas"] == 3
    assert "replicas" not in find(made, "Deployment", worker_name("case", "b"))["spec"]


def test_the_users_variables_come_last_and_may_not_be_ours() -> None:
    data = resources.agent(
        env=[
            {"name": "LOG", "value": "$(AGENTQUEUE_QUEUE)"},
            {"name": environment.CONCURRENCY, "value": "99"},
            {"name": environment.LOG_LEVEL, "value": "debug"},
            {"name": "HOME", "value": "/data"},
        ],
        envFrom=[{"secretRef": {"name": "s"}}, {"prefix": "P_", "configMapRef": {"name": "c", "optional": True}}],
    )
    names = [it["name"] for it in container(data)["env"]]
    assert names[-3:] == ["LOG", environment.LOG_LEVEL, "HOME"]
    assert (variables(data)[environment.CONCURRENCY], variables(data)["HOME"]) == ("5", "/data")
    assert variables()["HOME"] == "/tmp"
    assert container(data)["envFrom"] == [
        {"secretRef": {"name": "s"}},
        {"prefix": "P_", "configMapRef": {"name": "c", "optional": True}},
    ]


CODE = {"configMap": {"name": "code"}}


@pytest.mark.parametrize(
    ("env", "path"),
    [
        pytest.param([], "/etc/agentqueue/code", id="alone"),
        pytest.param([{"name": "PYTHONPATH", "value": "/own"}], "/etc/agentqueue/code:/own", id="before-the-users-own"),
        pytest.param([{"name": "PYTHONPATH"}], "/etc/agentqueue/code", id="an-empty-one-adds-nothing"),
        pytest.param(
            [{"name": "PYTHONPATH", "valueFrom": {"fieldRef": {"fieldPath": "a"}}}],
            {"fieldRef": {"fieldPath": "a"}},
            id="one-that-is-not-known-stays",
        ),
    ],
)
def test_code_from_a_config_map_is_on_the_import_path(env: list[Object], path: Any) -> None:
    data = resources.agent(codeFrom=CODE, env=env)
    assert variables(data)["PYTHONPATH"] == path
    assert {"name": "code", "configMap": {"name": "code"}} in template(data)["spec"]["volumes"]
    mount = {"name": "code", "mountPath": "/etc/agentqueue/code", "readOnly": True}
    assert mount in container(data)["volumeMounts"]
    assert container(data)["image"] == "worker:1"


def test_the_pods_time_to_end_is_the_agents_and_the_worker_knows_it() -> None:
    data = resources.agent(terminationGracePeriodSeconds=77)
    assert template(data)["spec"]["terminationGracePeriodSeconds"] == 77
    assert variables(data)[environment.GRACE_PERIOD] == "77"


def test_resources_are_the_users() -> None:
    assert "resources" not in container()
    asked = {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}
    assert container(resources.agent(resources=asked))["resources"] == asked
    assert container(resources.agent(resources={"limits": {"cpu": 2}}))["resources"] == {"limits": {"cpu": "2"}}


def test_probes_never_depend_on_redis_and_tolerate_short_failures() -> None:
    found = container()
    assert found["startupProbe"]["httpGet"]["path"] == found["readinessProbe"]["httpGet"]["path"] == "/readyz"
    live = found["livenessProbe"]
    assert live["httpGet"] == {"path": "/healthz", "port": "http"}
    assert live["periodSeconds"] * live["failureThreshold"] >= 60


def test_a_rollout_follows_the_agents_settings() -> None:
    data = resources.agent(rollout={"maxSurge": 2, "maxUnavailable": "10%", "progressDeadlineSeconds": 99})
    spec = find(rendered(data), "Deployment", worker_name("case", "a"))["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 2, "maxUnavailable": "10%"}
    assert spec["progressDeadlineSeconds"] == 99


def test_pod_templates_are_merged_in_order() -> None:
    def with_image(image: str, **more: Any) -> Object:
        return {"spec": {"containers": [{"name": "worker", "image": image}], **more}}

    data = resources.agent(
        {"podTemplate": with_image("shared:1", nodeSelector={"a": "1"})}, podTemplate=with_image("own:1")
    )
    assert template(data)["spec"]["containers"][0]["image"] == "own:1"
    assert template(data)["spec"]["nodeSelector"] == {"a": "1"}


def test_a_pod_template_that_cannot_be_merged_is_an_error_of_the_resource() -> None:
    data = resources.agent(podTemplate={"spec": {"containers": [{"image": "x"}]}})
    with pytest.raises(InvalidSpec, match=r"agent a: podTemplate\.spec\.containers\[0\] lacks its merge key name"):
        rendered(data)


def test_disruption_budgets_let_a_drain_go_on() -> None:
    data = resources.resource(podDisruptionBudget={"redis": {"enabled": True}, "workers": {"enabled": True}})
    budgets = [it for it in rendered(data) if it["kind"] == "PodDisruptionBudget"]
    assert [it["spec"]["maxUnavailable"] for it in budgets] == [1, "50%", "50%"]
    assert {it["spec"]["unhealthyPodEvictionPolicy"] for it in budgets} == {"AlwaysAllow"}
    assert "PodDisruptionBudget" not in kinds(rendered())


def test_a_pod_monitor_is_rendered_if_it_is_enabled_and_the_cluster_knows_the_kind() -> None:
    data = resources.resource(monitoring={"podMonitor": {"enabled": True, "intervalSeconds": 7, "labels": {"x": "y"}}})
    (monitor,) = (it for it in rendered(data) if it["kind"] == "PodMonitor")
    assert monitor["metadata"]["labels"]["x"] == "y"
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"], endpoint["interval"]) == ("http", "/metrics", "7s")
    assert {it["targetLabel"]: it["sourceLabels"] for it in endpoint["relabelings"]} == {
        "agentqueue": ["__meta_kubernetes_pod_label_agentqueue_dev_queue"],
        "agent": ["__meta_kubernetes_pod_label_agentqueue_dev_agent"],
    }
    assert "PodMonitor" not in kinds(rendered(data, replace(IN_CLUSTER, pod_monitors=False)))
    assert "PodMonitor" not in kinds(rendered())
