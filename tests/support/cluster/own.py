"""The project's own cluster: started from nothing, taken down to nothing."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.cluster import network, parts
from tests.support.cluster.access import Access
from tests.support.cluster.images import pause_archive
from tests.support.cluster.layout import NODES, Layout, choose_slot
from tests.support.cluster.machine import Init, Machine, Part, inits, remove_control_groups
from tests.support.cluster.processes import Process, end, is_alive, processes
from tests.support.cluster.program import Program, only_one
from tests.support.cluster.shell import ClusterError, run, tail, until

CONTROL = "control"
ALWAYS_TOLD = {(CONTROL, "kube-controller-manager"), (NODES[0], "kubelet"), (NODES[0], "kube-proxy")}
"""Parts whose logs a failed test shows: they make pods and lead to them."""
MARK = "cluster.json"
"""The file by which a state folder is known as one, with the slot and the owner."""


@dataclass(frozen=True)
class OwnCluster:
    """A cluster of this project's making, running or to be started.

    `owner` is the identity of the process that it must not outlive, None for one that stays until it is taken down.
    """

    layout: Layout
    program: Program
    owner: str | None = None

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.layout.kubeconfig()

    @property
    def access(self) -> Access:
        """How the tests' client reaches it."""
        return Access.own(self.kubeconfig)

    @property
    def host(self) -> str:
        """The address by which its pods reach this machine."""
        return str(self.layout.host)

    @property
    def control(self) -> Machine:
        """The control plane's machine."""
        return self.machine(CONTROL)

    def machine(self, name: str) -> Machine:
        """The machine of a node, or of the control plane."""
        return Machine(self.layout, self.program, name, self.owner)

    def nodes(self) -> list[str]:
        """The nodes whose machines are on."""
        on = {init.machine for init in inits() if init.state == self.layout.state}
        return [node for node in NODES if node in on]

    def parts(self, machine: str) -> list[Part]:
        """What runs on a machine."""
        if machine == CONTROL:
            return parts.control_parts(self.layout, self.program)
        return parts.node_parts(self.layout, self.program, machine)

    def part(self, name: str, machine: str | None = None) -> tuple[Machine, Part]:
        """A part by name; one of a node's is looked for on the first node unless another is named."""
        for where in [machine] if machine else [CONTROL, NODES[0]]:
            for part in self.parts(where):
                if part.name == name:
                    return self.machine(where), part
        raise ValueError(f"no part {name!r} on {machine or 'the control plane or the first node'}")

    def kubectl(self, *arguments: str, timeout: float = 60) -> str:
        """Standard output of kubectl."""
        program = self.program.folder / "kubectl"
        return run(program, f"--kubeconfig={self.kubeconfig}", *arguments, timeout=timeout)

    def load(self, archive: Path) -> None:
        """Put an image onto every node."""
        for node in self.nodes():
            self._load(self.machine(node), archive)

    def start(self) -> None:
        """Start everything on the booted control plane, and the first node, and wait until it is ready.

        Raises ClusterError with the logs' ends when it does not become so.
        """
        parts.write_control_files(self.layout, NODES)
        control = self.control
        network.connect_host(self.layout, control)
        etcd, apiserver, *others = self.parts(CONTROL)
        control.start(etcd)
        control.start(apiserver)
        self._boot_node(NODES[0])  # meanwhile: the API server takes its seconds
        control.await_ready(apiserver)
        for part in others:
            control.start(part)
        self._start_kubelet(NODES[0])
        self._request("POST", "/apis/storage.k8s.io/v1/storageclasses", parts.STORAGE_CLASS)
        for part in others:
            control.await_ready(part)
        self._await_node(NODES[0])
        until(lambda: self._find("/api/v1/namespaces/default/serviceaccounts/default"), "the first ServiceAccount")

    def add_node(self, name: str, archives: Iterable[Path] = ()) -> None:
        """Start another node with some images, or a crashed one again, and wait until it is ready."""
        self._boot_node(name)
        for archive in archives:
            self._load(self.machine(name), archive)
        self._start_kubelet(name)
        self._await_node(name)

    def remove_node(self, name: str) -> None:
        """End a node and forget it and its pods; what it keeps on disk waits for the next start."""
        self.machine(name).crash()
        for pod in self._request("GET", f"/api/v1/pods?fieldSelector=spec.nodeName={name}")["items"]:
            where = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
            self._request("DELETE", f"{where}?gracePeriodSeconds=0", missing_ok=True)
        self._request("DELETE", f"/api/v1/nodes/{name}", missing_ok=True)
        until(lambda: not self._find(f"/api/v1/nodes/{name}"), f"the end of {name}")

    def status(self) -> list[tuple[str, str, bool]]:
        """Machine, part and whether it is ready, for each."""
        machines = [self.machine(name) for name in (CONTROL, *self.nodes())]
        return [(on.name, part.name, part.ready(part, on)) for on in machines for part in self.parts(on.name)]

    def condition(self) -> str:
        """Which parts don't answer, and the ends of their logs and of those that make pods and lead to them."""
        silent = {(machine, part) for machine, part, ready in self.status() if not ready}
        told = [f"{part} on {machine} does not answer" for machine, part in sorted(silent)]
        for machine, part in sorted(silent | ALWAYS_TOLD):
            told.append(f"--- log of {part} on {machine}\n{tail(self.layout.log(machine, part))}")
        return "\n".join(told)

    def _boot_node(self, name: str) -> None:
        machine = self.machine(name)
        machine.boot()
        network.connect_node(self.layout, self.control, machine)
        parts.write_node_files(self.layout, name, machine.make_control_group())
        containerd = self.parts(name)[0]
        machine.start(containerd)
        machine.await_ready(containerd)
        self._load(machine, pause_archive(self.program))

    def _start_kubelet(self, name: str) -> None:
        machine = self.machine(name)
        for part in self.parts(name)[1:]:
            machine.start(part)

    def _await_node(self, name: str) -> None:
        machine = self.machine(name)
        for part in self.parts(name):
            machine.await_ready(part)
        until(
            lambda: self._is_ready(name), f"node {name} to be Ready", timeout=60, explain=lambda: self._describe(name)
        )

    def _is_ready(self, node: str) -> bool:
        found = self._find(f"/api/v1/nodes/{node}") or {"status": {}}
        conditions = {one["type"]: one["status"] for one in found["status"].get("conditions", [])}
        taints = [taint["key"] for taint in found.get("spec", {}).get("taints", [])]
        return conditions.get("Ready") == "True" and not any(
            "not-ready" in key or "unreachable" in key for key in taints
        )

    def _describe(self, node: str) -> str:
        return "\n" + self.kubectl("describe", "node", node)

    @staticmethod
    def _load(machine: Machine, archive: Path) -> None:
        machine.run("ctr", "--namespace", "k8s.io", "images", "import", "-", archive=archive)

    def _find(self, path: str) -> Any:
        return self._request("GET", path, missing_ok=True)

    def _request(self, verb: str, path: str, body: object = None, *, missing_ok: bool = False) -> Any:
        with self.access.client() as client:
            response = client.request(verb, path, json=body)
        if response.status_code == 404 and missing_ok:
            return None
        if response.is_error:
            raise ClusterError(f"{verb} {path}: {response.status_code} {response.text[:500]}")
        return response.json()


