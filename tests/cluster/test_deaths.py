"""A dead worker container's jobs run again as soon as the kubelet has told of it (rule 4), and why is kept."""

import time

from agentqueue.client import Client, Job
from agentqueue.model.dead_letter import DeadLetterReason
from tests.support.cluster.faults import Faults
from tests.support.operator import until
from tests.support.scaling_test_bed import ScalingTestBed


async def until_heard(client: Client, job: Job) -> str:
    """Until a heartbeat of the job's worker tells that it is busy; its name."""

    async def is_heard() -> bool:
        worker = (await job.status()).worker
        return any(one.name == worker and one.busy for one in (await client.stats("work")).workers)

    await until(is_heard, timeout=30)
    worker = (await job.status()).worker
    assert worker is not None
    return worker


async def test_a_killed_containers_job_runs_again_at_once(bed: ScalingTestBed, client: Client, faults: Faults) -> None:
    await bed.start(concurrency=1, scaling={"mode": "Fixed", "replicas": 2})
    job = await client.enqueue("work", "once-long")
    worker = await until_heard(client, job)
    killed = time.monotonic()
    await faults.kill_container(bed.kube, worker)
    assert await job.result(timeout=30) == 2
    took = time.monotonic() - killed
    print(f"done again {took:.2f} s after the kill")
    assert took < 6.0  # by its lease alone it would take 8, and up to 10
    assert (await client.stats("work")).counters["crashed"] == 1


async def test_an_oom_kill_is_named_in_the_jobs_history_and_counts_as_a_crash(
    bed: ScalingTestBed, client: Client
) -> None:
    resources = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}}
    await bed.start(concurrency=1, scaling={"mode": "Fixed", "replicas": 2}, resources=resources, retry={"crashes": 2})
    job = await client.enqueue("work", "eat")

    async def is_dead() -> bool:
        return (await job.status()).is_final

    await until(is_dead, timeout=90)
    (letter,) = await client.dead_letters("work")
    assert letter.reason is DeadLetterReason.CRASHED
    print([error.message for error in letter.errors])
    crashes = [error for error in letter.errors if "OOMKilled" in error.message]
    assert len(crashes) == 2


async def test_a_restarted_container_keeps_what_it_claims(bed: ScalingTestBed, client: Client, faults: Faults) -> None:
    await bed.start(concurrency=1, scaling={"mode": "Fixed", "replicas": 1})
    first = await client.enqueue("work", "once-long")
    worker = await until_heard(client, first)
    await faults.kill_container(bed.kube, worker)
    assert await first.result(timeout=60) == 2
    second = await client.enqueue("work", "nap", 12.0)
    assert await until_heard(client, second) == worker
    assert await second.result(timeout=60) == worker
    assert (await second.status()).deliveries == 1
    assert (await client.stats("work")).counters["crashed"] == 1


SPREAD = {
    "spec": {
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"agentqueue.dev/agent": "work"}},
            }
        ]
    }
}


async def test_a_lost_node_proves_nothing_there_the_leases_run_out(
    second_node: str, bed: ScalingTestBed, client: Client, faults: Faults
) -> None:
    await bed.start(concurrency=1, scaling={"mode": "Fixed", "replicas": 2}, podTemplate=SPREAD)
    await bed.until_ready(2)
    node_of = {one["metadata"]["name"]: one["spec"]["nodeName"] for one in await bed.pods()}
    jobs = {await until_heard(client, job): job for job in [await client.enqueue("work", "once-long") for _ in "12"]}
    there = next(name for name, node in node_of.items() if node == second_node)
    victim = jobs.pop(there)
    for job in jobs.values():
        await job.cancel()  # its worker is free for the other
    cut = time.monotonic()
    await faults.cut_off(second_node)
    assert await victim.result(timeout=60) == 2
    took = time.monotonic() - cut
    print(f"done again {took:.1f} s after the cut")
    assert took > 4.0  # nobody took it from a worker that may live
    await faults.reconnect(second_node)

    async def is_back() -> bool:
        workers = (await client.stats("work")).workers
        return any(one.name == there and one.busy == 0 for one in workers)

    await until(is_back, timeout=60)
    status = await victim.status()
    assert (status.result, status.deliveries) == (2, 2)
    assert (await client.stats("work")).counters["crashed"] == 1
