"""AgentQueue's autoscaler beside the real KEDA on a real cluster: `python -m benchmarks.scaling.race`. Not part of CI.

Both scale the same agent on the same cluster, one after the other, under a load of the simulator (`loads.py`) with the
same arrivals and service times. AgentQueue is this source tree's operator with its defaults. KEDA reads the number of
waiting and running jobs from this program (its `metrics-api` scaler), with the settings that won in the simulator: a
target of one job per pod, a poll every 5 s, and a cooldown and a stabilisation window of 60 s.

What is needed:
- Linux and root, as for `make test-cluster`. The cluster is the one of `make cluster-up`, or a new one.
- For the side `keda`: KEDA in that cluster (its CRDs, its operator and its metrics server), such as from the manifests
  of its release. The program says so if the CRD is missing. Nodes of `make cluster-up` pull no images: load KEDA's two
  images into them with `tests.support.cluster.own.OwnCluster.load`.
- Time: a load of 20 minutes takes about 25 minutes per side.

Handlers and a watch of the pods record what happens; neither Redis nor an autoscaler is asked.
"""

import argparse
import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, fields, replace
from typing import Any, Final

from benchmarks.operator.__main__ import a_cluster
from benchmarks.scaling.loads import LOADS
from benchmarks.scaling.race_record import Figures, Race

from agentqueue.client import Client
from agentqueue.clock import monotonic
from agentqueue_operator.resources.render import Images, worker_name
from tests.support.cluster import images
from tests.support.cluster.kube import ApiError, Cluster, Kube, Object
from tests.support.operator import agent, agent_queue, code, install_crd, is_ready, run_operator, until
from tests.support.removals import CODE
from tests.support.servers import run_server

SIDES: Final = ("agentqueue", "keda")
AGENT: Final = "work"
QUEUE: Final = "race"
GRACE_S: Final = 30
PODS_END_S: Final = 180.0
"""Seconds after the last job within which both sides scale to zero. The pods of that time count."""
MARGIN_S: Final = 300.0
"""Seconds after the last arrival within which all jobs must have ended."""


