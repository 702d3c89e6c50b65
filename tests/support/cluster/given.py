"""A cluster that KUBECONFIG names: tests use it as it is and change nothing outside their namespaces."""

import os
import shlex
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.support.cluster import own
from tests.support.cluster.access import Access
from tests.support.cluster.kube import Cluster
from tests.support.cluster.prerequisites import prepare
from tests.support.cluster.program import build
from tests.support.cluster.shell import ClusterError, run

LOADER = "AGENTQUEUE_LOAD_IMAGE"
"""A command that brings an image into the given cluster; `{archive}` in it is the file (docker-archive)."""


@dataclass(frozen=True)
class GivenCluster:
    """Someone else's cluster."""

    kubeconfig: Path

    @cached_property
    def access(self) -> Access:
        """How the tests' client reaches it."""
        return Access.given(str(self.kubeconfig))

    @property
    def host(self) -> str:
        """Only programs on this machine reach what tests start here."""
        return "127.0.0.1"

    @cached_property
    def _kubectl(self) -> str:
        return shutil.which("kubectl") or str(build().folder / "kubectl")

    def kubectl(self, *arguments: str, timeout: float = 60) -> str:
        """Standard output of kubectl."""
        return run(self._kubectl, f"--kubeconfig={self.kubeconfig}", *arguments, timeout=timeout)

    def load(self, archive: Path) -> None:
        """Put an image onto every node: with `kind` into its own, else by the command in AGENTQUEUE_LOAD_IMAGE."""
        run(*shlex.split(self._loader().format(archive=shlex.quote(str(archive)))), timeout=300)

    def _loader(self) -> str:
        if given := os.environ.get(LOADER):
            return given
        context = self.kubectl("config", "current-context").strip()
        if not context.startswith("kind-"):
            raise ClusterError(f"no way to load images into {context}: set {LOADER}='... {{archive}}'")
        return f"kind load image-archive {{archive}} --name {context.removeprefix('kind-')}"


def from_environment() -> Cluster | None:
    """The cluster that KUBECONFIG names: one of the project's own if it wrote that file, which may be broken then."""
    named = os.environ.get("KUBECONFIG")
    if not named:
        return None
    return own.of_kubeconfig(Path(named), lambda: prepare(print)) or GivenCluster(Path(named))
