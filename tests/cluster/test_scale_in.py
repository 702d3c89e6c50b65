"""Under a steady load no scale-in removes a pod that runs a job: seen from outside of Redis.

The greatest number of pods goes down and up again all the time, so that workers are to go while they work.

By hand, for ten minutes: `AGENTQUEUE_SCALE_IN_S=600 pytest -s tests/cluster/test_scale_in.py`.
"""

import asyncio
import itertools
import os

import pytest

from agentqueue.client import Client
from agentqueue_operator.autoscaling.model import ScalingTiming
from tests.support.cluster.kube import Cluster
from tests.support.operator import agent, agent_queue, code, is_ready
from tests.support.removals import CODE, Removals, steady
from tests.support.scaling_test_bed import AGENT, AQ, ScalingTestBed

SECONDS = float(os.environ.get("AGENTQUEUE_SCALE_IN_S", "45"))
MOST, LEAST = 6, 2
HOLD_S = 10.0
"""For how long each of them is the greatest number of pods allowed."""


@pytest.fixture
def scaling_timing() -> ScalingTiming:
    """Shorten the learning time: with a full minute, few pods would be removed."""
    return ScalingTiming(learning_s=5.0)


@pytest.mark.timeout(SECONDS + 240)
async def test_no_busy_pod_is_removed(bed: ScalingTestBed, cluster: Cluster, client: Client) -> None:
    removals = Removals()
    async with removals.listening(cluster.host) as port:
        recorder = [
            {"name": "RECORDER_HOST", "value": cluster.host},
            {"name": "RECORDER_PORT", "value": str(port)},
        ]
        await bed.start(concurrency=1)
        await bed.kube.apply(code(CODE))
        redis = {"external": {"urlSecretRef": {"name": "redis", "key": "url"}}}

        async def allow(pods: int) -> None:
            scaled = {"minReplicas": 0, "maxReplicas": pods, "targetWaitSeconds": 5, "scaleToZeroAfterSeconds": 5}
            one = agent(AGENT, concurrency=1, scaling=scaled, env=recorder, terminationGracePeriodSeconds=30)
            await bed.kube.apply(agent_queue(agents=[one], redis=redis))

        async def alternate() -> None:
            for pods in itertools.cycle((MOST, LEAST)):
                await allow(pods)
                await asyncio.sleep(HOLD_S)

        await allow(MOST)
        await bed.kube.until(AQ, "demo", is_ready, timeout=60)
        background = [
            asyncio.create_task(removals.watch(bed.kube, f"agentqueue.dev/agent={AGENT}")),
            asyncio.create_task(alternate()),
        ]
        try:
            count = await steady(client, SECONDS)
            await bed.until_replicas(0, timeout=180)
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
    print(
        f"{count} jobs in {SECONDS:.0f} s, {len(removals.removed)} pods removed, {len(removals.busy)} of them busy; "
        f"{len(removals.again)} jobs started more than once"
    )
    assert removals.busy == []
    assert removals.again == []
    assert len(removals.ends) == count
    assert len(removals.removed) >= SECONDS / 15
