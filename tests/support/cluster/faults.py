"""What can go wrong in a cluster, done on purpose: in the project's own alone, a given one is not ours to break.

Everything here is for an event loop and does not hold it up.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from tests.support.cluster import network
from tests.support.cluster.kube import Kube
from tests.support.cluster.own import CONTROL, OwnCluster

FOLLOWERS = ("kube-controller-manager", "kube-scheduler", "coredns", "volumes")
NODE_FOLLOWERS = ("kubelet", "kube-proxy")


@dataclass(frozen=True)
class Faults:
    """Parts are named as in `make cluster-status`: etcd, kube-apiserver, kubelet, containerd, ..."""

    cluster: OwnCluster

    async def stop(self, part: str, machine: str | None = None) -> None:
        """SIGKILL a part; it is gone when this returns."""
        await asyncio.to_thread(self._stop, part, machine)

    async def start(self, part: str, machine: str | None = None) -> None:
        """Start a part again; it is ready when this returns."""
        await asyncio.to_thread(self._start, part, machine)

    @contextlib.asynccontextmanager
    async def stopped(self, part: str, machine: str | None = None) -> AsyncIterator[None]:
        """Without a part for a while."""
        await self.stop(part, machine)
        try:
            yield
        finally:
            await self.start(part, machine)

    async def kill_container(self, kube: Kube, pod: str, container: str | None = None) -> None:
        """SIGKILL the first process of a pod's container (the first container unless named)."""
        found = await kube.get("pod", pod)
        statuses = found["status"]["containerStatuses"]
        status = next(one for one in statuses if container in (None, one["name"]))
        await asyncio.to_thread(self._kill, found["spec"]["nodeName"], status["containerID"].rpartition("/")[2])

    async def cordon(self, node: str) -> None:
        """Let no new pods onto a node."""
        await asyncio.to_thread(self.cluster.kubectl, "cordon", node)

    async def uncordon(self, node: str) -> None:
        """Let pods onto a node again."""
        await asyncio.to_thread(self.cluster.kubectl, "uncordon", node)

    async def drain(self, node: str, *, timeout: float = 60) -> None:
        """Cordon a node and evict its pods, as before maintenance; they are gone when this returns.

        Raises ClusterError after `timeout` seconds, as when a disruption budget forbids it.
        """
        how = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", f"--timeout={timeout:g}s")
        await asyncio.to_thread(self.cluster.kubectl, "drain", node, *how, timeout=timeout + 10)

    async def cut_off(self, node: str) -> None:
        """Pull a node's cable: its pods run on, and nobody hears of them."""
        await asyncio.to_thread(network.set_link, self.cluster.control, node, up=False)

    async def reconnect(self, node: str) -> None:
        """Plug the cable in again."""
        await asyncio.to_thread(network.set_link, self.cluster.control, node, up=True)

    async def crash(self, node: str) -> None:
        """Cut a node's power: everything on it ends at once."""
        await asyncio.to_thread(self.cluster.machine(node).crash)

    async def boot(self, node: str) -> None:
        """Switch a crashed node on again, with what it had on disk."""
        await asyncio.to_thread(self.cluster.add_node, node)

    def _stop(self, name: str, where: str | None) -> None:
        machine, part = self.cluster.part(name, where)
        machine.stop(part)

    def _start(self, name: str, where: str | None) -> None:
        machine, part = self.cluster.part(name, where)
        machine.start(part)
        machine.await_ready(part)
        if name == "kube-apiserver":
            self._follow_again()

    def _follow_again(self) -> None:
        """Start those anew that follow the API server.

        Each of its outages makes them wait twice as long, up to a minute, before they look again: to the tests that
        follow, it would not be over.
        """
        found = [self.cluster.part(name, CONTROL) for name in FOLLOWERS]
        found += [self.cluster.part(name, node) for node in self.cluster.nodes() for name in NODE_FOLLOWERS]
        for machine, part in found:
            machine.stop(part)
            machine.start(part)
        for machine, part in found:
            machine.await_ready(part)

    def _kill(self, node: str, container: str) -> None:
        ctr = ("ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL")
        self.cluster.machine(node).run(*ctr, container)