def bring_up(state: Path, program: Program, owner: str | None = None) -> OwnCluster:
    """A new cluster in a state folder, after what others left behind is cleaned up.

    Raises ClusterError when one runs there, or when a part does not start; then nothing of it is left.
    """
    with only_one("cluster"):
        _sweep(state)
        cluster = _claim(state, program, owner)
    return _started(cluster)


def share_or_bring_up(state: Path, program: Program, owner: str, *, may_share: bool = True) -> tuple[OwnCluster, bool]:
    """Return the cluster that was put up in a state folder to stay, else a new one of the owner's; whether it is new.

    While another owner's runs there, or one that may not be shared, the new one gets a folder beside it.
    """
    with only_one("cluster"):
        _sweep(state)
        running = find(state, program)
        if may_share and running is not None and running.owner is None:
            return running, False
        beside = state.with_name(f"{state.name}-{owner.partition(':')[0]}")
        cluster = _claim(beside if running else state, program, owner)
    return _started(cluster), True


def _claim(state: Path, program: Program, owner: str | None) -> OwnCluster:
    """A cluster of which nothing runs but the machine that marks its folder and its addresses as taken."""
    if any(init.state == state for init in inits()):
        raise ClusterError(f"a cluster runs in {state}; use it, or take it down with `make cluster-down`")
    if state.exists() and any(state.iterdir()):
        raise ClusterError(f"{state} holds something else than a cluster: set AGENTQUEUE_CLUSTER_DIR to a new folder")
    cluster = OwnCluster(Layout(state, choose_slot(state, {init.slot for init in inits()})), program, owner)
    state.mkdir(mode=0o700, exist_ok=True)
    with _nothing_left_on_failure(state, _take_down):
        (state / MARK).write_text(json.dumps({"slot": cluster.layout.slot, "owner": owner}))
        cluster.control.boot()
    return cluster


