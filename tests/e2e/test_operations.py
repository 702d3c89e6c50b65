"""docs/operations.md: its commands, run as they are written, do what the page says of them."""

import base64
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentqueue.client import Client, Job
from agentqueue.errors import JobFailed, JobNotFound, QueueFull, QueueUnavailable
from agentqueue.store import Server
from agentqueue_operator.resources.render import redis_name, worker_name
from agentqueue_operator.resources.render.names import workers_name
from tests.cluster.test_render import dry_run
from tests.e2e.test_install import NEW_FIELD, PREVIOUS, install, knows, worker_pods
from tests.support.cluster.kube import Kube, Object, has_condition, is_ready, is_rolled_out
from tests.support.cluster.program import ROOT
from tests.support.installs import Helm, follow
from tests.support.monitoring import definitions
from tests.support.operator import CODE, Operator, agent, agent_queue, client_of, code, until
from tests.support.pages import Page
from tests.support.raw_queue import RawQueue
from tools.manifests import NAMESPACE

PAGE = Page(ROOT / "docs" / "operations.md")
AQ, QUEUE, REDIS, WORKER = "agentqueue", "greetings", redis_name("travel"), worker_name("travel", "greetings")
GET_POD = "POD=$(kubectl get pod --selector agentqueue.dev/queue=travel,agentqueue.dev/component=redis --output name)\n"


class Shown(StrEnum):
    """How the page's commands begin."""

    UPGRADE = "helm upgrade agentqueue charts/agentqueue --namespace agentqueue-system --wait"
    ROLLBACK = "helm rollback"
    WAIT = "kubectl wait --for=condition=Ready"
    CONSOLE = "kubectl get aq travel --output jsonpath"
    SUSPEND = 'kubectl patch aq travel --type merge -p \'{"spec":{"suspend":true'
    GO_ON = 'kubectl patch aq travel --type merge -p \'{"spec":{"suspend":false'
    PAUSE = "agentqueue pause"
    RESUME = "agentqueue resume"
    HANDS_OFF = "kubectl annotate aq travel agentqueue.dev/paused=true"
    HANDS_ON = "kubectl annotate aq travel agentqueue.dev/paused-"
    DELETE = "kubectl delete aq"
    DRAIN = "kubectl drain"
    BACK_UP = GET_POD + 'kubectl exec "$POD" -- tar'
    RESTORE = GET_POD + 'kubectl exec "$POD" -- redis-cli'
    STATS = "agentqueue stats"
    MORE_MEMORY = 'kubectl patch aq travel --type merge -p \'{"spec":{"redis"'
    NEW_PASSWORD = "kubectl create secret"
    MONITOR = "helm upgrade agentqueue charts/agentqueue --namespace agentqueue-system --reset"
    DESCRIBE = "kubectl describe aq"
    EXPLAIN = "agentqueue explain"
    DEAD = "agentqueue dead list"


def shown() -> list[str]:
    """Return the page's commands, each once, blocks of them first."""
    blocks = [text for language, text in PAGE.blocks if language == "sh"]
    inline = [text for text in PAGE.inline if text.startswith(("agentqueue ", "kubectl ", "helm "))]
    return list(dict.fromkeys(blocks + inline))


def figure(unit: str) -> int:
    """The one that the page gives in this unit."""
    (found,) = re.findall(rf"(\d+) {unit}", PAGE.path.read_text())
    return int(found)


@dataclass(frozen=True)
class Shell:
    """A person at a shell, in a folder of their own, whose kubectl is in the test's namespace."""

    kube: Kube
    folder: Path

    async def __call__(self, command: Shown, *, folder: Path | None = None, system: str = NAMESPACE) -> str:
        """Run a command of the page, for the test's queue; its standard output."""
        (text,) = [text for text in shown() if text.startswith(command)]
        return await follow(
            text.replace("QUEUE", QUEUE).replace(NAMESPACE, system), self._kubeconfig(), folder=folder or self.folder
        )

    def _kubeconfig(self) -> Path:
        config = yaml.safe_load(self.kube.cluster.kubeconfig.read_text())
        for one in config["contexts"]:
            one["context"]["namespace"] = self.kube.namespace
        path = self.folder / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path


@pytest.fixture
def shell(kube: Kube, tmp_path: Path) -> Shell:
    return Shell(kube, tmp_path)


