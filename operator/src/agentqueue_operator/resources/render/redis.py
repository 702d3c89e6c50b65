"""The managed Redis: a StatefulSet with one pod, its configuration, password and Service."""

from collections.abc import Iterator
from typing import Final

from agentqueue.spec import ManagedRedis, ResolvedQueue
from agentqueue.spec.quantity import parse_quantity
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
from agentqueue_operator.resources.render.objects import encode_data, new_object
from agentqueue_operator.resources.render.pod_templates import (
    MOUNTS,
    Container,
    Pod,
    container_resources,
    env_from_secret,
    pod_template,
    volume_and_mount,
)

AUTH_KEY: Final = "auth.conf"
"""Key of the Secret with the password as a line of redis.conf, so that no command line and no ConfigMap contains it."""
CONFIG_KEY, PROBE_KEY = "redis.conf", "probe.sh"
"""Keys of the ConfigMap."""
CONFIG, AUTH, TLS, DATA = "redis", "redis-auth", "redis-tls", "data"
"""Names of volumes."""
MAXMEMORY_SHARE: Final = 4
"""Divisor of the part of the memory limit that stays free: a quarter, for buffers, fragmentation and AOF rewrites."""
GRACE_S: Final = 120
"""Termination grace period, in seconds: time to write the rest of the append-only file to a slow disk."""
LOAD_S: Final = 86_400
"""Startup limit, in seconds. Loading a large append-only file takes long and must not count as a failure."""
SERVER: Final = 'exec "$(command -v redis-server || command -v valkey-server)" '
"""Shell command that starts the server. Images have one of the two programs."""
RESOURCES: Final[Object] = {"requests": {"cpu": "50m", "memory": "128Mi"}}
"""Resources unless the AgentQueue sets some. A pod without requests is the first that a full node evicts."""
PROBE: Final = """\
# Usage: sh probe.sh live|ready. Sends PING. A server that loads its data is alive, but not ready.
client=$(command -v redis-cli || command -v valkey-cli)
answer=$("$client" {options}-p {port} ping 2>&1)
case "$1:$answer" in
  *:*PONG* | *:*BUSY* | *:*MISCONF*) exit 0 ;;
  live:*LOADING* | live:*NOAUTH* | live:*WRONGPASS*) exit 0 ;;
esac
echo "$answer"
exit 1
"""
"""Script of the probes."""


def redis_objects(queue: ResolvedQueue, redis: ManagedRedis, context: RenderContext) -> tuple[Object, ...]:
    """Return the objects of the managed Redis."""
    name, marks = redis_name(queue.name), labels(queue.name, REDIS)
    options = f"--tls --cacert {MOUNTS}/{TLS}/ca.crt " if redis.tls else ""
    files = {CONFIG_KEY: "\n".join(_directives(redis)) + "\n", PROBE_KEY: PROBE.format(options=options, port=PORT)}
    ports = [{"name": REDIS, "port": PORT, "targetPort": REDIS, "protocol": "TCP"}]
    secret, budget = [], []
    if context.password is not None:
        data = {
            PASSWORD_KEY: context.password,
            URL_KEY: url(queue, context.namespace, context.password),
            AUTH_KEY: f"requirepass {quote_value(context.password)}\n",
        }
        secret.append(new_object(SECRET, name, marks, type="Opaque", data=encode_data(data)))
    if queue.pod_disruption_budget.redis.enabled:
        spec = {
            "maxUnavailable": 1,  # with minAvailable 1 a node drain would never end
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector(queue.name, REDIS)},
        }
        budget.append(new_object(DISRUPTION_BUDGET, name, marks, spec=spec))
    return (
        new_object(SERVICE_ACCOUNT, name, marks, automountServiceAccountToken=False),
        *secret,
        new_object(CONFIG_MAP, name, marks, data=files),
        new_object(SERVICE, name, marks, spec={"selector": selector(queue.name, REDIS), "ports": ports}),
        new_object(STATEFUL_SET, name, marks, spec=_stateful_set(queue, redis, context)),
        *budget,
    )


