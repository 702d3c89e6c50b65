"""What can be wrong around an AgentQueue: a condition names it with what to do, and it heals when the cause goes."""

import contextlib
from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError

from agentqueue_operator.controller.status.reasons import Reason
from tests.support.cluster.kube import Kube, Object, has_condition
from tests.support.cluster.shell import ClusterError
from tests.support.operator import CODE, Operator, agent, agent_queue, client_of, code, condition, is_ready
from tests.support.servers import RunningServer, run_server

AQ = "agentqueue"


async def until_condition(
    kube: Kube, kind: str, reason: Reason, *, text: str = "", status: str = "False", timeout: float = 90
) -> str:
    """Wait for a condition with this reason and text, and return its message, which ends with a remedy."""

    def is_reported(found: Object) -> bool:
        return has_condition(kind, status, reason=reason)(found) and text in condition(found, kind)["message"]

    found = await kube.until(AQ, "demo", is_reported, timeout=timeout, what=f"{kind}={status} for {reason}: {text}")
    message = str(condition(found, kind)["message"])
    assert reason.remedy in message
    return message


# Workers


async def test_missing_secret_of_a_worker(operator: Operator, kube: Kube) -> None:
    env = [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "api-key", "key": "key"}}}]
    await kube.apply(code(), agent_queue(agents=[agent("greetings", env=env)]))
    await until_condition(kube, "Ready", Reason.REFERENCE_MISSING, text="api-key")
    await kube.apply(secret("api-key", key="s3cret"))
    await kube.until(AQ, "demo", is_ready, timeout=120)


async def test_missing_code(operator: Operator, kube: Kube) -> None:
    await kube.apply(agent_queue())
    await until_condition(kube, "Ready", Reason.REFERENCE_MISSING, text="ConfigMap code")
    await kube.apply(code())
    await kube.until(AQ, "demo", is_ready, timeout=150)  # the kubelet retries a mount after up to two minutes


async def test_handler_that_does_not_import(operator: Operator, kube: Kube) -> None:
    await kube.apply(code(CODE + "\nimport no_such_module\n"), agent_queue())
    message = await until_condition(kube, "Ready", Reason.HANDLER_NOT_IMPORTED)
    assert "ModuleNotFoundError: No module named 'no_such_module'" in message
    assert message.startswith("agent greetings: handler 'agents:agent': module 'agents' does not import")
    await kube.apply(code())
    await kube.until(AQ, "demo", is_ready, timeout=120)


async def test_image_that_is_not_there_and_a_rollout_of_it(operator: Operator, kube: Kube) -> None:
    await kube.apply(code(), agent_queue(agents=[agent("greetings", image="localhost/no-such-image:1")]))
    await until_condition(kube, "Ready", Reason.IMAGE_PULL_FAILED, text="localhost/no-such-image:1")
    await kube.apply(agent_queue(agents=[agent("greetings", image=None)]))
    await kube.until(AQ, "demo", is_ready, timeout=120)
    await kube.apply(agent_queue(agents=[agent("greetings", image="localhost/no-such-image:2")]))
    with pytest.raises(ClusterError, match="timed out waiting"):  # a pipeline does not take it for a good deploy
        await kube.kubectl("wait", "--for=condition=Ready", "agentqueue/demo", "--timeout=5s")
    await until_condition(kube, "Stalled", Reason.IMAGE_PULL_FAILED, text="localhost/no-such-image:2", status="True")
    await until_condition(kube, "Ready", Reason.IMAGE_PULL_FAILED, text="localhost/no-such-image:2")
    await until_condition(kube, "Progressing", Reason.IMAGE_PULL_FAILED, text="localhost/no-such-image:2")
    async with client_of(kube) as client:  # the old pods serve on
        assert await (await client.enqueue("greetings", "greet", "old")).result(timeout=20) == "Hello old"
    await kube.apply(agent_queue(agents=[agent("greetings", image=None)]))
    await kube.kubectl("wait", "--for=condition=Ready", "agentqueue/demo", "--timeout=60s", timeout=70)
    found = await kube.get(AQ, "demo")
    assert condition(found, "Stalled")["status"] == condition(found, "Reconciling")["status"] == "False"


async def test_full_quota(operator: Operator, kube: Kube) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}}
    await kube.apply(quota)
    await kube.until("resourcequota", "few", lambda one: "hard" in one.get("status", {}), what="in force")
    await kube.apply(code(), agent_queue())
    await until_condition(kube, "Ready", Reason.QUOTA_EXCEEDED, text="exceeded quota: few")
    await kube.delete("resourcequota", "few")
    await kube.until(AQ, "demo", is_ready, timeout=150)  # the ReplicaSet tries again after up to a minute or so