def test_every_command_of_the_page_is_one_that_is_run() -> None:
    for text in shown():
        assert sum(text.startswith(command) for command in Shown) == 1, text
    assert len(shown()) == len(Shown)


async def started(kube: Kube, **spec: Any) -> None:
    """The AgentQueue `travel` is ready."""
    await kube.apply(code(spec.pop("code", CODE)), agent_queue("travel", **spec))
    await kube.until(AQ, "travel", is_ready, timeout=120)


def has_pods(count: int) -> Any:
    """Whether a workload wants so many pods and has them ready."""
    return lambda one: (one["spec"]["replicas"], one["status"].get("readyReplicas", 0)) == (count, count)


async def test_upgrade_and_back_restart_no_worker(
    all_images: None, helm: Helm, system: str, kube: Kube, shell: Shell
) -> None:
    await install(helm, system, PREVIOUS)
    await started(kube)
    before = await worker_pods(kube, "travel")
    async with client_of(kube, "travel") as client:
        job = await client.enqueue(QUEUE, "nap", 20)
        await shell(Shown.UPGRADE, folder=ROOT, system=system)
        assert await knows(kube, NEW_FIELD)
        one = agent(QUEUE, scaling={"minReplicas": 1, "maxReplicas": 3, NEW_FIELD: 5})
        await kube.patch(AQ, "travel", {"spec": {"agents": [one]}})
        await shell(Shown.ROLLBACK, folder=ROOT, system=system)
        assert not await knows(kube, NEW_FIELD)
        await kube.until(AQ, "travel", lambda one: NEW_FIELD not in str(one["spec"]), what="without the new field")
        assert await job.result(timeout=30) == "rested"
        assert (await job.status()).deliveries == 1
        assert await (await client.enqueue(QUEUE, "greet", "you")).result(timeout=30) == "Hello you"
    assert await worker_pods(kube, "travel") == before


async def test_what_was_backed_up_is_restored(operator: Operator, kube: Kube, shell: Shell) -> None:
    await started(kube)
    async with client_of(kube, "travel") as client:
        done = await client.enqueue(QUEUE, "greet", "first")
        assert await done.result(timeout=30) == "Hello first"
        await shell(Shown.SUSPEND)
        await kube.until("deployment", WORKER, has_pods(0), what="no worker")
        ran, waited = [await client.enqueue(QUEUE, "greet", name) for name in ("ran", "waited")]
        await claimed(client, ran.id)
        await shell(Shown.BACK_UP)
        later = await client.enqueue(QUEUE, "greet", "later")
        await shell(Shown.RESTORE)
        await kube.until("statefulset", REDIS, has_pods(1), what="Redis is back")
        await shell(Shown.GO_ON)
        assert await done.result(timeout=30) == "Hello first"
        assert await ran.result(timeout=60) == "Hello ran"
        assert await waited.result(timeout=30) == "Hello waited"
        assert (await ran.status()).deliveries == 2
        with pytest.raises(JobNotFound):
            await later.status()


async def claimed(client: Client, job: str) -> None:
    """The first job of the queue is running, as far as anybody knows."""
    async with Server(client.server.options) as server:
        assert [one.id for one in await RawQueue(server, QUEUE).claim()] == [job]


async def test_queue_stands_still_operator_keeps_off_and_the_end(operator: Operator, kube: Kube, shell: Shell) -> None:
    await started(kube)
    async with client_of(kube, "travel") as client:
        await shell(Shown.PAUSE)
        job = await client.enqueue(QUEUE, "greet", "you")
        stats = await client.stats(QUEUE)
        (pod,) = await worker_pods(kube, "travel")
        (kilobytes,) = re.findall(r"VmRSS:\s+(\d+) kB", await kube.run(pod, "cat", "/proc/1/status"))
        assert int(kilobytes) / 1024 == pytest.approx(figure("MiB plus your imports"), rel=0.15)
        assert (stats.paused, stats.waiting, len(await worker_pods(kube, "travel"))) == (True, 1, 1)
        await shell(Shown.RESUME)
        assert await job.result(timeout=30) == "Hello you"
    await hands_off(operator, kube, shell)
    await shell(Shown.SUSPEND)
    await kube.until("deployment", WORKER, has_pods(0), what="no worker")
    await shell(Shown.DELETE)
    for kind, name in (("statefulset", REDIS), ("deployment", WORKER), ("secret", REDIS)):
        await kube.until_gone(kind, name)
    assert len(await kube.list("pvc", labels="agentqueue.dev/queue=travel")) == 1
    await kube.apply(agent_queue("travel"))
    await kube.until(AQ, "travel", is_ready)
    await kube.until(AQ, "travel", has_condition("ConfigurationWarning", reason="VolumeReused"))
    async with client_of(kube, "travel") as client:
        assert await client.job(job.id).result(timeout=5) == "Hello you"


