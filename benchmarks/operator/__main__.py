"""The operator with many AgentQueues: memory, processor time and writes at rest, and how fast it reacts.

`python -m benchmarks.operator [--queues N] [--agents N] [--rest SECONDS] [--changes N]`, or `make bench-operator`. One
operator process against a real API server without nodes to run pods on: what is measured is the operator. The queues
are on a real Valkey and are read every five seconds, as in life; a tenth of the AgentQueues have a managed Redis, whose
pods wait for a node that never comes. Reaction: from the acceptance of a change of an AgentQueue to the acceptance of
the changed Deployment, by a watch. Writes: the operator's own count, and the versions of all objects before and after.
"""

import argparse
import asyncio
import contextlib
import json
import random
import secrets
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agentqueue.clock import monotonic
from agentqueue.local.server import EmbeddedServer
from tests.support.cluster import own
from tests.support.cluster.kube import ApiError, Kube, Object
from tests.support.cluster.layout import default_state
from tests.support.cluster.prerequisites import prepare
from tests.support.operator import install_crd
from tests.support.operator_process import (
    OperatorProcess,
    Operators,
    cpu_s,
    grant,
    memory_mb,
    operators_of,
    write_kubeconfig,
)

LIMITS = {"memory_mb": 250.0, "rest_cores": 0.5, "reaction_p99_s": 2.0, "writes_at_rest": 0.0, "changed_at_rest": 0.0}
"""Issue 5: a figure above its limit fails the run."""
WRITES = ("create", "update", "patch", "delete")
CHILDREN = ("deployment", "configmap", "secret", "service", "statefulset", "networkpolicy", "agentqueue")
MARK = "BENCH_MARK"


@dataclass(frozen=True)
class Figures:
    """What a run has shown."""

    queues: int
    agents: int
    objects: int
    filled_s: float
    """From the first AgentQueue's creation to the last Deployment's."""
    memory_mb: float
    rest_s: float
    rest_cores: float
    writes_at_rest: float
    """But for the Lease."""
    changed_at_rest: int
    """Objects with another version after the rest."""
    reaction_p50_s: float
    reaction_p99_s: float
    restart_s: float
    """From the start of a second process, with all there, to filled caches."""
    restart_writes: float
    """Made by the second process once it leads: an upgrade that changes nothing writes nothing."""


def agent_queue(number: int, agents: int, *, is_managed: bool) -> Object:
    """One of many."""
    redis = {"managed": {}} if is_managed else {"external": {"urlSecretRef": {"name": "redis", "key": "url"}}}
    # In mode Auto, each agent would start a pod until it has registered, and no image is there.
    each: list[Object] = [
        {"name": f"agent-{index}", "queueName": f"q{number}-{index}", "image": "example/agents:1", "handler": "a:agent"}
        | {
            "env": [{"name": MARK, "value": "0"}],
            "scaling": {"mode": "Fixed", "replicas": 0},
        }
        for index in range(agents)
    ]
    each[0]["scaling"] = {"minReplicas": 1}
    spec = {"redis": redis, "agents": each, "console": {"enabled": False}}
    metadata = {"name": f"aq-{number:03}"}
    return {"apiVersion": "agentqueue.dev/v1alpha1", "kind": "AgentQueue", "metadata": metadata, "spec": spec}


async def fill(kube: Kube, queues: int, agents: int) -> float:
    """Create them, and wait for their Deployments."""
    began = monotonic()
    wanted = [agent_queue(number, agents, is_managed=number % 10 == 0) for number in range(queues)]
    for start in range(0, queues, 20):
        await asyncio.gather(*(kube.create(one) for one in wanted[start : start + 20]))
    async with asyncio.timeout(900):
        while await count(kube) < queues * agents:  # noqa: ASYNC110  # the API server's state
            await asyncio.sleep(0.2)
    return monotonic() - began


async def count(kube: Kube) -> int:
    """Deployments; the server counts."""
    page = await kube.request("GET", f"/apis/apps/v1/namespaces/{kube.namespace}/deployments", limit="1")
    return len(page["items"]) + int(page["metadata"].get("remainingItemCount", 0))


async def settle(operator: OperatorProcess) -> None:
    """Wait until nothing has been written for ten seconds."""
    before, since = -1.0, monotonic()
    async with asyncio.timeout(900):
        while monotonic() - since < 10:
            now = await writes(operator)
            if now != before:
                before, since = now, monotonic()
            await asyncio.sleep(1)


async def writes(operator: OperatorProcess) -> float:
    """So far, but for the Lease."""
    found = await operator.metrics()
    return sum(
        value
        for key, value in found.items()
        if key.startswith("agentqueue_operator_api_requests_total{")
        and 'resource="leases"' not in key
        and any(f'verb="{verb}"' in key for verb in WRITES)
    )


async def versions(kube: Kube) -> dict[tuple[str, str], str]:
    """Of all objects."""
    return {
        (kind, item["metadata"]["name"]): item["metadata"]["resourceVersion"]
        for kind in CHILDREN
        for item in await kube.list(kind)
    }


async def rest(kube: Kube, operator: OperatorProcess, seconds: float) -> tuple[float, float, int]:
    """Cores, writes and changed objects while nothing is to be done."""
    before, cpu, began, seen = await writes(operator), cpu_s(operator.pid), monotonic(), await versions(kube)
    await asyncio.sleep(seconds)
    cores = (cpu_s(operator.pid) - cpu) / (monotonic() - began)
    after = await versions(kube)
    changed = sum(after.get(key) != version for key, version in seen.items()) + len(after.keys() - seen.keys())
    return cores, await writes(operator) - before, changed


