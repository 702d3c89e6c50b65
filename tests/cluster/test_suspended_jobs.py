"""A hundred approvals wait on a real cluster with no pod at all, until signals wake them. Rules 13 and 14."""

import asyncio
import sys
from pathlib import Path

import pytest

from agentqueue.client import Client
from agentqueue_operator.autoscaling.model import ScalingTiming
from tests.support.cluster.kube import Cluster
from tests.support.operator import until
from tests.support.removals import CODE, Removals
from tests.support.scaling_test_bed import AGENT, AQ, ScalingTestBed, stays
from tests.support.servers import RunningServer

APPROVALS = 100
PROGRAM = (
    CODE
    + """

@agent.job(timeout=600)
async def approve(ctx: Context, number: int) -> str:
    await ctx.step("ask", record_event, "start", f"{ctx.id}:ask")
    answer = await ctx.wait_for("approval", timeout=86_400)
    await ctx.step("act", record_event, "start", f"{ctx.id}:act")
    return f"{number} approved by {answer.sender}"
"""
)
"""The steps report to the test, which counts how often each has run."""


@pytest.fixture
def scaling_timing() -> ScalingTiming:
    """Shorten the learning time, during which no pod is removed."""
    return ScalingTiming(learning_s=2.0)


async def agentqueue(*words: str) -> str:
    """Return what the command line prints."""
    program = Path(sys.executable).with_name("agentqueue")
    process = await asyncio.create_subprocess_exec(program, *words, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def test_a_hundred_approvals_wait_without_a_pod_and_signals_wake_them(
    bed: ScalingTestBed, cluster: Cluster, client: Client, server: RunningServer
) -> None:
    steps = Removals()
    async with steps.listening(cluster.host) as port:
        recorder = [{"name": "RECORDER_HOST", "value": cluster.host}, {"name": "RECORDER_PORT", "value": str(port)}]
        scaling = {"minReplicas": 0, "maxReplicas": 1, "scaleToZeroAfterSeconds": 5}
        await bed.start(program=PROGRAM, concurrency=25, scaling=scaling, env=recorder)
        jobs = list(
            await client.enqueue_many(
                [{"queue": AGENT, "name": "approve", "data": number} for number in range(APPROVALS)]
            )
        )

        async def all_wait() -> bool:
            return (await client.stats(AGENT)).suspended_by_kind.get("signal") == APPROVALS

        await until(all_wait, timeout=60)
        await bed.until_replicas(0)

        async def no_pod() -> bool:
            return not await bed.kube.list("pod", labels=f"agentqueue.dev/agent={AGENT}")

        await until(no_pod, timeout=40)
        await bed.kube.until(AQ, "demo", lambda found: found["status"].get("pods") == "0/0", what="no pod is shown")
        header, row = (line.split() for line in (await bed.kube.kubectl("get", "aq")).splitlines())
        shown = dict(zip(header, row, strict=True))
        assert (shown["PODS"], shown["WAITING"], shown["SUSPENDED"]) == ("0/0", "0", str(APPROVALS))
        explained = await agentqueue("explain", AGENT, jobs[0].id, "--redis", server.url)
        assert "the signal approval" in explained
        await stays(no_pod, seconds=3)

        for job in jobs:
            await client.signal(job.id, "approval", {"approved": True}, sender="ana")
        results = await asyncio.gather(*(job.result(timeout=60) for job in jobs))
    assert results == [f"{number} approved by ana" for number in range(APPROVALS)]
    assert steps.starts == {f"{job.id}:{step}": 1 for job in jobs for step in ("ask", "act")}
    statuses = [await job.status() for job in jobs]
    assert {(status.attempts, status.deliveries) for status in statuses} == {(1, 2)}
