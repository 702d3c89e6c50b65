"""The AgentQueue's Redis as the operator reaches it: where it is, what is missing, how it is."""

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
from agentqueue_operator.controller.redis_connection import CHECK_S, Link
from agentqueue_operator.controller.redis_pool import Switchboard, full, trouble_with
from agentqueue_operator.controller.referenced_content import FRESH_S, MISSING_S, Contents, Missing
from agentqueue_operator.controller.status.pod_problems import Trouble
from agentqueue_operator.controller.status.reasons import Reason
from agentqueue_operator.resources.kinds import CONFIG_MAP, SECRET, Object
from agentqueue_operator.resources.render import Reference, redis_name
from tests.support.fake_cluster import FakeCluster, refused
from tests.support.scaling import FakeQueues

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
REDIS = redis_name("q")


class Wire:
    """What is dialled."""

    def __init__(self, trouble: Trouble | None = None) -> None:
        self.trouble = trouble
        self.queues = FakeQueues()
        self.dialled: list[ServerOptions] = []
        self.checks = self.closed = 0
        self.at = 100.0

    def dial(self, options: ServerOptions) -> "Wire":
        self.dialled.append(options)
        return self

    async def check(self) -> Trouble | None:
        self.checks += 1
        return self.trouble

    async def close(self) -> None:
        self.closed += 1
        raise QueueUnavailable("it is gone anyway")


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def link(cluster: FakeCluster, wire: Wire) -> Link:
    contents = Contents(cluster, "n", clock=lambda: wire.at)
    return Link(contents, wire.dial, clock=lambda: wire.at, now=lambda: NOW)


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


async def test_managed_by_the_address_of_its_service(link: Link, wire: Wire) -> None:
    facts = await link.look(queue(), "n", children(), "p@ss")
    assert (facts.answers, facts.endpoint, facts.secret) == (True, f"{REDIS}.n.svc:6379", REDIS)
    assert wire.dialled[0].url == "redis://default:p%40ss@198.18.0.9:6379/0"
    before = link.queues
    assert before is wire.queues
    await link.look(queue(), "n", children(address="None"), "p@ss")
    assert wire.dialled[1].url == f"redis://default:p%40ss@{REDIS}.n.svc:6379/0"
    await link.close()
    assert (wire.closed, link.queues) == (2, None)


async def test_managed_with_tls_goes_by_the_name_on_the_certificate(
    link: Link, wire: Wire, cluster: FakeCluster
) -> None:
    secured = queue(managed={"tls": {"secretName": "cert"}})
    facts = await link.look(secured, "n", children(), "p")
    assert facts.trouble == Trouble(Reason.REFERENCE_MISSING, "there is no Secret cert")
    put_secret(cluster, "cert", ca_crt="PEM")
    wire.at += MISSING_S + 1
    await link.look(secured, "n", children(), "p")
    tls = wire.dialled[0].tls
    assert tls is not None
    assert (tls.ca_data, tls.server_name) == ("PEM", f"{REDIS}.n.svc")


async def test_managed_that_starts(link: Link, wire: Wire) -> None:
    facts = await link.look(queue(), "n", children(ready=False), "p")
    assert facts.starting is not None
    assert facts.starting.reason is Reason.REDIS_STARTING
    assert wire.dialled == []
    wire.trouble = Trouble(Reason.REDIS_UNREACHABLE, "refused")
    facts = await link.look(queue(), "n", children(ready_s=3), "p")
    assert facts.starting is not None
    assert facts.trouble is None
    facts = await link.look(queue(), "n", children(), "p")
    assert facts.trouble == wire.trouble
    assert link.queues is None


async def test_managed_that_loads_its_data(link: Link, wire: Wire) -> None:
    wire.trouble = Trouble(Reason.REDIS_LOADING, "loading")
    facts = await link.look(queue(), "n", children(), "p")
    assert (facts.starting, facts.trouble) == (wire.trouble, None)


