"""Fixtures for tests on a real Kubernetes; every test may use them, whatever its folder.

For any cluster:
- `cluster`: a running one with all rights in it, for the whole test run;
- `namespace`: a namespace of the test's own, gone after it, and `kube`, a client bound to it: apply, get, watch, logs,
  run, evict, and `until(kind, name, predicate)`, which fails with all that the cluster tells (see kube.py);
- `worker_image`, `operator_image`, `redis_image`: names of images that are on every node; `load_image(Image(...))` for
  others;
- `api_proxy`: a proxy before the API server that counts, refuses, hangs and cuts watches, for whoever is given
  `api_proxy.kubeconfig` (see proxy.py). A program under test runs on this machine with that file as its KUBECONFIG, or
  with `cluster.kubeconfig`.

For the project's own cluster:
- `faults`: parts stopped and started, containers killed, nodes cordoned, drained, cut off and crashed (see faults.py);
- `second_node`: the name of a node that the test may lose.

Where pytest-xdist runs them in several processes, each process has a new cluster of its own, since some tests break it.

With KUBECONFIG set they use that cluster. Else they use the one that `make cluster-up` put up, else a new one that ends
with the test run. Where none can be started, such tests are left out and one line says so; where CI is set, they fail.
"""

import asyncio
import contextlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import images, own
from tests.support.cluster.faults import Faults
from tests.support.cluster.given import from_environment
from tests.support.cluster.images import Image
from tests.support.cluster.kube import Cluster, Kube
from tests.support.cluster.layout import default_state
from tests.support.cluster.prerequisites import NotOnThisMachine, prepare, reason_against
from tests.support.cluster.processes import identity
from tests.support.cluster.program import Program
from tests.support.cluster.proxy import ApiProxy
from tests.support.cluster.shell import ClusterError

SECOND_NODE = "node2"

ORDER = ("unit", "integration", "cluster", "e2e")
"""Folders of tests, the quick ones first."""

IMAGES = {"worker_image": images.WORKER, "operator_image": images.OPERATOR, "redis_image": images.REDIS}
"""Fixture -> what it loads."""

LEFT_OUT = pytest.StashKey[str]()
BUILT = pytest.StashKey[dict[Image, Path]]()
"""Archives of what was built ahead of the tests; none once a build has failed."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Quick tests first, so that what fails shows early; without tests that this machine can't run."""
    items.sort(key=_rank)
    if not any(_needs(item, "cluster") for item in items):
        return
    fixture, reason = _what_can_not_be()
    needing = [item for item in items if _needs(item, fixture)]
    if reason and needing:
        config.stash[LEFT_OUT] = f"left out: {len(needing)} tests on a real Kubernetes: {reason}"
        config.hook.pytest_deselected(items=needing)
        items[:] = [item for item in items if not _needs(item, fixture)]


def pytest_report_header() -> str | None:
    """Say whose cluster the tests will use, where it is not their own."""
    named = os.environ.get("KUBECONFIG")
    return f"cluster: the one that KUBECONFIG names ({named})" if named else None


def pytest_testnodedown(node: Any) -> None:
    """Take over from a process of pytest-xdist, in the one that controls it, what the process left out."""
    if reason := node.workeroutput.get("left out"):
        node.config.stash[LEFT_OUT] = reason


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Pass on what was left out. A run whose tests were all left out has not failed."""
    reason = session.config.stash.get(LEFT_OUT, None)
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left out"] = reason
    elif reason and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was left out."""
    if LEFT_OUT in config.stash:
        terminalreporter.write_line(config.stash[LEFT_OUT], yellow=True)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Build before the clock of the first test that needs it runs: a build takes minutes, a test's time is limited."""
    if _needs(item, "cluster") and BUILT not in item.config.stash:
        item.config.stash[BUILT] = {}
        with contextlib.suppress(NotOnThisMachine, ClusterError):  # the fixtures meet the same, and say so in the test
            item.config.stash[BUILT] = _build_for(item.session)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Beside a failure, say how the cluster is."""
    report = yield
    running = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(running, own.OwnCluster):
        report.sections.append(("the cluster", running.condition()))
    return report


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running cluster with all rights in it."""
    if (given := from_environment()) is not None:
        yield given
        return
    me = identity(os.getpid())
    assert me is not None
    is_alone = "PYTEST_XDIST_WORKER" not in os.environ  # some tests break the cluster for all others
    running, is_new = own.share_or_bring_up(default_state(), _program(), me, may_share=is_alone)
    if not is_new:
        yield _healthy(running)
        return
    try:
        yield running
    finally:
        own.take_down(running.layout.state)


