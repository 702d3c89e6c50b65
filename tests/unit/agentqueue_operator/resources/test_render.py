"""From an AgentQueue to its objects. The whole of it is in tests/golden/render; here is what must hold."""

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st

from agentqueue.errors import InvalidSpec
from agentqueue.service import environment
from agentqueue.spec import AgentQueue, ResolvedQueue, resolve
from agentqueue.spec.worker_environment import worker_environment
from agentqueue_operator.resources.children import last_content
from agentqueue_operator.resources.kinds import CONFIG_MAP, PRUNED, SECRET, Object
from agentqueue_operator.resources.render import (
    Images,
    Reference,
    RenderContext,
    console_name,
    redis_name,
    references_of,
    render,
    worker_name,
)
from agentqueue_operator.resources.render.placeholders import offline
from agentqueue_operator.resources.render.quantity import amount
from agentqueue_operator.resources.render.redis import quoted
from tests.support import resources
from tools.golden import golden_files

ROOT = Path(__file__).parents[4]
IMAGES = Images("worker:1", "redis:1", "console:1")
IN_CLUSTER = RenderContext(
    namespace="ns",
    images=IMAGES,
    owner="0-1-2",
    replicas={"a": 3},
    password="p/w@d é",
    console_token="t",
    operator_namespace="system",
    pod_monitors=True,
)
UPSTASH = {"external": {"urlSecretRef": {"name": "s"}}}


def queue(data: Object | None = None) -> ResolvedQueue:
    return resolve(AgentQueue.model_validate(data or resources.resource()))


def rendered(data: Object | None = None, context: RenderContext = IN_CLUSTER) -> tuple[Object, ...]:
    return render(queue(data), context)


def find(manifests: tuple[Object, ...], kind: str, name: str) -> Object:
    (found,) = (it for it in manifests if (it["kind"], it["metadata"]["name"]) == (kind, name))
    return found


def kinds(manifests: tuple[Object, ...]) -> list[str]:
    return [it["kind"] for it in manifests]


def template(data: Object | None = None, context: RenderContext = IN_CLUSTER, agent: str = "a") -> Object:
    """The template of an agent's pods."""
    return dict(find(rendered(data, context), "Deployment", worker_name("case", agent))["spec"]["template"])


def container(data: Object | None = None, context: RenderContext = IN_CLUSTER) -> Object:
    return dict(template(data, context)["spec"]["containers"][0])


def variables(data: Object | None = None, context: RenderContext = IN_CLUSTER) -> dict[str, Any]:
    return {it["name"]: it.get("value", it.get("valueFrom")) for it in container(data, context)["env"]}


def decoded(secret: Object) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def redis_conf(data: Object | None = None) -> list[str]:
    config = find(rendered(data), "ConfigMap", redis_name("case"))
    return str(config["data"]["redis.conf"]).splitlines()


# All objects


@pytest.mark.parametrize(("path", "make"), golden_files().items(), ids=map(str, golden_files()))
def test_rendering_is_as_the_golden_files_have_it(path: str, make: Any) -> None:
    """A change in a worker's pod restarts it when the operator is upgraded: it must be meant (`make generated`)."""
    assert make() == (ROOT / path).read_text(encoding="utf-8")


def test_every_object_says_whose_it_is_and_what_it_was_rendered_as() -> None:
    owner = {
        "apiVersion": "agentqueue.dev/v1alpha1",
        "kind": "AgentQueue",
        "name": "case",
        "uid": "0-1-2",
        "controller": True,
        "blockOwnerDeletion": False,
    }
    for manifest in rendered():
        metadata = manifest["metadata"]
        assert metadata["ownerReferences"] == [owner]
        assert metadata["namespace"] == "ns"
        assert metadata["labels"]["agentqueue.dev/queue"] == "case"
        assert re.fullmatch("[0-9a-f]{16}", metadata["annotations"]["agentqueue.dev/manifest-hash"])


def test_no_object_has_an_owner_offline_and_a_volume_never() -> None:
    assert not any("ownerReferences" in it["metadata"] for it in rendered(context=replace(IN_CLUSTER, owner=None)))
    (claim,) = find(rendered(), "StatefulSet", redis_name("case"))["spec"]["volumeClaimTemplates"]
    assert "ownerReferences" not in claim["metadata"]


