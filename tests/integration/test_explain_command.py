"""`agentqueue explain`: the reasons for the number of workers and for a waiting job."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agentqueue.cli.main import run
from agentqueue.client import SyncClient
from agentqueue.clock import now_ms
from agentqueue.model.schedule import Schedule
from agentqueue.store import Schedules, Server, ServerOptions, Store
from agentqueue_operator.autoscaling.decision import decide_replicas
from agentqueue_operator.autoscaling.model import Load, Memory, Pods, ScalingPolicy, ScalingSnapshot
from agentqueue_operator.queues.decision_publisher import Publisher
from agentqueue_operator.queues.reader import QueueReader
from tests.support.raw_queue import RawQueue

COMMAND = str(Path(sys.executable).parent / "agentqueue")
HANDLERS = """
import asyncio
from agentqueue import Agent, Context

agent = Agent("work")

@agent.job
async def hold(ctx: Context) -> None:
    await asyncio.sleep(600)
"""
RESOURCE = """
apiVersion: agentqueue.dev/v1alpha1
kind: AgentQueue
metadata: {name: tried}
spec:
  redis: {managed: {}}
  agents:
    - {name: work, image: example/work:1, handler: "handlers:agent", concurrency: 1, terminationGracePeriodSeconds: 10,
       scaling: {maxReplicas: 1}}
"""


@pytest.fixture
def client(server_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AGENTQUEUE_REDIS_URL", server_url)
    with SyncClient(server_url) as connected:
        yield connected


@pytest.fixture
def explain(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs the command and returns its output, or its error."""

    def explain(*arguments: str, code: int = 0) -> str:
        found = run(["explain", *arguments])
        out, err = capsys.readouterr()
        assert found == code, out + err
        return out if code == 0 else err

    return explain


def with_server(url: str, work: Callable[[Server], Any]) -> Any:
    """Run work in its own event loop."""
    import asyncio

    async def connected() -> Any:
        async with Server(ServerOptions(url)) as server:
            return await work(server)

    return asyncio.run(connected())


def published(url: str, *, by: str = "operator", current: int = 2, ready: int = 2) -> None:
    """Publish a decision on three waiting jobs, as an operator or `up` does."""

    async def publish(server: Server) -> None:
        snapshot = ScalingSnapshot(at=1.0, load=Load(ready=3, active=1), pods=Pods(ready=ready))
        policy = ScalingPolicy(concurrency=1, max_replicas=current, target_wait=timedelta(seconds=30))
        decision = decide_replicas(snapshot, current=current, policy=policy, memory=Memory())
        await Publisher(by, now=now_ms).publish(QueueReader(server), {"work": decision}, at=1.0)

    with_server(url, publish)


def claimed(url: str) -> None:
    """Start one job."""

    async def claim(server: Server) -> None:
        raw_queue = RawQueue(server, "work")
        await raw_queue.claim(1)
        beat = b'{"busy": 1, "slots": 1, "draining": false}'
        await raw_queue.engine.renew(owner=raw_queue.owner, worker=raw_queue.worker, heartbeat=beat, held=())

    with_server(url, claim)


def test_an_operators_decision_in_words(client: SyncClient, server_url: str, explain: Callable[..., str]) -> None:
    client.enqueue("work", "hold")
    published(server_url)
    shown = explain("work").splitlines()
    assert shown[0] == "work: 2 pods, as before: maxReplicas is 2."
    assert "  3 jobs ready (the oldest for 0 s), 0 due within a pod's start, 1 running." in shown
    assert re.fullmatch(
        r"  Decided \ds ago by the operator\. It has not changed the number since it started\.", shown[-1]
    )


def test_a_decision_of_up_is_about_workers(client: SyncClient, server_url: str, explain: Callable[..., str]) -> None:
    client.enqueue("work", "hold")
    published(server_url, by="up")
    shown = explain("work")
    assert shown.startswith("work: 2 workers, as before")
    assert re.search(r"Decided \ds ago by `agentqueue up`\.", shown)
    assert " pod" not in shown


def test_why_a_job_waits(client: SyncClient, server_url: str, explain: Callable[..., str]) -> None:
    for number in range(4):
        client.enqueue("work", "hold", id=f"j{number}")
    client.enqueue("work", "hold", id="first", priority="urgent")
    client.enqueue("work", "hold", id="later", delay=600)
    claimed(server_url)  # the urgent one
    published(server_url, ready=1)
    assert "with 2 jobs before it: 1 of 1 slots are busy; it starts within about 90 s." in explain("work", "j2")
    assert explain("work", "first").startswith("Job first has run for ")
    assert explain("work", "later").startswith("Job later is delayed: it becomes ready in 10 min.")


def test_workers_that_claim_no_more_are_no_free_slots(
    client: SyncClient, server_url: str, explain: Callable[..., str]
) -> None:
    client.enqueue("work", "hold", id="j")
    published(server_url)

    async def mark_one_of_two(server: Server) -> None:
        for worker, draining in (("one", b"false"), ("two", b"true")):
            beat = b'{"busy": 0, "slots": 25, "draining": ' + draining + b"}"
            await RawQueue(server, "work").engine.renew(owner=f"{worker}/1", worker=worker, heartbeat=beat, held=())
        await QueueReader(server).mark("work", "one", drain=True)

    with_server(server_url, mark_one_of_two)
    assert "all its workers (2) are draining: they finish their jobs and claim no more." in explain("work", "j")