async def hands_off(operator: Operator, kube: Kube, shell: Shell) -> None:
    """What is changed by hand stays until the operator may write again."""
    label = "app.kubernetes.io/name"
    await shell(Shown.HANDS_OFF)
    await kube.until(AQ, "travel", has_condition("Paused", reason="PausedByAnnotation"))
    await kube.patch("deployment", WORKER, {"metadata": {"labels": {label: "changed"}}})
    reconciles = len(operator.reconciles.seconds)
    await until(lambda: len(operator.reconciles.seconds) >= reconciles + 2)
    assert (await kube.get("deployment", WORKER))["metadata"]["labels"][label] == "changed"
    await shell(Shown.HANDS_ON)
    await kube.until("deployment", WORKER, lambda one: one["metadata"]["labels"][label] == "agentqueue")


async def test_full_redis_finishes_what_runs_and_gets_more_memory(operator: Operator, kube: Kube, shell: Shell) -> None:
    await started(kube, redis={"managed": {"resources": {"limits": {"memory": "48Mi"}}}})
    async with client_of(kube, "travel") as client:
        running = await client.enqueue(QUEUE, "nap", 5)
        await until(lambda: is_active(running))
        before = await used_memory(client)
        jobs = ({"queue": "backlog", "name": "x", "data": "x" * 298} for _ in range(100_000))
        with pytest.raises(QueueFull, match="is full"):
            await client.enqueue_many(jobs)
        waiting = (await client.stats("backlog")).waiting
        each = (await used_memory(client) - before) / waiting
        assert each == pytest.approx(figure("bytes per waiting job"), rel=0.1)
        await kube.until(AQ, "travel", has_condition("Ready", "False", reason="RedisFull"))
        assert await running.result(timeout=30) == "rested"
        assert "backlog" in await shell(Shown.STATS)
        await shell(Shown.MORE_MEMORY)
        await kube.until("statefulset", REDIS, lambda one: "1Gi" in str(one["spec"]["template"]), what="more memory")
        await kube.until("statefulset", REDIS, is_rolled_out)
        await kube.until(AQ, "travel", is_ready)
        assert (await client.stats("backlog")).waiting == waiting
        assert await (await client.enqueue(QUEUE, "greet", "you")).result(timeout=30) == "Hello you"


@pytest.fixture
async def prometheus_operator(kube: Kube) -> AsyncIterator[None]:
    """Its definitions are known, for a while."""
    await kube.apply(*definitions())
    for one in definitions():
        await kube.until("customresourcedefinition", one["metadata"]["name"], has_condition("Established"))
    yield
    for one in definitions():
        await kube.delete("customresourcedefinition", one["metadata"]["name"])


@pytest.mark.usefixtures("all_images", "prometheus_operator")
async def test_what_prometheus_and_grafana_look_for_is_there_and_as_they_define_it(
    helm: Helm, system: str, kube: Kube, shell: Shell
) -> None:
    await install(helm, system)
    await started(kube)
    await shell(Shown.MONITOR, folder=ROOT, system=system)
    monitor = await kube.until("podmonitor", workers_name("travel"), bool, what="workers are found")
    assert await dry_run(kube, applied(monitor))
    async with Kube(kube.cluster, system) as there:
        for kind in ("servicemonitor", "prometheusrule"):
            (one,) = await there.list(kind)
            assert await dry_run(there, applied(one))
        dashboards = await there.get("configmap", "agentqueue-operator-dashboards")
    assert dashboards["metadata"]["labels"]["grafana_dashboard"] == "1"
    titles = {json.loads(text)["title"] for text in dashboards["data"].values()}
    assert titles == {"AgentQueue: queues", "AgentQueue: operator"}


