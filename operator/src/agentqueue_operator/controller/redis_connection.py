"""An AgentQueue's Redis, as the operator reaches it: which server it is, and whether it answers."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Protocol
from urllib.parse import quote

from agentqueue.errors import AgentQueueError, UsageError
from agentqueue.spec import ExternalRedis, ManagedRedis, ResolvedQueue
from agentqueue.spec.redis import ClientTLS, Sentinel
from agentqueue.store import Sentinels, ServerOptions, Tls, parse_nodes
from agentqueue_operator.controller.referenced_content import Contents, Missing
from agentqueue_operator.controller.status.conditions import RedisFacts
from agentqueue_operator.controller.status.pod_problems import Trouble, is_ready, ready_for, trouble_of, was_ready
from agentqueue_operator.controller.status.reasons import Reason
from agentqueue_operator.queues.ports import Queues
from agentqueue_operator.resources.kinds import SERVICE, Object
from agentqueue_operator.resources.render import redis_name
from agentqueue_operator.resources.render.connection import PORT, endpoint
from agentqueue_operator.resources.render.names import COMPONENT_LABEL, REDIS

CHECK_S: Final = 10.0
"""Between two looks at a server that answers."""
RETRY_S: Final = 1.0
"""Between two tries of one that does not."""
NEW: Final = timedelta(seconds=15)
"""Since its pod became ready; a server that can't be reached for longer is in trouble."""
STARTING: Final = Trouble(Reason.REDIS_STARTING, "its pod is not ready yet")


class Dialled(Protocol):
    """A server that was dialled."""

    @property
    def queues(self) -> Queues:
        """The queues on it."""
        ...

    async def check(self) -> Trouble | None:
        """What is wrong with it: unreachable, loading, full, … Never raises."""
        ...

    async def close(self) -> None:
        """End its connections."""
        ...


