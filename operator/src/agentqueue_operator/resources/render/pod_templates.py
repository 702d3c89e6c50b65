"""What all pods share: Pod Security level `restricted`, a read-only root, and the user's podTemplate."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agentqueue.errors import InvalidSpec
from agentqueue.spec import PodTemplate, Resources
from agentqueue_operator.resources.kinds import Object
from agentqueue_operator.resources.render.names import CONFIG_ANNOTATION, CONTENT_ANNOTATION
from agentqueue_operator.resources.render.objects import digest
from agentqueue_operator.resources.strategic_merge import merge

USER: Final = 65_532
"""`nonroot` in our images and in the usual minimal base images."""
HTTP: Final = "http"
"""Name of the port for probes, metrics and the console."""
MOUNTS: Final = "/etc/agentqueue"
"""Where we mount what we mount, each thing in a folder of its own."""
TMP: Final = "tmp"


@dataclass(frozen=True, slots=True)
class Container:
    """A container's own part of the pod."""

    name: str
    image: str
    body: Mapping[str, Any]
    """The rest of the container: command, ports, probes, resources, …"""
    env: tuple[Object, ...] = ()
    env_from: tuple[Object, ...] = ()
    mounts: tuple[Object, ...] = ()
    volumes: tuple[Object, ...] = ()
    needs_tmp: bool = False
    """Whether it gets a /tmp to write to. `kubectl drain` refuses to evict a pod with an emptyDir of any medium unless
    --delete-emptydir-data is given, so only containers that need one have one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """The rest of the pod."""

    of: str
    """Whose it is, in words, for messages."""
    labels: Mapping[str, str]
    read: Any
    """What the containers read at their start of what is ours."""
    content: str | None
    """The hash of what they read of what is the user's."""
    service_account: str
    grace_s: int
    templates: tuple[PodTemplate, ...] = ()


def pod_template(container: Container, pod: Pod) -> Object:
    """The pod's template with the user's own laid over it.

    Raises:
        InvalidSpec: a podTemplate that can't be merged.
    """
    tmp = [{"name": TMP, "emptyDir": {}}] if container.needs_tmp else []
    # Else the cluster autoscaler lets no node go that has a pod with an emptyDir.
    evictable = {"cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes": TMP} if container.needs_tmp else {}
    template: Object = {
        "metadata": {"labels": dict(pod.labels), "annotations": {**evictable, **_hashes(pod)}},
        "spec": {
            "serviceAccountName": pod.service_account,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,  # hundreds of variables in a namespace with many Services
            "terminationGracePeriodSeconds": pod.grace_s,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [_container(container)],
            **unless_empty(volumes=[*tmp, *container.volumes]),
        },
    }
    try:
        for laid_over in pod.templates:
            template = merge(template, as_patch(laid_over))
    except InvalidSpec as error:
        raise InvalidSpec(f"{pod.of}: {error}") from None
    return template


def _hashes(pod: Pod) -> dict[str, str]:
    content = {} if pod.content is None else {CONTENT_ANNOTATION: pod.content}
    return {CONFIG_ANNOTATION: digest(pod.read), **content}


def as_patch(template: PodTemplate) -> Object:
    """The template as it was written: nulls in it delete."""
    return template.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _container(container: Container) -> Object:
    tmp = [{"name": TMP, "mountPath": "/tmp"}] if container.needs_tmp else []  # noqa: S108  # in the container
    return {
        "name": container.name,
        "image": container.image,
        **container.body,
        "env": [*container.env],
        **({"envFrom": [*container.env_from]} if container.env_from else {}),
        **unless_empty(volumeMounts=[*tmp, *container.mounts]),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def variable(name: str, value: object) -> Object:
    """A variable with a plain value."""
    return {"name": name, "value": str(value)}


def from_secret(name: str, secret: str, key: str) -> Object:
    """A variable out of a Secret."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def from_field(name: str, path: str) -> Object:
    """A variable out of the pod's own fields."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def mounted(name: str, source: Object) -> tuple[Object, Object]:
    """A volume, and its mount in a folder of that name."""
    return {"name": name, **source}, {"name": name, "mountPath": f"{MOUNTS}/{name}", "readOnly": True}


def http_get(path: str, *, period: int, timeout: int, failures: int) -> Object:
    """A probe of our port; times in seconds."""
    get = {"path": path, "port": HTTP}
    return {"httpGet": get, "periodSeconds": period, "timeoutSeconds": timeout, "failureThreshold": failures}


def amounts(resources: Resources | None, default: Object) -> Object:
    """A container's `resources`."""
    if resources is None:
        return default
    return resources.model_dump(mode="json", by_alias=True, exclude_none=True)


def unless_empty(**fields: Iterable[Any] | None) -> Object:
    """Those that have something in them."""
    return {name: value for name, value in fields.items() if value}
