"""The operator against a test cluster: in the test's own event loop, with everything real but the election."""

import asyncio
import base64
import contextlib
import inspect
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.config import kube_config as aio_kube_config
from kubernetes.config import kube_config

from agentqueue.client import Client
from agentqueue.clock import monotonic
from agentqueue.spec.crd import crd
from agentqueue_operator.autoscaling.model import DEFAULT_TIMING, ScalingTiming
from agentqueue_operator.controller.kubernetes.api import ApiServer, find_access
from agentqueue_operator.controller.kubernetes.cache import StoreCache
from agentqueue_operator.controller.kubernetes.client import KubernetesCluster
from agentqueue_operator.controller.kubernetes.event_recorder import EventRecorder
from agentqueue_operator.controller.kubernetes.kopf_handlers import make_kopf_settings, make_registry
from agentqueue_operator.controller.kubernetes.watches import Watches
from agentqueue_operator.controller.ports import Cluster
from agentqueue_operator.controller.reconciler import Dependencies, QueueReconciler
from agentqueue_operator.controller.redis_pool import RedisPool
from agentqueue_operator.controller.scaling.scaler import QueueScaler
from agentqueue_operator.controller.work_queue import WorkQueue
from agentqueue_operator.resources.kinds import AGENT_QUEUE, POD, POD_MONITOR, PRUNED, Object, QueueRef
from agentqueue_operator.resources.render import Images, redis_name
from tests.support.cluster.kube import Kube, has_condition

KIND = "agentqueues.agentqueue.dev"
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/agentqueues.agentqueue.dev"
CODE = """
import asyncio

from agentqueue import Agent, Context

agent = Agent("greetings")


@agent.job(timeout=10)
async def greet(ctx: Context, name: str) -> str:
    return f"Hello {name}"


@agent.job(timeout=60)
async def nap(ctx: Context, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "rested"
"""


@dataclass
class RecordedReconciles:
    """Records reconciles (`work_queue.ReconcileObserver`)."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def on_reconciled(self, ref: QueueRef, seconds: float, error: str | None) -> None:
        self.seconds.append(seconds)
        if error:
            self.errors.append(error)

    def on_removed(self, ref: QueueRef) -> None:
        pass


@dataclass
class Operator:
    """A running operator."""

    work_queue: WorkQueue
    cache: StoreCache
    reconciles: RecordedReconciles
    calls: list[tuple[str, str, int]]
    """HTTP method, plural and status code of each request to the API server, without kopf's watches."""
    tasks: list[asyncio.Task[Any]]

    def writes(self) -> int:
        """Return the number of requests that change something."""
        return sum(verb not in ("get", "list", "GET") for verb, _, _ in self.calls)

    async def kill(self) -> None:
        """End like a killed process: nothing is finished, nothing is cleaned up."""
        for task in self.tasks:
            task.cancel()
        await self.work_queue.close()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def run_operator(
    kubeconfig: Path,
    namespace: str,
    images: Images,
    *,
    wrap: Callable[[Cluster], Cluster] = lambda cluster: cluster,
    read_secrets: bool = True,
    timing: ScalingTiming = DEFAULT_TIMING,
) -> AsyncIterator[Operator]:
    """Reconcile the AgentQueues of one namespace. `wrap` may replace the reconcilers' access to the API server."""
    with _logging_in_by(kubeconfig):
        async with _running(namespace, images, wrap, read_secrets=read_secrets, timing=timing) as operator:
            yield operator


