"""What is installed on the tests' Kubernetes: the project's images, by the names that samples and charts know."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support.cluster.images import REDIS, WORKER, Image
from tests.support.cluster.kube import Cluster, Object
from tests.support.cluster.program import ROOT, build
from tests.support.cluster.shell import run

TRAVEL = Image(
    "docker.io/library/agentqueue-travel:dev",
    ROOT / "examples" / "travel" / "Dockerfile",
    ROOT / "examples" / "travel",
    (("WORKER", WORKER.name),),
)
"""The example of an image that a user makes from the worker's; manifests/samples/agentqueue.yaml names it."""


@dataclass(frozen=True)
class Helm:
    """Helm for a cluster; without one it only renders."""

    cluster: Cluster | None = None

    def run(self, *arguments: str | Path, timeout: float = 300) -> str:
        """Standard output. Raises ClusterError with what Helm says."""
        given = () if self.cluster is None else (f"--kubeconfig={self.cluster.kubeconfig}",)
        return run(build().folder / "helm", *arguments, *given, cwd=ROOT, timeout=timeout)

    async def __call__(self, *arguments: str | Path, timeout: float = 300) -> str:
        """The same, while the event loop goes on."""
        return await asyncio.to_thread(self.run, *arguments, timeout=timeout)


def rendered(*options: str | Path, release: str = "agentqueue", chart: str = "charts/agentqueue") -> Sequence[Object]:
    """What the chart's templates make, hooks among it."""
    text = Helm().run("template", release, chart, *options)
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


def local_images() -> Sequence[str]:
    """Options of Helm that put the locally built images in the place of the published ones."""
    values = {
        "image.registry": "localhost",
        "image.tag": "dev",
        "defaults.workerImage": WORKER.name,
        "defaults.redisImage": REDIS.name,
    }
    return [word for name, value in values.items() for word in ("--set", f"{name}={value}")]


async def follow(script: str, kubeconfig: Path, *, folder: Path = ROOT) -> str:
    """Standard output of shell that a page shows; kubectl, helm and agentqueue are those of here. Fails as it does."""
    programs = [str(build().folder), str(Path(sys.executable).parent), os.environ["PATH"]]
    env = {**os.environ, "PATH": os.pathsep.join(programs), "KUBECONFIG": str(kubeconfig)}
    words = ("bash", "-o", "errexit", "-o", "pipefail", "-c", script)

    def run_it() -> str:
        done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout

    return await asyncio.to_thread(run_it)
