"""How workers and the console reach Redis: variables that `agentqueue.service.environment` names, and files."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from agentqueue.service import environment as env
from agentqueue.spec import ExternalRedis, ManagedRedis, ResolvedQueue
from agentqueue.spec.redis import ClientTLS, Sentinel
from agentqueue_operator.resources.kinds import Object
from agentqueue_operator.resources.render.names import redis_name
from agentqueue_operator.resources.render.pod_templates import MOUNTS, from_secret, mounted, variable

PORT: Final = 6379
CA: Final = "redis-ca"
CLIENT: Final = "redis-client"
PASSWORD_KEY, URL_KEY = "password", "url"
"""Keys of the managed Redis's Secret."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A container's part that reaches Redis."""

    env: tuple[Object, ...]
    volumes: tuple[Object, ...] = ()
    mounts: tuple[Object, ...] = ()


def endpoint(queue: str, namespace: str) -> str:
    """host:port of the managed Redis, as pods of all namespaces resolve it."""
    return f"{redis_name(queue)}.{namespace}.svc:{PORT}"


def url(queue: ResolvedQueue, namespace: str, password: str) -> str:
    """Of the managed Redis."""
    assert isinstance(queue.redis, ManagedRedis)
    scheme = "rediss" if queue.redis.tls else "redis"
    return f"{scheme}://default:{quote(password, safe='')}@{endpoint(queue.name, namespace)}/0"


def connection(queue: ResolvedQueue) -> Connection:
    """For a container of this AgentQueue."""
    if isinstance(queue.redis, ExternalRedis):
        return _external(queue.redis)
    address = from_secret(env.REDIS_URL, redis_name(queue.name), URL_KEY)
    if queue.redis.tls is None:
        return Connection((address,))
    volume, mount = _authority(queue.redis.tls.secret_name, "ca.crt")
    return Connection((address, _ca_file()), (volume,), (mount,))


def _external(redis: ExternalRedis) -> Connection:
    address = from_secret(env.REDIS_URL, redis.url_secret_ref.name, redis.url_secret_ref.key)
    tls = _tls(redis.tls) if redis.tls else Connection(())
    sentinels = _sentinels(redis.sentinel) if redis.sentinel else ()
    return Connection((address, *tls.env, *sentinels), tls.volumes, tls.mounts)


def _tls(tls: ClientTLS) -> Connection:
    variables = [variable(env.REDIS_TLS, "true")]
    files = []
    if tls.ca_secret_ref:
        variables.append(_ca_file())
        files.append(_authority(tls.ca_secret_ref.name, tls.ca_secret_ref.key))
    if tls.client_certificate_secret_name:
        variables.append(variable(env.REDIS_CERT_FILE, f"{MOUNTS}/{CLIENT}/tls.crt"))
        variables.append(variable(env.REDIS_KEY_FILE, f"{MOUNTS}/{CLIENT}/tls.key"))
        files.append(mounted(CLIENT, {"secret": {"secretName": tls.client_certificate_secret_name}}))
    if tls.insecure_skip_verify:
        variables.append(variable(env.REDIS_INSECURE_SKIP_VERIFY, "true"))
    return Connection(tuple(variables), tuple(volume for volume, _ in files), tuple(mount for _, mount in files))


def _sentinels(sentinel: Sentinel) -> tuple[Object, ...]:
    password = sentinel.password_secret_ref
    return (
        variable(env.REDIS_SENTINEL_NODES, ",".join(sentinel.nodes)),
        variable(env.REDIS_SENTINEL_MASTER, sentinel.master_name),
        *((from_secret(env.REDIS_SENTINEL_PASSWORD, password.name, password.key),) if password else ()),
    )


def _ca_file() -> Object:
    return variable(env.REDIS_CA_FILE, f"{MOUNTS}/{CA}/ca.crt")


def _authority(secret: str, key: str) -> tuple[Object, Object]:
    """Only that key: the managed Redis's Secret has the server's private key beside it."""
    return mounted(CA, {"secret": {"secretName": secret, "items": [{"key": key, "path": "ca.crt"}]}})
