"""An AgentQueue on a test cluster with a Redis on this machine, which a test can reach and break."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from agentqueue.client import Client, Job
from agentqueue.clock import monotonic
from agentqueue_operator.resources.render import worker_name
from tests.support.cluster.kube import Kube, Object
from tests.support.operator import agent, agent_queue, code, is_ready, until
from tests.support.servers import RunningServer

AQ = "agentqueue"
AGENT = "work"
DEPLOYMENT = worker_name("demo", AGENT)
CODE = """
import asyncio, os, time

from agentqueue import Agent, Context

agent = Agent("work")


@agent.job(timeout=600)
async def nap(ctx: Context, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return os.environ["AGENTQUEUE_WORKER_NAME"]


@agent.job(timeout=600)
async def once_long(ctx: Context) -> int:
    await asyncio.sleep(600 if ctx.delivery == 1 else 0)
    return ctx.delivery


@agent.job(timeout=600)
async def eat(ctx: Context) -> None:
    held = []
    await asyncio.sleep(2.5)  # a heartbeat has been heard by then
    while True:
        held.append(bytearray(os.urandom(2**20)))
"""


@dataclass
class ScalingTestBed:
    """The AgentQueue `demo` with one agent `work`."""

    kube: Kube
    server: RunningServer

    async def apply(self, *, program: str = CODE, **given: Any) -> None:
        """Apply the AgentQueue with this program and these fields of its agent."""
        suspend = given.pop("suspend", False)
        redis = {"external": {"urlSecretRef": {"name": "redis", "key": "url"}}}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "redis"}}
        await self.kube.apply(secret | {"stringData": {"url": f"{self.server.url}/0"}}, code(program))
        one = agent(AGENT, **{"terminationGracePeriodSeconds": 30} | given)
        await self.kube.apply(agent_queue(agents=[one], redis=redis, suspend=suspend))

    async def start(self, **given: Any) -> None:
        """Apply the AgentQueue and wait until it is ready."""
        await self.apply(**given)
        await self.kube.until(AQ, "demo", is_ready, timeout=60)

    def client(self) -> Client:
        """Return a client of its Redis."""
        return Client(self.server.url)

    async def naps(self, client: Client, count: int, seconds: float) -> list[Job]:
        """Enqueue jobs that sleep."""
        jobs = [{"queue": AGENT, "name": "nap", "data": seconds} for _ in range(count)]
        return list(await client.enqueue_many(jobs))

    async def replicas(self) -> int:
        """Return the replicas of the Deployment."""
        found = await self.kube.get("deployment", DEPLOYMENT)
        return int(found["spec"].get("replicas", 1))

    async def until_replicas(self, wanted: int | Callable[[int], bool], *, timeout: float = 60) -> None:
        """Wait until the Deployment has this number of replicas."""
        holds = wanted if callable(wanted) else lambda number: number == wanted
        what = f"replicas {wanted}"
        await self.kube.until(
            "deployment", DEPLOYMENT, lambda one: holds(one["spec"]["replicas"]), timeout=timeout, what=what
        )

    async def until_ready(self, count: int, *, timeout: float = 90) -> None:
        """Wait until this number of pods is ready."""
        await self.kube.until(
            "deployment",
            DEPLOYMENT,
            lambda one: one["status"].get("readyReplicas", 0) == count and one["spec"]["replicas"] == count,
            timeout=timeout,
            what=f"{count} ready",
        )

    async def pods(self) -> list[Object]:
        """Return the worker pods that do not terminate."""
        found = await self.kube.list("pod", labels=f"agentqueue.dev/agent={AGENT}")
        return [one for one in found if "deletionTimestamp" not in one["metadata"]]

    async def until_one_pod(self) -> str:
        """Wait until all pods but one terminate, and return the name of that one."""

        async def is_one() -> bool:
            return len(await self.pods()) == 1

        await until(is_one, timeout=20)
        (pod,) = await self.pods()
        return str(pod["metadata"]["name"])

    @contextlib.asynccontextmanager
    async def recorded(self) -> AsyncIterator[dict[float, int]]:
        """Record the replicas of the Deployment, by the time of their change in monotonic seconds."""
        numbers: dict[float, int] = {}

        async def record() -> None:
            async for event in self.kube.watch("deployment", fieldSelector=f"metadata.name={DEPLOYMENT}"):
                number = event["object"]["spec"]["replicas"]
                if [*numbers.values()][-1:] != [number]:
                    numbers[monotonic()] = number

        recording = asyncio.create_task(record())
        try:
            await until(lambda: bool(numbers))
            yield numbers
        finally:
            recording.cancel()
            await asyncio.gather(recording, return_exceptions=True)


async def stays(holds: Callable[[], Any], *, seconds: float) -> None:
    """Assert that a condition stays true for some seconds."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    while loop.time() < ends:
        assert await holds()
        await asyncio.sleep(0.3)
