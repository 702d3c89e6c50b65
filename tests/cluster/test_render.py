"""What the real API server says to rendered manifests: every field known, every pod let in as `restricted`."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentqueue.cli.main import run
from agentqueue.spec import load_file, resolve
from agentqueue_operator.resources.comparison import is_up_to_date
from agentqueue_operator.resources.render import render
from agentqueue_operator.resources.render.placeholders import offline_context
from agentqueue_operator.resources.strategic_merge import merge
from tests.support.cluster.kube import ApiError, Cluster, Kube, Object
from tools.golden import IMAGES, golden_sources

GOLDEN = Path(__file__).parent.parent / "golden" / "render"
NOT_BUILT_IN = {"PodMonitor"}
"""Kinds that only a cluster with the Prometheus Operator knows."""


def manifests(file: Path) -> Iterator[Object]:
    """The objects of a golden file."""
    yield from (it for it in yaml.safe_load_all(file.read_text()) if it["kind"] not in NOT_BUILT_IN)


async def dry_run(kube: Kube, manifest: Object) -> Object:
    """The object as the API server would keep it; unknown and doubled fields are refused."""
    resource = await kube._resource_of(manifest)
    options = {"dryRun": "All", "fieldValidation": "Strict", "fieldManager": "agentqueue-operator", "force": "true"}
    name = manifest["metadata"]["name"]
    answer: Any = await kube.request(
        "PATCH", resource.path(kube.namespace, name), manifest, content_type="application/apply-patch+yaml", **options
    )
    return dict(answer)


def in_namespace(manifest: Object, namespace: str) -> Object:
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}


def pod_of(manifest: Object) -> Object:
    """The pod that a Deployment or StatefulSet would make."""
    template = manifest["spec"]["template"]
    claims = manifest["spec"].get("volumeClaimTemplates", [])
    volumes = [{"name": it["metadata"]["name"], "persistentVolumeClaim": {"claimName": "claimed"}} for it in claims]
    spec = {**template["spec"], "volumes": [*template["spec"].get("volumes", []), *volumes]}
    # The manifests' own accounts are dry runs too, and priorities are the administrators'.
    spec = {key: value for key, value in spec.items() if key != "priorityClassName"} | {"serviceAccountName": "default"}
    metadata = {**template["metadata"], "name": manifest["metadata"]["name"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.yaml")), ids=lambda file: file.stem)
async def test_the_api_server_takes_every_golden_manifest_and_its_pods_as_restricted(kube: Kube, file: Path) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    await kube.patch("namespace", kube.namespace, {"metadata": {"labels": label}})
    for manifest in manifests(file):
        mine = in_namespace(manifest, kube.namespace)
        kept = await dry_run(kube, mine)
        assert kept["metadata"]["labels"] == manifest["metadata"]["labels"]
        if "template" in manifest.get("spec", {}):
            await dry_run(kube, in_namespace(pod_of(manifest), kube.namespace))


@pytest.mark.parametrize("source", golden_sources(), ids=lambda source: source.stem)
async def test_what_was_applied_is_seen_to_be_as_rendered(kube: Kube, source: Path) -> None:
    """Else the operator would write each object again and again. The server's defaults and spellings come back."""
    for queue in map(resolve, load_file(source).queues):
        for manifest in render(queue, offline_context(queue, kube.namespace, IMAGES)):
            if manifest["kind"] not in NOT_BUILT_IN:
                kept = await dry_run(kube, manifest)
                assert is_up_to_date(kept, manifest), manifest


@pytest.mark.parametrize("output", ["yaml", "json"])
async def test_kubectl_takes_what_the_command_prints(
    kube: Kube, tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    source = GOLDEN.parent / "resources" / "shut-off.yaml"
    assert await asyncio.to_thread(run, ["render", str(source), "-n", kube.namespace, "-o", output]) == 0
    printed = tmp_path / f"printed.{output}"
    printed.write_text(capsys.readouterr().out)
    given = ("--dry-run=server", "--validate=strict", f"--filename={printed}", "--output=json")
    taken = json.loads(await kube.kubectl("apply", *given))["items"]
    worker = next(it for it in taken if it["kind"] == "Deployment" and "echo" in it["metadata"]["name"])
    variables = {it["name"]: it.get("value") for it in worker["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert (variables["SWITCH"], variables["VERSION"]) == ("on", "1.10"), "as written, not as YAML 1.1 may read it"


async def test_a_pod_that_may_be_root_is_refused(kube: Kube) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    await kube.patch("namespace", kube.namespace, {"metadata": {"labels": label}})
    deployment = next(it for it in manifests(GOLDEN / "minimal.yaml") if it["kind"] == "Deployment")
    pod = in_namespace(pod_of(deployment), kube.namespace)
    pod["spec"] = {**pod["spec"], "securityContext": {}}
    with pytest.raises(ApiError, match="runAsNonRoot"):
        await dry_run(kube, pod)


BASE: Object = {
    "metadata": {"labels": {"a": "1"}, "annotations": {"x": "1"}},
    "spec": {
        "terminationGracePeriodSeconds": 30,
        "nodeSelector": {"disk": "ssd"},
        "securityContext": {"runAsUser": 1, "supplementalGroups": [1, 2]},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "one"}, {"name": "two"}],
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}],
        "topologySpreadConstraints": [{"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1}],
        "containers": [
            {
                "name": "worker",
                "image": "a",
                "args": ["x", "y"],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}],
                "volumeMounts": [{"name": "t", "mountPath": "/t"}],
                "livenessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 5},
                "resources": {"limits": {"cpu": "1"}},
            }
        ],
        "volumes": [{"name": "t", "emptyDir": {}}],
    },
}


