"""A cluster comes from nothing and goes to nothing, whatever ends it, and minds no other beside it."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.cluster import own
from tests.support.cluster.kube import Kube, is_ready
from tests.support.cluster.layout import NODES, Layout
from tests.support.cluster.machine import inits
from tests.support.cluster.manifests import idle_container, pod
from tests.support.cluster.own import OwnCluster
from tests.support.cluster.processes import identity, is_alive, pid_namespace, processes
from tests.support.cluster.program import ROOT, Program
from tests.support.cluster.shell import ClusterError, run, tail, until

pytestmark = pytest.mark.timeout(300)

WAITS = """
import os, pathlib, threading

def test_waits(cluster):
    pathlib.Path(os.environ["MARKER"]).touch()
    threading.Event().wait()
"""

MARKER = "a-test-runs"


@dataclass(frozen=True)
class Traces:
    """Where on this machine a cluster shows: found while it runs, and looked for after its end."""

    layout: Layout
    processes: frozenset[str]

    @classmethod
    def of(cls, layout: Layout) -> "Traces":
        """Those of a cluster that runs."""
        namespaces = {pid_namespace(init.pid) for init in inits() if init.state == layout.state}
        inside = (process.pid for process in processes() if pid_namespace(process.pid) in namespaces)
        return cls(layout, frozenset(filter(None, map(identity, inside))))

    def found(self) -> Mapping[str, Sequence[object]]:
        """What is there of it, by kind; kinds of which nothing is are left out."""
        name, state = self.layout.name, str(self.layout.state)
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        started_later = [process for process in processes() if any(state in word for word in process.argv)]
        traces: dict[str, Sequence[object]] = {
            "processes": [*filter(is_alive, self.processes), *started_later],
            "mounts": [line for line in mounts if state in line],
            "links": [line for line in run("ip", "-oneline", "link").splitlines() if f" {name}@" in line],
            "routes": [line for line in run("ip", "route").splitlines() if f"dev {name} " in line],
            "control groups": list(Path("/sys/fs/cgroup").glob(f"**/{name}")),
            "files": [path for path in [self.layout.state] if path.exists()],
        }
        return {kind: found for kind, found in traces.items() if found}


@pytest.fixture
def state() -> Iterator[Path]:
    """A state folder for a cluster that is not the other tests'. On disk, and short: sockets are in it."""
    folder = Path(tempfile.mkdtemp(prefix="aq-", dir="/var/tmp"))
    yield folder / "cluster"
    for beside in folder.iterdir():
        own.take_down(beside)
    shutil.rmtree(folder)


@pytest.fixture
def program(own_cluster: OwnCluster) -> Program:
    """What clusters are started from."""
    return own_cluster.program


def silent(cluster: OwnCluster) -> list[str]:
    return [f"{part} on {machine}" for machine, part, ready in cluster.status() if not ready]


def test_a_cluster_leaves_nothing_behind_and_starts_anew(state: Path, program: Program) -> None:
    for _ in range(2):
        cluster = own.bring_up(state, program)
        cluster.add_node(NODES[1])
        assert silent(cluster) == []
        traces = Traces.of(cluster.layout)
        assert set(traces.found()) == {"processes", "links", "routes", "control groups", "files"}
        own.take_down(state)
        assert traces.found() == {}


async def test_two_clusters_run_side_by_side(own_cluster: OwnCluster, kube: Kube, state: Path) -> None:
    await kube.apply(pod("idle", idle_container()))
    beside = own.bring_up(state, own_cluster.program)
    assert not beside.layout.pods.overlaps(own_cluster.layout.pods)
    async with Kube(beside) as other:
        await other.apply(pod("idle", idle_container()))
        theirs = await other.until("pod", "idle", is_ready)
    ours = await kube.until("pod", "idle", is_ready)
    assert ours["metadata"]["uid"] != theirs["metadata"]["uid"]
    own.take_down(state)
    assert silent(own_cluster) == []
    assert is_ready(await kube.get("pod", "idle"))


def test_a_second_cluster_in_the_same_folder_is_refused(own_cluster: OwnCluster) -> None:
    with pytest.raises(ClusterError, match=r"a cluster runs in .*; use it, or take it down"):
        own.bring_up(own_cluster.layout.state, own_cluster.program)


def test_a_folder_of_something_else_is_left_alone(state: Path, program: Program) -> None:
    state.mkdir()
    (state / "thesis.txt").touch()
    with pytest.raises(ClusterError, match="holds something else than a cluster"):
        own.bring_up(state, program)
    assert (state / "thesis.txt").exists()
    (state / "thesis.txt").unlink()


def test_a_start_cleans_up_after_test_runs_that_were_killed(state: Path, program: Program, tmp_path: Path) -> None:
    """Killed while their cluster starts, and while a test runs; found by the same folder, and from another."""
    while_it_starts = traces_of_killed_run(state, program, tmp_path, lambda: NODES[0] in _machines(state))
    while_a_test_runs = traces_of_killed_run(state, program, tmp_path, (tmp_path / MARKER).exists)
    assert while_it_starts.processes
    assert not any(map(is_alive, while_it_starts.processes))
    another = state.with_name("another")
    own.bring_up(another, program)
    own.take_down(another)
    assert while_a_test_runs.found() == {}


def traces_of_killed_run(state: Path, program: Program, folder: Path, when: Callable[[], bool]) -> Traces:
    """What a run of pytest leaves that is killed at that moment."""
    (folder / "test_waits.py").write_text(WAITS)
    command = [sys.executable, "-m", "pytest", f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}"]
    command += ["-p", "tests.support.cluster.plugin", "--timeout=0", str(folder / "test_waits.py")]
    environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    environment |= {"AGENTQUEUE_CLUSTER_DIR": str(state), "MARKER": str(folder / MARKER)}
    with (folder / "output").open("wb") as output:
        tests = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        until(when, "the moment to kill a test run", timeout=120, explain=lambda: f":\n{tail(folder / 'output')}")
        cluster = own.find(state, program)
        assert cluster is not None
        return Traces.of(cluster.layout)
    finally:
        tests.kill()
        tests.wait()


def _machines(state: Path) -> set[str]:
    return {init.machine for init in inits() if init.state == state}
