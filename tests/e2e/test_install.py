"""A release's life on a real cluster, with the real images: install, work, upgrade under load, uninstall."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.conftest import CRD
from tests.support.approvals import approving
from tests.support.cluster.kube import Kube, is_ready
from tests.support.cluster.program import ROOT
from tests.support.installs import Helm, local_images
from tests.support.load import Load, all_final
from tests.support.operator import agent, agent_queue, client_of, code
from tests.support.waiting import until

PREVIOUS = Path(__file__).parent / "charts" / "agentqueue-0.0.1.tgz"
"""The chart before this one: with one field less in the definition."""
SAMPLE = ROOT / "manifests" / "samples" / "agentqueue.yaml"
NEW_FIELD = "maxPodsPerMinute"
REQUESTS = [json.loads(line) for line in (ROOT / "examples" / "travel" / "requests.jsonl").read_text().splitlines()]
EXPENSIVE = next(one for one in REQUESTS if one["requestId"] == "R-033")
"""Its proposal waits for an approval."""

Pods = Mapping[str, tuple[str, int]]


async def install(helm: Helm, system: str, chart: str | Path = "charts/agentqueue", *options: str) -> str:
    """Install or upgrade a release named agentqueue, and wait until it is there."""
    words = ("upgrade", "--install", "agentqueue", chart, "--namespace", system, "--wait", "--timeout", "3m")
    return await helm(*words, *local_images(), *options)


async def worker_pods(kube: Kube, queue: str) -> Pods:
    """uid and restarts of an AgentQueue's worker pods."""
    found = await kube.list("pod", labels=f"agentqueue.dev/queue={queue},agentqueue.dev/component=worker")
    return {
        pod["metadata"]["name"]: (pod["metadata"]["uid"], sum(one["restartCount"] for one in _containers(pod)))
        for pod in found
    }


def _containers(pod: Any) -> Sequence[Any]:
    found: Sequence[Any] = pod["status"].get("containerStatuses", [])
    return found


async def operator_pods(kube: Kube, system: str) -> set[str]:
    """The operator's pods' names."""
    found = await kube.request(
        "GET", f"/api/v1/namespaces/{system}/pods", labelSelector="app.kubernetes.io/component=operator"
    )
    return {pod["metadata"]["name"] for pod in found["items"]}


def gone(kube: Kube, system: str, pods: set[str]) -> Callable[[], Awaitable[bool]]:
    """Whether none of the operator's pods by these names is left: Helm does not wait for those that end."""

    async def are_gone() -> bool:
        return not pods & await operator_pods(kube, system)

    return are_gone


async def knows(kube: Kube, field: str) -> bool:
    """Whether the definition has a field of that name."""
    return field in json.dumps(await kube.get("crd", CRD))


async def test_sample_s_jobs_are_done_and_helm_test_passes(
    all_images: None, helm: Helm, system: str, kube: Kube
) -> None:
    notes = await install(helm, system)
    assert f"helm test agentqueue --namespace {system}" in notes
    await kube.apply(*yaml.safe_load_all(SAMPLE.read_text()))
    await kube.until("agentqueue", "travel", is_ready, timeout=120)
    async with client_of(kube, "travel") as client:
        requests = [*REQUESTS[:5], EXPENSIVE]
        trips = [await client.enqueue("orchestrator", "plan-trip", one, id=one["requestId"]) for one in requests]
        states = await all_final(client, [trip.id for trip in trips], timeout=90)
        assert set(states.values()) == {"completed"}
        async with approving(client):
            await until_idle(kube, client)
        assert len(await client.jobs("communication", "completed")) == len(requests)
    assert "Phase:          Succeeded" in await helm("test", "agentqueue", "--namespace", system, "--timeout", "4m")
    left = await kube.request("GET", f"/api/v1/namespaces/{system}/persistentvolumeclaims")
    assert left["items"] == []


async def until_idle(kube: Kube, client: Any) -> None:
    """Until no queue has a job that is not final: those that jobs sent are done too."""
    async with asyncio.timeout(90):
        while any(one.waiting + one.active + one.delayed + one.suspended for one in await client.stats()):  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def test_upgrade_under_load_restarts_no_worker_and_uninstall_leaves_everything(
    all_images: None, helm: Helm, system: str, kube: Kube
) -> None:
    await install(helm, system, PREVIOUS)
    assert not await knows(kube, NEW_FIELD)
    fixed = agent("greetings", scaling={"mode": "Fixed", "replicas": 2})
    await kube.apply(code(), agent_queue(agents=[fixed]))
    await kube.until("agentqueue", "demo", is_ready, timeout=120)
    before, old = await worker_pods(kube, "demo"), await operator_pods(kube, system)
    async with client_of(kube) as client:
        load = Load(client, "greetings", "nap", every=0.25, data=1.5)
        enqueueing = asyncio.create_task(load.run())
        await install(helm, system)
        load.end()
        await enqueueing
        assert await knows(kube, NEW_FIELD)
        await until(gone(kube, system, old), what="the end of the old operator's pods")
        states = await all_final(client, [job.id for job in load.jobs], timeout=90)
        assert set(states.values()) == {"completed"}
        assert {(await job.status()).deliveries for job in load.jobs} == {1}
        assert load.refused == 0
    await changed_by_the_new_operator(kube)
    assert await worker_pods(kube, "demo") == before
    await helm("uninstall", "agentqueue", "--namespace", system, "--wait")
    await what_is_left_goes_on(kube, before)
    await install(helm, system)
    await kube.patch(
        "agentqueue", "demo", {"spec": {"agents": [fixed | {"scaling": {"mode": "Fixed", "replicas": 1}}]}}
    )
    await until_workers(kube, 1)


async def changed_by_the_new_operator(kube: Kube) -> None:
    """It leads, and looks after the AgentQueue: a label that somebody changes is put back."""
    (deployment,) = await kube.list("deployment", labels="agentqueue.dev/component=worker")
    name, label = deployment["metadata"]["name"], "app.kubernetes.io/name"
    await kube.patch("deployment", name, {"metadata": {"labels": {label: "changed"}}})
    await kube.until(
        "deployment", name, lambda found: found["metadata"]["labels"][label] == "agentqueue", what="put back"
    )


async def what_is_left_goes_on(kube: Kube, before: Pods) -> None:
    """Without an operator: definition, AgentQueue, Redis, workers, and jobs are done."""
    assert is_ready(await kube.get("agentqueue", "demo"))
    async with client_of(kube) as client:
        job = await client.enqueue("greetings", "greet", "you", id="after")
        assert await job.result(timeout=30) == "Hello you"
        assert (await client.job("load-0").status()).state == "completed"
    assert await worker_pods(kube, "demo") == before


async def until_workers(kube: Kube, count: int) -> None:
    """Until there are so many worker pods."""
    async with asyncio.timeout(60):
        while len(await worker_pods(kube, "demo")) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
