"""The connection to an AgentQueue's Redis: its address, missing references, and its state."""

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import exceptions as redis_errors

from agentqueue.errors import QueueUnavailable, UnsupportedServer
from agentqueue.spec import AgentQueue, ResolvedQueue, resolve
from agentqueue.store import ServerOptions
from agentqueue_operator.controller.ports import ApiUnavailable
from agentqueue_operator.controller.redis_connection import CHECK_S, RedisConnection
from agentqueue_operator.controller.redis_pool import RedisPool, explain_redis_error, memory_problem
from agentqueue_operator.controller.referenced_content import (
    RETRY_MISSING_S,
    TRUST_S,
    ForbiddenReference,
    MissingReference,
    SecretReader,
)
from agentqueue_operator.controller.status.reasons import Problem, Reason
from agentqueue_operator.resources.kinds import CONFIG_MAP, SECRET, Object
from agentqueue_operator.resources.render import Reference, redis_name
from tests.support.fake_cluster import FakeCluster, refused
from tests.support.scaling import FakeQueues

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
REDIS = redis_name("q")


class FakeServer:
    """A Redis server from the pool."""

    def __init__(self, problem: Problem | None = None) -> None:
        self.problem = problem
        self.queues = FakeQueues()
        self.acquired: list[ServerOptions] = []
        self.checks = self.closed = 0
        self.at = 100.0

    def acquire(self, options: ServerOptions) -> "FakeServer":
        self.acquired.append(options)
        return self

    async def check(self) -> Problem | None:
        self.checks += 1
        return self.problem

    async def close(self) -> None:
        self.closed += 1
        raise QueueUnavailable("it is gone anyway")


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def connection(cluster: FakeCluster, server: FakeServer) -> RedisConnection:
    secrets = SecretReader(cluster, "n", clock=lambda: server.at)
    return RedisConnection(secrets, server.acquire, clock=lambda: server.at, now=lambda: NOW)


def queue(**redis: Any) -> ResolvedQueue:
    spec = {"agents": [{"name": "a", "handler": "m:agent"}], "redis": redis or {"managed": {}}}
    data = {"apiVersion": "agentqueue.dev/v1alpha1", "kind": "AgentQueue", "metadata": {"name": "q"}, "spec": spec}
    return resolve(AgentQueue.model_validate(data))


def put_secret(cluster: FakeCluster, name: str, **data: str) -> None:
    encoded = {key.replace("_", "."): base64.b64encode(text.encode()).decode() for key, text in data.items()}
    cluster.put({"kind": "Secret", "metadata": {"name": name}, "data": encoded})


def children(*, ready_s: float = 3600, ready: bool = True, address: str | None = "198.18.0.9") -> list[Object]:
    labels = {"agentqueue.dev/component": "redis"}
    since = (NOW - timedelta(seconds=ready_s)).isoformat()
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": since}
    pod = {"kind": "Pod", "metadata": {"name": "r", "labels": labels}, "status": {"conditions": [condition]}}
    service = {"kind": "Service", "metadata": {"name": "r", "labels": labels}, "spec": {"clusterIP": address}}
    return [pod, service, {"kind": "Pod", "metadata": {"name": "other"}}]


async def test_managed_by_the_address_of_its_service(connection: RedisConnection, server: FakeServer) -> None:
    facts = await connection.observe(queue(), "n", children(), "p@ss")
    assert (facts.answers, facts.endpoint, facts.secret) == (True, f"{REDIS}.n.svc:6379", REDIS)
    assert server.acquired[0].url == "redis://default:p%40ss@198.18.0.9:6379/0"
    before = connection.queues
    assert before is server.queues
    await connection.observe(queue(), "n", children(address="None"), "p@ss")
    assert server.acquired[1].url == f"redis://default:p%40ss@{REDIS}.n.svc:6379/0"
    await connection.close()
    assert (server.closed, connection.queues) == (2, None)


