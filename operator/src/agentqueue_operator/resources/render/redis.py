"""The managed Redis: one durable pod, its configuration, password and address."""

from collections.abc import Iterator
from typing import Final

from agentqueue.spec import ManagedRedis, ResolvedQueue
from agentqueue_operator.resources.kinds import (
    CONFIG_MAP,
    DISRUPTION_BUDGET,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
    Object,
)
from agentqueue_operator.resources.render.connection import PASSWORD_KEY, PORT, URL_KEY, url
from agentqueue_operator.resources.render.inputs import RenderContext
from agentqueue_operator.resources.render.names import REDIS, labels, redis_name, selector
from agentqueue_operator.resources.render.objects import encoded, made
from agentqueue_operator.resources.render.pod_templates import (
    MOUNTS,
    Container,
    Pod,
    amounts,
    from_secret,
    mounted,
    pod_template,
)
from agentqueue_operator.resources.render.quantity import amount

AUTH_KEY: Final = "auth.conf"
"""Key of the Secret with the password as a line of redis.conf: so it stands in no command line and no ConfigMap."""
CONFIG_KEY, PROBE_KEY = "redis.conf", "probe.sh"
CONFIG, AUTH, TLS, DATA = "redis", "redis-auth", "redis-tls", "data"
"""Volumes."""
MAXMEMORY_SHARE: Final = 4
"""maxmemory is this limit less a quarter: for buffers, fragmentation, and what a rewrite of the AOF copies."""
GRACE_S: Final = 120
"""To write the rest of the append-only file to a slow disk."""
LOAD_S: Final = 86_400
"""A day: loading a large append-only file must not be taken for being stuck."""
SERVER: Final = 'exec "$(command -v redis-server || command -v valkey-server)" '
RESOURCES: Final[Object] = {"requests": {"cpu": "50m", "memory": "128Mi"}}
"""Unless the resource says otherwise: a Redis without any would be the first to be evicted."""
PROBE: Final = """\
# sh probe.sh live|ready: what the server answers to PING. One that loads its data is alive, but not ready.
client=$(command -v redis-cli || command -v valkey-cli)
answer=$("$client" {options}-p {port} ping 2>&1)
case "$1:$answer" in
  *:*PONG* | *:*BUSY* | *:*MISCONF*) exit 0 ;;
  live:*LOADING* | live:*NOAUTH* | live:*WRONGPASS*) exit 0 ;;
esac
echo "$answer"
exit 1
"""


def redis_objects(queue: ResolvedQueue, redis: ManagedRedis, context: RenderContext) -> tuple[Object, ...]:
    """All that the managed Redis needs."""
    name, marks = redis_name(queue.name), labels(queue.name, REDIS)
    files = {CONFIG_KEY: "\n".join(_directives(redis)) + "\n", PROBE_KEY: _probe(redis)}
    ports = [{"name": REDIS, "port": PORT, "targetPort": REDIS, "protocol": "TCP"}]
    return (
        made(SERVICE_ACCOUNT, name, marks, automountServiceAccountToken=False),
        *_secret(queue, context),
        made(CONFIG_MAP, name, marks, data=files),
        made(SERVICE, name, marks, spec={"selector": selector(queue.name, REDIS), "ports": ports}),
        made(STATEFUL_SET, name, marks, spec=_stateful_set(queue, redis, context)),
        *_budget(queue),
    )


def _secret(queue: ResolvedQueue, context: RenderContext) -> Iterator[Object]:
    if context.password is None:
        return
    data = {
        PASSWORD_KEY: context.password,
        URL_KEY: url(queue, context.namespace, context.password),
        AUTH_KEY: f"requirepass {quoted(context.password)}\n",
    }
    marks = labels(queue.name, REDIS)
    yield made(SECRET, redis_name(queue.name), marks, type="Opaque", data=encoded(data))