@pytest.fixture(scope="session")
def own_cluster(cluster: Cluster) -> own.OwnCluster:
    """The project's own cluster, whose parts a test may break."""
    assert isinstance(cluster, own.OwnCluster)  # else its tests are left out
    return cluster


@pytest.fixture(scope="session")
def _loaded() -> dict[str, Path]:
    """Images that nodes have been given, for those that join later."""
    return {}


@pytest.fixture(scope="session")
def load_image(cluster: Cluster, _loaded: dict[str, Path], pytestconfig: pytest.Config) -> Callable[[Image], str]:
    """`load_image(WORKER)` builds an image, puts it onto every node, once, and gives its name for a manifest."""

    def load(image: Image) -> str:
        if image.name not in _loaded:
            archive = pytestconfig.stash[BUILT].get(image) or images.build(image)
            cluster.load(archive)
            _loaded[image.name] = archive
        return image.name

    return load


@pytest.fixture(scope="session")
def worker_image(load_image: Callable[[Image], str]) -> str:
    """The name of the worker's image, on every node."""
    return load_image(IMAGES["worker_image"])


@pytest.fixture(scope="session")
def operator_image(load_image: Callable[[Image], str]) -> str:
    """The name of the operator's image, on every node."""
    return load_image(IMAGES["operator_image"])


@pytest.fixture(scope="session")
def redis_image(load_image: Callable[[Image], str]) -> str:
    """The name of an image with a Redis, on every node."""
    return load_image(IMAGES["redis_image"])


@pytest.fixture
async def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The name of a namespace of the test's own; its end is asked for, not waited for."""
    readable = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40]
    name = f"{readable}-{secrets.token_hex(3)}"
    async with Kube(cluster, name) as kube:
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        await kube.until("serviceaccount", "default", lambda _: True, timeout=120, what="made")  # no pod before it
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
    if SECOND_NODE in own_cluster.nodes():  # an earlier run was killed
        await asyncio.to_thread(own_cluster.remove_node, SECOND_NODE)
    try:
        await asyncio.to_thread(own_cluster.add_node, SECOND_NODE, list(_loaded.values()))
        yield SECOND_NODE
    finally:  # also one that got no further than its first parts: the cluster would not be well
        await asyncio.to_thread(own_cluster.remove_node, SECOND_NODE)


def _rank(item: pytest.Item) -> int:
    named = item.nodeid.split("/")[:2]
    return max((ORDER.index(folder) for folder in named if folder in ORDER), default=1)


def _needs(item: pytest.Item, fixture: str) -> bool:
    return isinstance(item, pytest.Function) and fixture in item.fixturenames


def _what_can_not_be() -> tuple[str, str | None]:
    """A fixture that can't be had here, and why not; no reason if it can."""
    given = from_environment()
    if given is None:
        return "cluster", None if _in_ci() else reason_against()
    is_own = isinstance(given, own.OwnCluster)
    return "own_cluster", None if is_own else "they break it, so they need the project's own: unset KUBECONFIG"


def _in_ci() -> bool:
    return bool(os.environ.get("CI"))


def _build_for(session: pytest.Session) -> dict[Image, Path]:
    if from_environment() is None:
        prepare(print)
    needed = {fixture for item in session.items for fixture in IMAGES if _needs(item, fixture)}
    return {IMAGES[fixture]: images.build(IMAGES[fixture]) for fixture in sorted(needed)}


def _program() -> Program:
    try:
        return prepare(print)
    except NotOnThisMachine as error:
        if _in_ci():
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
