"""What a machine must have to run a cluster, and getting it."""

import os
import shutil
import sys
from collections.abc import Callable

from tests.support.cluster import program
from tests.support.cluster.shell import ClusterError, run
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


ELSE = "; set KUBECONFIG to use another cluster"

NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--propagation", "private")
"""How a machine of a cluster begins."""


class NotOnThisMachine(RuntimeError):
    """A cluster can't be started here; the message says why in one line."""


def reason_against() -> str | None:
    """Why no cluster can be started here, in one line; None where nothing speaks against trying."""
    if sys.platform != "linux":
        return f"Linux is needed, this is {sys.platform}{ELSE}"
    if os.geteuid() != 0:
        return f"root is needed for namespaces and mounts{ELSE}"
    try:
        if program.built() is None and shutil.which("go") is None:
            return f"Go 1.25 or newer is needed to build Kubernetes (https://go.dev/dl){ELSE}"
        run(*NAMESPACES, "true")
    except OSError as error:
        return f"the cache folder can't be used: {error}{ELSE}"
    except ClusterError as error:
        return f"this machine lets not even root make namespaces: {error}{ELSE}"
    return None


def prepare(say: Callable[[str], None]) -> program.Program:
    """Install what is missing and build the programs. Raises NotOnThisMachine, or ClusterError if the build fails."""
    if (reason := reason_against()) is not None:
        raise NotOnThisMachine(reason)
    try:
        ensure_packages(*(package for name, package in PACKAGES.items() if shutil.which(name) is None))
    except PackagesMissing as error:
        raise NotOnThisMachine(str(error)) from error
    if (found := program.built()) is not None:
        return found
    say("building Kubernetes for the test cluster: up to ten minutes the first time, seconds after that")
    return program.build()
