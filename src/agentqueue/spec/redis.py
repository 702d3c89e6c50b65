"""The queue's Redis as the resource has it: one durable server of our own, or one that is given."""

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field

from agentqueue.spec.base import (
    HOST_PORT,
    ONE_LINE,
    SIZE,
    Bool,
    DataKey,
    Image,
    Model,
    ObjectName,
    unique,
    without_nulls,
)
from agentqueue.spec.pods import PodTemplate, Resources, SecretKey


class Appendfsync(StrEnum):
    """When Redis writes its append-only file to the disk."""

    ALWAYS = "always"
    EVERYSEC = "everysec"


class Storage(Model):
    """The volume of the append-only file. It is kept when the resource is deleted."""

    size: Annotated[str, Field(max_length=24, pattern=SIZE)] = "1Gi"
    """Size of the volume. It may grow (where the StorageClass can), never shrink."""
    storage_class_name: ObjectName | None = None
    """StorageClass of the volume, the cluster's default if absent. Can't be changed later."""


class Persistence(Model):
    """How Redis keeps what it was told."""

    appendfsync: Appendfsync = Appendfsync.ALWAYS
    """always: every accepted job is on the disk before the answer; everysec: faster, may lose 2 s if the node dies."""


class Auth(Model):
    """The password of the managed Redis."""

    password_secret_ref: SecretKey | None = None
    """Key of a Secret with the password; a generated one if absent."""


class ServerTLS(Model):
    """TLS of the managed Redis."""

    secret_name: ObjectName
    """Secret with tls.crt, tls.key and ca.crt, as cert-manager makes them; for the host in `status.redis.endpoint`."""


class ManagedRedis(Model):
    """A Redis that the operator runs: one pod with an append-only file, `noeviction` and a password."""

    image: Image | None = None
    """Container image of Redis 7 or newer, or Valkey 7.2 or newer; the operator's own choice if absent."""
    storage: Storage = Storage()
    """The volume of the append-only file."""
    persistence: Persistence = Persistence()
    """How Redis keeps what it was told."""
    auth: Auth = Auth()
    """The password."""
    tls: ServerTLS | None = None
    """TLS; without it connections are in the clear inside the cluster."""
    resources: Resources | None = None
    """Compute resources of the container. A memory limit also sets maxmemory, to three quarters of it."""
    config: Annotated[
        dict[str, Annotated[str, Field(max_length=256, pattern=ONE_LINE)]],
        Field(max_length=64),
        BeforeValidator(without_nulls),
    ] = Field(default={})
    """More lines for redis.conf: directive to value, in quotes. What durability and access rest on can't be set."""
    pod_template: PodTemplate | None = None
    """Laid over the pod by strategic merge; the container is named `redis`."""


class ClientTLS(Model):
    """TLS towards an external Redis. A url that begins with rediss:// already asks for TLS."""

    ca_secret_ref: SecretKey | None = None
    """Key of a Secret with the certificate authority, in PEM; the system's if absent."""
    client_certificate_secret_name: ObjectName | None = None
    """Secret with tls.crt and tls.key, when the server wants to see a certificate."""
    insecure_skip_verify: Bool = False
    """If true, the server's certificate is not checked. For trials only."""


class Sentinel(Model):
    """Redis Sentinel, which tells where the primary is."""

    master_name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._-]+$")]
    """Name under which the Sentinels know the primary."""
    nodes: Annotated[
        tuple[Annotated[str, Field(max_length=259, pattern=HOST_PORT)], ...],
        Field(min_length=1, max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"}),
        unique(),
    ]
    """Addresses of the Sentinels, host:port."""
    password_secret_ref: SecretKey | None = None
    """Key of a Secret with the Sentinels' own password, if they have one."""


class UrlSecretKey(Model):
    """A key of a Secret that holds a Redis url."""

    name: ObjectName
    """Name of the Secret."""
    key: DataKey = "url"
    """Key in the Secret's data."""


class ExternalRedis(Model):
    """A Redis that is given: a server with `noeviction` and an append-only file, not a Redis Cluster."""

    url_secret_ref: UrlSecretKey
    """Key of a Secret with the url: redis://user:password@host:port/0, or rediss:// for TLS."""
    tls: ClientTLS | None = None
    """TLS; also asked for by a url that begins with rediss://."""
    sentinel: Sentinel | None = None
    """Sentinels to ask for the primary; then the url gives user, password and database only."""


class Redis(Model):
    """Exactly one of `managed` and `external`."""

    managed: ManagedRedis | None = None
    """A Redis that the operator runs."""
    external: ExternalRedis | None = None
    """A Redis that is given."""
