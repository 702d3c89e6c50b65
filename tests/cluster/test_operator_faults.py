"""An API server that fails, conflicts, limits and forgets, and operators that come and go: it converges, calmly."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agentqueue_operator.resources.render import Images, redis_name, worker_name
from tests.support.cluster.kube import Cluster, Kube, has_condition
from tests.support.cluster.proxy import ApiProxy
from tests.support.operator import (
    Operator,
    agent_queue,
    client_of,
    code,
    install_crd,
    is_ready,
    run_operator,
    settled,
    until,
)

AQ = "agentqueue"
REDIS, GREETINGS = redis_name("demo"), worker_name("demo", "greetings")
FAULTY_S = 6.0


@pytest.fixture
async def proxied(kube: Kube, api_proxy: ApiProxy, aq_images: Images) -> AsyncIterator[Operator]:
    """An operator behind the proxy."""
    await install_crd(kube)
    async with run_operator(api_proxy.kubeconfig, kube.namespace, aq_images) as running:
        await until(lambda: api_proxy.count(verb="watch") > 3)
        yield running


@pytest.mark.parametrize("status", [409, 429, 500, 503])
async def test_it_converges_after_refused_writes_and_asks_moderately(
    proxied: Operator, kube: Kube, api_proxy: ApiProxy, status: int
) -> None:
    api_proxy.fail(status, verb="patch", path="/(apis|api)/", retry_after=1 if status == 429 else None)
    await kube.apply(code(), agent_queue())
    await until(lambda: api_proxy.count(verb="patch") > 0)
    before = len(api_proxy.requests)
    await asyncio.sleep(FAULTY_S)  # what is looked at is how much is asked in that time
    assert len(api_proxy.requests) - before < 40 * FAULTY_S
    assert await kube.find("deployment", GREETINGS) is None
    api_proxy.heal()
    await kube.until("deployment", GREETINGS, lambda _: True, what="made", timeout=60)
    await kube.until(AQ, "demo", is_ready, timeout=90)


@pytest.mark.parametrize("how", ["cut", "expired"])
async def test_what_went_while_watches_were_broken_is_noticed(
    proxied: Operator, kube: Kube, api_proxy: ApiProxy, how: str
) -> None:
    await kube.apply(code(), agent_queue())
    await kube.until("deployment", GREETINGS, lambda _: True, what="made")
    await settled(proxied)
    assert (api_proxy.cut_watches() if how == "cut" else api_proxy.expire_watches()) > 3
    await kube.delete("networkpolicy", REDIS)
    await kube.patch("deployment", GREETINGS, {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 99}}}})
    await kube.until("networkpolicy", REDIS, lambda _: True, what="back", timeout=90)
    await kube.until(
        "deployment",
        GREETINGS,
        lambda found: found["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 10,
        what="put back",
        timeout=90,
    )


async def test_a_status_that_can_t_be_written_is_written_later(
    proxied: Operator, kube: Kube, api_proxy: ApiProxy
) -> None:
    api_proxy.fail(500, path="/agentqueues/demo/status")
    await kube.apply(code(), agent_queue())
    await kube.until("deployment", GREETINGS, lambda _: True, what="made: the objects do not wait for the status")
    await until(lambda: len(proxied.reconciles.errors) >= 2)
    api_proxy.heal()
    await kube.until(AQ, "demo", has_condition("RedisReady"), timeout=90)


async def test_another_operator_of_a_newer_version_restarts_no_worker(
    cluster: Cluster, kube: Kube, aq_images: Images
) -> None:
    await install_crd(kube)
    await kube.apply(code(), agent_queue())
    async with run_operator(cluster.kubeconfig, kube.namespace, aq_images) as first:
        await kube.until(AQ, "demo", is_ready, timeout=90)
        await settled(first)
    pods = {one["metadata"]["uid"] for one in await kube.list("pod")}
    newer = Images(worker=aq_images.worker, redis=aq_images.redis, console="another-console:2")
    async with client_of(kube) as client, run_operator(cluster.kubeconfig, kube.namespace, newer) as second:
        await until(lambda: len(second.reconciles.seconds) >= 3)
        await settled(second)
        assert second.writes() == 0
        job = await client.enqueue("greetings", "greet", "world")
        assert await job.result(timeout=20) == "Hello world"
    assert {one["metadata"]["uid"] for one in await kube.list("pod")} == pods
