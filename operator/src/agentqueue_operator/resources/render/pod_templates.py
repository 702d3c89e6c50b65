"""Pod templates with the settings that all pods share.

Every pod meets the Pod Security level `restricted`, has a read-only root, and accepts the user's podTemplate.
"""

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
"""User and group ID of containers: `nonroot` in our images and in common minimal base images."""
HTTP: Final = "http"
"""Name of the container port that serves probes, metrics and the console."""
MOUNTS: Final = "/etc/agentqueue"
"""Directory of the operator's mounts, a subdirectory for each."""
TMP: Final = "tmp"
"""Volume for temporary files."""


@dataclass(frozen=True, slots=True)
class Container:
    """A container, and the volumes that it mounts."""

    name: str
    image: str
    body: Mapping[str, Any]
    """Other fields of the container, such as command, ports, probes and resources."""
    env: tuple[Object, ...] = ()
    env_from: tuple[Object, ...] = ()
    mounts: tuple[Object, ...] = ()
    volumes: tuple[Object, ...] = ()
    needs_tmp: bool = False
    """True to mount a writable /tmp.

    Only containers that need it have one: without --delete-emptydir-data `kubectl drain` does not evict a pod with an
    emptyDir.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """Settings of a pod besides its container."""

    owner: str
    """Part of the AgentQueue that the pod belongs to, for error messages, such as `agent search`."""
    labels: Mapping[str, str]
    config: Any
    """The operator's configuration that containers read at their start, as a JSON value. A change rolls the pods."""
    content_hash: str | None
    """Hash of the user's content that containers read at their start. None if it is unknown."""
    service_account: str
    grace_s: int
    """Termination grace period, in seconds."""
    templates: tuple[PodTemplate, ...] = ()
    """The user's templates, merged in this order."""


def pod_template(container: Container, pod: Pod) -> Object:
    """Return the pod template, with the user's templates merged into it.

    Raises:
        InvalidSpec: a podTemplate can't be merged.
    """
    tmp = [{"name": TMP, "emptyDir": {}}] if container.needs_tmp else []
    # Without it the cluster autoscaler does not remove a node that runs a pod with an emptyDir.
    evictable = {"cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes": TMP} if container.needs_tmp else {}
    content = {} if pod.content_hash is None else {CONTENT_ANNOTATION: pod.content_hash}
    annotations = {**evictable, CONFIG_ANNOTATION: digest(pod.config), **content}
    template: Object = {
        "metadata": {"labels": dict(pod.labels), "annotations": annotations},
        "spec": {
            "serviceAccountName": pod.service_account,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,  # they set hundreds of variables in a namespace with many Services
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
            **non_empty(volumes=[*tmp, *container.volumes]),
        },
    }
    try:
        for user_template in pod.templates:
            template = merge(template, as_patch(user_template))
    except InvalidSpec as error:
        raise InvalidSpec(f"{pod.owner}: {error}") from None
    return template


def as_patch(template: PodTemplate) -> Object:
    """Return the template with the fields that were written, including nulls, which delete fields."""
    return template.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _container(container: Container) -> Object:
    tmp = [{"name": TMP, "mountPath": "/tmp"}] if container.needs_tmp else []  # noqa: S108  # in the container
    return {
        "name": container.name,
        "image": container.image,
        **container.body,
        "env": [*container.env],
        **({"envFrom": [*container.env_from]} if container.env_from else {}),
        **non_empty(volumeMounts=[*tmp, *container.mounts]),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def env_var(name: str, value: object) -> Object:
    """Return an environment variable with a plain value."""
    return {"name": name, "value": str(value)}


def env_from_secret(name: str, secret: str, key: str) -> Object:
    """Return an environment variable with the value of a Secret's key."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def env_from_field(name: str, path: str) -> Object:
    """Return an environment variable with the value of a field of the pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def volume_and_mount(name: str, source: Object) -> tuple[Object, Object]:
    """Return a volume and its read-only mount in the directory of that name."""
    return {"name": name, **source}, {"name": name, "mountPath": f"{MOUNTS}/{name}", "readOnly": True}


def http_probe(path: str, *, period: int, timeout: int, failures: int) -> Object:
    """Return a probe of the port `http`. Times are in seconds."""
    get = {"path": path, "port": HTTP}
    return {"httpGet": get, "periodSeconds": period, "timeoutSeconds": timeout, "failureThreshold": failures}


def container_resources(resources: Resources | None, default: Object) -> Object:
    """Return a container's `resources`, or the default if the AgentQueue sets none."""
    if resources is None:
        return default
    return resources.model_dump(mode="json", by_alias=True, exclude_none=True)


def non_empty(**fields: Iterable[Any] | None) -> Object:
    """Return the fields whose value is not empty."""
    return {name: value for name, value in fields.items() if value}
