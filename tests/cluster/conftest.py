"""What the tests on a real Kubernetes share."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from agentqueue.client import Client
from agentqueue.local.server import EmbeddedServer
from agentqueue_operator.autoscaling.model import DEFAULT_TIMING, ScalingTiming
from agentqueue_operator.resources.render import Images
from tests.support.cluster.images import REDIS, Image
from tests.support.cluster.kube import Cluster, Kube, Object
from tests.support.operator import Operator, install_crd, run_operator
from tests.support.operator_process import Operators, grant, operators_of, write_kubeconfig
from tests.support.scaling_test_bed import ScalingTestBed
from tests.support.servers import RunningServer, run_server

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this folder, and give it time: pods start, leases run out, nodes are given up."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.cluster)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(300))


@pytest.fixture
def aq_images(worker_image: str, load_image: Callable[[Image], str]) -> Images:
    """What the operator uses where a resource names no image."""
    return Images(worker=worker_image, redis=load_image(REDIS), console="none")


@pytest.fixture
def scaling_timing() -> ScalingTiming:
    """Timing of the operator's scaling decisions. Modules with tests of scaling override it."""
    return DEFAULT_TIMING


@pytest.fixture
async def operator(
    cluster: Cluster, kube: Kube, aq_images: Images, scaling_timing: ScalingTiming
) -> AsyncIterator[Operator]:
    """An operator in the test's own loop, for the test's namespace."""
    await install_crd(kube)
    async with run_operator(cluster.kubeconfig, kube.namespace, aq_images, timing=scaling_timing) as running:
        yield running


@pytest.fixture
async def operators(kube: Kube, tmp_path: Path) -> AsyncIterator[Operators]:
    """Starts operators as processes, for the test's namespace and with the declared rights alone."""
    await install_crd(kube)
    await grant(kube)
    kubeconfig = await write_kubeconfig(kube, tmp_path / "operator.kubeconfig")
    async with operators_of(kube, tmp_path, kubeconfig) as started:
        yield started


@pytest.fixture
async def valkey(kube: Kube) -> AsyncIterator[Object]:
    """`spec.redis` for a server on this machine, which operators reach that run here too."""
    with EmbeddedServer() as server:
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "valkey"}}
        await kube.apply(secret | {"stringData": {"url": server.url}})
        yield {"external": {"urlSecretRef": {"name": "valkey", "key": "url"}}}


@pytest.fixture
def server(cluster: Cluster) -> Iterator[RunningServer]:
    """A Redis on this machine, that pods reach."""
    with run_server("valkey", host=cluster.host, requirepass="for-tests") as running:
        yield running


@pytest.fixture
async def bed(operator: Operator, kube: Kube, server: RunningServer) -> ScalingTestBed:
    """An AgentQueue on that Redis, for the test to start."""
    return ScalingTestBed(kube, server)


@pytest.fixture
async def client(bed: ScalingTestBed) -> AsyncIterator[Client]:
    """Where its jobs are."""
    async with bed.client() as connected:
        yield connected