def applied(live: Object) -> Object:
    """What one would write to get this object: all that the API server must know."""
    kept = {key: value for key, value in live["metadata"].items() if key in ("name", "namespace", "labels")}
    return {key: live[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": kept}


async def test_a_node_with_workers_is_drained(operator: Operator, kube: Kube, shell: Shell, second_node: str) -> None:
    template = {"spec": {"nodeSelector": {"kubernetes.io/hostname": second_node}}}
    await started(kube, agents=[agent(QUEUE, podTemplate=template)])
    (drain,) = [text for text in shown() if text.startswith(Shown.DRAIN)]
    without = drain.replace(" --delete-emptydir-data", "").replace("NODE", second_node)
    with pytest.raises(AssertionError, match=f"emptyDir volumes|local storage.*{kube.namespace}/{WORKER}"):
        await follow(without, kube.cluster.kubeconfig)
    await follow(drain.replace("NODE", second_node), kube.cluster.kubeconfig)
    left = await kube.list("pod", labels="agentqueue.dev/component=worker", fields=f"spec.nodeName={second_node}")
    assert left == []


async def test_the_status_shows_how_the_console_is_opened(operator: Operator, kube: Kube, shell: Shell) -> None:
    await kube.apply(code(), agent_queue("travel", console={"enabled": True}))
    found = await kube.until(AQ, "travel", lambda one: "console" in one.get("status", {}), what="status.console")
    secret = await kube.until("secret", found["status"]["console"]["secretName"], lambda one: "token" in one["data"])
    command, token = (await shell(Shown.CONSOLE)).splitlines()
    assert command == found["status"]["console"]["openWith"]
    assert command.startswith(f"kubectl port-forward --namespace {kube.namespace} service/")
    assert token == base64.b64decode(secret["data"]["token"]).decode()


async def test_what_the_alerts_send_one_to_tells_of_the_queue(operator: Operator, kube: Kube, shell: Shell) -> None:
    await started(kube)
    assert "condition met" in await shell(Shown.WAIT)
    async with client_of(kube, "travel") as client:
        job = await client.enqueue(QUEUE, "greet", {"not": "a name"})
        with pytest.raises(JobFailed):
            await job.result(timeout=60)
    assert "RedisReady" in await shell(Shown.DESCRIBE)
    assert f"{QUEUE}: " in await shell(Shown.EXPLAIN)
    assert "greet" in await shell(Shown.DEAD)


async def used_memory(client: Client) -> int:
    """Of Redis, in bytes."""
    return int((await client.server.redis.info("memory"))["used_memory"])


async def is_active(job: Job) -> bool:
    return (await job.status()).state == "active"


async def answers(kube: Kube) -> bool:
    """Whether Redis takes the password of its Secret."""
    try:
        async with client_of(kube, "travel") as client:
            await client.queues()
    except QueueUnavailable:
        return False
    return True


KEYED = """

@agent.job
async def key(ctx: Context) -> str:
    import os

    return os.environ["API_KEY"]
"""


def keys(value: str) -> Object:
    """The Secret with an API key."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"api": value}}


async def test_rotated_secrets_are_those_that_are_used(operator: Operator, kube: Kube, shell: Shell) -> None:
    await kube.apply(keys("old"))
    env = [{"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "api"}}}]
    await started(kube, code=CODE + KEYED, agents=[agent(QUEUE, env=env)])
    async with client_of(kube, "travel") as client:
        running = await client.enqueue(QUEUE, "nap", 8)
        await until(lambda: is_active(running))
        await kube.apply(keys("new"))

        async def is_new() -> bool:
            return bool(await (await client.enqueue(QUEUE, "key")).result(timeout=30) == "new")

        await until(is_new)
        assert await running.result(timeout=30) == "rested"
        assert (await running.status()).deliveries == 1
        old = (await kube.get("secret", REDIS))["data"]["password"]
        running = await client.enqueue(QUEUE, "nap", 3)
        await until(lambda: is_active(running))
        await shell(Shown.SUSPEND)
        assert await running.result(timeout=30) == "rested"
        await kube.until("deployment", WORKER, has_pods(0), what="no worker")
        waiting = await client.enqueue(QUEUE, "greet", "you")
        await shell(Shown.NEW_PASSWORD)
        await kube.until("secret", REDIS, lambda one: one["data"]["password"] != old, what="the new password")
        await until(lambda: answers(kube))
        with pytest.raises(QueueUnavailable, match="refuses the credentials"):
            await client.queues()
    await shell(Shown.GO_ON)
    async with client_of(kube, "travel") as client:
        assert await client.job(waiting.id).result(timeout=60) == "Hello you"
        assert [(await client.job(job.id).status()).deliveries for job in (running, waiting)] == [1, 1]