def _started(cluster: OwnCluster) -> OwnCluster:
    with _nothing_left_on_failure(cluster.layout.state, take_down):
        cluster.start()
    return cluster


def find(state: Path, program: Program) -> OwnCluster | None:
    """The cluster that runs in a state folder."""
    control = next((init for init in inits() if (init.state, init.machine) == (state, CONTROL)), None)
    return OwnCluster(Layout(state, control.slot), program, control.owner) if control else None


def of_kubeconfig(kubeconfig: Path, program: Callable[[], Program]) -> OwnCluster | None:
    """The running cluster that wrote a kubeconfig, if it is one of ours."""
    states = {init.state for init in inits()}
    state = next((state for state in states if kubeconfig.resolve().parent == state), None)
    return find(state, program()) if state else None


def take_down(state: Path) -> None:
    """End a cluster and leave nothing of it: processes, mounts, namespaces, link, control groups, files.

    Works as well on what a killed start or a killed end left.
    """
    with only_one("cluster"):
        _take_down(state)


def _take_down(state: Path) -> None:
    mine = [init for init in inits() if init.state == state]
    end(init.pid for init in mine)
    until(lambda: not _starters(state), f"the end of what started the parts of {state}")
    for slot in {init.slot for init in mine} | _noted_slot(state):
        layout = Layout(state, slot)
        network.disconnect_host(layout)
        remove_control_groups(layout.name)
    if state.exists():
        _remove(state)


def _starters(state: Path) -> list[Process]:
    """The processes of this machine that wait for the cluster's, and end with them."""
    starts = [one for one in processes() if one.argv[0] in {"unshare", "nsenter"}]
    return [one for one in starts if any(word == str(state) or f"{state}/" in word for word in one.argv)]


def _remove(state: Path) -> None:
    """The folder, its mark last: killed in the middle, it is still known for what it is."""
    for entry in state.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MARK:
            entry.unlink()
    shutil.rmtree(state)


def _sweep(state: Path) -> None:
    """Take down what has lost its owner or its state folder, anywhere, and what lies about in or beside `state`."""
    for found in {init.state for init in inits() if _is_stale(init)}:
        _take_down(found)
    running = {init.state for init in inits()}
    for mark in state.parent.glob(f"{state.name}*/{MARK}"):
        if mark.parent not in running:
            _take_down(mark.parent)


def _is_stale(init: Init) -> bool:
    return not init.state.exists() or (init.owner is not None and not is_alive(init.owner))


def _noted_slot(state: Path) -> set[int]:
    """The slot in a left-behind state folder, unless a running cluster has it by now."""
    with contextlib.suppress(OSError, ValueError):
        return {json.loads((state / MARK).read_text())["slot"]} - {init.slot for init in inits()}
    return set()


@contextlib.contextmanager
def _nothing_left_on_failure(state: Path, undo: Callable[[Path], None]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        undo(state)
        raise