def scaled_object(url: str, most: int) -> Object:
    """Return KEDA's resource for the agent's Deployment."""
    trigger = {"type": "metrics-api", "metadata": {"url": url, "valueLocation": "jobs", "targetValue": "1"}}
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 60}, "scaleUp": {"stabilizationWindowSeconds": 0}}
    spec = {
        "scaleTargetRef": {"name": worker_name(QUEUE, AGENT)},
        "minReplicaCount": 0,
        "maxReplicaCount": most,
        "pollingInterval": 5,
        "cooldownPeriod": 60,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}},
        "triggers": [trigger],
    }
    return {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": AGENT}, "spec": spec}


@contextlib.asynccontextmanager
async def serving_jobs(client: Client, host: str) -> AsyncIterator[str]:
    """Serve the number of waiting and running jobs as JSON over HTTP. Yields the URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        stats = await client.stats(AGENT)
        body = json.dumps({"jobs": stats.waiting + stats.active}).encode()
        head = (
            "HTTP/1.1 200 OK",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Connection: close",
        )
        writer.write("\r\n".join((*head, "", "")).encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, host, 0) as server:
        yield f"http://{host}:{server.sockets[0].getsockname()[1]}/"


async def send(client: Client, race: Race, load: str, seed: int, seconds: float) -> None:
    """Enqueue the jobs of a load when they arrive."""
    chosen = next(it for it in LOADS if it.name == load)
    setting = replace(chosen.setting, horizon=seconds)
    before = replace(chosen.before, setting=setting) if chosen.before else None
    began = monotonic()
    for job in replace(chosen, setting=setting, before=before).jobs(seed):
        await asyncio.sleep(max(0.0, began + job.arrived - monotonic()))
        job_id = secrets.token_hex(8)
        race.sent[job_id] = monotonic()
        await client.enqueue(AGENT, "recorded", job.service, id=job_id)


async def run_side(cluster: Cluster, side: str, given: argparse.Namespace, worker: str) -> Figures:
    """Run the load on one side, in a namespace and on a Redis of its own."""
    race = Race()
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(run_server("valkey", host=cluster.host, requirepass=secrets.token_hex(8)))
        client = await stack.enter_async_context(Client(server.url))
        port = await stack.enter_async_context(race.listening(cluster.host))
        kube = await stack.enter_async_context(a_namespace(cluster))
        await install_crd(kube)
        if side == "keda":
            await require_keda(kube)
        namespace_images = Images(worker=worker, redis="none", console="none")
        await stack.enter_async_context(run_operator(cluster.kubeconfig, kube.namespace, namespace_images))
        watching = asyncio.create_task(watch_pods(kube, race))
        stack.callback(watching.cancel)
        await kube.apply(*objects(side, f"{server.url}/0", cluster.host, port, given.pods))
        await kube.until("agentqueue", QUEUE, is_ready, timeout=120)
        if side == "keda":
            url = await stack.enter_async_context(serving_jobs(client, cluster.host))
            await kube.apply(scaled_object(url, given.pods))
        await send(client, race, given.load, given.seed, given.seconds)
        await wait_until(lambda: len(race.ended) == len(race.sent), MARGIN_S)
        await wait_until(lambda: race.present == 0, PODS_END_S)
        return race.figures(monotonic())


def objects(side: str, url: str, host: str, port: int, most: int) -> Sequence[Object]:
    """Return the agent, its code and its Redis for one side."""
    scaling: dict[str, Any] = {"minReplicas": 0, "maxReplicas": most} if side == "agentqueue" else {"mode": "External"}
    recorder = [{"name": "RECORDER_HOST", "value": host}, {"name": "RECORDER_PORT", "value": str(port)}]
    one = agent(AGENT, concurrency=1, scaling=scaling, env=recorder, terminationGracePeriodSeconds=GRACE_S)
    redis = {"external": {"urlSecretRef": {"name": "redis", "key": "url"}}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "redis"}, "stringData": {"url": url}}
    return secret, code(CODE), agent_queue(QUEUE, agents=[one], redis=redis)


async def watch_pods(kube: Kube, race: Race) -> None:
    """Record the pods of the agent, until cancelled."""
    async for event in kube.watch("pod", labelSelector=f"agentqueue.dev/agent={AGENT}"):
        race.see(event["type"], event["object"]["metadata"]["name"])


async def require_keda(kube: Kube) -> None:
    """Raise SystemExit if the cluster has no KEDA."""
    try:
        await kube.request("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/scaledobjects.keda.sh")
    except ApiError as error:
        if error.status != 404:
            raise
        raise SystemExit(
            "KEDA is not installed in this cluster (no CRD scaledobjects.keda.sh): apply the manifests of a release of "
            "KEDA, or run `--sides agentqueue`"
        ) from None


@contextlib.asynccontextmanager
async def a_namespace(cluster: Cluster) -> AsyncIterator[Kube]:
    """Make a namespace, and delete it afterwards."""
    name = f"race-{secrets.token_hex(3)}"
    async with Kube(cluster, name) as kube:
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        try:
            yield kube
        finally:
            await kube.delete("namespace", name)


async def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    """Wait until a condition holds, at most for some seconds: the figures show that it did not."""
    with contextlib.suppress(TimeoutError):
        await until(holds, timeout=seconds)


def table(found: dict[str, Figures]) -> str:
    """Return the figures as a table."""
    rows = {field.name: [getattr(figures, field.name) for figures in found.values()] for field in fields(Figures)}
    head = f"{'':12}" + "".join(f"{side:>14}" for side in found)
    return "\n".join([head, *(f"{name:12}" + "".join(f"{it:>14,.6g}" for it in row) for name, row in rows.items())])


async def main(given: argparse.Namespace) -> None:
    """Run the sides one after the other, and print their figures."""
    found: dict[str, Figures] = {}
    with a_cluster() as cluster:
        cluster.load(images.build(images.WORKER))
        for side in given.sides.split(","):
            found[side] = await run_side(cluster, side, given, images.WORKER.name)
            print(json.dumps({side: asdict(found[side])}), flush=True)
    print(table(found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--load", default="longer-jobs", choices=[it.name for it in LOADS])
    parser.add_argument(
        "--seconds", type=float, default=1200.0, help="length of the load; loads repeat within 40 minutes"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pods", type=int, default=50, help="most pods")
    asyncio.run(main(parser.parse_args()))
