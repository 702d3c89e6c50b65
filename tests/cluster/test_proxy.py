"""The proxy before the API server refuses, hangs and cuts as a test asks, and counts what came through."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.support.cluster.kube import Cluster, Kube
from tests.support.cluster.proxy import ApiProxy, Request
from tests.support.cluster.shell import ClusterError

REASONS = [(409, "Conflict"), (410, "Expired"), (429, "TooManyRequests"), (500, "InternalError")]


@pytest.fixture
async def through(api_proxy: ApiProxy) -> AsyncIterator[httpx.AsyncClient]:
    """A client that is told of the proxy only."""
    headers = api_proxy.access.headers()
    async with httpx.AsyncClient(base_url=api_proxy.url, headers=headers, trust_env=False, timeout=20) as client:
        yield client


@pytest.fixture
def configmaps(namespace: str) -> str:
    """The path of the namespace's ConfigMaps."""
    return f"/api/v1/namespaces/{namespace}/configmaps"


@contextlib.asynccontextmanager
async def watch(client: httpx.AsyncClient, path: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The events of a watch that the server has begun to answer."""
    async with client.stream("GET", path, params={"watch": "true"}) as answer:
        yield (json.loads(line) async for line in answer.aiter_lines())


async def test_what_no_fault_is_for_comes_through_and_is_counted(
    api_proxy: ApiProxy, through: httpx.AsyncClient, configmaps: str
) -> None:
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "made"}}
    api_proxy.fail(500, path="/secrets")
    assert (await through.post(configmaps, json=made)).status_code == 201
    assert (await through.get(f"{configmaps}/made")).json()["metadata"]["name"] == "made"
    assert len((await through.get(configmaps)).json()["items"]) == 2  # the other has the API server's certificate
    assert (await through.delete(f"{configmaps}/made")).status_code == 200
    assert (await through.get(f"{configmaps}/made")).status_code == 404
    agent = str(through.headers["user-agent"])
    assert api_proxy.requests == [
        Request("create", configmaps, agent, 201),
        Request("get", f"{configmaps}/made", agent, 200),
        Request("list", configmaps, agent, 200),
        Request("delete", f"{configmaps}/made", agent, 200),
        Request("get", f"{configmaps}/made", agent, 404),
    ]
    assert (api_proxy.count(verb="get"), api_proxy.count(path="configmaps$"), api_proxy.count(agent="curl")) == (
        2,
        2,
        0,
    )


@pytest.mark.parametrize(("status", "reason"), REASONS)
async def test_a_refusal_looks_like_the_api_server_s_and_is_over_after_its_times(
    api_proxy: ApiProxy, through: httpx.AsyncClient, configmaps: str, status: int, reason: str
) -> None:
    api_proxy.fail(status, verb="list", path="configmaps", times=2, retry_after=7)
    answers = [await through.get(configmaps) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [status, status, 200]
    refused = answers[0].json()
    assert (refused["kind"], refused["code"], refused["reason"]) == ("Status", status, reason)
    assert answers[0].headers["Retry-After"] == "7"
    assert [request.status for request in api_proxy.requests] == [status, status, 200]


async def test_a_refusal_without_times_lasts_until_it_is_healed(
    api_proxy: ApiProxy, through: httpx.AsyncClient, configmaps: str
) -> None:
    api_proxy.fail(503)
    assert {(await through.get(configmaps)).status_code for _ in range(5)} == {503}
    api_proxy.heal()
    assert (await through.get(configmaps)).status_code == 200


async def test_a_hanging_server_never_answers(api_proxy: ApiProxy, through: httpx.AsyncClient, configmaps: str) -> None:
    api_proxy.hang(verb="list")
    with pytest.raises(httpx.ReadTimeout):
        await through.get(configmaps, timeout=0.5)
    assert (await through.get("/version")).status_code == 200
    api_proxy.heal()
    assert (await through.get(configmaps)).status_code == 200


async def test_a_watch_brings_events_until_it_is_cut_off(
    api_proxy: ApiProxy, through: httpx.AsyncClient, configmaps: str, kube: Kube
) -> None:
    async with watch(through, configmaps) as events:
        assert (await anext(events))["object"]["metadata"]["name"] == "kube-root-ca.crt"
        await kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new"}})
        assert (await anext(events))["object"]["metadata"]["name"] == "new"
        assert api_proxy.cut_watches() == 1
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(events)
    assert api_proxy.cut_watches() == 0
    assert api_proxy.count(verb="watch") == 1


async def test_an_expired_watch_ends_with_an_error_event(
    api_proxy: ApiProxy, through: httpx.AsyncClient, configmaps: str
) -> None:
    async with watch(through, configmaps) as events:
        await anext(events)
        assert api_proxy.expire_watches() == 1
        last = await anext(events)
        assert (last["type"], last["object"]["code"], last["object"]["reason"]) == ("ERROR", 410, "Expired")
        with pytest.raises(StopAsyncIteration):
            await anext(events)


async def test_a_client_that_hangs_up_ends_its_watch(
    api_proxy: ApiProxy, through: httpx.AsyncClient, configmaps: str
) -> None:
    async with watch(through, configmaps) as events:
        await anext(events)
    async with asyncio.timeout(10):
        while api_proxy.open_watches:  # noqa: ASYNC110 - the server hears of it from its socket
            await asyncio.sleep(0.01)


async def test_kubectl_meets_the_faults_by_the_proxy_s_kubeconfig(api_proxy: ApiProxy, cluster: Cluster) -> None:
    asked = ("get", "namespace", "default", "--output=name", f"--kubeconfig={api_proxy.kubeconfig}")
    assert await asyncio.to_thread(cluster.kubectl, *asked) == "namespace/default\n"
    api_proxy.fail(409, verb="get", path="/namespaces/default$")
    with pytest.raises(ClusterError, match="a test wants it so"):
        await asyncio.to_thread(cluster.kubectl, *asked)
    assert api_proxy.count(verb="get", path="/namespaces/default$", agent="^kubectl") == 2
