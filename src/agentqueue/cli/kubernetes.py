"""`--in NAMESPACE/NAME`: from an AgentQueue in a cluster to its Redis, through kubectl and the user's own rights."""

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

from agentqueue.cli.port_forward import Forward, exit_on_signals
from agentqueue.client.known_names import nearest
from agentqueue.errors import AgentQueueError, NotFound, QueueUnavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agentqueue.spec.redis import ExternalRedis, ManagedRedis
    from agentqueue.store import ServerOptions

RESOURCE: Final = "agentqueues.agentqueue.dev"
TIMEOUT: Final = "--request-timeout=15s"
URL: Final = "url"
"""The key of the managed Redis's Secret; an external one's is in the resource."""


@dataclass(frozen=True, slots=True)
class ClusterRef:
    """An AgentQueue in a cluster."""

    name: str
    namespace: str | None = None
    """None: the kubeconfig's current one."""
    context: str | None = None
    """Of the kubeconfig; None: its current one."""

    @classmethod
    def parse(cls, text: str, context: str | None) -> Self:
        """`NAMESPACE/NAME`, or `NAME` alone.

        Raises:
            UsageError: neither.
        """
        namespace, slash, name = text.rpartition("/")
        if not name or "/" in namespace or (slash and not namespace) or text.startswith("-"):
            shown = "a URL" if "://" in text else f"{text!r:.80}"  # which may hold a password
            raise UsageError(f"--in {shown} must be NAMESPACE/NAME of an AgentQueue, or NAME in the current namespace")
        return cls(name, namespace or None, context)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@contextmanager
def connection_from_cluster(ref: ClusterRef) -> Iterator[ServerOptions]:
    """The Redis of an AgentQueue, for the length of the block: a managed one through a forwarded port.

    Raises:
        UsageError: there is no kubectl.
        NotFound: no such AgentQueue, or nothing of that kind in the cluster.
        QueueUnavailable: its Redis is not there yet, or can't be reached.
        AgentQueueError: no right to read what it takes; the cluster does not answer.
    """
    kubectl = Kubectl.of(ref)
    with ExitStack() as stack:
        stack.enter_context(exit_on_signals())
        pool = stack.enter_context(ThreadPoolExecutor(thread_name_prefix="kubectl"))
        found = pool.submit(kubectl.agent_queue, ref)
        import agentqueue.client  # noqa: PLC0415, F401  # half a second, in which kubectl asks the cluster
        from agentqueue.spec.redis import Redis  # noqa: PLC0415

        resource = found.result()
        kubectl = kubectl.within(resource["metadata"]["namespace"])
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
        raise QueueUnavailable(f"the Redis of AgentQueue {name} is not there yet: {_why(resource)}")
    host, _, port = status["endpoint"].rpartition(":")
    forward = stack.enter_context(Forward(kubectl.command, f"service/{host.partition('.')[0]}", int(port)))
    url, authority = kubectl.secrets(pool, status["secretName"], redis.tls.secret_name if redis.tls else None)
    address = at_port(_text(url, URL), forward.local_port())
    tls = None if redis.tls is None else Tls(ca_data=_text(authority, "ca.crt"), server_name=host)
    return ServerOptions(address, tls=tls, label=f"{status['endpoint']} (through kubectl port-forward)")


def at_port(url: str, port: int) -> str:
    """Return the URL of the same server by a port of this machine.

    Raises:
        UsageError: it is not a Redis URL; the message shows nothing of it.
    """
    from agentqueue.store.urls import parse_url  # noqa: PLC0415

    parse_url(url)
    parts = urlsplit(url)
    account, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{account}{at}127.0.0.1:{port}"))


def _why(resource: Mapping[str, Any]) -> str:
    """What the resource's conditions say of its Redis."""
    conditions = {it.get("type"): it for it in (resource.get("status") or {}).get("conditions") or ()}
    found = conditions.get("RedisReady") or conditions.get("Ready")
    if found is None:
        return "the operator has not looked at it; check that it runs (kubectl get pods -A)"
    return f"{found.get('reason')}: {found.get('message')}"


def _external(redis: ExternalRedis, kubectl: Kubectl, pool: Executor) -> ServerOptions:
    from agentqueue.store import Sentinels, ServerOptions, Tls, parse_nodes  # noqa: PLC0415

    key, tls, sentinel = redis.url_secret_ref, redis.tls, redis.sentinel
    authority = tls.ca_secret_ref if tls else None
    word = sentinel.password_secret_ref if sentinel else None
    given, ca, pair, password = kubectl.secrets(
        pool,
        key.name,
        authority.name if authority else None,
        tls.client_certificate_secret_name if tls else None,
        word.name if word else None,
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
                _text(password, word.key) if word else None,
            )
            if sentinel
            else None,
        )
    except UsageError as exc:
        raise AgentQueueError(f"key {key.key} of the Secret {kubectl.namespace}/{key.name}: {exc}") from None
    return replace(
        options, label=f"{options.name} (an external one, which this machine reaches by itself or not at all)"
    )