async def test_managed_whose_pod_is_in_trouble(link: Link) -> None:
    pods = children(ready=False)
    pods[0]["status"]["containerStatuses"] = [{"name": "redis", "state": {"waiting": {"reason": "ErrImagePull"}}}]
    facts = await link.look(queue(), "n", pods, "p")
    assert facts.trouble is not None
    assert (facts.trouble.reason, facts.starting) == (Reason.IMAGE_PULL_FAILED, None)


async def test_managed_that_hangs_does_not_start(link: Link) -> None:
    pods = children(ready_s=60, ready=False)
    started = (NOW - timedelta(seconds=90)).isoformat()
    running = {"name": "redis", "state": {"running": {"startedAt": started}}, "started": True}
    pods[0]["status"]["containerStatuses"] = [running]
    facts = await link.look(queue(), "n", pods, "p")
    assert facts.trouble is not None
    assert (facts.trouble.reason, facts.starting) == (Reason.REDIS_UNREACHABLE, None)
    assert facts.trouble.said == "its pod r was ready, and is not now: see kubectl describe pod r"
    pods.append(pods[0] | {"metadata": pods[0]["metadata"] | {"deletionTimestamp": "now"}})
    assert (await link.look(queue(), "n", pods[1:], "p")).trouble is None  # it goes, and another one comes


async def test_no_password(link: Link) -> None:
    facts = await link.look(queue(), "n", children(), Missing("there is no Secret x"))
    assert facts.trouble == Trouble(Reason.REFERENCE_MISSING, "there is no Secret x")


async def test_a_server_that_answers_is_checked_now_and_then_one_that_does_not_more_often(
    link: Link, wire: Wire
) -> None:
    for _ in range(int(CHECK_S)):
        await link.look(queue(), "n", children(), "p")
        wire.at += 1
    assert wire.checks == 1
    wire.trouble = Trouble(Reason.REDIS_FULL, "full")
    await link.look(queue(), "n", children(), "p")
    assert link.queues is not None
    wire.at += 1
    wire.trouble = None
    facts = await link.look(queue(), "n", children(), "p")
    assert (wire.checks, facts.answers) == (3, True)


def external(**more: Any) -> ResolvedQueue:
    return queue(external={"urlSecretRef": {"name": "u"}, **more})


async def test_external_with_all_that_there_is(link: Link, wire: Wire, cluster: FakeCluster) -> None:
    tls = {"caSecretRef": {"name": "ca", "key": "pem"}, "clientCertificateSecretName": "client"}
    sentinel = {"masterName": "m", "nodes": ["s1:26379", "s2:26379"], "passwordSecretRef": {"name": "s", "key": "pw"}}
    whole = external(tls=tls, sentinel=sentinel)
    for name, data, said in (
        ("u", {"url": "redis://:p@one:6380/1"}, "there is no Secret u"),
        ("ca", {"pem": "CA"}, "there is no Secret ca"),
        ("client", {"tls_crt": "CERT", "tls_key": "KEY"}, "there is no Secret client"),
        ("s", {"pw": "sentinels"}, "there is no Secret s"),
    ):
        facts = await link.look(whole, "n", [], "")
        assert facts.trouble == Trouble(Reason.REFERENCE_MISSING, said)
        put_secret(cluster, name, **data)
        wire.at += MISSING_S + 1
    facts = await link.look(whole, "n", [], "")
    (options,) = wire.dialled
    assert facts.answers
    assert options.url == "redis://:p@one:6380/1"
    assert options.tls is not None
    assert (options.tls.ca_data, options.tls.cert_data, options.tls.key_data) == ("CA", "CERT", "KEY")
    assert options.sentinel is not None
    assert (options.sentinel.master, options.sentinel.password) == ("m", "sentinels")
    assert options.sentinel.nodes == (("s1", 26379), ("s2", 26379))
    assert facts.secret == "u"


async def test_external_that_is_not_checked_is_told(link: Link, cluster: FakeCluster) -> None:
    put_secret(cluster, "u", url="rediss://one:6380")
    facts = await link.look(external(tls={"insecureSkipVerify": True}), "n", [], "")
    assert facts.note is not None
    assert (facts.note.reason, facts.endpoint) == (Reason.INSECURE_TLS, "one:6380")


