"""Where a cluster's things are: every name, address and file follows from its state folder and its slot."""

import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

SPACE = IPv4Network("198.18.0.0/15")
"""Reserved for benchmarks (RFC 2544): nothing real answers there, so nothing leaks out."""

SLOTS = 16
"""Clusters that can run side by side on one machine: /19 networks in SPACE."""

NODES = ("node1", "node2", "node3", "node4")
"""Names of the nodes that a cluster may have; each has a /23 for its pods."""

HIDDEN = (Path("/run"), Path("/var/log"), Path("/var/lib"))
"""Folders where containerd and the kubelet write by habit: a machine of the cluster has its own, in memory."""


def default_state() -> Path:
    """AGENTQUEUE_CLUSTER_DIR, else agentqueue-cluster in TMPDIR or /var/tmp (on disk, unlike /tmp)."""
    given = os.environ.get("AGENTQUEUE_CLUSTER_DIR")
    return Path(given or Path(os.environ.get("TMPDIR", "/var/tmp")) / "agentqueue-cluster").resolve()


def choose_slot(state: Path, taken: Collection[int]) -> int:
    """The first free slot, from one that the folder's name decides. Raises ValueError when all are taken."""
    first = int.from_bytes(hashlib.sha256(str(state).encode()).digest()[:4], "big")
    free = ((first + step) % SLOTS for step in range(SLOTS))
    slot = next((slot for slot in free if slot not in taken), None)
    if slot is None:
        raise ValueError(f"all {SLOTS} address ranges are taken by running clusters; end one of them")
    return slot


@dataclass(frozen=True)
class Layout:
    """One cluster's names, addresses and files."""

    state: Path
    slot: int

    def __post_init__(self) -> None:
        if any(self.state.is_relative_to(hidden) for hidden in HIDDEN):
            raise ValueError(f"the state folder can't be in {', '.join(map(str, HIDDEN))}: {self.state}")

    @property
    def name(self) -> str:
        """The name of the link to this machine and of the control group."""
        return f"aq{self.slot}"

    @cached_property
    def _ranges(self) -> list[IPv4Network]:
        network = IPv4Network((SPACE.network_address + self.slot * 2**13, 19))
        return list(network.subnets(new_prefix=24))

    @property
    def machines(self) -> IPv4Network:
        """Addresses of the host (.1), the control plane (.2) and the nodes (.11 and on)."""
        return self._ranges[0]

    @property
    def pods(self) -> IPv4Network:
        """All nodes' pods, a /21."""
        return self._ranges[8].supernet(new_prefix=21)

    @property
    def services(self) -> IPv4Network:
        """Services, a /20."""
        return self._ranges[16].supernet(new_prefix=20)

    @property
    def host(self) -> IPv4Address:
        """This machine, as seen by the cluster."""
        return self.machines[1]

    @property
    def control(self) -> IPv4Address:
        """The control plane and the DNS server."""
        return self.machines[2]

    def node(self, name: str) -> IPv4Address:
        """A node's address."""
        return self.machines[11 + NODES.index(name)]

    def node_pods(self, name: str) -> IPv4Network:
        """The addresses of a node's pods, a /23."""
        return list(self.pods.subnets(new_prefix=23))[NODES.index(name)]

    @property
    def server(self) -> str:
        """The API server's address."""
        return f"https://{self.control}:6443"

    def kubeconfig(self, user: str = "admin") -> Path:
        """A user's kubeconfig."""
        return self.state / f"{user}.kubeconfig"

    @property
    def certificate(self) -> Path:
        """The API server's certificate and its authority's: made by the API server itself."""
        return self.state / "pki" / "apiserver.crt"

    def folder(self, *names: str) -> Path:
        """A folder in the state folder, made if need be."""
        path = self.state.joinpath(*names)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def log(self, machine: str, part: str) -> Path:
        """The log of a part."""
        return self.folder("logs") / f"{machine}-{part}.log"
