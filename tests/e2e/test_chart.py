"""The charts as Helm renders them, and as an API server takes them."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from agentqueue_operator.resources.rbac import namespace_rules
from agentqueue_operator.resources.render import redis_name
from tests.support.cluster.kube import Kube, Object
from tests.support.cluster.shell import ClusterError
from tests.support.installs import Helm, rendered
from tools import manifests

pytestmark = pytest.mark.usefixtures("cluster")  # Helm comes with it

FOREIGN = {"ServiceMonitor"}
"""Kinds of other projects, whose definitions the tests' cluster has not."""

PERMUTATIONS = {
    "defaults": {},
    "one-replica-without-extras": {
        "replicas": 1,
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
    },
    "some-namespaces": {"watch": {"namespaces": ["NAMESPACE"]}, "crds": {"enabled": False}},
    "no-secrets": {"rbac": {"readSecrets": False}},
    "rights-made-by-others": {"rbac": {"create": False}, "serviceAccount": {"create": False, "name": "given"}},
    "own-names": {
        "fullnameOverride": "queues",
        "serviceAccount": {"name": "queues", "annotations": {"example.com/role": "a"}},
    },
    "another-name": {"nameOverride": "aq"},
    "by-digest": {
        "image": {"registry": "registry.example.com", "digest": f"sha256:{'0' * 64}", "pullPolicy": "Always"}
    },
    "images": {
        "defaults": {"workerImage": "w:1", "redisImage": "r:1", "consoleImage": "c:1"},
        "imagePullSecrets": [{"name": "pull"}],
    },
    "where-it-runs": {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
        "priorityClassName": "high",
    },
    "pods": {
        "podLabels": {"team": "a"},
        "podAnnotations": {"note": "b"},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"}],
        "terminationGracePeriodSeconds": 30,
        "resources": {"limits": {"cpu": 1}},
    },
    "monitored": {
        "serviceMonitor": {"enabled": True, "interval": "10s", "labels": {"release": "prometheus"}},
        "networkPolicy": {"metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]},
        "log": {"level": "debug", "format": "console"},
    },
}


def options(values: object, namespace: str, folder: Path) -> Sequence[str | Path]:
    """Helm's options for these values."""
    file = folder / "values.json"
    file.write_text(json.dumps(values).replace("NAMESPACE", namespace))
    return ("--namespace", namespace, "--values", file)


@pytest.mark.parametrize("chart", ["agentqueue", "agentqueue-travel"])
def test_charts_are_without_a_complaint_of_helm_s(chart: str) -> None:
    assert "0 chart(s) failed" in Helm().run("lint", "--strict", f"charts/{chart}")


@pytest.mark.parametrize("values", PERMUTATIONS.values(), ids=PERMUTATIONS.keys())
async def test_api_server_takes_each_object_to_the_last_field(kube: Kube, tmp_path: Path, values: object) -> None:
    found = rendered(*options(values, kube.namespace, tmp_path))
    assert any(manifest["kind"] == "Deployment" for manifest in found)
    for manifest in found:
        if manifest["kind"] not in FOREIGN and "helm.sh/hook" not in manifest["metadata"].get("annotations", {}):
            await dry_run(kube, manifest)


async def dry_run(kube: Kube, manifest: Object) -> None:
    """As if it were applied, strictly. Raises ApiError."""
    path = await kube._path(manifest["kind"], manifest["metadata"]["name"])
    strictly = {"fieldManager": "tests", "force": "true", "dryRun": "All", "fieldValidation": "Strict"}
    await kube.request("PATCH", path, manifest, content_type="application/apply-patch+yaml", **strictly)


async def test_what_the_api_server_would_not_take_fails_the_test_above(kube: Kube) -> None:
    (deployment,) = [one for one in rendered("--namespace", kube.namespace) if one["kind"] == "Deployment"]
    deployment["spec"]["replicaz"] = 2
    with pytest.raises(Exception, match="replicaz"):
        await dry_run(kube, deployment)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("replicaz=3", "replicaz"),
        ("image.tagg=1", "tagg"),
        ("watch.namespace=a", "namespace"),
        ("replicas=two", "replicas"),
    ],
)
def test_wrong_value_is_refused_by_its_name(wrong: str, told: str) -> None:
    with pytest.raises(ClusterError, match=f"(?s)schema.*at .*{told}"):
        Helm().run("template", "agentqueue", "charts/agentqueue", "--set", wrong)


def test_list_of_namespaces_means_no_right_beyond_them() -> None:
    found = rendered("--set", "watch.namespaces={shop,support}", "--namespace", "queues")
    assert not any(manifest["kind"].startswith("ClusterRole") for manifest in found)
    roles = [manifest for manifest in found if manifest["kind"] == "Role"]
    assert sorted(role["metadata"]["namespace"] for role in roles) == ["queues", "shop", "support"]
    (deployment,) = [manifest for manifest in found if manifest["kind"] == "Deployment"]
    variables = {
        one["name"]: one.get("value") for one in deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert variables["AGENTQUEUE_OPERATOR_NAMESPACES"] == "shop,support"


@pytest.mark.parametrize("read", [True, False])
def test_rights_are_the_declared_ones(read: bool) -> None:
    found = rendered("--set", f"rbac.readSecrets={str(read).lower()}")
    (role,) = [manifest for manifest in found if manifest["kind"] == "ClusterRole"]
    granted = [(*rule["apiGroups"], *rule["resources"], tuple(rule["verbs"])) for rule in role["rules"]]
    assert sorted(granted) == sorted((it.group, it.resource, it.verbs) for it in namespace_rules(read_secrets=read))


@pytest.mark.parametrize("release", ["agentqueue", "a", "a-release-with-quite-a-long-name"])
def test_test_hook_knows_the_names_that_the_operator_gives(release: str) -> None:
    found = rendered(release=release)
    (queue,) = [manifest["metadata"]["name"] for manifest in found if manifest["kind"] == "AgentQueue"]
    (claim,) = [manifest["metadata"]["name"] for manifest in found if manifest["kind"] == "PersistentVolumeClaim"]
    (pod,) = [manifest for manifest in found if manifest["kind"] == "Pod"]
    assert claim == f"data-{redis_name(queue)}-0"
    assert pod["spec"]["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"]["name"] == redis_name(queue)


def test_manifests_are_what_the_chart_renders_to() -> None:
    assert manifests.install_yaml() == manifests.INSTALL.read_text()
