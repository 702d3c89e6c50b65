"""What a machine must have to run a cluster, and getting it."""

import os
import shutil
import sys
from collections.abc import Callable

from tests.support.cluster import program
from tests.support.debian import PackagesMissing, ensure_packages

PACKAGES = {
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "buildah": "buildah",
    "conntrack": "conntrack",
    "containerd": "containerd",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "iptables": "iptables",
    "modprobe": "kmod",
    "nft": "nftables",
    "openssl": "openssl",
    "runc": "runc",
    "socat": "socat",
    "sysctl": "procps",
}
"""Program -> Debian's package. Asked by program: containerd may well be here from elsewhere."""


class NotOnThisMachine(RuntimeError):
    """A cluster can't be started here; the message says why in one line."""


def prepare(say: Callable[[str], None]) -> program.Program:
    """Install what is missing and build the programs. Raises NotOnThisMachine, or ClusterError if the build fails."""
    if sys.platform != "linux":
        raise NotOnThisMachine(f"Linux is needed, this is {sys.platform}; set KUBECONFIG to use another cluster")
    if os.geteuid() != 0:
        raise NotOnThisMachine("root is needed for namespaces and mounts; set KUBECONFIG to use another cluster")
    try:
        ensure_packages(*(package for name, package in PACKAGES.items() if shutil.which(name) is None))
    except PackagesMissing as error:
        raise NotOnThisMachine(str(error)) from error
    if (found := program.built()) is not None:
        return found
    if shutil.which("go") is None:
        raise NotOnThisMachine("Go 1.25 or newer is needed to build Kubernetes: https://go.dev/dl")
    say("building Kubernetes for the test cluster: up to ten minutes the first time, seconds after that")
    return program.build()
