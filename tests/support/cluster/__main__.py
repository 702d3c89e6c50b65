"""`python -m tests.support.cluster build|up|down|status|shell|images`: the test cluster by hand."""

import argparse
import os
import sys
from collections.abc import Callable

from tests.support.cluster import images, own
from tests.support.cluster.given import from_environment
from tests.support.cluster.layout import default_state
from tests.support.cluster.prerequisites import NotOnThisMachine, prepare
from tests.support.cluster.shell import ClusterError
from tests.support.installs import TRAVEL


def build() -> int:
    """Build the programs, once."""
    print(prepare(print).folder)
    return 0


def up() -> int:
    """Start a cluster that stays until it is taken down."""
    state = default_state()
    cluster = own.find(state, prepare(print)) or own.bring_up(state, prepare(print))
    print(f"export KUBECONFIG={cluster.kubeconfig}")
    return 0


def down() -> int:
    """End it and leave nothing of it."""
    own.take_down(default_state())
    return 0


def status() -> int:
    """Tell which parts answer; 0 if all do."""
    cluster = _running()
    parts = cluster.status()
    for machine, part, ready in parts:
        print(f"{machine:8} {part:24} {'ready' if ready else 'DOES NOT ANSWER'}")
    print(f"logs: {cluster.layout.state / 'logs'}")
    return 0 if all(ready for _, _, ready in parts) else 1


def shell() -> int:
    """A shell with kubectl and helm for the cluster."""
    cluster = _running()
    path = f"{cluster.program.folder}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig), "PATH": path}
    program = os.environ.get("SHELL", "/bin/sh")
    os.execvpe(program, [program], environment)


def make_images() -> int:
    """Build the images, and load them into the cluster that runs, or that KUBECONFIG names."""
    cluster = from_environment() or own.find(default_state(), prepare(print))
    for image in (images.WORKER, images.OPERATOR, images.REDIS, TRAVEL):
        archive = images.build(image)
        if cluster:
            cluster.load(archive)
        print(f"{image.name} {'loaded' if cluster else archive}")
    return 0


def _running() -> own.OwnCluster:
    cluster = own.find(default_state(), prepare(print))
    if cluster is None:
        raise ClusterError(f"no cluster runs in {default_state()}: start one with `make cluster-up`")
    return cluster


COMMANDS: dict[str, Callable[[], int]] = {
    "build": build,
    "up": up,
    "down": down,
    "status": status,
    "shell": shell,
    "images": make_images,
}


def main() -> int:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.cluster")
    commands = parser.add_subparsers(required=True)
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.__doc__).set_defaults(run=command)
    try:
        return int(parser.parse_args().run())
    except (ClusterError, NotOnThisMachine) as error:
        print(f"{error}", file=sys.stderr)
        return 1


sys.exit(main())
