"""Under a load that rises and falls, no scale-in removes a pod that runs a job: seen from outside of Redis.

By hand, for ten minutes: `AGENTQUEUE_SCALE_IN_S=600 pytest -s tests/cluster/test_scale_in.py`.
"""

import asyncio
import os

import pytest

from agentqueue.client import Client
from agentqueue_operator.domain import scaling
from tests.support.cluster.kube import Cluster
from tests.support.field import AGENT, AQ, Field
from tests.support.operator import agent, agent_queue, code, is_ready
from tests.support.removals import CODE, Removals, waves

SECONDS = float(os.environ.get("AGENTQUEUE_SCALE_IN_S", "45"))


@pytest.mark.timeout(SECONDS + 240)
async def test_no_busy_pod_is_removed(
    field: Field, cluster: Cluster, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "LEARNING_S", 5.0)
    removals = Removals()
    async with removals.listening(cluster.host) as port:
        recorder = [
            {"name": "RECORDER_HOST", "value": cluster.host},
            {"name": "RECORDER_PORT", "value": str(port)},
        ]
        await field.start(concurrency=1)
        await field.kube.apply(code(CODE))
        redis = {"external": {"urlSecretRef": {"name": "redis", "key": "url"}}}
        scaled = {"minReplicas": 0, "maxReplicas": 8, "targetWaitSeconds": 5, "scaleToZeroAfterSeconds": 10}
        one = agent(AGENT, concurrency=1, scaling=scaled, env=recorder, terminationGracePeriodSeconds=30)
        await field.kube.apply(agent_queue(agents=[one], redis=redis))
        await field.kube.until(AQ, "demo", is_ready, timeout=60)
        watching = asyncio.create_task(removals.watch(field.kube, f"agentqueue.dev/agent={AGENT}"))
        try:
            count = await waves(client, SECONDS)
            await field.until_replicas(0, timeout=120)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    print(
        f"{count} jobs in {SECONDS:.0f} s, {len(removals.removed)} pods removed, {len(removals.busy)} of them busy; "
        f"{len(removals.again)} jobs started more than once"
    )
    assert removals.busy == []
    assert removals.again == []
    assert len(removals.ends) == count
    assert len(removals.removed) >= SECONDS / 15
