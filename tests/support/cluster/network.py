"""The cluster's network: one bridge in the control plane's namespace that this host and every node hang on.

The host sees a single link and some routes, which go with the link. There is no way out: no default route anywhere.
"""

import contextlib

from tests.support.cluster.layout import NODES, SPACE, Layout
from tests.support.cluster.machine import Machine
from tests.support.cluster.shell import ClusterError, run

FORWARDING = ("net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=1")
"""The second makes the addresses of Services work between pods of one node, whose frames only cross its bridge."""

BRIDGE_ADDRESS = "02:00:00:00:00:01"
"""Fixed, else it is the lowest of the links': as a node comes or goes it changes, and nobody finds it for 10 s."""


def connect_host(layout: Layout, control: Machine) -> None:
    """Join this host and the control plane, and route pods and Services from both."""
    name, peer = layout.name, f"{layout.name}-peer"
    run("ip", "link", "add", name, "type", "veth", "peer", "name", peer)
    run("ip", "link", "set", peer, "netns", str(control.pid))
    batch = [
        f"link add wire address {BRIDGE_ADDRESS} type bridge",
        f"link set {peer} name host master wire up",
        f"addr add {layout.control}/{layout.machines.prefixlen} dev wire",
        "link set wire up",
        *_routes_to_pods(layout),
    ]
    control.in_network("ip", "-batch", "-", feed="\n".join(batch))
    batch = [
        f"addr add {layout.host}/{layout.machines.prefixlen} dev {name}",
        f"link set {name} up",
        *_routes_to_pods(layout),
        f"route add {layout.services} via {layout.node(NODES[0])}",
    ]
    run("ip", "-batch", "-", feed="\n".join(batch))
    _guard()


def connect_node(layout: Layout, control: Machine, node: Machine) -> None:
    """Join a node to the bridge."""
    control.in_network("ip", "link", "add", node.name, "type", "veth", "peer", "name", "eth0", "netns", str(node.pid))
    control.in_network("ip", "link", "set", node.name, "master", "wire", "up")
    batch = [
        f"addr add {layout.node(node.name)}/{layout.machines.prefixlen} dev eth0",
        "link set eth0 up",
        *_routes_to_pods(layout, but=node.name),
    ]
    node.in_network("ip", "-batch", "-", feed="\n".join(batch))
    with contextlib.suppress(ClusterError):  # where it is built in, or there is no modprobe; sysctl then tells
        run("modprobe", "--quiet", "br_netfilter")
    node.run("sysctl", "--quiet", "--write", *FORWARDING)


def set_link(control: Machine, node: str, *, up: bool) -> None:
    """Plug a node's cable in or pull it out."""
    control.in_network("ip", "link", "set", node, "up" if up else "down")


def disconnect_host(layout: Layout) -> None:
    """Take the host's link away, and with it its routes."""
    with contextlib.suppress(ClusterError):  # gone with the control plane's namespace already
        run("ip", "link", "delete", layout.name)


def _routes_to_pods(layout: Layout, but: str = "") -> list[str]:
    return [f"route add {layout.node_pods(node)} via {layout.node(node)}" for node in NODES if node != but]


def _guard() -> None:
    """What is sent to a cluster that is gone goes nowhere, rather than out by this machine's default route.

    It stays when the last cluster ends, for that is when it is needed; a real route to the range would go first.
    """
    with contextlib.suppress(ClusterError):  # it is there already
        run("ip", "route", "add", "unreachable", str(SPACE), "metric", "4294967295")