# Secrets


async def test_what_is_wrong_with_a_secret(cluster: FakeCluster) -> None:
    contents = Contents(cluster, "n", clock=lambda: 0.0)
    cluster.put({"kind": "Secret", "metadata": {"name": "odd"}, "data": {"a": "%%%", "b": "/w==", "c": "IA=="}})
    said = [await contents.text("odd", key) for key in "abcd"]
    assert said == [
        Missing("key a of the Secret odd is not text"),
        Missing("key b of the Secret odd is not text"),
        Missing("key c of the Secret odd is empty"),
        Missing("the Secret odd has no key d"),
    ]
    cluster.refuse["get", "Secret"] = refused(403, "cannot get", "Forbidden")
    assert await contents.text("hidden", "a") == Missing("the operator may not read the Secret hidden", forbidden=True)
    cluster.refuse["get", "Secret"] = refused(422, "what", "Invalid")
    with pytest.raises(type(refused(1, ""))):
        await contents.text("third", "a")


async def test_content_is_read_once_a_minute(cluster: FakeCluster) -> None:
    at = [0.0]
    contents = Contents(cluster, "n", clock=lambda: at[0])
    references = frozenset({Reference(SECRET, "s"), Reference(CONFIG_MAP, "c")})
    put_secret(cluster, "s", a="1")
    first, missing = await contents.hash(references)
    assert missing == {Reference(CONFIG_MAP, "c")}
    cluster.put({"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"x": "y"}})
    assert (await contents.hash(references))[0] == first
    at[0] += MISSING_S + 1
    second, missing = await contents.hash(references)
    assert (second != first, missing) == (True, frozenset())
    put_secret(cluster, "s", a="2")
    assert (await contents.hash(references))[0] == second
    at[0] += FRESH_S + 1
    assert (await contents.hash(references))[0] != second
    assert await contents.hash(()) == (None, frozenset())
    cluster.refuse["get", "Secret"] = refused(403, "cannot get", "Forbidden")
    at[0] += FRESH_S + 1
    assert await contents.hash(references) == (None, frozenset())


async def test_what_was_read_holds_while_the_api_server_is_away(cluster: FakeCluster) -> None:
    at = [100.0]
    contents = Contents(cluster, "n", clock=lambda: at[0])
    put_secret(cluster, "s", a="1")
    assert await contents.text("s", "a") == "1"
    assert isinstance(await contents.text("t", "a"), Missing)
    cluster.refuse["get", "Secret"] = ApiUnavailable("no answer")
    put_secret(cluster, "s", a="2")
    put_secret(cluster, "t", a="2")
    at[0] += FRESH_S + 1
    assert await contents.text("s", "a") == "1"
    with pytest.raises(ApiUnavailable):
        await contents.text("t", "a")  # it may be there by now
    del cluster.refuse["get", "Secret"]
    assert (await contents.text("s", "a"), await contents.text("t", "a")) == ("2", "2")


# Dialling


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
def test_what_an_error_tells(error: Any, reason: Reason) -> None:
    assert trouble_with(error).reason is reason


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
    assert (full(memory) is not None) is expected


async def test_who_dials_the_same_server_shares_it() -> None:
    board, options = Switchboard(), ServerOptions("redis://127.0.0.1:1")
    first, second, other = (
        board.dial(options),
        board.dial(options),
        board.dial(replace(options, url="redis://127.0.0.1:2")),
    )
    assert first.queues is second.queues
    assert first.queues is not other.queues
    await first.close()
    await first.close()
    third = board.dial(options)
    assert third.queues is second.queues
    trouble = await third.check()
    assert trouble is not None
    assert trouble.reason is Reason.REDIS_UNREACHABLE
    for line in (second, third, other):
        await line.close()
    fourth = board.dial(options)
    assert fourth.queues is not second.queues
    await fourth.close()
