"""Environment variables and files by which workers and the console connect to Redis."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from agentqueue.service import environment as env
from agentqueue.spec import ExternalRedis, ManagedRedis, ResolvedQueue
from agentqueue.spec.redis import ClientTLS
from agentqueue_operator.resources.kinds import Object
from agentqueue_operator.resources.render.names import redis_name
from agentqueue_operator.resources.render.pod_templates import MOUNTS, env_from_secret, env_var, volume_and_mount

PORT: Final = 6379
"""Port of the managed Redis, the default of Redis."""
CA: Final = "redis-ca"
"""Volume with the certificate authority."""
CLIENT: Final = "redis-client"
"""Volume with the client certificate."""
PASSWORD_KEY, URL_KEY = "password", "url"
"""Keys of the managed Redis's Secret."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Parts of a pod that a container needs to connect to Redis."""

    env: tuple[Object, ...]
    volumes: tuple[Object, ...] = ()
    mounts: tuple[Object, ...] = ()


def endpoint(queue: str, namespace: str) -> str:
    """Return host:port of the managed Redis, in a form that pods of all namespaces resolve."""
    return f"{redis_name(queue)}.{namespace}.svc:{PORT}"


def url(queue: ResolvedQueue, namespace: str, password: str) -> str:
    """Return the URL of the managed Redis."""
    assert isinstance(queue.redis, ManagedRedis)
    scheme = "rediss" if queue.redis.tls else "redis"
    return f"{scheme}://default:{quote(password, safe='')}@{endpoint(queue.name, namespace)}/0"


def connection(queue: ResolvedQueue) -> Connection:
    """Return what a container of this AgentQueue needs to connect to Redis."""
    if isinstance(queue.redis, ExternalRedis):
        redis, sentinel = queue.redis, queue.redis.sentinel
        address = env_from_secret(env.REDIS_URL, redis.url_secret_ref.name, redis.url_secret_ref.key)
        tls = _tls(redis.tls) if redis.tls else Connection(())
        sentinels: list[Object] = []
        if sentinel:
            sentinels.append(env_var(env.REDIS_SENTINEL_NODES, ",".join(sentinel.nodes)))
            sentinels.append(env_var(env.REDIS_SENTINEL_MASTER, sentinel.master_name))
        if sentinel and (password := sentinel.password_secret_ref):
            sentinels.append(env_from_secret(env.REDIS_SENTINEL_PASSWORD, password.name, password.key))
        return Connection((address, *tls.env, *sentinels), tls.volumes, tls.mounts)
    address = env_from_secret(env.REDIS_URL, redis_name(queue.name), URL_KEY)
    if queue.redis.tls is None:
        return Connection((address,))
    volume, mount = _ca_volume(queue.redis.tls.secret_name, "ca.crt")
    return Connection((address, _ca_file()), (volume,), (mount,))


def _tls(tls: ClientTLS) -> Connection:
    variables = [env_var(env.REDIS_TLS, "true")]
    files = []
    if tls.ca_secret_ref:
        variables.append(_ca_file())
        files.append(_ca_volume(tls.ca_secret_ref.name, tls.ca_secret_ref.key))
    if tls.client_certificate_secret_name:
        variables.append(env_var(env.REDIS_CERT_FILE, f"{MOUNTS}/{CLIENT}/tls.crt"))
        variables.append(env_var(env.REDIS_KEY_FILE, f"{MOUNTS}/{CLIENT}/tls.key"))
        files.append(volume_and_mount(CLIENT, {"secret": {"secretName": tls.client_certificate_secret_name}}))
    if tls.insecure_skip_verify:
        variables.append(env_var(env.REDIS_INSECURE_SKIP_VERIFY, "true"))
    return Connection(tuple(variables), tuple(volume for volume, _ in files), tuple(mount for _, mount in files))


def _ca_file() -> Object:
    return env_var(env.REDIS_CA_FILE, f"{MOUNTS}/{CA}/ca.crt")


def _ca_volume(secret: str, key: str) -> tuple[Object, Object]:
    """Return the volume with the certificate authority alone: its Secret may also hold the server's private key."""
    return volume_and_mount(CA, {"secret": {"secretName": secret, "items": [{"key": key, "path": "ca.crt"}]}})
