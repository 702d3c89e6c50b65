"""What the real API server says to rendered manifests: every field known, every pod let in as `restricted`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cluster.kube import ApiError, Kube, Object

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
    spec = {**template["spec"], "volumes": [*template["spec"]["volumes"], *volumes]}
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


async def test_a_pod_that_may_be_root_is_refused(kube: Kube) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    await kube.patch("namespace", kube.namespace, {"metadata": {"labels": label}})
    deployment = next(it for it in manifests(GOLDEN / "minimal.yaml") if it["kind"] == "Deployment")
    pod = in_namespace(pod_of(deployment), kube.namespace)
    pod["spec"] = {**pod["spec"], "securityContext": {}}
    with pytest.raises(ApiError, match="runAsNonRoot"):
        await dry_run(kube, pod)
