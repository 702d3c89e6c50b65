"""What Redis counts of a queue, and a real Prometheus that scrapes a worker and the operator's metrics."""

import asyncio
import contextlib
import itertools
import json
import math
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentqueue import Client
from agentqueue.keys import Level
from agentqueue.model.new_job import NewJob
from agentqueue.model.outcomes import Claimed, Outcome, Released, Rescheduled
from agentqueue.model.wait_histogram import BUCKETS
from agentqueue.service.probes import Probes
from agentqueue.store import Engine, Server, ServerOptions, Store
from agentqueue_operator.autoscaling.model import Memory, ScaleTo, ScalingPolicy, ScalingReason, ScalingSnapshot, Terms
from agentqueue_operator.controller.metrics import Metrics
from agentqueue_operator.controller.ports import Scaled
from agentqueue_operator.controller.status.conditions import AgentFacts
from agentqueue_operator.queues.reader import QueueReader
from agentqueue_worker.domain.wait_counts import Waits
from tests.support.prometheus import find_program
from tests.support.servers import free_port, run_server
from tests.support.waiting import final, until
from tests.support.workers import worker_process
from tools.dashboards import DASHBOARDS
from tools.metrics import QUEUE, REF, operator_metrics

HANDLERS = """
from agentqueue import Agent, Fatal

agent = Agent("search")

@agent.job
async def find(ctx, n: int) -> int:
    return n

@agent.job
async def fail(ctx) -> None:
    raise Fatal("no")
"""
RULES = Path(__file__).parents[2] / "charts/agentqueue/alerts.yaml"
FACTS = {"search": AgentFacts(name="search", queue="search", deployment="travel-search", desired=1, ready=1)}
LABELS = {"namespace": "default", "agentqueue": "travel", "agent": "search", "queue": "search"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    return tmp_path


async def look(server: Server, metrics: Metrics) -> None:
    """Do what a reconcile of the operator does for its metrics."""
    looks = await QueueReader(server).read({"search": 20.0})
    snapshot = ScalingSnapshot(at=1.0, load=looks["search"].load)
    decision = ScaleTo(1, ScalingReason.BACKLOG, Terms(snapshot=snapshot, current=0, policy=ScalingPolicy()), Memory())
    scaled = {"search": Scaled(replicas=1, decision=decision, metrics=looks["search"])}
    metrics.on_decided(REF, "search", decision)
    metrics.on_observed(REF, QUEUE, scaled, FACTS)
    metrics.on_reconciled(REF, 0.1, "ApiUnavailable")
    metrics.on_api_call("GET", "pods", 200)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, LABELS | labels)


async def test_a_worker_that_is_gone_before_it_is_scraped_leaves_its_counts(server_url: str, folder: Path) -> None:
    """An agent is scaled from zero, works off its queue, and is scaled to zero again."""
    metrics = operator_metrics()
    async with Client(server_url) as client, Server(ServerOptions(server_url)) as server:
        await look(server, metrics)
        assert value(metrics, "agentqueue_queue_outcomes_total", outcome="completed") == 0.0
        assert value(metrics, "agentqueue_queue_wait_seconds_count") == 0.0
        jobs = [await client.enqueue("search", "find", n) for n in range(50)] + [await client.enqueue("search", "fail")]
        with worker_process("handlers:agent", folder, server_url) as worker:
            for job in jobs:
                await final(job)
            worker.process.terminate()
            await worker.exit()
        await look(server, metrics)
        stats = await client.stats("search")
    assert value(metrics, "agentqueue_queue_outcomes_total", outcome="completed") == 50.0
    assert value(metrics, "agentqueue_queue_outcomes_total", outcome="dead") == 1.0
    assert value(metrics, "agentqueue_queue_enqueued_jobs_total") == 51.0
    assert value(metrics, "agentqueue_queue_wait_seconds_count") == 51.0
    assert value(metrics, "agentqueue_queue_wait_seconds_bucket", le="+Inf") == 51.0
    seconds = value(metrics, "agentqueue_queue_wait_seconds_sum")
    assert seconds is not None
    assert seconds > 0.0
    assert not [name for name in stats.counters if name.startswith("wait")], "people are shown no buckets"