async def test_managed_with_tls_verifies_the_name_on_the_certificate(
    connection: RedisConnection, server: FakeServer, cluster: FakeCluster
) -> None:
    secured = queue(managed={"tls": {"secretName": "cert"}})
    facts = await connection.observe(secured, "n", children(), "p")
    assert facts.problem == Problem(Reason.REFERENCE_MISSING, "there is no Secret cert")
    put_secret(cluster, "cert", ca_crt="PEM")
    server.at += RETRY_MISSING_S + 1
    await connection.observe(secured, "n", children(), "p")
    tls = server.acquired[0].tls
    assert tls is not None
    assert (tls.ca_data, tls.server_name) == ("PEM", f"{REDIS}.n.svc")


async def test_managed_that_starts(connection: RedisConnection, server: FakeServer) -> None:
    facts = await connection.observe(queue(), "n", children(ready=False), "p")
    assert facts.starting is not None
    assert facts.starting.reason is Reason.REDIS_STARTING
    assert server.acquired == []
    server.problem = Problem(Reason.REDIS_UNREACHABLE, "refused")
    facts = await connection.observe(queue(), "n", children(ready_s=3), "p")
    assert facts.starting is not None
    assert facts.problem is None
    facts = await connection.observe(queue(), "n", children(), "p")
    assert facts.problem == server.problem
    assert connection.queues is None


async def test_managed_that_loads_its_data(connection: RedisConnection, server: FakeServer) -> None:
    server.problem = Problem(Reason.REDIS_LOADING, "loading")
    facts = await connection.observe(queue(), "n", children(), "p")
    assert (facts.starting, facts.problem) == (server.problem, None)


async def test_managed_whose_pod_has_a_problem(connection: RedisConnection) -> None:
    pods = children(ready=False)
    pods[0]["status"]["containerStatuses"] = [{"name": "redis", "state": {"waiting": {"reason": "ErrImagePull"}}}]
    facts = await connection.observe(queue(), "n", pods, "p")
    assert facts.problem is not None
    assert (facts.problem.reason, facts.starting) == (Reason.IMAGE_PULL_FAILED, None)


async def test_managed_that_hangs_does_not_start(connection: RedisConnection) -> None:
    pods = children(ready_s=60, ready=False)
    started = (NOW - timedelta(seconds=90)).isoformat()
    running = {"name": "redis", "state": {"running": {"startedAt": started}}, "started": True}
    pods[0]["status"]["containerStatuses"] = [running]
    facts = await connection.observe(queue(), "n", pods, "p")
    assert facts.problem is not None
    assert (facts.problem.reason, facts.starting) == (Reason.REDIS_UNREACHABLE, None)
    assert facts.problem.message == "its pod r was ready, but is not any more: see kubectl describe pod r"
    pods.append(pods[0] | {"metadata": pods[0]["metadata"] | {"deletionTimestamp": "now"}})
    assert (await connection.observe(queue(), "n", pods[1:], "p")).problem is None  # it goes, and another one comes


async def test_no_password(connection: RedisConnection) -> None:
    facts = await connection.observe(queue(), "n", children(), None, password_problem="there is no Secret x")
    assert facts.problem == Problem(Reason.REFERENCE_MISSING, "there is no Secret x")


async def test_a_server_is_checked_more_often_while_it_does_not_answer(
    connection: RedisConnection, server: FakeServer
) -> None:
    for _ in range(int(CHECK_S)):
        await connection.observe(queue(), "n", children(), "p")
        server.at += 1
    assert server.checks == 1
    server.problem = Problem(Reason.REDIS_FULL, "full")
    await connection.observe(queue(), "n", children(), "p")
    assert connection.queues is not None
    server.at += 1
    server.problem = None
    facts = await connection.observe(queue(), "n", children(), "p")
    assert (server.checks, facts.answers) == (3, True)


