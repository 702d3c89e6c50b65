"""Worker pods follow their queue, and no running job is killed for it. DESIGN section 9, rule 7."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agentqueue.client import Client
from agentqueue.clock import monotonic
from agentqueue_operator.autoscaling.model import ScalingTiming
from tests.support.cluster.kube import has_condition
from tests.support.operator import until
from tests.support.scaling_test_bed import AQ, DEPLOYMENT, ScalingTestBed, stays
from tests.support.servers import RunningServer

IMPORTS_S = 0.8
QUICK = {"minReplicas": 0, "scaleToZeroAfterSeconds": 5}


@pytest.fixture
def scaling_timing() -> ScalingTiming:
    """Shorten the learning time: with a full minute, each test would spend most of its time waiting."""
    return ScalingTiming(learning_s=5.0)


def how_slow() -> float:
    """How many times as long as on two idle processors a worker's imports take here and now; 1 at least."""
    began = monotonic()
    subprocess.run([sys.executable, "-c", "import agentqueue_worker.process"], check=True)
    return max(1.0, (monotonic() - began) / IMPORTS_S)


async def test_a_burst_gets_its_five_pods_in_one_step_and_they_go_when_it_is_done(
    bed: ScalingTestBed, client: Client
) -> None:
    share = {"requests": {"cpu": "200m", "memory": "64Mi"}}  # of a busy machine they would get hardly anything
    await bed.start(concurrency=12, scaling=QUICK, resources=share)
    await bed.until_replicas(0)  # one has registered
    slowness = await asyncio.to_thread(how_slow)
    async with bed.recorded() as recorded:
        enqueued = monotonic()
        jobs = await bed.naps(client, 50, 2.0)
        await asyncio.gather(*(job.result(timeout=60) for job in jobs))
        statuses = [await job.status() for job in jobs]
        await bed.until_replicas(0)
    waits = [
        (one.started_at - one.enqueued_at).total_seconds() for one in statuses if one.started_at and one.enqueued_at
    ]
    assert len(waits) == len(jobs)
    numbers, reaction = [*recorded.values()], [*recorded][1] - enqueued
    print(
        f"five asked for after {reaction:.2f} s, first start after {min(waits):.2f} s, last after {max(waits):.2f} s, "
        f"on a machine {slowness:.1f} times as slow as an idle one; replicas {numbers}"
    )
    assert numbers[:2] == [0, 5]
    assert numbers[1:] == sorted(numbers[1:], reverse=True)
    assert {one.deliveries for one in statuses} == {1}
    assert reaction < 1.0 * slowness
    assert min(waits) < 5.0 * slowness


async def test_a_long_job_survives_while_idle_pods_go(bed: ScalingTestBed, client: Client) -> None:
    await bed.start(concurrency=1, scaling=QUICK)
    long, *short = [*await bed.naps(client, 1, 60.0), *await bed.naps(client, 4, 1.0)]
    await asyncio.gather(*(job.result(timeout=60) for job in short))
    await bed.until_replicas(1, timeout=50)
    status = await long.status()
    assert (str(status.state), status.deliveries) == ("active", 1)
    assert await bed.until_one_pod() == status.worker
    assert await long.result(timeout=90) == status.worker
    assert (await long.status()).deliveries == 1
    await bed.until_replicas(0)


async def test_more_than_a_hundred_jobs_run_at_once_over_the_pods(bed: ScalingTestBed, client: Client) -> None:
    await bed.start(concurrency=30, scaling=QUICK | {"maxReplicas": 4})
    jobs = await bed.naps(client, 120, 15.0)

    async def all_run() -> bool:
        return (await client.stats("work")).busy == 120

    await until(all_run, timeout=60)
    assert len(await bed.pods()) == 4
    workers = {await job.result(timeout=60) for job in jobs}
    assert len(workers) == 4


async def test_a_burst_takes_back_what_was_to_go(bed: ScalingTestBed, client: Client) -> None:
    await bed.start(concurrency=1, scaling=QUICK | {"maxReplicas": 3})
    await bed.naps(client, 2, 20.0)
    await bed.until_ready(2)
    await bed.apply(concurrency=1, scaling=QUICK | {"maxReplicas": 1})  # both work, one is to go

    async def one_drains() -> bool:
        return sum(worker.draining for worker in (await client.stats("work")).workers) == 1

    await until(one_drains, timeout=15)
    await bed.apply(concurrency=1, scaling=QUICK | {"maxReplicas": 3})

    async def none_drains() -> bool:
        return not any(worker.draining for worker in (await client.stats("work")).workers)

    await until(none_drains, timeout=15)
    costs = [one["metadata"].get("annotations", {}) for one in await bed.pods()]
    assert not any("controller.kubernetes.io/pod-deletion-cost" in one for one in costs)
    assert len(costs) == 2


