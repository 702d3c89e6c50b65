"""Fixtures for tests on a real Kubernetes.

For any cluster: `cluster`, `namespace`, `kube`, `load_image`, `api_proxy`.
For the project's own: `faults`, `second_node`.

With KUBECONFIG set they use that cluster, else the project's own, which lives as long as the test run.
"""

import asyncio
import contextlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cluster import images, own
from tests.support.cluster.faults import Faults
from tests.support.cluster.given import GivenCluster
from tests.support.cluster.images import Image
from tests.support.cluster.kube import Cluster, Kube
from tests.support.cluster.layout import default_state
from tests.support.cluster.prerequisites import NotOnThisMachine, prepare
from tests.support.cluster.processes import identity, is_alive
from tests.support.cluster.program import Program
from tests.support.cluster.proxy import ApiProxy
from tests.support.cluster.shell import ClusterError

SECOND_NODE = "node2"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build ahead of the first test: a build takes minutes, and a test's time is limited."""
    needed = {name for item in session.items if isinstance(item, pytest.Function) for name in item.fixturenames}
    if session.config.option.collectonly or "cluster" not in needed:
        return
    with contextlib.suppress(NotOnThisMachine, ClusterError):  # the fixtures meet the same, and say so in the test
        if _given() is None:
            prepare(print)
        if "load_image" in needed:
            images.build(images.WORKER)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running cluster with all rights in it."""
    if (given := _given()) is not None:
        yield given
        return
    program = _program()
    state = default_state()
    own.sweep(state)
    owner = own.owner_of(state)
    if owner is None and (running := own.find(state, program)) is not None:
        yield _healthy(running)
        return
    if owner is not None and is_alive(owner):  # another test run's
        state = state.with_name(f"{state.name}-{os.getpid()}")
    started = own.bring_up(state, program, identity(os.getpid()))
    try:
        yield started
    finally:
        own.take_down(state)


@pytest.fixture(scope="session")
def own_cluster(cluster: Cluster) -> own.OwnCluster:
    """The project's own cluster, whose parts a test may break."""
    if not isinstance(cluster, own.OwnCluster):
        pytest.skip("faults of machines are made in the project's own cluster only: unset KUBECONFIG")
    return cluster


@pytest.fixture(scope="session")
def _loaded() -> dict[str, Path]:
    """Images that nodes have been given, for those that join later."""
    return {}


@pytest.fixture(scope="session")
def load_image(cluster: Cluster, _loaded: dict[str, Path]) -> Callable[[Image], str]:
    """`load_image(WORKER)` builds an image, puts it onto every node, once, and gives its name for a manifest."""

    def load(image: Image) -> str:
        if image.name not in _loaded:
            archive = images.build(image)
            cluster.load(archive)
            _loaded[image.name] = archive
        return image.name

    return load


@pytest.fixture
async def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The name of a namespace of the test's own; its end is asked for, not waited for."""
    readable = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40]
    name = f"{readable}-{secrets.token_hex(3)}"
    async with Kube(cluster, name) as kube:
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        await kube.until("serviceaccount", "default", lambda _: True, what="made")  # no pod before it is there
        yield name
        await kube.request("DELETE", f"/api/v1/namespaces/{name}/pods", {"gracePeriodSeconds": 1})
        await kube.delete("namespace", name)


@pytest.fixture
async def kube(cluster: Cluster, namespace: str) -> AsyncIterator[Kube]:
    """A client bound to the test's namespace."""
    async with Kube(cluster, namespace) as client:
        yield client


@pytest.fixture
async def api_proxy(cluster: Cluster, tmp_path: Path) -> AsyncIterator[ApiProxy]:
    """A proxy before the API server, for whom it may fail; it lets everything through at first."""
    async with ApiProxy(cluster.access, tmp_path / "proxy.kubeconfig", cluster.host) as proxy:
        yield proxy


@pytest.fixture
def faults(own_cluster: own.OwnCluster) -> Faults:
    """Faults of parts, containers and nodes."""
    return Faults(own_cluster)


@pytest.fixture
async def second_node(own_cluster: own.OwnCluster, _loaded: dict[str, Path]) -> AsyncIterator[str]:
    """The name of a node that the test may lose; it is gone after the test, whatever became of it."""
    await asyncio.to_thread(own_cluster.add_node, SECOND_NODE, list(_loaded.values()))
    yield SECOND_NODE
    await asyncio.to_thread(own_cluster.remove_node, SECOND_NODE)


def _given() -> Cluster | None:
    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig:
        return None
    return own.of_kubeconfig(Path(kubeconfig), lambda: prepare(print)) or GivenCluster(Path(kubeconfig))


def _program() -> Program:
    try:
        return prepare(print)
    except NotOnThisMachine as error:
        if os.environ.get("CI"):
            pytest.fail(f"no cluster, and in CI nothing is left out: {error}", pytrace=False)
        pytest.skip(f"left out, no cluster on this machine: {error}")


def _healthy(running: own.OwnCluster) -> own.OwnCluster:
    silent = [f"{part} on {machine}" for machine, part, ready in running.status() if not ready]
    if silent:
        raise ClusterError(
            f"the cluster in {running.layout.state} is not well ({', '.join(silent)} does not answer): "
            "take it down with `make cluster-down`"
        )
    return running
