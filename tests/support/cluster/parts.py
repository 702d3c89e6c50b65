"""The parts of a control plane and of a node: their files and command lines, with the trap that each flag avoids."""

import json
import secrets
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from ipaddress import IPv4Address

from tests.support.cluster.layout import Layout
from tests.support.cluster.machine import Machine, Part, Ready, is_running
from tests.support.cluster.program import Program
from tests.support.cluster.shell import ClusterError, run

USERS = {
    "admin": ("admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", ""),
}
"""Kubeconfig name -> user and group; the nodes' come on top."""

PAUSE_IMAGE = "localhost/pause:1"

STORAGE_CLASS = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": "agentqueue.dev/folders",
    "reclaimPolicy": "Delete",
    "allowVolumeExpansion": True,
}


def write_control_files(layout: Layout, nodes: tuple[str, ...]) -> None:
    """Tokens, kubeconfigs, keys and the DNS server's file."""
    users = USERS | {node: (f"system:node:{node}", "system:nodes") for node in nodes}
    tokens = {name: secrets.token_hex(16) for name in users}
    pki = layout.folder("pki")
    rows = [f'{tokens[name]},{user},{name},"{group}"\n' for name, (user, group) in users.items()]
    (pki / "tokens.csv").write_text("".join(rows))
    (layout.state / "admin.token").write_text(tokens["admin"])
    for name, token in tokens.items():
        _write_kubeconfig(layout, name, token)
    run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", pki / "accounts.key")
    layout.folder("etcd").chmod(0o700)
    layout.folder("volumes")
    (layout.state / "Corefile").write_text(_corefile(layout))


def control_parts(layout: Layout, program: Program) -> list[Part]:
    """The control plane, in the order of starting."""
    control, pki = layout.control, layout.state / "pki"
    etcd = {
        "data-dir": layout.state / "etcd",
        "unsafe-no-fsync": True,  # the data need not outlive this machine's power
        "listen-metrics-urls": f"http://{control}:2381",
        "log-level": "warn",
    }
    apiserver = {
        "etcd-servers": "http://127.0.0.1:2379",
        "bind-address": control,
        "advertise-address": control,
        "cert-dir": pki,
        "service-cluster-ip-range": layout.services,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": True,
        "token-auth-file": pki / "tokens.csv",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": pki / "accounts.key",
        "service-account-signing-key-file": pki / "accounts.key",
        "kubelet-preferred-address-types": "InternalIP",
    }
    controller_manager = {
        "kubeconfig": layout.kubeconfig("controller-manager"),
        "service-account-private-key-file": pki / "accounts.key",
        "root-ca-file": layout.certificate,
        "use-service-account-credentials": True,
        "leader-elect": False,
        "bind-address": control,
        "kube-api-qps": 200,  # a namespace per test is deleted: the default of 20 would make a queue of them
        "kube-api-burst": 400,
        "node-monitor-period": "1s",
        "node-monitor-grace-period": "8s",  # a lost node shows within a test's patience, not after 50 s
    }
    scheduler = {"kubeconfig": layout.kubeconfig("scheduler"), "leader-elect": False, "bind-address": control}
    volumes = {"kubeconfig": layout.kubeconfig(), "root": layout.state / "volumes"}
    return [
        _part(program, "etcd", etcd, answers(f"http://{control}:2381/health")),
        _part(program, "kube-apiserver", apiserver, answers(f"{layout.server}/readyz")),
        _part(program, "kube-controller-manager", controller_manager, answers(f"https://{control}:10257/healthz")),
        _part(program, "kube-scheduler", scheduler, answers(f"https://{control}:10259/healthz")),
        Part("coredns", (str(program.kube), "coredns", "-conf", str(layout.state / "Corefile")), accepts(control, 53)),
        _part(program, "volumes", volumes),
    ]


def write_node_files(layout: Layout, node: str, control_group: str) -> None:
    """The configuration of a node's parts and of its pods' network."""
    folder = layout.folder(node)
    network = layout.folder(node, "network") / "10-bridge.conflist"
    network.write_text(json.dumps(_pod_network(layout, node)))
    (folder / "containerd.toml").write_text(_containerd(layout, node))
    (folder / "kubelet.yaml").write_text(json.dumps(_kubelet(layout, node, control_group)))
    (folder / "proxy.yaml").write_text(json.dumps(_proxy(layout, node)))


