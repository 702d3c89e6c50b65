"""Models of the queue's Redis: one managed by the operator, or an external one."""

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
    """Times at which Redis writes its append-only file to the disk."""

    ALWAYS = "always"
    EVERYSEC = "everysec"


class Storage(Model):
    """The volume of the append-only file. It is kept when the resource is deleted."""

    size: Annotated[str, Field(max_length=24, pattern=SIZE)] = "1Gi"
    """Size of the volume. It can grow if the StorageClass supports it, but never shrink."""
    storage_class_name: ObjectName | None = None
    """StorageClass of the volume. If absent, the cluster's default. It can't be changed later."""


class Persistence(Model):
    """Durability of accepted jobs."""

    appendfsync: Appendfsync = Appendfsync.ALWAYS
    """always writes every accepted job to the disk before the reply; everysec is faster, but a node failure may lose up
    to 2 seconds of jobs."""


class Auth(Model):
    """The password of the managed Redis."""

    password_secret_ref: SecretKey | None = None
    """Key of a Secret with the password. If absent, the operator generates one."""


class ServerTLS(Model):
    """TLS of the managed Redis."""

    secret_name: ObjectName
    """Secret with tls.crt, tls.key and ca.crt, as cert-manager creates it, for the host in `status.redis.endpoint`."""


class ManagedRedis(Model):
    """A Redis that the operator runs: one pod with an append-only file, `noeviction` and a password."""

    image: Image | None = None
    """Container image of Redis 7 or newer, or Valkey 7.2 or newer. If absent, the operator's default."""
    storage: Storage = Storage()
    """The volume of the append-only file."""
    persistence: Persistence = Persistence()
    """Durability of accepted jobs."""
    auth: Auth = Auth()
    """The password of this Redis."""
    tls: ServerTLS | None = None
    """TLS settings. If absent, connections inside the cluster are not encrypted."""
    resources: Resources | None = None
    """Compute resources of the container. A memory limit also sets maxmemory, to three quarters of the limit."""
    config: Annotated[
        dict[str, Annotated[str, Field(max_length=256, pattern=ONE_LINE)]],
        Field(max_length=64),
        BeforeValidator(without_nulls),
    ] = Field(default={})
    """Additional directives of redis.conf and their values, in quotes. Directives that control durability or access
    can't be set."""
    pod_template: PodTemplate | None = None
    """Strategic merge patch for the pod. The container is named `redis`."""


class ClientTLS(Model):
    """TLS for connections to an external Redis. A URL that begins with rediss:// also enables TLS."""

    ca_secret_ref: SecretKey | None = None
    """Key of a Secret with the certificate authority, in PEM format. If absent, the system's authorities."""
    client_certificate_secret_name: ObjectName | None = None
    """Secret with tls.crt and tls.key, if the server requires a client certificate."""
    insecure_skip_verify: Bool = False
    """If true, the server's certificate is not verified. For tests only."""


class Sentinel(Model):
    """Redis Sentinel, which locates the primary."""

    master_name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._-]+$")]
    """Name of the primary in the Sentinels' configuration."""
    nodes: Annotated[
        tuple[Annotated[str, Field(max_length=259, pattern=HOST_PORT)], ...],
        Field(min_length=1, max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"}),
        unique(),
    ]
    """Addresses of the Sentinels, as host:port."""
    password_secret_ref: SecretKey | None = None
    """Key of a Secret with the Sentinels' own password, if they have one."""


class UrlSecretKey(Model):
    """A key of a Secret that holds a Redis URL."""

    name: ObjectName
    """Name of the Secret."""
    key: DataKey = "url"
    """Key in the Secret's data."""


class ExternalRedis(Model):
    """An existing Redis: a server with `noeviction` and an append-only file. Redis Cluster is not supported."""

    url_secret_ref: UrlSecretKey
    """Key of a Secret with the URL: redis://user:password@host:port/0, or rediss:// for TLS."""
    tls: ClientTLS | None = None
    """TLS settings. A URL that begins with rediss:// also enables TLS."""
    sentinel: Sentinel | None = None
    """Sentinels that locate the primary. The URL then provides only the user, password and database."""


class Redis(Model):
    """The queue's Redis. Set exactly one of `managed` and `external`."""

    managed: ManagedRedis | None = None
    """A Redis that the operator runs."""
    external: ExternalRedis | None = None
    """An existing Redis."""