async def test_a_wait_begins_when_the_job_is_due_and_not_before(server: Server) -> None:
    """A job that is delayed, then fails, then comes back: its delays and runs are no waits."""
    engine, store, waits, numbers = Engine(server, "search"), Store(server), Waits(), itertools.count(1)

    async def claim(*outcomes: Outcome) -> Claimed:
        await engine.finish_and_claim(seq=next(numbers), owner="w/1", want=0, outcomes=outcomes)

        async def claimed() -> Claimed | None:
            reply = await engine.finish_and_claim(seq=next(numbers), owner="w/1", want=1)
            waits.add(reply.claimed, reply.now_ms)
            return next(iter(reply.claimed), None)

        found: Claimed = await until(claimed, what="the job is claimed")
        return found

    def counted() -> int:
        return sum(number for field, number in waits.unsent().items() if field in BUCKETS)

    began = (await server.redis.time())[0] * 1000
    await store.enqueue([NewJob("search", "job", b'{"aq":1,"name":"find"}', Level.NORMAL, 1_500)])
    first = await claim()
    assert first.score >= began + 1_500
    again = (await server.redis.time())[0] * 1000
    second = await claim(Rescheduled("job", Level.NORMAL, 1_500))
    assert second.score >= again + 1_500
    assert counted() == 2
    third = await claim(Released("job", Level.NORMAL))
    assert third.score == second.score, "it has its old place"
    assert counted() == 2


async def test_a_renewal_adds_to_the_queue_s_counters(server: Server) -> None:
    engine, counts = Engine(server, "search"), {"wait_le_30": 3, "wait_ms": 70_000}
    for _ in range(2):
        await engine.renew(owner="w/1", worker="w", heartbeat=b"{}", held=(), counts=counts)
    snapshot = await Store(server).snapshot("search")
    assert snapshot.waits == {"wait_le_30": 6, "wait_ms": 140_000}
    assert snapshot.counters == {}


# --- a real Prometheus


class Prometheus:
    """A Prometheus server on loopback."""

    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def has(self, query: str) -> bool:
        """Whether the query gives a number."""
        found = self.get("/api/v1/query", query=query)["result"]
        return any(not math.isnan(float(series["value"][1])) for series in found)


@contextlib.contextmanager
def prometheus(folder: Path, targets: dict[str, tuple[int, dict[str, str]]]) -> Iterator[Prometheus]:
    """Scrapes each target (port, labels) and evaluates the alerts every second, until the block ends."""
    scrapes = [
        {
            "job_name": name,
            "honor_labels": True,
            "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": labels}],
        }
        for name, (port, labels) in targets.items()
    ]
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": scrapes,
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        find_program("prometheus"),
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield Prometheus(port)
        finally:
            process.terminate()


@contextlib.asynccontextmanager
async def repeated(act: Any) -> AsyncIterator[None]:
    """Do it every 0.2 s beside the block."""

    async def repeat() -> None:
        while True:
            await act()
            await asyncio.sleep(0.2)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def queries() -> dict[str, str]:
    """The query of every panel and alert by its name, changed so that it gives a number if its metrics are there."""
    found = {}
    for path, make in DASHBOARDS.items():
        for panel in json.loads(make())["panels"]:
            for target in panel.get("targets", ()):
                query = re.sub(r'"\$\w+"', '".*"', target["expr"]).replace("$__rate_interval", "10s")
                found[f"{path}: {panel['title']} {target['refId']}"] = query
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            query = re.sub(r"(==|>) ", r"\1 bool ", rule["expr"].replace(":30s]", ":1s]"))
            found[rule["alert"]] = query.replace("absent(", "sum(")
    return found


async def test_every_panel_and_every_alert_gets_its_numbers_from_a_real_prometheus(
    folder: Path, tmp_path: Path
) -> None:
    metrics, port = operator_metrics(), free_port()
    worker_labels = {"namespace": "default", "pod": "search-1", "agentqueue": "travel", "agent": "search"}
    asked, healthy = queries(), {}
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(run_server("valkey")).url
        probes = Probes(0, "", registry=metrics.registry, live=lambda: "", ready=lambda: "")
        probes.start()
        stack.callback(probes.stop)
        worker = stack.enter_context(worker_process("handlers:agent", folder, url, PROBE_PORT=port))
        operator_labels = {"namespace": "agentqueue-system", "pod": "operator-1"}
        targets = {"workers": (port, worker_labels), "operator": (probes.port, operator_labels)}
        server = stack.enter_context(prometheus(tmp_path, targets))
        await worker.said("worker_started")
        async with Client(url) as client, Server(ServerOptions(url)) as connection:

            async def work() -> None:
                await client.enqueue("search", "find", 1)
                await client.enqueue("search", "fail")
                await look(connection, metrics)

            async def answered() -> bool:
                try:
                    for where in [it for it in asked if it not in healthy]:
                        if await asyncio.to_thread(server.has, asked[where]):
                            healthy[where] = True
                except OSError:  # it is not up yet
                    return False
                return len(healthy) == len(asked)

            async with repeated(work):
                try:
                    await until(answered, what="every query gives a number", deadline=60)
                except AssertionError:
                    assert not asked.keys() - healthy.keys(), "these give none"
            groups = (await asyncio.to_thread(server.get, "/api/v1/rules"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"]: rule["lastError"] for rule in rules if rule.get("lastError")} == {}
    assert {rule["health"] for rule in rules} == {"ok"}
