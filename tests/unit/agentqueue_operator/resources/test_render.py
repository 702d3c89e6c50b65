"""Render an AgentQueue. The whole output is in tests/golden/render; these are properties that must hold."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentqueue_operator.resources.children import last_content_hash
from agentqueue_operator.resources.kinds import CONFIG_MAP, PRUNED, SECRET, Object
from agentqueue_operator.resources.render import (
    Reference,
    RenderContext,
    console_name,
    redis_name,
    references_of,
    worker_name,
)
from agentqueue_operator.resources.render.placeholders import offline_context
from tests.support import resources
from tests.support.rendering import IMAGES, IN_CLUSTER, UPSTASH, find, kinds, pods, queue, rendered
from tools.golden import golden_files

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize(("path", "make"), golden_files().items(), ids=map(str, golden_files()))
def test_rendering_matches_the_golden_files(path: str, make: Any) -> None:
    """Any change of a worker's pod template restarts it on an upgrade, so it must be intended (`make generated`)."""
    assert make() == (ROOT / path).read_text(encoding="utf-8")


def test_every_object_has_an_owner_and_the_hash_of_its_manifest() -> None:
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


def test_every_rendered_kind_is_pruned_once_it_is_no_longer_rendered() -> None:
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


def test_names_are_unique_and_short_enough() -> None:
    assert worker_name("a-b", "c") != worker_name("a", "b-c")
    longest = "q" * 30
    assert worker_name("case", "a") == "case-a-" + worker_name("case", "a")[-5:]
    assert len(redis_name(longest) + "-0") <= 63
    assert len(console_name(longest)) <= 63
    assert len(worker_name(longest, "a" * 40)) <= 253


def test_any_change_of_the_manifest_changes_its_hash() -> None:
    def hashes(context: RenderContext) -> dict[tuple[str, str], str]:
        made = rendered(context=context)
        return {
            (it["kind"], it["metadata"]["name"]): it["metadata"]["annotations"]["agentqueue.dev/manifest-hash"]
            for it in made
        }

    before, after = hashes(IN_CLUSTER), hashes(replace(IN_CLUSTER, replicas={"a": 4}))
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {("Deployment", worker_name("case", "a"))}


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
def test_pods_restart_when_what_they_read_at_their_start_changes(now: RenderContext, rolled: set[str]) -> None:
    assert changed(content(IN_CLUSTER), content(now)) == rolled


def test_the_content_hash_is_rendered_unchanged_so_that_it_can_be_read_back() -> None:
    annotations = content(replace(IN_CLUSTER, content_hashes={"a": "abc"}))
    assert annotations[A]["agentqueue.dev/content-hash"] == "abc"
    assert "agentqueue.dev/content-hash" not in annotations[B]


@pytest.mark.parametrize("part", ["a", "redis", "console"])
def test_the_hash_of_content_that_may_no_longer_be_read_is_taken_from_the_live_pods(part: str) -> None:
    made = rendered(context=replace(IN_CLUSTER, content_hashes={part: "abc"}))
    assert last_content_hash("case", part, made) == "abc"
    assert last_content_hash("case", "b", made) is None, "never read"
    assert last_content_hash("case", "c", made) is None, "not there"


def test_redis_restarts_when_its_configuration_changes_but_nothing_else_does() -> None:
    before = content(IN_CLUSTER, resources.managed(config={"hz": "10"}))
    assert changed(before, content(IN_CLUSTER, resources.managed(config={"hz": "20"}))) == {R}


def test_a_token_from_the_users_secret_changes_no_config_hash() -> None:
    data = resources.resource(console={"tokenSecretRef": {"name": "own", "key": "k"}})
    assert content(IN_CLUSTER, data) == content(replace(IN_CLUSTER, console_token="new"), data)


def test_references_name_all_that_pods_read_wherever_it_was_written() -> None:
    data = resources.agent(
        codeFrom={"configMap": {"name": "code"}},
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
    """The API server refuses the template, and a condition reports it. Nothing else may fail."""
    assert references_of(queue(resources.agent(podTemplate={"spec": spec})), IN_CLUSTER)["a"] == frozenset()


def test_offline_secrets_are_placeholders_and_replicas_those_of_empty_queues() -> None:
    agents = [
        {"name": "auto", "handler": "m:a", "scaling": {"minReplicas": 2}},
        {"name": "fixed", "handler": "m:a", "scaling": {"mode": "Fixed", "replicas": 4}},
        {"name": "external", "handler": "m:a", "scaling": {"mode": "External"}},
    ]
    found = offline_context(queue(resources.resource(agents=agents)), "ns", IMAGES)
    assert found.replicas == {"auto": 2, "fixed": 4, "external": None}
    assert "PLACEHOLDER" in str(found.password)
    assert "PLACEHOLDER" in str(found.console_token)
    assert found.owner is None
    suspended = offline_context(queue(resources.resource(agents=agents, suspend=True)), "ns", IMAGES)
    assert suspended.replicas == {"auto": 0, "fixed": 0, "external": None}


def test_offline_the_placeholder_of_a_password_names_its_secret() -> None:
    own = resources.managed(auth={"passwordSecretRef": {"name": "mine", "key": "pw"}})
    assert "mine" in str(offline_context(queue(own), "ns", IMAGES).password)
    assert offline_context(queue(resources.resource(redis=UPSTASH)), "ns", IMAGES).password is None