def quote_value(text: str) -> str:
    """Return text as a quoted value of redis.conf, with escapes for everything but letters and digits."""
    plain = (chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\x{byte:02x}" for byte in text.encode())
    return f'"{"".join(plain)}"'


def _directives(redis: ManagedRedis) -> Iterator[str]:
    """Yield the lines of redis.conf. The user's lines follow ours and override them; the password is last."""
    if redis.tls is None:
        yield f"port {PORT}"
    else:
        yield "port 0"
        yield f"tls-port {PORT}"
        yield f"tls-cert-file {MOUNTS}/{TLS}/tls.crt"
        yield f"tls-key-file {MOUNTS}/{TLS}/tls.key"
        yield f"tls-ca-cert-file {MOUNTS}/{TLS}/ca.crt"
        yield "tls-auth-clients no"
    yield f"dir /{DATA}"
    yield "appendonly yes"
    yield f"appendfsync {redis.persistence.appendfsync.value}"
    yield 'save ""'
    yield "maxmemory-policy noeviction"
    memory = parse_quantity((redis.resources.limits or {}).get("memory")) if redis.resources else None
    if memory is not None:
        yield f"maxmemory {int(memory) * (MAXMEMORY_SHARE - 1) // MAXMEMORY_SHARE}"
    for directive, value in redis.config.items():
        yield f"{directive} {value}" if value else f'{directive} ""'
    yield f"include {MOUNTS}/{AUTH}/{AUTH_KEY}"


def _stateful_set(queue: ResolvedQueue, redis: ManagedRedis, context: RenderContext) -> Object:
    storage = redis.storage
    class_name = {} if storage.storage_class_name is None else {"storageClassName": storage.storage_class_name}
    claim = {  # without an owner, so that it is kept
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
    return {
        "replicas": 1,
        "serviceName": redis_name(queue.name),
        "selector": {"matchLabels": selector(queue.name, REDIS)},
        # OrderedReady would not replace a pod that never became ready, for example because of a wrong image.
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate"},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        "template": redis_template(queue, redis, context),
        "volumeClaimTemplates": [claim],
    }


def redis_template(queue: ResolvedQueue, redis: ManagedRedis, context: RenderContext) -> Object:
    """Return the pod template. The pod restarts when its configuration, password or referenced content changes."""
    return pod_template(
        _container(queue, redis, context),
        Pod(
            owner="redis.managed",
            labels=labels(queue.name, REDIS),
            config=[[*_directives(redis)], context.password],
            content_hash=context.content_hashes.get(REDIS),
            service_account=redis_name(queue.name),
            grace_s=GRACE_S,
            templates=(redis.pod_template,) if redis.pod_template else (),
        ),
    )


def _container(queue: ResolvedQueue, redis: ManagedRedis, context: RenderContext) -> Container:
    name = redis_name(queue.name)
    auth = [{"key": AUTH_KEY, "path": AUTH_KEY}]
    files = [
        volume_and_mount(CONFIG, {"configMap": {"name": name}}),
        volume_and_mount(AUTH, {"secret": {"secretName": name, "items": auth}}),
        *([volume_and_mount(TLS, {"secret": {"secretName": redis.tls.secret_name}})] if redis.tls else []),
    ]
    return Container(
        name=REDIS,
        image=redis.image or context.images.redis,
        body={
            "command": ["sh", "-c", f"{SERVER}{MOUNTS}/{CONFIG}/{CONFIG_KEY}"],
            "workingDir": f"/{DATA}",
            "ports": [{"name": REDIS, "containerPort": PORT, "protocol": "TCP"}],
            "startupProbe": _probe("ready", period=1, failures=LOAD_S),
            "readinessProbe": _probe("ready", period=10, failures=3),
            "livenessProbe": _probe("live", period=10, failures=6),
            "resources": container_resources(redis.resources, RESOURCES),
        },
        env=(env_from_secret("REDISCLI_AUTH", name, PASSWORD_KEY),),
        mounts=({"name": DATA, "mountPath": f"/{DATA}"}, *(mount for _, mount in files)),
        volumes=tuple(volume for volume, _ in files),
    )


def _probe(question: str, *, period: int, failures: int) -> Object:
    command = ["sh", f"{MOUNTS}/{CONFIG}/{PROBE_KEY}", question]
    return {
        "exec": {"command": command},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