def test_every_kind_that_is_rendered_is_pruned_when_it_is_rendered_no_more() -> None:
    data = resources.resource(
        monitoring={"podMonitor": {"enabled": True}},
        podDisruptionBudget={"redis": {"enabled": True}, "workers": {"enabled": True}},
    )
    assert set(kinds(rendered(data))) == {kind.kind for kind in PRUNED}


def test_no_two_objects_have_a_name_and_rendering_is_deterministic_json() -> None:
    manifests = rendered()
    names = [(it["kind"], it["metadata"]["name"]) for it in manifests]
    assert len(set(names)) == len(names)
    assert json.dumps(manifests) == json.dumps(rendered())


def test_redis_comes_before_the_workers_and_the_console_last() -> None:
    order = [
        it["metadata"]["labels"]["agentqueue.dev/component"] for it in rendered() if "template" in it.get("spec", {})
    ]
    assert order == ["redis", "worker", "worker", "console"]


def test_names_do_not_meet_and_fit() -> None:
    assert worker_name("a-b", "c") != worker_name("a", "b-c")
    longest = "q" * 30
    assert worker_name("case", "a") == "case-a-" + worker_name("case", "a")[-5:]
    assert len(redis_name(longest) + "-0") <= 63
    assert len(console_name(longest)) <= 63
    assert len(worker_name(longest, "a" * 40)) <= 253


def test_the_hash_tells_any_change_of_the_manifest() -> None:
    def hashes(context: RenderContext) -> dict[tuple[str, str], str]:
        made = rendered(context=context)
        return {
            (it["kind"], it["metadata"]["name"]): it["metadata"]["annotations"]["agentqueue.dev/manifest-hash"]
            for it in made
        }

    before, after = hashes(IN_CLUSTER), hashes(replace(IN_CLUSTER, replicas={"a": 4}))
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {("Deployment", worker_name("case", "a"))}


def pods(manifests: tuple[Object, ...]) -> Iterator[Object]:
    yield from (it["spec"]["template"]["spec"] for it in manifests if "template" in it.get("spec", {}))


