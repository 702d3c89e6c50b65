"""`--in NAMESPACE/NAME`: the connection to an AgentQueue's Redis, through kubectl and with the user's permissions."""

from __future__ import annotations

import base64
import binascii
import json
import shutil
import subprocess
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

from agentqueue.cli.port_forward import PortForward, exit_on_signals
from agentqueue.client.known_names import nearest
from agentqueue.errors import AgentQueueError, NotFound, QueueUnavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agentqueue.spec.redis import ExternalRedis, ManagedRedis
    from agentqueue.store import ServerOptions

RESOURCE: Final = "agentqueues.agentqueue.dev"
"""The resource's name for kubectl."""
TIMEOUT: Final = "--request-timeout=15s"
"""Limit for each request of kubectl, which by default waits for ever. It includes a login at the cloud provider."""
URL_KEY: Final = "url"
"""The URL's key in the Secret of a managed Redis. For an external one, the resource names the key."""


@dataclass(frozen=True, slots=True)
class ClusterRef:
    """The name of an AgentQueue in a cluster."""

    name: str
    namespace: str | None = None
    """None selects the kubeconfig's current namespace."""
    context: str | None = None
    """The kubeconfig's context. None selects the current one."""

    @classmethod
    def parse(cls, text: str, context: str | None) -> Self:
        """Parse `NAMESPACE/NAME` or `NAME`.

        Raises:
            UsageError: The text has another form.
        """
        namespace, slash, name = text.rpartition("/")
        if not name or "/" in namespace or (slash and not namespace) or text.startswith("-"):
            shown = "a URL" if "://" in text else f"{text!r:.80}"  # a URL can contain a password
            raise UsageError(f"--in {shown} must be NAMESPACE/NAME of an AgentQueue, or NAME in the current namespace")
        return cls(name, namespace or None, context)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@contextmanager
def connection_from_cluster(ref: ClusterRef) -> Iterator[ServerOptions]:
    """Yield the connection to an AgentQueue's Redis. A managed Redis gets a forwarded port while the block runs.

    Raises:
        UsageError: kubectl is not installed.
        NotFound: The AgentQueue does not exist, or the cluster does not have this resource.
        QueueUnavailable: Its Redis is not ready, or is not reachable.
        AgentQueueError: A permission is missing, or the cluster does not respond.
    """
    kubectl = Kubectl.of(ref)
    with ExitStack() as stack:
        stack.enter_context(exit_on_signals())
        pool = stack.enter_context(ThreadPoolExecutor(thread_name_prefix="kubectl"))
        found = pool.submit(kubectl.get_agent_queue, ref)
        import agentqueue.client  # noqa: PLC0415, F401  # takes 0.5 s, while kubectl asks the cluster
        from agentqueue.spec.redis import Redis  # noqa: PLC0415

        resource = found.result()
        kubectl = kubectl.in_namespace(resource["metadata"]["namespace"])
        redis = Redis.model_validate(resource["spec"]["redis"])
        if redis.external is not None:
            yield _external(redis.external, kubectl, pool)
        else:
            assert redis.managed is not None
            yield _managed(redis.managed, resource, kubectl, pool, stack)


def _managed(
    redis: ManagedRedis, resource: Mapping[str, Any], kubectl: Kubectl, pool: Executor, stack: ExitStack
) -> ServerOptions:
    from agentqueue.store import ServerOptions, Tls  # noqa: PLC0415

    name = f"{kubectl.namespace}/{resource['metadata']['name']}"
    status = (resource.get("status") or {}).get("redis") or {}
    if not status.get("endpoint") or not status.get("secretName"):
        raise QueueUnavailable(f"the Redis of AgentQueue {name} is not ready: {_redis_problem(resource)}")
    host, _, port = status["endpoint"].rpartition(":")
    forward = stack.enter_context(PortForward(kubectl.command, f"service/{host.partition('.')[0]}", int(port)))
    url, authority = kubectl.get_secrets(pool, status["secretName"], redis.tls.secret_name if redis.tls else None)
    address = at_port(_text(url, URL_KEY), forward.local_port())
    tls = None if redis.tls is None else Tls(ca_data=_text(authority, "ca.crt"), server_name=host)
    return ServerOptions(address, tls=tls, label=f"{status['endpoint']} (through kubectl port-forward)")


def at_port(url: str, port: int) -> str:
    """Return the URL with its host and port replaced by a port of this machine.

    Raises:
        UsageError: It is not a Redis URL. The message does not show it.
    """
    from agentqueue.store.urls import parse_url  # noqa: PLC0415

    parse_url(url)
    parts = urlsplit(url)
    account, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{account}{at}127.0.0.1:{port}"))


def _redis_problem(resource: Mapping[str, Any]) -> str:
    """Return the reason in the resource's conditions why its Redis is not ready."""
    conditions = {it.get("type"): it for it in (resource.get("status") or {}).get("conditions") or ()}
    found = conditions.get("RedisReady") or conditions.get("Ready")
    if found is None:
        return "the operator has not processed it; check that it runs (kubectl get pods -A)"
    return f"{found.get('reason')}: {found.get('message')}"