def external(**more: Any) -> ResolvedQueue:
    return queue(external={"urlSecretRef": {"name": "u"}, **more})


async def test_external_with_all_options(connection: RedisConnection, server: FakeServer, cluster: FakeCluster) -> None:
    tls = {"caSecretRef": {"name": "ca", "key": "pem"}, "clientCertificateSecretName": "client"}
    sentinel = {"masterName": "m", "nodes": ["s1:26379", "s2:26379"], "passwordSecretRef": {"name": "s", "key": "pw"}}
    whole = external(tls=tls, sentinel=sentinel)
    for name, data, said in (
        ("u", {"url": "redis://:p@one:6380/1"}, "there is no Secret u"),
        ("ca", {"pem": "CA"}, "there is no Secret ca"),
        ("client", {"tls_crt": "CERT", "tls_key": "KEY"}, "there is no Secret client"),
        ("s", {"pw": "sentinels"}, "there is no Secret s"),
    ):
        facts = await connection.observe(whole, "n", [], "")
        assert facts.problem == Problem(Reason.REFERENCE_MISSING, said)
        put_secret(cluster, name, **data)
        server.at += RETRY_MISSING_S + 1
    facts = await connection.observe(whole, "n", [], "")
    (options,) = server.acquired
    assert facts.answers
    assert options.url == "redis://:p@one:6380/1"
    assert options.tls is not None
    assert (options.tls.ca_data, options.tls.cert_data, options.tls.key_data) == ("CA", "CERT", "KEY")
    assert options.sentinel is not None
    assert (options.sentinel.master, options.sentinel.password) == ("m", "sentinels")
    assert options.sentinel.nodes == (("s1", 26379), ("s2", 26379))
    assert facts.secret == "u"


async def test_external_without_verification_is_reported(connection: RedisConnection, cluster: FakeCluster) -> None:
    put_secret(cluster, "u", url="rediss://one:6380")
    facts = await connection.observe(external(tls={"insecureSkipVerify": True}), "n", [], "")
    assert facts.warning is not None
    assert (facts.warning.reason, facts.endpoint) == (Reason.INSECURE_TLS, "one:6380")


# Secrets


async def test_an_unreadable_secret_raises_the_reason(cluster: FakeCluster) -> None:
    secrets = SecretReader(cluster, "n", clock=lambda: 0.0)
    cluster.put({"kind": "Secret", "metadata": {"name": "odd"}, "data": {"a": "%%%", "b": "/w==", "c": "IA=="}})
    for key, reason in (
        ("a", "key a of the Secret odd is not text"),
        ("b", "key b of the Secret odd is not text"),
        ("c", "key c of the Secret odd is empty"),
        ("d", "the Secret odd has no key d"),
    ):
        with pytest.raises(MissingReference, match=f"^{reason}$"):
            await secrets.read("odd", key)
    with pytest.raises(MissingReference, match=r"^there is no Secret none$"):
        await secrets.read("none", "a")
    cluster.refuse["get", "Secret"] = refused(403, "cannot get", "Forbidden")
    with pytest.raises(ForbiddenReference, match=r"^the operator may not read the Secret hidden$"):
        await secrets.read("hidden", "a")
    cluster.refuse["get", "Secret"] = refused(422, "what", "Invalid")
    with pytest.raises(type(refused(1, ""))):
        await secrets.read("third", "a")