def node_parts(layout: Layout, program: Program, node: str) -> list[Part]:
    """What runs on a node, in the order of starting."""
    folder, address = layout.state / node, layout.node(node)
    kubelet = {
        "config": folder / "kubelet.yaml",
        "kubeconfig": layout.kubeconfig(node),
        "root-dir": folder / "kubelet",
        "cert-dir": folder / "kubelet" / "pki",
        "hostname-override": node,
        "node-ip": address,
    }
    return [
        Part("containerd", ("containerd", "--config", str(folder / "containerd.toml")), runs("ctr", "version")),
        _part(program, "kubelet", kubelet, answers(f"http://{address}:10248/healthz")),
        _part(program, "kube-proxy", {"config": folder / "proxy.yaml"}, answers(f"http://{address}:10256/healthz")),
    ]


def _part(program: Program, name: str, flags: Mapping[str, object], ready: Ready = is_running) -> Part:
    given = (f"--{flag}={str(value).lower() if isinstance(value, bool) else value}" for flag, value in flags.items())
    return Part(name, (str(program.kube), name, *given), ready)


def _write_kubeconfig(layout: Layout, name: str, token: str) -> None:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [
            {"name": "test", "cluster": {"server": layout.server, "certificate-authority": str(layout.certificate)}}
        ],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
    }
    path = layout.kubeconfig(name)
    path.write_text(json.dumps(content, indent=1))
    path.chmod(0o600)


def _corefile(layout: Layout) -> str:
    return f"""\
.:53 {{
  bind {layout.control}
  errors
  kubernetes cluster.local {{
    kubeconfig {layout.kubeconfig()}
  }}
  cache 5
}}
"""


def _pod_network(layout: Layout, node: str) -> dict[str, object]:
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": str(layout.node_pods(node))}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(layout.state / node / "network" / "addresses"),
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": addresses}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, ports]}


def _containerd(layout: Layout, node: str) -> str:
    """Its state and socket are in /run, which is the machine's own and in memory: a crash clears it, as a real one."""
    folder = layout.state / node
    return f"""\
version = 2
root = "{folder}/containerd"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"             # else it makes /opt/containerd
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true     # without CAP_SYS_RESOURCE a lower score kills runc: "can't get final child's PID"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/network"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""


def _kubelet(layout: Layout, node: str, control_group: str) -> dict[str, object]:
    folder = layout.state / node
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        # Only this machine reaches it, and only root starts a cluster.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "address": str(layout.node(node)),
        "healthzBindAddress": str(layout.node(node)),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": control_group,  # own: two kubelets in one would end each other's pods
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [str(layout.control)],
        "clusterDomain": "cluster.local",
        "resolvConf": "",  # pods ask the cluster alone, never this machine's DNS server
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "podLogsDir": str(folder / "pods"),
        "volumePluginDir": str(folder / "kubelet" / "plugins"),
        "nodeLeaseDurationSeconds": 4,
        # This machine's disk may be nearly full, and its images are not this cluster's to clean up.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
    }


def _proxy(layout: Layout, node: str) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(layout.kubeconfig("proxy"))},
        "mode": "iptables",
        "clusterCIDR": str(layout.pods),
        "hostnameOverride": node,
        "healthzBindAddress": f"{layout.node(node)}:10256",
        "conntrack": {"maxPerCore": 0},  # else it sets the whole kernel's table
    }


def answers(url: str) -> Ready:
    """A health endpoint says 200. Certificates are not checked: they are made anew with each cluster."""
    unchecked = ssl.create_default_context()
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    # No proxy of this machine's environment: the addresses are known to this machine alone.
    handlers = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=unchecked)
    opener = urllib.request.build_opener(*handlers)

    def check(_: Part, __: Machine) -> bool:
        try:
            with opener.open(url, timeout=2) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    return check


def accepts(address: IPv4Address, port: int) -> Ready:
    """A port takes connections."""

    def check(_: Part, __: Machine) -> bool:
        try:
            with socket.create_connection((str(address), port), timeout=2):
                return True
        except OSError:
            return False

    return check


def runs(*command: str) -> Ready:
    """A command on the machine ends with 0."""

    def check(_: Part, machine: Machine) -> bool:
        try:
            machine.run(*command)
        except ClusterError:
            return False
        return True

    return check
