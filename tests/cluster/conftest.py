"""What the tests on a real Kubernetes share."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agentqueue_operator.domain.render import Images
from tests.support.cluster.images import REDIS, Image
from tests.support.cluster.kube import Cluster, Kube
from tests.support.operator import Operator, install_crd, run_operator

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this folder."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.cluster)


@pytest.fixture
def aq_images(worker_image: str, load_image: Callable[[Image], str]) -> Images:
    """What the operator uses where a resource names no image."""
    return Images(worker=worker_image, redis=load_image(REDIS), console="none")


@pytest.fixture
async def operator(cluster: Cluster, kube: Kube, aq_images: Images) -> AsyncIterator[Operator]:
    """An operator in the test's own loop, for the test's namespace."""
    await install_crd(kube)
    async with run_operator(cluster.kubeconfig, kube.namespace, aq_images) as running:
        yield running
