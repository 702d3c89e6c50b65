"""The parts of a pod that users may set: environment, resources, and a template to lay over ours."""

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
    """One key of a Secret in the same namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: DataKey
    """Key in the Secret's data."""


class EnvKey(Model):
    """One key of a Secret or ConfigMap in the same namespace."""

    name: ObjectName
    """Name of the Secret or ConfigMap."""
    key: DataKey
    """Key in its data."""
    optional: Bool | None = None
    """If true, the variable is left out when the object or the key does not exist; else the pod waits for it."""


class FieldRef(Model):
    """A field of the pod."""

    api_version: Annotated[str, Field(max_length=63)] | None = None
    """Version of the schema the path is written in; v1 if absent."""
    field_path: Annotated[str, Field(min_length=1, max_length=512)]
    """Path of the field, such as metadata.name or status.podIP."""


class ResourceFieldRef(Model):
    """A resource request or limit of a container."""

    container_name: Annotated[str, Field(max_length=63)] | None = None
    """Name of the container; the worker's own if absent."""
    resource: Annotated[str, Field(min_length=1, max_length=253)]
    """Resource to read, such as limits.memory."""
    divisor: Quantity | None = None
    """Unit of the value, such as 1Mi."""


class EnvSource(Model):
    """Where a variable's value comes from: exactly one of these."""

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
    """Its value, in quotes where YAML would read a number or a boolean."""
    value_from: EnvSource | None = None
    """Where the value comes from, instead of `value`."""


class EnvFromRef(Model):
    """A Secret or ConfigMap in the same namespace."""

    name: ObjectName
    """Name of the Secret or ConfigMap."""
    optional: Bool | None = None
    """If true, nothing is set when the object does not exist; else the pod waits for it."""


class EnvFrom(Model):
    """All keys of a Secret or ConfigMap as environment variables: exactly one of the two."""

    prefix: Annotated[str, Field(max_length=253)] | None = None
    """Put before each key."""
    secret_ref: EnvFromRef | None = None
    """The Secret."""
    config_map_ref: EnvFromRef | None = None
    """The ConfigMap."""


Env = Annotated[tuple[EnvVar, ...], Field(max_length=64, json_schema_extra=list_map("name")), unique("name")]
EnvFroms = Annotated[tuple[EnvFrom, ...], Field(max_length=16, json_schema_extra=ATOMIC)]


class Resources(Model):
    """Compute resources of a container."""

    requests: Quantities | None = None
    """What the scheduler keeps for the container, such as cpu: 100m, memory: 256Mi."""
    limits: Quantities | None = None
    """What the container may use at most. A container over its memory limit is killed, and its jobs run again."""


class PodMetadata(Model):
    """Labels and annotations to add to the pods."""

    labels: Labels | None = None
    """Labels to add. Those that begin with agentqueue.dev/ are ours and may not be set."""
    annotations: Annotations | None = None
    """Annotations to add. Those that begin with agentqueue.dev/ are ours and may not be set."""


class PodSpec(Model):
    """A pod's spec as Kubernetes knows it; laid over ours by strategic merge: containers by name, and so on."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"maxProperties": 64})

    restart_policy: Annotated[str, Field(max_length=16)] | None = None
    """May not be set: workers are always restarted."""
    termination_grace_period_seconds: Int | None = Field(None, ge=0, le=86_400)
    """For workers may not be set here: write the agent's terminationGracePeriodSeconds, which the drain goes by."""


class PodTemplate(Model):
    """A partial pod template, laid over ours by strategic merge (the worker's container is named `worker`)."""

    metadata: PodMetadata | None = None
    """Labels and annotations to add to the pods."""
    spec: PodSpec | None = None
    """Anything of a pod's spec: nodeSelector, volumes, containers by name, ...; `$patch: delete` takes a part out."""


class ConfigMapFiles(Model):
    """A ConfigMap whose keys are the files of a Python program."""

    name: ObjectName
    """Name of the ConfigMap, in the same namespace."""


class CodeFrom(Model):
    """Where the handlers' code comes from, when it is not in the image."""

    config_map: ConfigMapFiles
    """A ConfigMap: each key, such as agents.py, becomes a file on the import path."""