def test_as_json(client: SyncClient, server_url: str, explain: Callable[..., str]) -> None:
    client.enqueue("work", "hold", id="j")
    published(server_url)
    shown = json.loads(explain("work", "j", "--json"))
    assert (shown["queue"], shown["decision"]["reason"], shown["decision"]["terms"]["current"]) == (
        "work",
        "MaxReplicas",
        2,
    )
    assert shown["decision"]["terms"]["demand"]["wanted"] > 2
    assert (shown["job"]["state"], shown["job"]["ahead"], shown["now"]["waiting"]) == ("waiting", 0, 1)
    assert shown["job"]["headline"].startswith("Job j has waited")
    assert json.loads(explain("work", "--json"))["job"] is None


def test_a_queue_without_autoscaling(client: SyncClient, server_url: str, explain: Callable[..., str]) -> None:
    client.enqueue("work", "hold", id="j")
    shown = explain("work", "j")
    assert "no job before it: no worker runs, and none was requested." in shown
    assert "No autoscaling decision found" in shown
    assert json.loads(explain("work", "--json"))["decision"] is None


def test_the_next_schedule_is_named(client: SyncClient, server_url: str, explain: Callable[..., str]) -> None:
    async def put(server: Server) -> None:
        often, rare = (Schedule(name, cron=cron, job="j") for name, cron in (("o", "0 * * * *"), ("r", "0 0 1 1 *")))
        await Schedules(server).put("work", source="resource", schedules=[rare, often])

    with_server(server_url, put)
    assert re.search(r"Next scheduled: o in \d+\w.*, at \d{4}-\S+T\d\d:00:00\+00:00\.", explain("work"))
    assert json.loads(explain("work", "--json"))["nextScheduledAt"].endswith(":00:00+00:00")


def test_a_decision_of_another_version_is_named(
    client: SyncClient, server_url: str, explain: Callable[..., str]
) -> None:
    client.enqueue("work", "hold")
    with_server(server_url, lambda server: Store(server).publish_decisions({"work": b"{}"}, keep_ms=60_000))
    assert "not a decision that this version can read" in explain("work")


def test_the_attempts_of_a_job(client: SyncClient, server_url: str, explain: Callable[..., str]) -> None:
    client.enqueue("work", "hold", id="j")

    async def die(server: Server) -> None:
        raw_queue = RawQueue(server, "work")
        job = await raw_queue.claim_one()
        await raw_queue.engine.release_worker_leases(worker="hand", reason="OOMKilled")
        assert job.id == "j"

    with_server(server_url, die)
    assert "It was started once, and 0 of these failed; the last error: Crashed: worker hand: OOMKilled." in (
        explain("work", "j")
    )


def test_a_job_that_is_final_waits_for_nothing(
    client: SyncClient, server_url: str, explain: Callable[..., str]
) -> None:
    client.enqueue("work", "hold", id="j")

    async def complete(server: Server) -> None:
        raw_queue = RawQueue(server, "work")
        await raw_queue.complete(await raw_queue.claim_one())

    with_server(server_url, complete)
    assert explain("work", "j").startswith("Job j is completed: it no longer waits.")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        pytest.param(["wrok"], 3, "did you mean 'work'?", id="unknown-queue"),
        pytest.param(["work", "nobody"], 3, "nobody", id="unknown-job"),
        pytest.param(["work", "other-job"], 3, "job other-job is in queue other, not in work", id="anothers-job"),
        pytest.param(["work", "a b"], 2, "job id 'a b'", id="no-id"),
        pytest.param(["wo rk"], 2, "queue name 'wo rk'", id="no-queue-name"),
    ],
)
def test_wrong_input(
    client: SyncClient, explain: Callable[..., str], arguments: list[str], code: int, said: str
) -> None:
    client.enqueue("work", "hold")
    client.enqueue("other", "hold", id="other-job")
    assert said in explain(*arguments, code=code)


@pytest.mark.slow
def test_a_running_up_explains_its_decision(tmp_path: Path) -> None:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    (tmp_path / "agentqueue.yaml").write_text(RESOURCE)
    environment = {name: value for name, value in os.environ.items() if "REDIS_URL" not in name}

    def ask(*arguments: str) -> str:
        return subprocess.run(
            [COMMAND, *arguments],
            capture_output=True,
            check=False,
            timeout=60,
            cwd=tmp_path,
            env=environment,
            text=True,
        ).stdout

    with (tmp_path / "log").open("w") as log:
        up = subprocess.Popen(
            [COMMAND, "up", "agentqueue.yaml"], stdout=log, stderr=log, cwd=tmp_path, env=environment, text=True
        )
    try:
        ends = time.monotonic() + 100
        shown = ""
        for job, words in (("first", "has run for"), ("second", "busy; it starts")):
            while words not in (shown := ask("explain", "work", job)):
                assert time.monotonic() < ends, shown + (tmp_path / "log").read_text()
                ask("submit", "work", "hold", "--id", job)
        assert "work: 1 worker, as before" in shown
        assert "by `agentqueue up`" in shown
    finally:
        up.send_signal(signal.SIGINT)
        assert up.wait(40) == 0
