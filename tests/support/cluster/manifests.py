"""Manifests that tests put together: as small as the restricted Pod Security Standard lets them be."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.cluster.parts import PAUSE_IMAGE

Object = dict[str, Any]

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def container(image: str, script: str, **fields: Any) -> Object:
    """A container that runs a Python script. TERM ends it: PID 1 would ignore it otherwise."""
    command = ["python", "-c", f"import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit())\n{script}"]
    return {"name": "main", "image": image, "command": command, "securityContext": RESTRICTED} | fields


def idle_container(**fields: Any) -> Object:
    """A container that waits for its end, of an image that every node of the project's own cluster has."""
    return {"name": "main", "image": PAUSE_IMAGE, "securityContext": RESTRICTED} | fields


def pod(name: str, main: Object, *, labels: Mapping[str, str] | None = None, **spec: Any) -> Object:
    """A pod of one container."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(labels or {"app": name})},
        "spec": {"containers": [main], "terminationGracePeriodSeconds": 5} | spec,
    }


def deployment(name: str, main: Object, *, replicas: int = 1, **spec: Any) -> Object:
    """A Deployment of such pods, labelled app=NAME."""
    template = pod(name, main, **spec)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": template["spec"]},
        },
    }


def service(name: str, port: int) -> Object:
    """A Service before the pods labelled app=NAME."""
    spec = {"selector": {"app": name}, "ports": [{"port": port}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def claim(name: str, size: str) -> Object:
    """A claim for a volume of the default class."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def role(name: str, rules: Sequence[Mapping[str, Any]], *, account: str = "default") -> list[Object]:
    """A Role and its binding to a ServiceAccount of the namespace."""
    group = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": name}, "rules": list(rules)},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account}],
        },
    ]