def quoted(text: str) -> str:
    """As redis.conf reads it, whatever is in it."""
    plain = (chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\x{byte:02x}" for byte in text.encode())
    return f'"{"".join(plain)}"'


def _directives(redis: ManagedRedis) -> Iterator[str]:
    """The lines of redis.conf. The user's come after ours, and over them; the password last."""
    yield from _port(redis)
    yield f"dir /{DATA}"
    yield "appendonly yes"
    yield f"appendfsync {redis.persistence.appendfsync.value}"
    yield 'save ""'
    yield "maxmemory-policy noeviction"
    limit = (redis.resources.limits or {}).get("memory") if redis.resources else None
    if limit is not None:
        yield f"maxmemory {int(amount(limit)) * (MAXMEMORY_SHARE - 1) // MAXMEMORY_SHARE}"
    for directive, value in redis.config.items():
        yield f"{directive} {value}" if value else f'{directive} ""'
    yield f"include {MOUNTS}/{AUTH}/{AUTH_KEY}"


def _port(redis: ManagedRedis) -> Iterator[str]:
    if redis.tls is None:
        yield f"port {PORT}"
        return
    yield "port 0"
    yield f"tls-port {PORT}"
    yield f"tls-cert-file {MOUNTS}/{TLS}/tls.crt"
    yield f"tls-key-file {MOUNTS}/{TLS}/tls.key"
    yield f"tls-ca-cert-file {MOUNTS}/{TLS}/ca.crt"
    yield "tls-auth-clients no"


def _probe(redis: ManagedRedis) -> str:
    options = f"--tls --cacert {MOUNTS}/{TLS}/ca.crt " if redis.tls else ""
    return PROBE.format(options=options, port=PORT)


def _stateful_set(queue: ResolvedQueue, redis: ManagedRedis, context: RenderContext) -> Object:
    return {
        "replicas": 1,
        "serviceName": redis_name(queue.name),
        "selector": {"matchLabels": selector(queue.name, REDIS)},
        # With OrderedReady a pod that never got ready (a wrong image) is not replaced by a mended template.
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate"},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        "template": redis_template(queue, redis, context),
        "volumeClaimTemplates": [_claim(queue, redis)],
    }


def _claim(queue: ResolvedQueue, redis: ManagedRedis) -> Object:
    """Of the volume. No owner: it is kept."""
    storage = redis.storage
    class_name = {} if storage.storage_class_name is None else {"storageClassName": storage.storage_class_name}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": DATA, "labels": labels(queue.name, REDIS)},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "volumeMode": "Filesystem",
            "resources": {"requests": {"storage": storage.size}},
            **class_name,
        },
    }


def redis_template(queue: ResolvedQueue, redis: ManagedRedis, context: RenderContext) -> Object:
    """The pod. It starts anew when what it reads at its start has changed."""
    return pod_template(
        _container(queue, redis, context),
        Pod(
            of="redis.managed",
            labels=labels(queue.name, REDIS),
            read=[[*_directives(redis)], context.password],
            content=context.content_hashes.get(REDIS),
            service_account=redis_name(queue.name),
            grace_s=GRACE_S,
            templates=(redis.pod_template,) if redis.pod_template else (),
        ),
    )


def _container(queue: ResolvedQueue, redis: ManagedRedis, context: RenderContext) -> Container:
    name = redis_name(queue.name)
    auth = [{"key": AUTH_KEY, "path": AUTH_KEY}]
    files = [
        mounted(CONFIG, {"configMap": {"name": name}}),
        mounted(AUTH, {"secret": {"secretName": name, "items": auth}}),
        *([mounted(TLS, {"secret": {"secretName": redis.tls.secret_name}})] if redis.tls else []),
    ]
    return Container(
        name=REDIS,
        image=redis.image or context.images.redis,
        body={
            "command": ["sh", "-c", f"{SERVER}{MOUNTS}/{CONFIG}/{CONFIG_KEY}"],
            "workingDir": f"/{DATA}",
            "ports": [{"name": REDIS, "containerPort": PORT, "protocol": "TCP"}],
            "startupProbe": _asks("ready", period=1, failures=LOAD_S),
            "readinessProbe": _asks("ready", period=10, failures=3),
            "livenessProbe": _asks("live", period=10, failures=6),
            "resources": amounts(redis.resources, RESOURCES),
        },
        env=(from_secret("REDISCLI_AUTH", name, PASSWORD_KEY),),
        mounts=({"name": DATA, "mountPath": f"/{DATA}"}, *(mount for _, mount in files)),
        volumes=tuple(volume for volume, _ in files),
    )


def _asks(what: str, *, period: int, failures: int) -> Object:
    command = ["sh", f"{MOUNTS}/{CONFIG}/{PROBE_KEY}", what]
    return {
        "exec": {"command": command},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _budget(queue: ResolvedQueue) -> Iterator[Object]:
    """One that a node drain can get past: with minAvailable 1 it would hang."""
    if queue.pod_disruption_budget.redis.enabled:
        spec = {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector(queue.name, REDIS)},
        }
        yield made(DISRUPTION_BUDGET, redis_name(queue.name), labels(queue.name, REDIS), spec=spec)
