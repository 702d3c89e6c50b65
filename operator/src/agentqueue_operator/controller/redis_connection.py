"""Connects the operator to the Redis of one AgentQueue, and observes whether it answers."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, Protocol
from urllib.parse import quote

from agentqueue.errors import AgentQueueError, UsageError
from agentqueue.spec import ExternalRedis, ManagedRedis, ResolvedQueue
from agentqueue.spec.redis import ClientTLS
from agentqueue.store import Sentinels, ServerOptions, Tls, parse_nodes
from agentqueue_operator.controller.referenced_content import MissingReference, SecretReader
from agentqueue_operator.controller.status.conditions import RedisFacts
from agentqueue_operator.controller.status.pod_problems import is_ready, problem_of, ready_for, was_ready
from agentqueue_operator.controller.status.reasons import Problem, Reason
from agentqueue_operator.queues.ports import Queues
from agentqueue_operator.resources.kinds import SERVICE, Object
from agentqueue_operator.resources.render import redis_name
from agentqueue_operator.resources.render.connection import PORT, endpoint
from agentqueue_operator.resources.render.names import COMPONENT_LABEL, REDIS

CHECK_S: Final = 10.0
"""Seconds between checks of a server that answers: each check is two commands."""
RETRY_S: Final = 1.0
"""Seconds between checks of a server that does not answer, and requeue delay while it starts."""
ROUTE_GRACE: Final = timedelta(seconds=15)
"""Time after a pod becomes ready in which an unreachable server counts as starting: nodes may lack the route to it."""
STARTING: Final = Problem(Reason.REDIS_STARTING, "its pod is not ready yet")
"""The pod of a managed Redis starts, and nothing is wrong."""
INSECURE: Final = Problem(
    Reason.INSECURE_TLS,
    "insecureSkipVerify is true: anyone on the network path can impersonate the server",
    blocking=False,
)
"""An external Redis whose certificate is not verified."""
NO_PASSWORD: Final = "the password is not known yet"  # noqa: S105  # a message
"""Default reason for a missing password."""


class RedisServer(Protocol):
    """A server from the pool."""

    @property
    def queues(self) -> Queues:
        """Return the queues on the server."""
        ...

    async def check(self) -> Problem | None:
        """Return the problem of the server (unreachable, loading, full, …), or None. Never raises."""
        ...

    async def close(self) -> None:
        """Release the connections."""
        ...


AcquireServer = Callable[[ServerOptions], RedisServer]
"""Returns a server from the pool."""


class RedisConnection:
    """Connection to the Redis of one AgentQueue. It follows changes of address, password and certificates.

    Args:
        secrets: reads the Secrets with url, password and certificates.
        acquire: returns a server from the pool.
        clock: returns monotonic seconds.
        now: returns the time by the cluster's clock.
    """

    def __init__(
        self, secrets: SecretReader, acquire: AcquireServer, *, clock: Callable[[], float], now: Callable[[], datetime]
    ) -> None:
        self._secrets = secrets
        self._acquire = acquire
        self._clock = clock
        self._now = now
        self._server: RedisServer | None = None
        self._options: ServerOptions | None = None
        self._checked_at = float("-inf")
        self._problem: Problem | None = None

    @property
    def queues(self) -> Queues | None:
        """Return the queues, or None while the server does not answer. A full server answers: jobs can end there."""
        answers = self._problem is None or self._problem.reason is Reason.REDIS_FULL
        return self._server.queues if self._server is not None and answers else None

    async def observe(
        self,
        queue: ResolvedQueue,
        namespace: str,
        children: Sequence[Object],
        password: str | None,
        *,
        password_problem: str = NO_PASSWORD,
    ) -> RedisFacts:
        """Resolve the server's address, check the server, and return its state.

        Args:
            queue: the AgentQueue.
            namespace: its namespace.
            children: its objects in the cluster.
            password: of the managed Redis; None: it is not known.
            password_problem: why it is not known.

        Raises:
            ApiRefused, ApiUnavailable: a Secret could not be read.
        """
        if isinstance(queue.redis, ManagedRedis):
            if password is not None:
                return await self._observe_managed(queue.name, queue.redis, namespace, children, password)
            await self.close()
            problem = Problem(Reason.REFERENCE_MISSING, password_problem)
            return RedisFacts(endpoint=endpoint(queue.name, namespace), secret=redis_name(queue.name), problem=problem)
        return await self._observe_external(queue.redis)

    async def close(self) -> None:
        """Release the connections."""
        server, self._server, self._options = self._server, None, None
        if server is not None:
            with suppress(AgentQueueError):
                await server.close()

    async def _observe_managed(
        self, name: str, redis: ManagedRedis, namespace: str, children: Sequence[Object], password: str
    ) -> RedisFacts:
        address = endpoint(name, namespace)
        facts = RedisFacts(endpoint=address, secret=redis_name(name))
        pods = [one for one in children if one["kind"] == "Pod" and _is_redis(one)]
        if not any(map(is_ready, pods)):
            await self.close()
            problem = problem_of(pods, now=self._now())
            hanging = next((pod["metadata"]["name"] for pod in pods if was_ready(pod)), None)
            if problem is None and hanging is not None:
                message = f"its pod {hanging} was ready, but is not any more: see kubectl describe pod {hanging}"
                problem = Problem(Reason.REDIS_UNREACHABLE, message)
            return replace(facts, problem=problem) if problem else _starting(facts, STARTING)
        host = address.removesuffix(f":{PORT}")
        try:
            tls = None
            if redis.tls is not None:
                tls = Tls(ca_data=await self._secrets.read(redis.tls.secret_name, "ca.crt"), server_name=host)
        except MissingReference as error:
            await self.close()
            return replace(facts, problem=Problem(Reason.REFERENCE_MISSING, error.reason))
        # The Service's address works where the cluster's names do not resolve, such as on a developer's machine.
        services = [one["spec"].get("clusterIP") for one in children if one["kind"] == SERVICE.kind and _is_redis(one)]
        host = next((ip for ip in services if ip and ip != "None"), host)
        await self._check(ServerOptions(f"redis://default:{quote(password, safe='')}@{host}:{PORT}/0", tls=tls))
        is_new = ready_for(pods, self._now()) < ROUTE_GRACE
        return _starting(facts, STARTING) if self._problem and is_new else self._with_check(facts)

    async def _observe_external(self, redis: ExternalRedis) -> RedisFacts:
        named, sentinels = redis.url_secret_ref, None
        facts = RedisFacts(secret=named.name)
        try:
            url = await self._secrets.read(named.name, named.key)
            tls = await self._client_tls(redis.tls) if redis.tls else None
            if redis.sentinel:
                secret = redis.sentinel.password_secret_ref
                password = await self._secrets.read(secret.name, secret.key) if secret else None
                sentinels = Sentinels(redis.sentinel.master_name, parse_nodes(",".join(redis.sentinel.nodes)), password)
            options = ServerOptions(url, tls=tls, sentinel=sentinels)
        except MissingReference as error:
            await self.close()
            return replace(facts, problem=Problem(Reason.REFERENCE_MISSING, error.reason))
        except UsageError as error:
            await self.close()
            message = f"key {named.key} of the Secret {named.name}: {error}"
            return replace(facts, problem=Problem(Reason.REDIS_UNREACHABLE, message))
        await self._check(options)
        facts = replace(facts, endpoint=options.name.rpartition("//")[2].partition("/")[0])
        is_insecure = redis.tls is not None and redis.tls.insecure_skip_verify
        return self._with_check(replace(facts, warning=INSECURE if is_insecure else None))

    async def _client_tls(self, tls: ClientTLS) -> Tls:
        ca, pair = tls.ca_secret_ref, tls.client_certificate_secret_name
        return Tls(
            ca_data=await self._secrets.read(ca.name, ca.key) if ca else None,
            cert_data=await self._secrets.read(pair, "tls.crt") if pair else None,
            key_data=await self._secrets.read(pair, "tls.key") if pair else None,
            skip_verify=tls.insecure_skip_verify,
        )

    async def _check(self, options: ServerOptions) -> None:
        if self._server is None or options != self._options:
            await self.close()
            self._server, self._options, self._checked_at = self._acquire(options), options, float("-inf")
        if self._clock() - self._checked_at >= (CHECK_S if self._problem is None else RETRY_S):
            self._problem = await self._server.check()
            self._checked_at = self._clock()

    def _with_check(self, facts: RedisFacts) -> RedisFacts:
        """Return the facts with the result of the last check. Warnings apply only to a server that answers."""
        if self._problem is None:
            return replace(facts, answers=True)
        if self._problem.reason is Reason.REDIS_LOADING:
            return _starting(replace(facts, warning=None), self._problem)
        return replace(facts, warning=None, problem=self._problem)


def _starting(facts: RedisFacts, starting: Problem) -> RedisFacts:
    return replace(facts, starting=starting, requeue_after_s=RETRY_S)


def _is_redis(live: Object) -> bool:
    return bool((live["metadata"].get("labels") or {}).get(COMPONENT_LABEL) == REDIS)
