"""What goes away: jobs whose workers are gone run again at zero, and a deleted AgentQueue ends quietly."""

import asyncio
from typing import Any

import structlog

from agentqueue.client import Client
from agentqueue.clock import monotonic
from agentqueue_operator.controller.ports import Cluster
from agentqueue_operator.resources.kinds import Object, QueueRef
from agentqueue_operator.resources.render import Images
from tests.support.cluster.faults import Faults
from tests.support.cluster.kube import Kube
from tests.support.cluster.layout import NODES
from tests.support.operator import (
    Operator,
    agent,
    agent_queue,
    client_of,
    code,
    install_crd,
    is_ready,
    owned,
    run_operator,
    until,
)
from tests.support.scaling_test_bed import AQ, CODE, ScalingTestBed

LEASE_S = 8.0
AGAIN_S = 15.0
"""After the end of its lease a job runs again within so long: it is reaped, and a pod starts."""
AT_ZERO = {"minReplicas": 0, "maxReplicas": 3}


async def busy(client: Client, count: int) -> None:
    """Wait until the heartbeats report `count` running jobs."""

    async def is_busy() -> bool:
        return (await client.stats("work")).busy == count

    await until(is_busy, timeout=60)


async def test_jobs_of_a_destroyed_node_run_again_on_another(
    second_node: str, bed: ScalingTestBed, client: Client, faults: Faults
) -> None:
    await faults.cordon(NODES[0])
    try:
        # The slots are many more than the jobs, so that the forecast of arrivals asks for no second pod.
        await bed.start(concurrency=10, scaling=AT_ZERO)
        jobs = [await client.enqueue("work", "once-long") for _ in range(2)]
        await busy(client, 2)
    finally:
        await faults.uncordon(NODES[0])
    (pod,) = await bed.pods()
    assert pod["spec"]["nodeName"] == second_node
    await faults.crash(second_node)
    crashed = monotonic()
    assert await asyncio.gather(*(job.result(timeout=90) for job in jobs)) == [2, 2]
    took = monotonic() - crashed
    print(f"both done again {took:.1f} s after the crash")
    assert took < LEASE_S + AGAIN_S
    assert (await client.stats("work")).counters["crashed"] == 2


async def test_a_job_of_a_deleted_agentqueue_runs_again_when_it_is_applied_again(
    operator: Operator, kube: Kube
) -> None:
    """Redis goes at the same time as the worker, which so can't hand its job back."""
    work = agent("work", scaling=AT_ZERO)
    await kube.apply(code(CODE), agent_queue(agents=[work]))
    await kube.until(AQ, "demo", is_ready, timeout=90)
    async with client_of(kube) as client:
        await client.enqueue("work", "once-long", id="kept")
        await busy(client, 1)
    await kube.delete(AQ, "demo")

    async def are_gone() -> bool:
        return not await owned(kube, "pod")

    await until(are_gone, timeout=90)
    await kube.apply(agent_queue(agents=[work]))
    await kube.until(AQ, "demo", is_ready, timeout=90)
    began = monotonic()
    async with client_of(kube) as client:
        assert await client.job("kept").result(timeout=60) == 2
    took = monotonic() - began
    print(f"done {took:.1f} s after Redis was back")
    assert took < AGAIN_S
    assert not operator.reconciles.errors


class DeletedInThePass:
    """The API server, but for one thing: the AgentQueue is deleted just before its status is written first."""

    def __init__(self, inner: Cluster, kube: Kube) -> None:
        self._inner = inner
        self._kube = kube
        self.was_asked = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def patch_status(self, ref: QueueRef, status: Object, *, uid: str) -> None:
        await self._kube.delete(AQ, ref.name)
        self.was_asked.set()
        await self._inner.patch_status(ref, status, uid=uid)


async def test_an_agentqueue_that_is_deleted_during_its_pass_ends_quietly(kube: Kube, aq_images: Images) -> None:
    await install_crd(kube)
    made: list[DeletedInThePass] = []

    def wrap(inner: Cluster) -> Any:
        made.append(DeletedInThePass(inner, kube))
        return made[0]

    with structlog.testing.capture_logs() as logs:
        async with run_operator(kube.cluster.kubeconfig, kube.namespace, aq_images, wrap=wrap) as operator:
            await kube.apply(code(), agent_queue())
            await asyncio.wait_for(made[0].was_asked.wait(), 30)
            await until(lambda: len(operator.work_queue) == 0 and bool(operator.reconciles.seconds))
            assert operator.reconciles.errors == []
    assert [line for line in logs if line["log_level"] in ("warning", "error")] == []