def test_every_pod_is_restricted_has_no_token_and_a_root_that_nobody_writes_to() -> None:
    found = list(pods(rendered()))
    assert len(found) == 4
    for spec in found:
        (only,) = spec["containers"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert only["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert only["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_only_workers_have_a_tmp_so_that_redis_and_the_console_drain_without_being_asked_for_their_data() -> None:
    for spec in pods(rendered()):
        (only,) = spec["containers"]
        own = [it["name"] for it in spec.get("volumes", ()) if "emptyDir" in it]
        mounted = [it["name"] for it in only.get("volumeMounts", ()) if it["mountPath"] == "/tmp"]
        assert own == mounted == (["tmp"] if only["name"] == "worker" else [])
    evictable = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
    for manifest in rendered():
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            template = manifest["spec"]["template"]
            worker = template["spec"]["containers"][0]["name"] == "worker"
            assert (evictable in template["metadata"]["annotations"]) is worker


def test_no_pod_changes_with_the_operators_version() -> None:
    from agentqueue import __version__

    assert __version__ not in json.dumps(list(pods(rendered())))


def test_selectors_are_labels_that_no_pod_template_may_change() -> None:
    for manifest in rendered():
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            chosen = manifest["spec"]["selector"]["matchLabels"]
            assert all(key.startswith("agentqueue.dev/") for key in chosen)
            assert chosen.items() <= manifest["spec"]["template"]["metadata"]["labels"].items()


# Workers


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


def test_probes_ask_what_never_depends_on_redis_and_forgive_a_while() -> None:
    found = container()
    assert found["startupProbe"]["httpGet"]["path"] == found["readinessProbe"]["httpGet"]["path"] == "/readyz"
    live = found["livenessProbe"]
    assert live["httpGet"] == {"path": "/healthz", "port": "http"}
    assert live["periodSeconds"] * live["failureThreshold"] >= 60


def test_a_rollout_is_as_the_agent_says() -> None:
    data = resources.agent(rollout={"maxSurge": 2, "maxUnavailable": "10%", "progressDeadlineSeconds": 99})
    spec = find(rendered(data), "Deployment", worker_name("case", "a"))["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 2, "maxUnavailable": "10%"}
    assert spec["progressDeadlineSeconds"] == 99


def test_pod_templates_are_laid_over_in_order() -> None:
    def with_image(image: str, **more: Any) -> Object:
        return {"spec": {"containers": [{"name": "worker", "image": image}], **more}}

    data = resources.agent(
        {"podTemplate": with_image("shared:1", nodeSelector={"a": "1"})}, podTemplate=with_image("own:1")
    )
    assert template(data)["spec"]["containers"][0]["image"] == "own:1"
    assert template(data)["spec"]["nodeSelector"] == {"a": "1"}


def test_a_pod_template_that_cannot_be_laid_over_is_an_error_of_the_resource() -> None:
    data = resources.agent(podTemplate={"spec": {"containers": [{"image": "x"}]}})
    with pytest.raises(InvalidSpec, match=r"agent a: podTemplate\.spec\.containers\[0\] has no name"):
        rendered(data)


def test_disruption_budgets_let_a_drain_go_on() -> None:
    data = resources.resource(podDisruptionBudget={"redis": {"enabled": True}, "workers": {"enabled": True}})
    budgets = [it for it in rendered(data) if it["kind"] == "PodDisruptionBudget"]
    assert [it["spec"]["maxUnavailable"] for it in budgets] == [1, "50%", "50%"]
    assert {it["spec"]["unhealthyPodEvictionPolicy"] for it in budgets} == {"AlwaysAllow"}
    assert "PodDisruptionBudget" not in kinds(rendered())


def test_a_pod_monitor_is_made_where_it_is_asked_for_and_known() -> None:
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


# What rolls pods


def content(context: RenderContext, data: Object | None = None) -> dict[str, Object]:
    """The annotations of all pods, by object."""
    made = rendered(data, context)
    return {
        it["metadata"]["name"]: it["spec"]["template"]["metadata"]["annotations"]
        for it in made
        if "template" in it.get("spec", {})
    }


def changed(before: dict[str, Object], after: dict[str, Object]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


A, B, R, C = worker_name("case", "a"), worker_name("case", "b"), redis_name("case"), console_name("case")


@pytest.mark.parametrize(
    ("now", "rolled"),
    [
        pytest.param(IN_CLUSTER, set(), id="nothing"),
        pytest.param(replace(IN_CLUSTER, replicas={}), set(), id="replicas"),
        pytest.param(replace(IN_CLUSTER, password="new"), {A, B, R, C}, id="the-password"),
        pytest.param(replace(IN_CLUSTER, console_token="new"), {C}, id="the-token"),
        pytest.param(replace(IN_CLUSTER, content_hashes={"a": "1"}), {A}, id="an-agents-secrets"),
        pytest.param(replace(IN_CLUSTER, content_hashes={"redis": "1"}), {R}, id="the-servers-certificate"),
        pytest.param(replace(IN_CLUSTER, content_hashes={"console": "1"}), {C}, id="the-consoles"),
    ],
)
def test_pods_start_anew_when_what_they_read_at_their_start_changes(now: RenderContext, rolled: set[str]) -> None:
    assert changed(content(IN_CLUSTER), content(now)) == rolled


def test_the_users_content_is_told_as_it_was_given_so_that_it_can_be_read_back() -> None:
    annotations = content(replace(IN_CLUSTER, content_hashes={"a": "abc"}))
    assert annotations[A]["agentqueue.dev/content-hash"] == "abc"
    assert "agentqueue.dev/content-hash" not in annotations[B]


@pytest.mark.parametrize("part", ["a", "redis", "console"])
def test_content_that_may_not_be_read_any_more_is_told_by_the_live_pods(part: str) -> None:
    made = rendered(context=replace(IN_CLUSTER, content_hashes={part: "abc"}))
    assert last_content("case", part, made) == "abc"
    assert last_content("case", "b", made) is None, "never read"
    assert last_content("case", "c", made) is None, "not there"


def test_redis_starts_anew_when_its_configuration_changes_but_nothing_else_does() -> None:
    before = content(IN_CLUSTER, resources.managed(config={"hz": "10"}))
    assert changed(before, content(IN_CLUSTER, resources.managed(config={"hz": "20"}))) == {R}


def test_a_token_of_the_users_own_is_its_secrets_business() -> None:
    data = resources.resource(console={"tokenSecretRef": {"name": "own", "key": "k"}})
    assert content(IN_CLUSTER, data) == content(replace(IN_CLUSTER, console_token="new"), data)


def test_references_name_all_that_pods_read_wherever_it_was_written() -> None:
    data = resources.agent(
        codeFrom=CODE,
        env=[
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s1", "key": "k"}}},
            {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c1", "key": "k"}}},
            {"name": "C", "value": "plain"},
        ],
        envFrom=[{"secretRef": {"name": "s2"}}, {"configMapRef": {"name": "c2"}}],
        podTemplate={
            "spec": {
                "imagePullSecrets": [{"name": "pull"}],
                "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "s3"}}]}],
                "volumes": [
                    {"name": "v1", "secret": {"secretName": "s4"}},
                    {"name": "v2", "configMap": {"name": "c4"}},
                    {
                        "name": "v3",
                        "projected": {"sources": [{"secret": {"name": "s5"}}, {"configMap": {"name": "c5"}}]},
                    },
                ],
            }
        },
    )
    found = references_of(queue(data), IN_CLUSTER)
    secrets = {Reference(SECRET, f"s{n}") for n in range(1, 6)}
    assert found["a"] == secrets | {Reference(CONFIG_MAP, name) for name in ("code", "c1", "c2", "c4", "c5")}
    assert found["b"] == found["redis"] == found["console"] == frozenset()


def test_references_of_an_external_redis_are_its_url_but_not_its_certificates() -> None:
    tls = {"caSecretRef": {"name": "ca", "key": "pem"}, "clientCertificateSecretName": "client"}
    sentinel = {"masterName": "m", "nodes": ["h:1"], "passwordSecretRef": {"name": "sp", "key": "k"}}
    redis = {"external": {"urlSecretRef": {"name": "s"}, "tls": tls, "sentinel": sentinel}}
    found = references_of(queue(resources.resource(redis=redis, console={"enabled": False})), IN_CLUSTER)
    assert found == dict.fromkeys("ab", frozenset({Reference(SECRET, "s"), Reference(SECRET, "sp")}))


def test_references_of_the_managed_redis_are_its_certificate_and_the_consoles_its_token() -> None:
    data = resources.managed(tls={"secretName": "cert"})
    data["spec"]["console"] = {"tokenSecretRef": {"name": "token", "key": "k"}}
    found = references_of(queue(data), IN_CLUSTER)
    assert found["redis"] == {Reference(SECRET, "cert")}
    assert found["console"] == {Reference(SECRET, "token")}
    assert found["a"] == frozenset()


@pytest.mark.parametrize(
    "spec",
    [
        {"$patch": "delete"},
        {"volumes": "none", "containers": [{"name": "worker", "env": "x", "envFrom": [1]}]},
        {"volumes": [{"name": "v", "secret": 1}, {"name": "w", "secret": {"secretName": 5}}]},
    ],
)
def test_references_of_a_nonsensical_pod_template_are_none(spec: Object) -> None:
    """The API server refuses it; that is told by a condition, and nothing else may break."""
    assert references_of(queue(resources.agent(podTemplate={"spec": spec})), IN_CLUSTER)["a"] == frozenset()


# The managed Redis


def test_redis_keeps_every_job_and_refuses_what_does_not_fit() -> None:
    lines = redis_conf()
    for line in ("appendonly yes", "appendfsync always", 'save ""', "maxmemory-policy noeviction", "dir /data"):
        assert line in lines
    assert not any(line.startswith("maxmemory ") for line in lines)
    assert "appendfsync everysec" in redis_conf(resources.managed(persistence={"appendfsync": "everysec"}))


@pytest.mark.parametrize(
    ("limit", "maxmemory"), [("1Gi", 805_306_368), ("1500M", 1_125_000_000), ("1e9", 750_000_000), (1_000_000, 750_000)]
)
def test_redis_may_use_three_quarters_of_its_memory(limit: Any, maxmemory: int) -> None:
    assert f"maxmemory {maxmemory}" in redis_conf(resources.managed(resources={"limits": {"memory": limit}}))
    assert not any(
        it.startswith("maxmemory ") for it in redis_conf(resources.managed(resources={"limits": {"cpu": 1}}))
    )


def test_the_users_configuration_goes_over_ours_and_the_password_over_all() -> None:
    data = resources.managed(config={"hz": "50", "notify-keyspace-events": ""}, resources={"limits": {"memory": "1Gi"}})
    assert redis_conf(data)[-3:] == [
        "hz 50",
        'notify-keyspace-events ""',
        "include /etc/agentqueue/redis-auth/auth.conf",
    ]


def test_the_password_is_in_one_secret_and_nowhere_else() -> None:
    password = "s3cret-Pa55word"
    manifests = rendered(context=replace(IN_CLUSTER, password=password))
    (secret,) = (
        it
        for it in manifests
        if "s3cret" in json.dumps(it) or base64.b64encode(password.encode()).decode() in json.dumps(it)
    )
    assert (secret["kind"], secret["metadata"]["name"]) == ("Secret", redis_name("case"))
    assert decoded(secret)["password"] == password


def test_the_connection_secret_holds_the_url_and_a_line_of_redis_conf() -> None:
    found = decoded(find(rendered(), "Secret", redis_name("case")))
    host = f"{redis_name('case')}.ns.svc:6379"
    assert found == {
        "password": "p/w@d é",
        "url": f"redis://default:p%2Fw%40d%20%C3%A9@{host}/0",
        "auth.conf": 'requirepass "p\\x2fw\\x40d\\x20\\xc3\\xa9"\n',
    }


def test_without_a_known_password_there_is_no_connection_secret_and_all_else_is_as_ever() -> None:
    with_it, without = rendered(), rendered(context=replace(IN_CLUSTER, password=None))
    gone = {(it["kind"], it["metadata"]["name"]) for it in with_it} - {
        (it["kind"], it["metadata"]["name"]) for it in without
    }
    assert gone == {("Secret", redis_name("case"))}


@hypothesis_given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_text_survives_redis_conf(text: str) -> None:
    line = quoted(text)
    assert re.fullmatch(r'"([A-Za-z0-9]|\\x[0-9a-f]{2})*"', line)
    read = re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), line[1:-1].encode())
    assert read.decode() == text


def test_redis_speaks_tls_only_when_asked_to_and_clients_know_its_authority() -> None:
    data = resources.managed(tls={"secretName": "cert"})
    lines = redis_conf(data)
    assert {"port 0", "tls-port 6379", "tls-auth-clients no"} <= set(lines)
    assert "port 6379" in redis_conf()
    assert decoded(find(rendered(data), "Secret", redis_name("case")))["url"].startswith("rediss://")
    assert variables(data)[environment.REDIS_CA_FILE] == "/etc/agentqueue/redis-ca/ca.crt"
    (volume,) = (it for it in template(data)["spec"]["volumes"] if it["name"] == "redis-ca")
    assert volume["secret"] == {"secretName": "cert", "items": [{"key": "ca.crt", "path": "ca.crt"}]}, "no private key"
    assert "--tls" in find(rendered(data), "ConfigMap", redis_name("case"))["data"]["probe.sh"]
    assert "--tls" not in find(rendered(), "ConfigMap", redis_name("case"))["data"]["probe.sh"]


def test_the_volume_is_kept_whatever_goes() -> None:
    spec = find(rendered(resources.storage(size="9Gi", storageClassName="fast")), "StatefulSet", redis_name("case"))[
        "spec"
    ]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"]["resources"] == {"requests": {"storage": "9Gi"}}
    assert claim["spec"]["storageClassName"] == "fast"
    (default,) = find(rendered(), "StatefulSet", redis_name("case"))["spec"]["volumeClaimTemplates"]
    assert "storageClassName" not in default["spec"]


def test_redis_has_a_pod_template_and_resources_too() -> None:
    data = resources.managed(
        resources={"limits": {"cpu": "1"}}, podTemplate={"spec": {"nodeSelector": {"disk": "ssd"}}}
    )
    spec = find(rendered(data), "StatefulSet", redis_name("case"))["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"disk": "ssd"}
    assert spec["containers"][0]["resources"] == {"limits": {"cpu": "1"}}
    (default,) = find(rendered(), "StatefulSet", redis_name("case"))["spec"]["template"]["spec"]["containers"]
    assert "requests" in default["resources"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("500m", 0.5), ("1.5Gi", 1_610_612_736), ("2k", 2_000), ("1E", 1e18),
        ("1e3", 1_000), ("1E-1", 0.1), ("3n", 3e-9), ("2.", 2),
    ],
)  # fmt: skip
def test_quantities(text: str, value: float) -> None:
    assert float(amount(text)) == value


# An external Redis


def test_an_external_redis_is_reached_by_the_users_secret_and_nothing_of_ours_is_made() -> None:
    data = resources.resource(redis=UPSTASH)
    made = rendered(data, replace(IN_CLUSTER, password=None))
    assert {"StatefulSet", "ConfigMap"}.isdisjoint(kinds(made))
    assert not any(it["metadata"]["name"] == redis_name("case") for it in made)
    assert variables(data)[environment.REDIS_URL] == {"secretKeyRef": {"name": "s", "key": "url"}}
    assert environment.REDIS_TLS not in variables(data)


def test_tls_and_sentinels_reach_workers_and_console_alike() -> None:
    tls = {
        "caSecretRef": {"name": "ca", "key": "pem"},
        "clientCertificateSecretName": "client",
        "insecureSkipVerify": True,
    }
    sentinel = {"masterName": "m", "nodes": ["h:1", "i:2"], "passwordSecretRef": {"name": "sp", "key": "k"}}
    data = resources.resource(redis={"external": {"urlSecretRef": {"name": "s"}, "tls": tls, "sentinel": sentinel}})
    wanted = {
        environment.REDIS_URL: {"secretKeyRef": {"name": "s", "key": "url"}},
        environment.REDIS_TLS: "true",
        environment.REDIS_CA_FILE: "/etc/agentqueue/redis-ca/ca.crt",
        environment.REDIS_CERT_FILE: "/etc/agentqueue/redis-client/tls.crt",
        environment.REDIS_KEY_FILE: "/etc/agentqueue/redis-client/tls.key",
        environment.REDIS_INSECURE_SKIP_VERIFY: "true",
        environment.REDIS_SENTINEL_NODES: "h:1,i:2",
        environment.REDIS_SENTINEL_MASTER: "m",
        environment.REDIS_SENTINEL_PASSWORD: {"secretKeyRef": {"name": "sp", "key": "k"}},
    }
    assert set(wanted) == set(environment.CONNECTION), "all that says how Redis is reached"
    for spec in pods(rendered(data)):
        found = {it["name"]: it.get("value", it.get("valueFrom")) for it in spec["containers"][0]["env"]}
        assert wanted.items() <= found.items()
        assert {"redis-ca", "redis-client"} <= {it["name"] for it in spec["volumes"]}
        assert {"redis-ca", "redis-client"} <= {it["name"] for it in spec["containers"][0]["volumeMounts"]}


def test_tls_alone_asks_for_tls_and_sentinels_need_no_password() -> None:
    sentinel = {"masterName": "m", "nodes": ["h:1"]}
    data = resources.resource(redis={"external": {"urlSecretRef": {"name": "s"}, "tls": {}, "sentinel": sentinel}})
    found = variables(data)
    assert found[environment.REDIS_TLS] == "true"
    assert not {environment.REDIS_CA_FILE, environment.REDIS_CERT_FILE, environment.REDIS_SENTINEL_PASSWORD} & set(
        found
    )
    assert [it["name"] for it in template(data)["spec"]["volumes"]] == ["tmp"]


# The console


def test_the_console_listens_for_others_and_asks_for_a_token() -> None:
    made = rendered()
    (spec,) = find(made, "Deployment", console_name("case"))["spec"]["template"]["spec"]["containers"]
    found = {it["name"]: it.get("value", it.get("valueFrom")) for it in spec["env"]}
    assert found["AGENTQUEUE_CONSOLE_HOST"] == "0.0.0.0"
    assert found["AGENTQUEUE_CONSOLE_TOKEN"] == {"secretKeyRef": {"name": console_name("case"), "key": "token"}}
    assert found["AGENTQUEUE_CONSOLE_PORT"] == str(spec["ports"][0]["containerPort"])
    assert decoded(find(made, "Secret", console_name("case"))) == {"token": "t"}
    assert spec["command"] == ["env", "--block-signal=TERM", "python", "-m", "agentqueue.console"]


def test_a_worker_runs_the_entry_point_of_its_image_in_process_namespaces_of_its_own() -> None:
    assert container().keys().isdisjoint({"command", "args"}), "the entry point keeps an early SIGTERM"
    assert "shareProcessNamespace" not in template()["spec"], "other containers neither see nor end the worker"


def test_a_token_of_the_users_own_is_used_as_it_is() -> None:
    data = resources.resource(
        console={
            "tokenSecretRef": {"name": "own", "key": "k"},
            "image": "mine:1",
            "replicas": 2,
            "resources": {"limits": {"memory": "1Gi"}},
            "service": {"type": "LoadBalancer", "port": 8080},
            "podTemplate": {"spec": {"nodeSelector": {"a": "b"}}},
        }
    )
    made = rendered(data)
    deployment = find(made, "Deployment", console_name("case"))["spec"]
    (spec,) = deployment["template"]["spec"]["containers"]
    assert {"name": "AGENTQUEUE_CONSOLE_TOKEN", "valueFrom": {"secretKeyRef": {"name": "own", "key": "k"}}} in spec[
        "env"
    ]
    assert (deployment["replicas"], spec["image"]) == (2, "mine:1")
    assert spec["resources"] == {"limits": {"memory": "1Gi"}}
    assert deployment["template"]["spec"]["nodeSelector"] == {"a": "b"}
    service = find(made, "Service", console_name("case"))["spec"]
    assert (service["type"], service["ports"][0]["port"]) == ("LoadBalancer", 8080)
    assert not any((it["kind"], it["metadata"]["name"]) == ("Secret", console_name("case")) for it in made)


def test_no_console_no_objects_of_it() -> None:
    made = rendered(resources.resource(console={"enabled": False}))
    assert "console" not in {it["metadata"]["labels"]["agentqueue.dev/component"] for it in made}


# The network


def ingress(data: Object | None, name: str, context: RenderContext = IN_CLUSTER) -> list[Object]:
    return list(find(rendered(data, context), "NetworkPolicy", name)["spec"]["ingress"])


OWN = {"podSelector": {"matchLabels": {"agentqueue.dev/queue": "case"}}}
OPERATOR = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "system"}}}