Dial = Callable[[ServerOptions], Dialled]


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is, or why that is not known."""

    options: ServerOptions | None
    endpoint: str | None
    secret: str
    trouble: Trouble | None = None
    starting: Trouble | None = None
    is_new: bool = False
    """Its pod has just become ready: the nodes may not know the way to it yet."""


class Link:
    """To the Redis of one AgentQueue, over time."""

    def __init__(
        self, contents: Contents, dial: Dial, *, clock: Callable[[], float], now: Callable[[], datetime]
    ) -> None:
        self._contents = contents
        self._dial = dial
        self._clock = clock
        self._now = now
        self._dialled: Dialled | None = None
        self._options: ServerOptions | None = None
        self._checked = float("-inf")
        self._trouble: Trouble | None = None

    @property
    def queues(self) -> Queues | None:
        """The queues, None while the server is not there. One that is full is: what is not needed goes, jobs end."""
        is_there = self._trouble is None or self._trouble.reason is Reason.REDIS_FULL
        return self._dialled.queues if self._dialled is not None and is_there else None

    async def look(
        self, queue: ResolvedQueue, namespace: str, children: Sequence[Object], password: str | Missing
    ) -> RedisFacts:
        """Find the server anew, and see how it is."""
        address = await self._address(queue, namespace, children, password)
        facts = RedisFacts(endpoint=address.endpoint, secret=address.secret)
        if address.options is None:
            await self.close()
            return replace(facts, trouble=address.trouble, starting=address.starting)
        await self._reach(address.options)
        if self._trouble is None:
            return replace(facts, answers=True, note=_note(queue.redis))
        if address.is_new or self._trouble.reason is Reason.REDIS_LOADING:
            return replace(facts, starting=STARTING if address.is_new else self._trouble)
        return replace(facts, trouble=self._trouble)

    async def close(self) -> None:
        """End the connections."""
        dialled, self._dialled, self._options = self._dialled, None, None
        if dialled is not None:
            with suppress(AgentQueueError):
                await dialled.close()

    async def _reach(self, options: ServerOptions) -> None:
        if options != self._options:
            await self.close()
            self._dialled, self._options, self._checked = self._dial(options), options, float("-inf")
        assert self._dialled is not None
        if self._clock() - self._checked >= (CHECK_S if self._trouble is None else RETRY_S):
            self._trouble = await self._dialled.check()
            self._checked = self._clock()

    async def _address(
        self, queue: ResolvedQueue, namespace: str, children: Sequence[Object], password: str | Missing
    ) -> Address:
        if isinstance(queue.redis, ExternalRedis):
            return await self._external(queue.redis)
        place = endpoint(queue.name, namespace)
        known = Address(None, place, redis_name(queue.name))
        if isinstance(password, Missing):
            return replace(known, trouble=Trouble(Reason.REFERENCE_MISSING, password.said))
        pods = [one for one in children if one["kind"] == "Pod" and _component(one) == REDIS]
        if not any(map(is_ready, pods)):
            wrong = trouble_of(pods, now=self._now()) or _hanging(pods)
            return replace(known, trouble=wrong, starting=None if wrong else STARTING)
        tls = await self._managed_tls(queue.redis, queue.name, namespace)
        if isinstance(tls, Missing):
            return replace(known, trouble=Trouble(Reason.REFERENCE_MISSING, tls.said))
        url = f"redis://default:{quote(password, safe='')}@{_host(children) or place.removesuffix(f':{PORT}')}:{PORT}/0"
        is_new = ready_for(pods, self._now()) < NEW
        return replace(known, options=ServerOptions(url, tls=tls), is_new=is_new)

    async def _managed_tls(self, redis: ManagedRedis, name: str, namespace: str) -> Tls | Missing | None:
        if redis.tls is None:
            return None
        authority = await self._contents.text(redis.tls.secret_name, "ca.crt")
        if isinstance(authority, Missing):
            return authority
        return Tls(ca_data=authority, server_name=endpoint(name, namespace).removesuffix(f":{PORT}"))

    async def _external(self, redis: ExternalRedis) -> Address:
        known = Address(None, None, redis.url_secret_ref.name)
        url = await self._contents.text(redis.url_secret_ref.name, redis.url_secret_ref.key)
        tls = await self._external_tls(redis.tls) if redis.tls else None
        sentinel = await self._sentinel(redis.sentinel) if redis.sentinel else None
        for found in (url, tls, sentinel):
            if isinstance(found, Missing):
                return replace(known, trouble=Trouble(Reason.REFERENCE_MISSING, found.said))
        assert not isinstance(url, Missing)
        assert not isinstance(tls, Missing)
        assert not isinstance(sentinel, Missing)
        try:
            options = ServerOptions(url, tls=tls, sentinel=sentinel)
        except UsageError as error:
            named = f"key {redis.url_secret_ref.key} of the Secret {redis.url_secret_ref.name}"
            return replace(known, trouble=Trouble(Reason.REDIS_UNREACHABLE, f"{named}: {error}"))
        return replace(known, options=options, endpoint=options.name.rpartition("//")[2].partition("/")[0])

    async def _external_tls(self, tls: ClientTLS) -> Tls | Missing:
        authority, pair = tls.ca_secret_ref, tls.client_certificate_secret_name
        ca = await self._contents.text(authority.name, authority.key) if authority else None
        cert = await self._contents.text(pair, "tls.crt") if pair else None
        key = await self._contents.text(pair, "tls.key") if pair else None
        for found in (ca, cert, key):
            if isinstance(found, Missing):
                return found
        assert not isinstance(ca, Missing)
        assert not isinstance(cert, Missing)
        assert not isinstance(key, Missing)
        return Tls(ca_data=ca, cert_data=cert, key_data=key, skip_verify=tls.insecure_skip_verify)

    async def _sentinel(self, sentinel: Sentinel) -> Sentinels | Missing:
        named = sentinel.password_secret_ref
        password = await self._contents.text(named.name, named.key) if named else None
        if isinstance(password, Missing):
            return password
        return Sentinels(sentinel.master_name, parse_nodes(",".join(sentinel.nodes)), password)


def _component(pod: Object) -> str:
    found: str = (pod["metadata"].get("labels") or {}).get(COMPONENT_LABEL, "")
    return found


def _hanging(pods: Sequence[Object]) -> Trouble | None:
    """One that served is not starting."""
    name = next((pod["metadata"]["name"] for pod in pods if was_ready(pod)), None)
    if name is None:
        return None
    return Trouble(
        Reason.REDIS_UNREACHABLE, f"its pod {name} was ready, and is not now: see kubectl describe pod {name}"
    )


def _host(children: Sequence[Object]) -> str | None:
    """The Service's address: the operator may run where the cluster's names mean nothing (a developer's machine)."""
    services = [one for one in children if one["kind"] == SERVICE.kind and _component(one) == REDIS]
    addresses = [one["spec"].get("clusterIP") for one in services]
    return next((one for one in addresses if one and one != "None"), None)


def _note(redis: ManagedRedis | ExternalRedis) -> Trouble | None:
    """What works, and should be known."""
    if isinstance(redis, ExternalRedis) and redis.tls and redis.tls.insecure_skip_verify:
        return Trouble(Reason.INSECURE_TLS, "insecureSkipVerify is true: anybody may pose as the server")
    return None