async def react(kube: Kube, queues: int, agents: int, changes: int) -> Sequence[float]:
    """Seconds from a change to its effect, for changes at random moments."""
    chooser, arrived = random.Random(7), dict[tuple[str, str], float]()
    watching = asyncio.create_task(_note_marks(kube, arrived))
    took = []
    try:
        await asyncio.sleep(1)
        for number in range(1, changes + 1):
            index, name = chooser.randrange(agents), f"aq-{chooser.randrange(queues):03}"
            spec = (await kube.get("agentqueue", name))["spec"]
            spec["agents"][index]["env"][0]["value"] = str(number)
            await kube.patch("agentqueue", name, {"spec": {"agents": spec["agents"]}})
            asked = monotonic()
            key = (f"{name}/agent-{index}", str(number))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(30):
                    while key not in arrived:  # noqa: ASYNC110  # filled by a watch
                        await asyncio.sleep(0.002)
            took.append(max(arrived.get(key, asked + 30) - asked, 0.0))
            await asyncio.sleep(chooser.uniform(0.0, 0.3))
    finally:
        watching.cancel()
    return took


async def _note_marks(kube: Kube, arrived: dict[tuple[str, str], float]) -> None:
    async for event in kube.watch("deployment"):
        labels = event["object"]["metadata"]["labels"]
        owner = f"{labels['agentqueue.dev/queue']}/{labels['agentqueue.dev/agent']}"
        for variable in event["object"]["spec"]["template"]["spec"]["containers"][0]["env"]:
            if variable["name"] == MARK:
                arrived.setdefault((owner, variable["value"]), monotonic())


async def take_over(operators: Operators, first: OperatorProcess) -> tuple[float, float]:
    """A second process, and then the end of the first: seconds to filled caches, and what it writes as the leader."""
    began = monotonic()
    second = await operators.started()
    took = monotonic() - began
    await first.end()
    await second.until("agentqueue_operator_leader")
    await asyncio.sleep(15)  # three rounds over all
    return took, await writes(second)


async def run(kube: Kube, folder: Path, url: str, given: argparse.Namespace) -> Figures:
    """All of it, in a namespace of its own."""
    await install_crd(kube)
    await grant(kube)
    metadata = {"name": "redis"}
    await kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"url": url}})
    kubeconfig = await write_kubeconfig(kube, folder / "operator.kubeconfig")
    async with operators_of(kube, folder, kubeconfig) as operators:
        operator = await operators.started()
        filled_s = await fill(kube, given.queues, given.agents)
        await settle(operator)
        cores, writes_at_rest, changed = await rest(kube, operator, given.rest)
        memory, objects = memory_mb(operator.pid), await operator.total("agentqueue_operator_cached_objects")
        took = sorted(await react(kube, given.queues, given.agents, given.changes))
        await settle(operator)
        restart_s, restart_writes = await take_over(operators, operator)
    return Figures(
        queues=given.queues,
        agents=given.queues * given.agents,
        objects=int(objects),
        filled_s=round(filled_s, 1),
        memory_mb=round(memory, 1),
        rest_s=given.rest,
        rest_cores=round(cores, 3),
        writes_at_rest=writes_at_rest,
        changed_at_rest=changed,
        reaction_p50_s=round(statistics.median(took), 3),
        reaction_p99_s=round(took[min(len(took) - 1, int(len(took) * 0.99))], 3),
        restart_s=round(restart_s, 1),
        restart_writes=restart_writes,
    )


@contextlib.contextmanager
def a_cluster() -> Iterator[own.OwnCluster]:
    """The one that runs, or one for this run."""
    state, program = default_state(), prepare(print)
    running = own.find(state, program)
    if running is not None:
        yield running
        return
    cluster = own.bring_up(state, program)
    try:
        yield cluster
    finally:
        own.take_down(state)


@contextlib.asynccontextmanager
async def a_namespace(cluster: own.OwnCluster) -> AsyncIterator[Kube]:
    """Without a node to run its pods on."""
    name = f"bench-{secrets.token_hex(3)}"
    async with Kube(cluster, name) as kube:
        await _cordon(kube, cluster.nodes(), cordoned=True)
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        try:
            yield kube
        finally:
            with contextlib.suppress(ApiError):
                await kube.delete("namespace", name)
            await _cordon(kube, cluster.nodes(), cordoned=False)


async def _cordon(kube: Kube, nodes: Sequence[str], *, cordoned: bool) -> None:
    for node in nodes:
        await kube.patch("node", node, {"spec": {"unschedulable": cordoned}})


def failures(figures: Mapping[str, Any]) -> list[str]:
    """What is above its limit."""
    return [f"{name} is {figures[name]}, above {limit:g}" for name, limit in LIMITS.items() if figures[name] > limit]


async def main(given: argparse.Namespace) -> int:
    """0: all within the limits."""
    with a_cluster() as cluster, tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder) / "v") as valkey:
        async with a_namespace(cluster) as kube:
            figures = asdict(await run(kube, Path(folder), valkey.url, given))
    print(json.dumps(figures, indent=2))
    problems = failures(figures)
    print("\n".join(problems) or "all within the limits")
    return 1 if problems else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operator")
    parser.add_argument("--queues", type=int, default=200)
    parser.add_argument("--agents", type=int, default=6)
    parser.add_argument("--rest", type=float, default=300.0)
    parser.add_argument("--changes", type=int, default=200)
    sys.exit(asyncio.run(main(parser.parse_args())))