NAMESPACE: list[Object] = [{"podSelector": {}}]
ADDRESSES: list[Object] = [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]
PEERS = [
    pytest.param({}, NAMESPACE, id="this-namespace"),
    pytest.param({"allowFrom": []}, [], id="nobody"),
    pytest.param({"allowFrom": ADDRESSES}, ADDRESSES, id="addresses"),
]


@pytest.mark.parametrize(("redis", "to_redis"), PEERS)
@pytest.mark.parametrize(("console", "to_console"), PEERS)
def test_redis_and_the_console_each_let_in_who_is_named_for_them(
    redis: Object, to_redis: list[Object], console: Object, to_console: list[Object]
) -> None:
    data = resources.resource(networkPolicy={"redis": redis, "console": console})
    (rule,) = ingress(data, redis_name("case"))
    assert rule == {"from": [OWN, OPERATOR, *to_redis], "ports": [{"port": "redis", "protocol": "TCP"}]}
    expected = [{"from": to_console, "ports": [{"port": "http", "protocol": "TCP"}]}] if to_console else []
    assert ingress(data, console_name("case")) == expected, "an empty `from` would let everybody in"


def test_an_operator_outside_of_the_cluster_is_no_peer() -> None:
    (rule,) = ingress(None, redis_name("case"), replace(IN_CLUSTER, operator_namespace=None))
    assert rule["from"] == [OWN, {"podSelector": {}}]


