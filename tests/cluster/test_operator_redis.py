"""The managed Redis over an AgentQueue's life: storage that grows, TLS, and a pod that comes back with its jobs."""

import base64
from typing import Any

import pytest
import trustme

from agentqueue.client import Client
from agentqueue.store import ServerOptions, Tls
from agentqueue_operator.resources.render import redis_name
from tests.support.cluster.kube import Kube, Object, has_condition
from tests.support.operator import Operator, agent, agent_queue, client_of, code, condition, is_ready, settled

AQ = "agentqueue"
REDIS = redis_name("demo")
POD = f"{REDIS}-0"


def size_of(found: Object) -> str:
    return str(found["spec"]["resources"]["requests"]["storage"])


def stored(size: str, **storage: str) -> Object:
    return {"managed": {"storage": {"size": size, **storage}}}


def idle(**spec: Any) -> Object:
    """Without workers: what is looked at is Redis."""
    return agent_queue(agents=[agent("greetings", scaling={"mode": "Fixed", "replicas": 0})], **spec)


async def make_class(kube: Kube, name: str, *, expandable: bool) -> None:
    (default, *_) = await kube.list("storageclass")
    made = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}}
    await kube.apply(made | {"provisioner": default["provisioner"], "allowVolumeExpansion": expandable})


async def test_storage_grows_around_the_running_pod(operator: Operator, kube: Kube) -> None:
    await kube.apply(code(), idle(redis=stored("1Gi")))
    await kube.until(AQ, "demo", is_ready, timeout=90)
    before = await kube.get("pod", POD)
    old = await kube.get("statefulset", REDIS)
    async with client_of(kube) as client:
        await client.pause("greetings")
        await client.enqueue("greetings", "greet", "world", id="kept")
    await kube.apply(idle(redis=stored("2Gi")))
    uid = old["metadata"]["uid"]
    new = await kube.until(
        "statefulset",
        REDIS,
        lambda found: found["metadata"]["uid"] != uid and found.get("status", {}).get("readyReplicas") == 1,
        what="made anew around its pod",
        timeout=90,
    )
    assert size_of(new["spec"]["volumeClaimTemplates"][0]) == "2Gi"
    assert size_of(await kube.get("pvc", f"data-{POD}")) == "2Gi"
    await settled(operator)
    after = await kube.get("pod", POD)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
    async with client_of(kube) as client:
        assert (await client.job("kept").status()).state == "waiting"


async def test_storage_that_can_t_grow_is_told_and_the_rest_goes_on(operator: Operator, kube: Kube) -> None:
    name = f"rigid-{kube.namespace[-6:]}"
    await make_class(kube, name, expandable=False)
    await kube.apply(code(), idle(redis=stored("1Gi", storageClassName=name)))
    await kube.until(AQ, "demo", is_ready, timeout=90)
    larger = stored("2Gi", storageClassName=name)
    larger["managed"]["resources"] = {"requests": {"cpu": "11m"}}
    await kube.apply(idle(redis=larger))
    found = await kube.until(AQ, "demo", has_condition("ConfigurationWarning", reason="StorageNotExpandable"))
    assert "allowVolumeExpansion" in condition(found, "ConfigurationWarning")["message"]
    await kube.until(
        "statefulset",
        REDIS,
        lambda one: one["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "11m",
        what="changed beside",
        timeout=60,
    )
    await kube.until(AQ, "demo", has_condition("RedisReady", reason="StorageNotExpandable"), timeout=90)
    assert size_of(await kube.get("pvc", f"data-{POD}")) == "1Gi"
    await make_class(kube, name, expandable=True)
    await kube.until("pvc", f"data-{POD}", lambda one: size_of(one) == "2Gi", what="grown after all", timeout=120)
    await kube.until(AQ, "demo", has_condition("ConfigurationWarning", "False"), timeout=90)
    await kube.delete("storageclass", name)


async def test_managed_redis_with_tls(operator: Operator, kube: Kube) -> None:
    authority = trustme.CA()
    host = f"{REDIS}.{kube.namespace}.svc"
    issued = authority.issue_cert(host)
    files = {
        "ca.crt": authority.cert_pem.bytes().decode(),
        "tls.crt": b"".join(blob.bytes() for blob in issued.cert_chain_pems).decode(),
        "tls.key": issued.private_key_pem.bytes().decode(),
    }
    await kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cert"}, "stringData": files})
    await kube.apply(code(), agent_queue(redis={"managed": {"tls": {"secretName": "cert"}}}))
    await kube.until(AQ, "demo", is_ready, timeout=90)
    secret, service = await kube.get("secret", REDIS), await kube.get("service", REDIS)
    password = base64.b64decode(secret["data"]["password"]).decode()
    url = f"rediss://default:{password}@{service['spec']['clusterIP']}:6379/0"
    options = ServerOptions(url, tls=Tls(ca_data=files["ca.crt"], server_name=host))
    async with Client.at(options) as client:
        job = await client.enqueue("greetings", "greet", "world")
        assert await job.result(timeout=30) == "Hello world"


@pytest.mark.parametrize("what", ["pod", "statefulset"])
async def test_redis_comes_back_with_its_jobs(operator: Operator, kube: Kube, what: str) -> None:
    await kube.apply(code(), agent_queue())
    await kube.until(AQ, "demo", is_ready, timeout=90)
    async with client_of(kube) as client:
        await client.pause("greetings")
        await client.enqueue("greetings", "greet", "world", id="kept")
    await kube.delete(what, POD if what == "pod" else REDIS)
    await kube.until(AQ, "demo", has_condition("RedisReady", "False"), timeout=60)
    await kube.until(AQ, "demo", is_ready, timeout=120)
    async with client_of(kube) as client:
        await client.resume("greetings")
        assert await client.job("kept").result(timeout=60) == "Hello world"