@contextlib.contextmanager
def _logging_in_by(kubeconfig: Path) -> Iterator[None]:
    """Use this kubeconfig. The variable KUBECONFIG is read when these modules are imported."""
    modules = (kube_config, aio_kube_config)
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            patch.setattr(module, "KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
        yield


@contextlib.asynccontextmanager
async def _running(
    namespace: str, images: Images, wrap: Callable[[Cluster], Cluster], *, read_secrets: bool, timing: ScalingTiming
) -> AsyncIterator[Operator]:
    queues: list[WorkQueue] = []

    def wake(ref: QueueRef) -> None:
        queues[0].wake(ref)

    cache = StoreCache(wake)
    calls: list[tuple[str, str, int]] = []
    api = ApiServer(find_access, on_call=lambda *call: calls.append(call))
    cluster = wrap(KubernetesCluster(api, lambda: 10.0, EventRecorder("tests")))
    pool, reconciles = RedisPool(), RecordedReconciles()
    dependencies = Dependencies(
        cluster=cluster,
        cache=cache,
        acquire=pool.acquire,
        make_scaler=lambda _: QueueScaler(cluster, timing=timing),
        images=images,
        clock=monotonic,
        now=lambda: datetime.now(UTC),  # noqa: TID251
        make_secret=lambda: secrets.token_urlsafe(24),
        wake=wake,
        trust_s=2.0,
        read_secrets=read_secrets,
    )
    queues.append(
        WorkQueue(
            lambda ref: QueueReconciler(ref, dependencies),
            exists=lambda ref: cache.queue(ref) is not None,
            leads=lambda: watches.synced,
            clock=monotonic,
            observer=reconciles,
        )
    )
    kinds = [kind for kind in (AGENT_QUEUE, *PRUNED, POD) if kind is not POD_MONITOR]
    watches = Watches(
        api,
        cache,
        kinds,
        [namespace],
        make_registry=make_registry,
        make_settings=make_kopf_settings,
        on_synced=queues[0].wake_all,
    )
    operator = Operator(queues[0], cache, reconciles, calls, [asyncio.create_task(watches.run())])
    try:
        yield operator
    finally:
        await operator.kill()
        await api.close()


async def install_crd(kube: Kube) -> None:
    """Install the CRD of this source tree. It is not removed."""
    options = {"fieldManager": "tests", "force": "true"}
    await kube.request("PATCH", CRD, crd(), content_type="application/apply-patch+yaml", **options)
    async with asyncio.timeout(30):
        while not has_condition("Established")(await kube.request("GET", CRD)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def code(text: str = CODE, name: str = "code") -> Object:
    """Return a ConfigMap with the agents' code."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"agents.py": text}}


def agent_queue(name: str = "demo", **spec: Any) -> Object:
    """Return an AgentQueue of one agent, whose code is in the ConfigMap `code`, with at least one worker."""
    agent = {
        "name": "greetings",
        "handler": "agents:agent",
        "codeFrom": {"configMap": {"name": "code"}},
        "scaling": {"minReplicas": 1, "maxReplicas": 3},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        "terminationGracePeriodSeconds": 10,
    }
    given = {"agents": [agent], "console": {"enabled": False}} | spec
    return {"apiVersion": "agentqueue.dev/v1alpha1", "kind": "AgentQueue", "metadata": {"name": name}, "spec": given}


def agent(name: str, **given: Any) -> Object:
    """Return the agent of `agent_queue` with changes. None removes a field."""
    merged = agent_queue()["spec"]["agents"][0] | {"name": name} | given
    return {key: value for key, value in merged.items() if value is not None}


def is_ready(found: Object) -> bool:
    """Return whether the AgentQueue is ready in its current generation."""
    observed = condition(found, "Ready").get("observedGeneration")
    return has_condition("Ready")(found) and bool(observed == found["metadata"]["generation"])


def condition(found: Object, kind: str) -> Mapping[str, Any]:
    """Return a condition of an AgentQueue."""
    return next((one for one in (found.get("status") or {}).get("conditions", []) if one["type"] == kind), {})


@contextlib.asynccontextmanager
async def client_of(kube: Kube, queue: str = "demo") -> AsyncIterator[Client]:
    """Connect to the managed Redis by the Service's address."""
    secret = await kube.get("secret", redis_name(queue))
    password = base64.b64decode(secret["data"]["password"]).decode()
    service = await kube.get("service", redis_name(queue))
    async with Client(f"redis://default:{password}@{service['spec']['clusterIP']}:6379/0") as client:
        yield client


async def until(holds: Callable[[], bool | Awaitable[bool]], *, timeout: float = 60) -> None:
    """Wait until a condition is true that no watch delivers."""
    async with asyncio.timeout(timeout):
        while not (  # noqa: ASYNC110
            await answer if inspect.isawaitable(answer := holds()) else answer
        ):
            await asyncio.sleep(0.1)


async def owned(kube: Kube, kind: str, queue: str = "demo") -> list[Object]:
    """Return the objects of a kind with the AgentQueue's label."""
    return list(await kube.list(kind, labels=f"agentqueue.dev/queue={queue}"))


async def settled(operator: Operator, *, quiet_s: float = 2.0, timeout: float = 60) -> None:
    """Wait until the operator has written nothing for a while."""
    async with asyncio.timeout(timeout):
        writes, since = operator.writes(), monotonic()
        while monotonic() - since < quiet_s:
            await asyncio.sleep(0.1)
            if operator.writes() != writes:
                writes, since = operator.writes(), monotonic()