def worker(**fields: Any) -> Object:
    return {"spec": {"containers": [{"name": "worker", **fields}]}}


def pod_spec(**fields: Any) -> Object:
    return {"spec": fields}


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"metadata": {"labels": {"b": "2"}, "annotations": {"x": "2"}}}, id="metadata"),
        pytest.param(pod_spec(nodeSelector={"b": "2"}, terminationGracePeriodSeconds=9), id="fields"),
        pytest.param(pod_spec(nodeSelector=None, securityContext={"runAsUser": None}), id="nulls"),
        pytest.param(pod_spec(securityContext={"supplementalGroups": [3]}), id="a-plain-list"),
        pytest.param(pod_spec(tolerations=[{"key": "b", "operator": "Exists"}]), id="tolerations"),
        pytest.param(pod_spec(imagePullSecrets=[{"name": "three"}]), id="pull-secrets"),
        pytest.param(pod_spec(imagePullSecrets=[{"name": "one", "$patch": "delete"}]), id="an-item-deleted"),
        pytest.param(pod_spec(imagePullSecrets=[{"$patch": "replace"}, {"name": "four"}]), id="a-list-replaced"),
        pytest.param(pod_spec(hostAliases=[{"ip": "10.0.0.1", "hostnames": ["b"]}, {"ip": "10.0.0.2"}]), id="aliases"),
        pytest.param(
            pod_spec(topologySpreadConstraints=[
                {"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 2},
                {"topologyKey": "host", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 3},
            ]),
            id="spread",
        ),
        pytest.param(pod_spec(volumes=[{"name": "t", "emptyDir": {"medium": "Memory"}}]), id="a-volume-of-ours"),
        pytest.param(pod_spec(volumes=[{"name": "u", "secret": {"secretName": "s"}}]), id="another-volume"),
        pytest.param(pod_spec(containers=[{"name": "other", "image": "b"}]), id="another-container"),
        pytest.param(pod_spec(initContainers=[{"name": "i", "env": [{"name": "A", "value": "1"}]}]), id="init"),
        pytest.param(worker(image="b", args=["z"]), id="image-and-arguments"),
        pytest.param(worker(env=[{"name": "A", "value": "9"}, {"name": "C", "value": "3"}]), id="variables"),
        pytest.param(worker(env=[{"name": "A", "$patch": "delete"}]), id="a-variable-deleted"),
        pytest.param(worker(ports=[{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]), id="ports"),
        pytest.param(worker(volumeMounts=[{"mountPath": "/t", "readOnly": True}, {"mountPath": "/u"}]), id="mounts"),
        pytest.param(worker(livenessProbe={"periodSeconds": 9}), id="a-probe-changed"),
        pytest.param(worker(livenessProbe={"$patch": "replace", "tcpSocket": {"port": 1}}), id="a-probe-replaced"),
        pytest.param(worker(livenessProbe=None), id="a-probe-deleted"),
        pytest.param(worker(resources={"limits": {"memory": "1Gi"}, "requests": {"cpu": "1"}}), id="resources"),
        pytest.param(worker(lifecycle={"preStop": {"exec": {"command": ["a"]}}}), id="new-objects"),
    ],
)  # fmt: skip
async def test_pod_templates_are_merged_as_kubectl_does(cluster: Cluster, tmp_path: Path, patch: Object) -> None:
    kind = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}}
    file = tmp_path / "deployment.json"
    file.write_text(json.dumps({**kind, "spec": {"template": BASE}}))
    given = json.dumps({"spec": {"template": patch}})
    command = ("patch", "--local", f"--filename={file}", "--type=strategic", f"--patch={given}", "--output=json")
    patched = json.loads(await asyncio.to_thread(cluster.kubectl, *command))["spec"]["template"]
    assert in_order(merge(BASE, patch)) == in_order(patched)


def in_order(value: Any) -> Any:
    """Lists of objects without their order, which only initContainers and variables have a use for; no empty values."""
    if isinstance(value, dict):
        return {key: in_order(item) for key, item in value.items() if item not in ({}, None)}
    if isinstance(value, list):
        return (
            sorted(map(in_order, value), key=lambda it: json.dumps(it, sort_keys=True))
            if all(isinstance(it, dict) for it in value)
            else value
        )
    return value
