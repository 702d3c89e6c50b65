"""What the tests of installed parts share: images, Helm, a namespace for the operator."""

import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.cluster.conftest import aq_images, operator, scaling_timing  # noqa: F401  # fixtures
from tests.support.cluster.images import Image
from tests.support.cluster.kube import Cluster, Kube
from tests.support.installs import TRAVEL, Helm

HERE = Path(__file__).parent
CRD = "agentqueues.agentqueue.dev"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this folder, and give it time: releases are rolled out."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.e2e)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(600))


@pytest.fixture
def helm(cluster: Cluster) -> Helm:
    """Helm for the tests' cluster."""
    return Helm(cluster)


@pytest.fixture(scope="session")
def all_images(worker_image: str, operator_image: str, redis_image: str, load_image: Callable[[Image], str]) -> None:
    """The project's images on every node, and the one that a user makes."""
    load_image(TRAVEL)


@pytest.fixture
async def system(cluster: Cluster, helm: Helm) -> AsyncIterator[str]:
    """The name of an empty namespace for the operator, in a cluster that knows no AgentQueue yet.

    After the test its releases, the definition and the namespace are gone.
    """
    name = f"system-{secrets.token_hex(3)}"
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    async with Kube(cluster, name) as kube:
        await _forget(kube)
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": label}})
        yield name
        for release in (await helm("list", "--short", "--namespace", name)).split():
            await helm("uninstall", release, "--namespace", name, "--wait")
        await _forget(kube)
        await kube.delete("namespace", name)


async def _forget(kube: Kube) -> None:
    """The definition, which Helm keeps, and the cluster-wide rights of a release whose test was killed."""
    for plural in ("clusterroles", "clusterrolebindings"):
        path = f"/apis/rbac.authorization.k8s.io/v1/{plural}"
        await kube.request("DELETE", path, labelSelector="app.kubernetes.io/part-of=agentqueue")
    await kube.delete("crd", CRD)
    await kube.until_gone("crd", CRD)