def test_policies_are_made_for_what_is_there() -> None:
    assert "NetworkPolicy" not in kinds(rendered(resources.resource(networkPolicy={"enabled": False})))
    without = resources.resource(redis=UPSTASH, console={"enabled": False})
    assert "NetworkPolicy" not in kinds(rendered(without))


# Offline


def test_offline_secrets_are_placeholders_and_replicas_those_of_empty_queues() -> None:
    agents = [
        {"name": "auto", "handler": "m:a", "scaling": {"minReplicas": 2}},
        {"name": "fixed", "handler": "m:a", "scaling": {"mode": "Fixed", "replicas": 4}},
        {"name": "external", "handler": "m:a", "scaling": {"mode": "External"}},
    ]
    found = offline(queue(resources.resource(agents=agents)), "ns", IMAGES)
    assert found.replicas == {"auto": 2, "fixed": 4, "external": None}
    assert "PLACEHOLDER" in str(found.password)
    assert "PLACEHOLDER" in str(found.console_token)
    assert found.owner is None
    suspended = offline(queue(resources.resource(agents=agents, suspend=True)), "ns", IMAGES)
    assert suspended.replicas == {"auto": 0, "fixed": 0, "external": None}


def test_offline_the_password_says_where_it_comes_from() -> None:
    own = resources.managed(auth={"passwordSecretRef": {"name": "mine", "key": "pw"}})
    assert "mine" in str(offline(queue(own), "ns", IMAGES).password)
    assert offline(queue(resources.resource(redis=UPSTASH)), "ns", IMAGES).password is None
