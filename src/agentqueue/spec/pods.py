"""Parts of a pod that users may set: environment, resources, and a patch of the pod template."""

from typing import Annotated

from pydantic import ConfigDict, Field

from agentqueue.spec.base import (
    ATOMIC,
    ENV_NAME,
    Annotations,
    Bool,
    DataKey,
    Int,
    Labels,
    Model,
    ObjectName,
    Quantities,
    Quantity,
    list_map,
    unique,
)


class SecretKey(Model):
    """A key of a Secret in the same namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: DataKey
    """Key in the Secret's data."""


class EnvKey(Model):
    """A key of a Secret or ConfigMap in the same namespace."""

    name: ObjectName
    """Name of the Secret or ConfigMap."""
    key: DataKey
    """Key in its data."""
    optional: Bool | None = None
    """If true, the variable is omitted if the object or the key does not exist. Otherwise the pod waits for it."""


class FieldRef(Model):
    """A field of the pod."""

    api_version: Annotated[str, Field(max_length=63)] | None = None
    """API version of the path. If absent, v1."""
    field_path: Annotated[str, Field(min_length=1, max_length=512)]
    """Path of the field, such as metadata.name or status.podIP."""


class ResourceFieldRef(Model):
    """A resource request or limit of a container."""

    container_name: Annotated[str, Field(max_length=63)] | None = None
    """Name of the container. If absent, the worker's own."""
    resource: Annotated[str, Field(min_length=1, max_length=253)]
    """Resource to read, such as limits.memory."""
    divisor: Quantity | None = None
    """Unit of the value, such as 1Mi."""


class EnvSource(Model):
    """Source of a variable's value. Set exactly one field."""

    secret_key_ref: EnvKey | None = None
    """A key of a Secret."""
    config_map_key_ref: EnvKey | None = None
    """A key of a ConfigMap."""
    field_ref: FieldRef | None = None
    """A field of the pod. Not available to `agentqueue up`."""
    resource_field_ref: ResourceFieldRef | None = None
    """A resource request or limit. Not available to `agentqueue up`."""


class EnvVar(Model):
    """An environment variable."""

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=ENV_NAME)]
    """Name of the variable, such as OPENAI_API_KEY."""
    value: Annotated[str, Field(max_length=32_768)] | None = None
    """Value of the variable. Use quotes if YAML would read a number or a boolean."""
    value_from: EnvSource | None = None
    """Source of the value, instead of `value`."""


class EnvFromRef(Model):
    """A Secret or ConfigMap in the same namespace."""

    name: ObjectName
    """Name of the Secret or ConfigMap."""
    optional: Bool | None = None
    """If true, nothing is set if the object does not exist. Otherwise the pod waits for it."""


class EnvFrom(Model):
    """All keys of a Secret or ConfigMap as environment variables. Set exactly one of secretRef and configMapRef."""

    prefix: Annotated[str, Field(max_length=253)] | None = None
    """Prefix of each variable's name."""
    secret_ref: EnvFromRef | None = None
    """The Secret."""
    config_map_ref: EnvFromRef | None = None
    """The ConfigMap."""


Env = Annotated[tuple[EnvVar, ...], Field(max_length=64, json_schema_extra=list_map("name")), unique("name")]
EnvFroms = Annotated[tuple[EnvFrom, ...], Field(max_length=16, json_schema_extra=ATOMIC)]


class Resources(Model):
    """Compute resources of a container."""

    requests: Quantities | None = None
    """Resources that the scheduler reserves for the container, such as cpu: 100m and memory: 256Mi."""
    limits: Quantities | None = None
    """Maximum resources of the container. A container above its memory limit is killed, and its jobs run again."""


class PodMetadata(Model):
    """Labels and annotations to add to the pods."""

    labels: Labels | None = None
    """Labels to add. Labels that begin with agentqueue.dev/ are reserved."""
    annotations: Annotations | None = None
    """Annotations to add. Annotations that begin with agentqueue.dev/ are reserved."""


class PodSpec(Model):
    """A pod spec of Kubernetes, applied as a strategic merge patch, which merges containers by name."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"maxProperties": 64})

    restart_policy: Annotated[str, Field(max_length=16)] | None = None
    """Must not be set. Pods are always restarted."""
    termination_grace_period_seconds: Int | None = Field(None, ge=0, le=86_400)
    """Must not be set for workers. Set the agent's terminationGracePeriodSeconds, because the drain depends on it."""


class PodTemplate(Model):
    """A strategic merge patch of the pod template. The worker's container is named `worker`."""

    metadata: PodMetadata | None = None
    """Labels and annotations to add to the pods."""
    spec: PodSpec | None = None
    """Fields of a pod spec, such as nodeSelector, volumes and containers by name. `$patch: delete` removes an item."""


class ConfigMapFiles(Model):
    """A ConfigMap whose keys are the files of a Python program."""

    name: ObjectName
    """Name of a ConfigMap in the same namespace."""


class CodeFrom(Model):
    """Source of the handlers' code if the image does not contain it."""

    config_map: ConfigMapFiles
    """A ConfigMap. Each key, such as agents.py, becomes a file on the import path."""