async def test_content_is_read_once_a_minute(cluster: FakeCluster) -> None:
    at = [0.0]
    secrets = SecretReader(cluster, "n", clock=lambda: at[0])
    references = frozenset({Reference(SECRET, "s"), Reference(CONFIG_MAP, "c")})
    put_secret(cluster, "s", a="1")
    first, missing = await secrets.hash(references)
    assert missing == {Reference(CONFIG_MAP, "c")}
    cluster.put({"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"x": "y"}})
    assert (await secrets.hash(references))[0] == first
    at[0] += RETRY_MISSING_S + 1
    second, missing = await secrets.hash(references)
    assert (second != first, missing) == (True, frozenset())
    put_secret(cluster, "s", a="2")
    assert (await secrets.hash(references))[0] == second
    at[0] += TRUST_S + 1
    assert (await secrets.hash(references))[0] != second
    assert await secrets.hash(()) == (None, frozenset())
    cluster.refuse["get", "Secret"] = refused(403, "cannot get", "Forbidden")
    at[0] += TRUST_S + 1
    assert await secrets.hash(references) == (None, frozenset())


async def test_the_last_content_is_used_while_the_api_server_is_unavailable(cluster: FakeCluster) -> None:
    at = [100.0]
    secrets = SecretReader(cluster, "n", clock=lambda: at[0])
    put_secret(cluster, "s", a="1")
    assert await secrets.read("s", "a") == "1"
    with pytest.raises(MissingReference):
        await secrets.read("t", "a")
    cluster.refuse["get", "Secret"] = ApiUnavailable("no answer")
    put_secret(cluster, "s", a="2")
    put_secret(cluster, "t", a="2")
    at[0] += TRUST_S + 1
    assert await secrets.read("s", "a") == "1"
    with pytest.raises(ApiUnavailable):
        await secrets.read("t", "a")  # it may exist now
    del cluster.refuse["get", "Secret"]
    assert (await secrets.read("s", "a"), await secrets.read("t", "a")) == ("2", "2")


# The pool


def unavailable(cause: Exception | None) -> QueueUnavailable:
    error = QueueUnavailable("it says no")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UnsupportedServer("too old"), Reason.REDIS_UNSUPPORTED),
        (unavailable(redis_errors.AuthenticationError("WRONGPASS invalid")), Reason.REDIS_WRONG_PASSWORD),
        (unavailable(redis_errors.NoPermissionError("User x has no permissions")), Reason.REDIS_FORBIDDEN),
        (unavailable(redis_errors.ResponseError("ACL failure in script: no")), Reason.REDIS_FORBIDDEN),
        (unavailable(redis_errors.ResponseError("NOAUTH Authentication required")), Reason.REDIS_WRONG_PASSWORD),
        (unavailable(redis_errors.BusyLoadingError("LOADING")), Reason.REDIS_LOADING),
        (unavailable(redis_errors.ConnectionError("refused")), Reason.REDIS_UNREACHABLE),
        (unavailable(None), Reason.REDIS_UNREACHABLE),
    ],
)
def test_an_error_becomes_a_reason(error: Any, reason: Reason) -> None:
    assert explain_redis_error(error).reason is reason


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ({}, False),
        ({"maxmemory": 0, "used_memory": 10**9}, False),
        ({"maxmemory": 10**9, "used_memory": 10**8}, False),
        ({"maxmemory": 10**9, "used_memory": 10**9}, True),
        ({"maxmemory": 10**9, "used_memory": 10**9, "mem_not_counted_for_evict": 10**8}, False),
    ],
)
def test_full(memory: Any, expected: bool) -> None:
    assert (memory_problem(memory) is not None) is expected


async def test_users_of_the_same_server_share_its_connections() -> None:
    pool, options = RedisPool(), ServerOptions("redis://127.0.0.1:1")
    first, second, other = (
        pool.acquire(options),
        pool.acquire(options),
        pool.acquire(replace(options, url="redis://127.0.0.1:2")),
    )
    assert first.queues is second.queues
    assert first.queues is not other.queues
    await first.close()
    await first.close()
    third = pool.acquire(options)
    assert third.queues is second.queues
    problem = await third.check()
    assert problem is not None
    assert problem.reason is Reason.REDIS_UNREACHABLE
    for line in (second, third, other):
        await line.close()
    fourth = pool.acquire(options)
    assert fourth.queues is not second.queues
    await fourth.close()
