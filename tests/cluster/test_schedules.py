"""Schedules of agents that are at zero, and the pod that each new version starts until it has registered.

The size of the proof is in the environment: AGENTQUEUE_TICKS (number of ticks) and AGENTQUEUE_TICK_S (period in
seconds, a divisor of 60).
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from agentqueue.client import Client
from agentqueue.clock import monotonic, now_ms
from agentqueue_operator.autoscaling.model import ScalingTiming
from agentqueue_operator.controller.status.reasons import Reason
from agentqueue_operator.resources.render import Images
from tests.support.cluster.kube import Cluster, has_condition
from tests.support.operator import Operator, code, condition, is_ready, run_operator, until
from tests.support.scaling_test_bed import AGENT, AQ, CODE, DEPLOYMENT, ScalingTestBed

TICKS = int(os.environ.get("AGENTQUEUE_TICKS", "3"))
PERIOD_S = int(os.environ.get("AGENTQUEUE_TICK_S", "15"))
AT_ZERO = {"minReplicas": 0, "maxReplicas": 2, "scaleToZeroAfterSeconds": 1}


@pytest.fixture
def scaling_timing() -> ScalingTiming:
    """Shorten the learning time, in which no pod goes."""
    return ScalingTiming(learning_s=2.0)


@dataclass(frozen=True)
class Run:
    """A tick that has run."""

    schedule: str
    due_ms: int
    late_s: float
    deliveries: int


async def runs_in(client: Client) -> Sequence[Run]:
    """Return the ticks that have run, by their due times."""
    found = []
    for job in await client.jobs(AGENT, "completed", limit=100):
        _, _, name, due = job.id.split(":")
        assert job.started_at is not None
        found.append(Run(name, int(due), job.started_at.timestamp() - int(due) / 1000, job.deliveries))
    return sorted(found, key=lambda run: run.due_ms)


def schedule(name: str, period_s: int, **given: Any) -> dict[str, Any]:
    """Return a schedule of a short job."""
    return {"name": name, "cron": f"*/{period_s} * * * * *", "job": "nap", "data": 0.1, **given}


@pytest.mark.timeout(180 + TICKS * (PERIOD_S + 5))
async def test_each_tick_runs_once_and_about_in_time_with_no_pod_between_them(
    bed: ScalingTestBed, client: Client
) -> None:
    await bed.start(concurrency=1, scaling=AT_ZERO)
    await bed.until_replicas(0)
    before = await bed.kube.get("deployment", DEPLOYMENT)
    async with bed.recorded() as recorded:
        await bed.apply(concurrency=1, scaling=AT_ZERO, schedules=[schedule("often", PERIOD_S)])

        async def all_ran() -> bool:
            return len(await runs_in(client)) >= TICKS

        await until(all_ran, timeout=90 + TICKS * PERIOD_S)
        await bed.until_replicas(0)
        await bed.apply(concurrency=1, scaling=AT_ZERO)
    ran = (await runs_in(client))[:TICKS]
    steps, late_s = [*recorded.values()], [round(run.late_s, 2) for run in ran]
    print(f"{TICKS} ticks, {PERIOD_S} s apart, started {late_s} s after they were due; replicas {steps}")
    assert [run.due_ms - ran[0].due_ms for run in ran] == [number * PERIOD_S * 1000 for number in range(TICKS)]
    assert {run.deliveries for run in ran} == {1}
    assert max(late_s) < PERIOD_S
    assert steps[: 2 * TICKS + 1] == [0, 1] * TICKS + [0]
    after = await bed.kube.get("deployment", DEPLOYMENT)
    assert after["spec"]["template"] == before["spec"]["template"]


@pytest.mark.timeout(240)
async def test_ticks_that_were_missed_without_an_operator_run_as_their_schedule_says(
    bed: ScalingTestBed, client: Client, operator: Operator, cluster: Cluster, aq_images: Images
) -> None:
    period_s, timing = 5, ScalingTiming(learning_s=2.0)
    schedules = [schedule(name, period_s, missed=name) for name in ("skip", "one", "all")]
    await bed.start(scaling=AT_ZERO, schedules=schedules)

    async def each_ran() -> bool:
        return {run.schedule for run in await runs_in(client)} == {"skip", "one", "all"}

    async def no_pod() -> bool:
        return await bed.pods() == []

    await until(each_ran, timeout=60)
    await operator.kill()
    await bed.kube.patch("deployment", DEPLOYMENT, {"spec": {"replicas": 0}}, subresource="scale")
    await until(no_pod, timeout=60)
    gone_ms = now_ms()
    await asyncio.sleep(3.5 * period_s)  # three ticks become due
    back_ms = now_ms()
    async with run_operator(cluster.kubeconfig, bed.kube.namespace, aq_images, timing=timing):

        async def all_ran() -> bool:
            return len([run for run in await runs_in(client) if run.due_ms > back_ms]) >= 3

        await until(all_ran, timeout=60)
    ran = await runs_in(client)
    missed = {
        name: [run for run in ran if run.schedule == name and gone_ms < run.due_ms <= back_ms]
        for name in ("skip", "one", "all")
    }
    print({name: [(run.due_ms, round(run.late_s, 1)) for run in runs] for name, runs in missed.items()})
    first = gone_ms - gone_ms % (period_s * 1000) + period_s * 1000
    due = [*range(first, back_ms + 1, period_s * 1000)]
    assert len(due) >= 3
    assert [run.due_ms for run in missed["all"]] == due
    assert len([run for run in ran if run.schedule == "one" and gone_ms < run.due_ms <= back_ms + 5_000]) == 1
    assert all(run.late_s <= period_s / 2 + 1 for run in missed["skip"])
    assert len({(run.schedule, run.due_ms) for run in ran}) == len(ran)


async def test_code_that_cannot_be_imported_shows_without_any_job_and_a_good_version_registers(
    bed: ScalingTestBed, client: Client
) -> None:
    await bed.apply(concurrency=1, scaling=AT_ZERO)
    await bed.kube.apply(code("import no_such_library\n" + CODE))
    began = monotonic()
    failed = has_condition("Ready", "False", reason=str(Reason.HANDLER_NOT_IMPORTED))
    found = await bed.kube.until(AQ, "demo", failed, timeout=60)
    print(f"Ready was False after {monotonic() - began:.1f} s: {condition(found, 'Ready')['message']}")
    assert "No module named 'no_such_library'" in condition(found, "Ready")["message"]
    assert len(await bed.pods()) <= 2  # a pod of the good version may have been made before
    assert await bed.replicas() == 1
    await bed.kube.apply(code(CODE))
    await bed.kube.until(AQ, "demo", is_ready, timeout=90)
    await bed.until_replicas(0)
    await bed.kube.until(AQ, "demo", is_ready)
    assert (await client.stats(AGENT)).waiting == 0