def _text(secret: Secret | None, key: str) -> str:
    assert secret is not None  # it was asked for
    return secret.text(key)


@dataclass(frozen=True, slots=True)
class Secret:
    """A Secret's data."""

    name: str
    data: Mapping[str, str]

    def text(self, key: str) -> str:
        """A value, decoded.

        Raises:
            AgentQueueError: the Secret has no such key, or no text in it.
        """
        if key not in self.data:
            raise AgentQueueError(f"the Secret {self.name} has no key {key!r}; {nearest(key, self.data)}")
        try:
            return base64.b64decode(self.data[key], validate=True).decode().strip()
        except (binascii.Error, UnicodeDecodeError) as exc:
            raise AgentQueueError(f"the Secret {self.name} has no text in its key {key!r}") from exc


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl with the user's kubeconfig, in one namespace."""

    program: str
    context: str | None
    namespace: str | None

    @classmethod
    def of(cls, ref: ClusterRef) -> Self:
        """As the place says.

        Raises:
            UsageError: it is not installed.
        """
        program = shutil.which("kubectl")
        if program is None:
            raise UsageError("--in needs kubectl, which is not on PATH: install it, or pass --redis URL")
        return cls(program, ref.context, ref.namespace)

    def within(self, namespace: str) -> Self:
        """In another namespace."""
        return replace(self, namespace=namespace)

    @property
    def command(self) -> Sequence[str]:
        """What every call begins with."""
        context = ["--context", self.context] if self.context else []
        return [self.program, *context, *(["--namespace", self.namespace] if self.namespace else [])]

    def agent_queue(self, ref: ClusterRef) -> dict[str, Any]:
        """The resource.

        Raises:
            NotFound: with the nearest name. AgentQueueError: the cluster refuses, or does not answer.
        """
        try:
            return self._get(RESOURCE, ref.name)
        except _Refused as exc:
            if exc.is_("NotFound"):
                raise NotFound(f"there is no AgentQueue {ref}; {self._others(ref.name)}") from exc
            if "doesn't have a resource type" in str(exc):
                raise NotFound(
                    "this cluster knows no AgentQueues: install the operator, or name another --context"
                ) from exc
            raise exc.explained(f"AgentQueue {ref}") from exc

    def _others(self, name: str) -> str:
        try:
            listed = self._get(RESOURCE)["items"]
        except _Refused:
            return "check the namespace (NAMESPACE/NAME)"
        names = [item["metadata"]["name"] for item in listed]
        return nearest(name, names) if names else "there is none in that namespace: name it as NAMESPACE/NAME"

    def secret(self, name: str) -> Secret:
        """A Secret.

        Raises:
            AgentQueueError: there is none, or no right to read it.
        """
        whole = f"{self.namespace}/{name}"
        try:
            return Secret(whole, self._get("secret", name).get("data") or {})
        except _Refused as exc:
            if exc.is_("NotFound"):
                raise QueueUnavailable(
                    f"the Secret {whole}, which says how to reach Redis, is not there (yet)"
                ) from exc
            raise exc.explained(f"Secret {whole}") from exc

    def secrets(self, pool: Executor, *names: str | None) -> list[Secret | None]:
        """Return the Secrets of these names, all asked for at once; None for None.

        Raises:
            AgentQueueError: as `secret`.
        """
        asked = {name: pool.submit(self.secret, name) for name in names if name}
        return [asked[name].result() if name else None for name in names]

    def _get(self, *what: str) -> dict[str, Any]:
        done = subprocess.run(  # noqa: S603  # a program that the user has named by installing it
            [*self.command, "get", *what, "--output", "json", TIMEOUT], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise _Refused(done.stderr.strip())
        found: dict[str, Any] = json.loads(done.stdout)
        return found


class _Refused(Exception):
    """kubectl's own words."""

    def is_(self, reason: str) -> bool:
        return f"({reason})" in str(self)

    def explained(self, what: str) -> AgentQueueError:
        said = str(self).splitlines()[-1] if str(self) else "kubectl said nothing"
        if self.is_("Forbidden"):
            return AgentQueueError(
                f"you may not read {what} ({said}); ask for the right to get it, or pass --redis URL"
            )
        return AgentQueueError(
            f"kubectl can't get {what} ({said}); check `kubectl get {RESOURCE}`, KUBECONFIG and --context"
        )