async def test_replicas_hold_while_redis_is_down(bed: ScalingTestBed, client: Client, server: RunningServer) -> None:
    await bed.start(concurrency=1, scaling=QUICK | {"maxReplicas": 3})
    await asyncio.gather(*(job.result(timeout=60) for job in await bed.naps(client, 3, 3.0)))
    before = await bed.replicas()
    assert before > 0
    server.stop()
    await bed.kube.until(AQ, "demo", has_condition("MetricsAvailable", "False"), timeout=40)

    async def holds() -> bool:
        return await bed.replicas() == before

    await stays(holds, seconds=12.0)  # it would have gone to zero after 5
    assert len(await bed.pods()) == before
    server.start()
    await bed.until_replicas(0, timeout=60)


async def test_external_replicas_are_left_alone(bed: ScalingTestBed, client: Client) -> None:
    await bed.apply(concurrency=1, scaling={"mode": "External"})
    await bed.kube.until("deployment", DEPLOYMENT, lambda _: True, what="made")
    await bed.kube.patch("deployment", DEPLOYMENT, {"spec": {"replicas": 2}}, subresource="scale")
    await bed.until_ready(2)
    await bed.naps(client, 50, 1.0)

    async def left_alone() -> bool:
        return await bed.replicas() == 2

    await stays(left_alone, seconds=7.0)


async def test_where_no_node_has_room_no_more_are_asked_for_and_a_condition_says_so(
    bed: ScalingTestBed, client: Client
) -> None:
    large = {"requests": {"cpu": "500", "memory": "64Mi"}}
    await bed.apply(concurrency=1, scaling=QUICK, resources=large)
    await bed.kube.until("deployment", DEPLOYMENT, lambda _: True, what="made")
    await bed.naps(client, 1, 0.1)
    await bed.until_replicas(1)
    await bed.kube.until(AQ, "demo", has_condition("ScalingActive", "False", reason="Unschedulable"), timeout=30)
    await bed.naps(client, 50, 0.1)

    async def waits() -> bool:
        return await bed.replicas() == 1

    await stays(waits, seconds=7.0)


async def test_workers_that_crash_at_their_start_bring_no_more_of_them(bed: ScalingTestBed, client: Client) -> None:
    await bed.apply(concurrency=1, scaling=QUICK, handler="no_such_module:agent")
    await bed.kube.until("deployment", DEPLOYMENT, lambda _: True, what="made")

    def crashed(times: int) -> Callable[[], Awaitable[bool]]:
        async def is_so() -> bool:
            containers = [one for pod in await bed.pods() for one in pod["status"].get("containerStatuses", ())]
            return any(one["restartCount"] >= times for one in containers)

        return is_so

    async with bed.recorded() as recorded:
        await bed.naps(client, 1, 0.1)
        await until(crashed(1), timeout=60)
        await bed.naps(client, 5, 0.1)
        await until(crashed(3), timeout=90)  # between two crashes it runs for a moment
    assert [*recorded.values()][-1] == 1
    assert max(recorded.values()) == 1


async def test_nothing_goes_during_a_rollout(bed: ScalingTestBed) -> None:
    await bed.start(scaling={"mode": "Fixed", "replicas": 3})
    fewer: dict[str, Any] = {"mode": "Fixed", "replicas": 1}
    await bed.apply(scaling=fewer, image="localhost/no-such-image:1")

    async def two_templates() -> bool:
        return len({one["metadata"]["labels"]["pod-template-hash"] for one in await bed.pods()}) == 2

    await until(two_templates, timeout=30)

    async def holds() -> bool:
        return await bed.replicas() == 3

    await stays(holds, seconds=8.0)
    await bed.apply(scaling=fewer)
    await bed.until_replicas(1, timeout=60)


async def test_a_fixed_number_goes_down_without_a_busy_one(bed: ScalingTestBed, client: Client) -> None:
    await bed.start(concurrency=1, scaling={"mode": "Fixed", "replicas": 3})
    (job,) = await bed.naps(client, 1, 15.0)

    async def runs() -> bool:
        return str((await job.status()).state) == "active"

    await until(runs, timeout=20)
    await bed.apply(concurrency=1, scaling={"mode": "Fixed", "replicas": 1})
    await bed.until_replicas(1, timeout=30)
    worker = (await job.status()).worker
    assert await bed.until_one_pod() == worker
    assert await job.result(timeout=60) == worker