async def test_volume_that_can_t_be_bound(operator: Operator, kube: Kube) -> None:
    name = f"class-{kube.namespace[-6:]}"
    await kube.apply(code(), agent_queue(redis={"managed": {"storage": {"storageClassName": name}}}))
    await until_condition(kube, "RedisReady", Reason.VOLUME_NOT_BOUND, text="PersistentVolumeClaim")
    assert condition(await kube.get(AQ, "demo"), "Ready")["reason"] == Reason.VOLUME_NOT_BOUND
    (default, *_) = await kube.list("storageclass")
    await kube.apply(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": name},
            "provisioner": default["provisioner"],
        }
    )
    await kube.until(AQ, "demo", is_ready, timeout=120)
    await kube.delete("storageclass", name)


async def test_pod_template_with_a_typo_leaves_the_rest_unharmed(operator: Operator, kube: Kube) -> None:
    typo = {"spec": {"nodeSelektor": {"a": "b"}}}
    await kube.apply(code(), agent_queue(agents=[agent("typo", podTemplate=typo), agent("greetings")]))
    message = await until_condition(kube, "Ready", Reason.OBJECT_INVALID)
    assert "nodeSelektor" in message
    await kube.until(
        AQ, "demo", lambda one: one["status"]["agents"][1].get("readyReplicas") == 1, what="serving beside"
    )
    tries = sum(status in (422, 500) for _, plural, status in operator.calls if plural == "deployments")
    assert tries < 20
    await kube.apply(agent_queue(agents=[agent("typo"), agent("greetings")]))
    await kube.until(AQ, "demo", is_ready, timeout=120)


# Redis


@pytest.fixture
def start() -> Iterator[Callable[..., RunningServer]]:
    """Starts a server that the operator reaches; no worker needs to."""
    with contextlib.ExitStack() as stack:
        yield lambda **config: stack.enter_context(run_server("valkey", **config))


def external() -> Object:
    """An AgentQueue without pods, on a given server."""
    redis = {"external": {"urlSecretRef": {"name": "redis-url"}}}
    return agent_queue(redis=redis, agents=[agent("greetings", scaling={"mode": "Fixed", "replicas": 0})])


def secret(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


async def test_external_redis_without_its_secret_unreachable_and_with_a_wrong_password(
    operator: Operator, kube: Kube, start: Callable[..., RunningServer]
) -> None:
    server = start(requirepass="right")
    await kube.apply(code(), external())
    await until_condition(kube, "RedisReady", Reason.REFERENCE_MISSING, text="there is no Secret redis-url")
    await kube.apply(secret("redis-url", other="x"))
    await until_condition(kube, "RedisReady", Reason.REFERENCE_MISSING, text="no key url")
    await kube.apply(secret("redis-url", url="redis://127.0.0.1:1/0"))
    await until_condition(kube, "RedisReady", Reason.REDIS_UNREACHABLE, text="127.0.0.1:1")
    await kube.apply(secret("redis-url", url=f"redis://:wrong@127.0.0.1:{server.port}/0"))
    message = await until_condition(kube, "Ready", Reason.REDIS_WRONG_PASSWORD)
    assert "wrong" not in message.removesuffix(Reason.REDIS_WRONG_PASSWORD.remedy).lower().replace("wrongpass", "")
    await kube.apply(secret("redis-url", url=f"redis://:right@127.0.0.1:{server.port}/0"))
    found = await kube.until(AQ, "demo", is_ready)
    assert found["status"]["redis"]["endpoint"] == f"127.0.0.1:{server.port}"
    assert "right" not in str(found["status"]["redis"])


def fill(client: Redis, size: int) -> None:
    for number in range(1000):
        client.set(f"fill:{size}:{number}", "x" * size)


async def test_full_redis(operator: Operator, kube: Kube, start: Callable[..., RunningServer]) -> None:
    server = start(maxmemory="3mb")
    await kube.apply(code(), secret("redis-url", url=server.url), external())
    await kube.until(AQ, "demo", is_ready)
    with server.client() as client:
        for size in (10_000, 100):  # small ones fill what the buffers of large ones have taken for a moment
            with pytest.raises(OutOfMemoryError):
                fill(client, size)
        await until_condition(kube, "Ready", Reason.REDIS_FULL)
        client.flushall()
        await kube.until(AQ, "demo", is_ready)
        client.config_set("maxmemory-policy", "allkeys-lru")
        await until_condition(kube, "RedisReady", Reason.REDIS_UNSUPPORTED, text="noeviction")
        client.config_set("maxmemory-policy", "noeviction")
        await kube.until(AQ, "demo", is_ready)