def _external(redis: ExternalRedis, kubectl: Kubectl, pool: Executor) -> ServerOptions:
    from agentqueue.store import Sentinels, ServerOptions, Tls, parse_nodes  # noqa: PLC0415

    key, tls, sentinel = redis.url_secret_ref, redis.tls, redis.sentinel
    authority = tls.ca_secret_ref if tls else None
    password_ref = sentinel.password_secret_ref if sentinel else None
    given, ca, pair, password = kubectl.get_secrets(
        pool,
        key.name,
        authority.name if authority else None,
        tls.client_certificate_secret_name if tls else None,
        password_ref.name if password_ref else None,
    )
    try:
        options = ServerOptions(
            _text(given, key.key),
            tls=Tls(
                ca_data=_text(ca, authority.key) if authority else None,
                cert_data=_text(pair, "tls.crt") if pair else None,
                key_data=_text(pair, "tls.key") if pair else None,
                skip_verify=tls.insecure_skip_verify,
            )
            if tls
            else None,
            sentinel=Sentinels(
                sentinel.master_name,
                parse_nodes(",".join(sentinel.nodes)),
                _text(password, password_ref.key) if password_ref else None,
            )
            if sentinel
            else None,
        )
    except UsageError as exc:
        raise AgentQueueError(f"key {key.key} of the Secret {kubectl.namespace}/{key.name}: {exc}") from None
    return replace(options, label=f"{options.name} (an external Redis, which this machine must reach directly)")


def _text(secret: Secret | None, key: str) -> str:
    assert secret is not None  # `get_secrets` returns a Secret for each name
    return secret.text(key)


@dataclass(frozen=True, slots=True)
class Secret:
    """A Secret: its name with the namespace, and its data in base64."""

    name: str
    data: Mapping[str, str]

    def text(self, key: str) -> str:
        """Return a decoded value.

        Raises:
            AgentQueueError: The Secret does not have the key, or the value is not text.
        """
        if key not in self.data:
            raise AgentQueueError(f"the Secret {self.name} has no key {key!r}; {nearest(key, self.data)}")
        try:
            return base64.b64decode(self.data[key], validate=True).decode().strip()
        except (binascii.Error, UnicodeDecodeError) as exc:
            raise AgentQueueError(f"the value of key {key!r} in the Secret {self.name} is not text") from exc


@dataclass(frozen=True, slots=True)
class Kubectl:
    """The kubectl program with the user's kubeconfig, a context and a namespace."""

    program: str
    context: str | None
    namespace: str | None

    @classmethod
    def of(cls, ref: ClusterRef) -> Self:
        """Return kubectl for the context and namespace of an AgentQueue.

        Raises:
            UsageError: kubectl is not installed.
        """
        program = shutil.which("kubectl")
        if program is None:
            raise UsageError("--in needs kubectl, which is not on PATH: install it, or pass --redis URL")
        return cls(program, ref.context, ref.namespace)

    def in_namespace(self, namespace: str) -> Self:
        """Return kubectl for another namespace."""
        return replace(self, namespace=namespace)

    @property
    def command(self) -> Sequence[str]:
        """Return the program and the options that every call has."""
        context = ["--context", self.context] if self.context else []
        return [self.program, *context, *(["--namespace", self.namespace] if self.namespace else [])]

    def get_agent_queue(self, ref: ClusterRef) -> dict[str, Any]:
        """Return the resource.

        Raises:
            NotFound: It does not exist. The message has the most similar name.
            AgentQueueError: A permission is missing, or the cluster does not respond.
        """
        try:
            return self._get(RESOURCE, ref.name)
        except KubectlError as exc:
            if exc.has_reason("NotFound"):
                raise NotFound(f"there is no AgentQueue {ref}; {self._suggest(ref.name)}") from exc
            if "doesn't have a resource type" in str(exc):
                raise NotFound(
                    "this cluster does not have the AgentQueue resource: install the operator, or use another --context"
                ) from exc
            raise exc.to_error(f"AgentQueue {ref}") from exc

    def _suggest(self, name: str) -> str:
        try:
            listed = self._get(RESOURCE)["items"]
        except KubectlError:
            return "check the namespace (NAMESPACE/NAME)"
        names = [item["metadata"]["name"] for item in listed]
        return nearest(name, names) if names else "the namespace has none: use NAMESPACE/NAME"

    def get_secret(self, name: str) -> Secret:
        """Return a Secret.

        Raises:
            QueueUnavailable: It does not exist.
            AgentQueueError: A permission is missing, or the cluster does not respond.
        """
        whole = f"{self.namespace}/{name}"
        try:
            return Secret(whole, self._get("secret", name).get("data") or {})
        except KubectlError as exc:
            if exc.has_reason("NotFound"):
                raise QueueUnavailable(f"the Secret {whole} with the address of Redis does not exist (yet)") from exc
            raise exc.to_error(f"Secret {whole}") from exc

    def get_secrets(self, pool: Executor, *names: str | None) -> list[Secret | None]:
        """Return the Secrets with these names, which are read in parallel. A name of None gives None.

        Raises:
            AgentQueueError: See `get_secret`.
        """
        asked = {name: pool.submit(self.get_secret, name) for name in names if name}
        return [asked[name].result() if name else None for name in names]

    def _get(self, *what: str) -> dict[str, Any]:
        done = subprocess.run(  # noqa: S603  # the user's own kubectl
            [*self.command, "get", *what, "--output", "json", TIMEOUT], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise KubectlError(done.stderr.strip())
        found: dict[str, Any] = json.loads(done.stdout)
        return found


class KubectlError(Exception):
    """An error of kubectl, with its output."""

    def has_reason(self, reason: str) -> bool:
        """Return whether the API server has given this reason, like `NotFound`."""
        return f"({reason})" in str(self)

    def to_error(self, target: str) -> AgentQueueError:
        """Return an error for users. `target` is the object that kubectl was asked for."""
        last_line = str(self).splitlines()[-1] if str(self) else "kubectl printed no error"
        if self.has_reason("Forbidden"):
            return AgentQueueError(
                f"you may not read {target} ({last_line}); ask for the permission to get it, or pass --redis URL"
            )
        return AgentQueueError(
            f"kubectl can't get {target} ({last_line}); check `kubectl get {RESOURCE}`, KUBECONFIG and --context"
        )
