"""Tests of scaling on a cluster with real workers and Redis: the drain handshake, and crashed containers."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agentqueue import Agent, Client, Context
from agentqueue.clock import monotonic, now_ms
from agentqueue.errors import QueueFull
from agentqueue.model.dead_letter import DeadLetterReason
from agentqueue.store import Engine, Server, Store
from agentqueue_operator.autoscaling.decision_record import decode
from agentqueue_operator.controller.ports import Scaled
from agentqueue_operator.controller.scaling.scaler import QueueScaler
from agentqueue_operator.queues.ports import WorkerCrash
from agentqueue_operator.queues.reader import QueueReader
from tests.support.scaling import FakeCluster, pod, queue_of
from tests.support.servers import RunningServer
from tests.support.workers import WorkerProcess, final, until, working

HANDLERS = """
import asyncio, pathlib
from agentqueue import Agent, Context

agent = Agent("work")

@agent.job
async def hold(ctx: Context) -> int:
    pathlib.Path(f"begun-{ctx.delivery}").touch()
    while ctx.delivery == 1 or not pathlib.Path("let-go").exists():
        await asyncio.sleep(0.02)
    return ctx.delivery
"""


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


class ScalerTestBed:
    """A scaler over real queues. Its cluster is a fake that carries out changes at once."""

    def __init__(self, server: Server, *workers: str, **scaling: Any) -> None:
        self.cluster = FakeCluster(len(workers), *map(pod, workers))
        self.scaler = QueueScaler(self.cluster)
        self.reader = QueueReader(server)
        self.queue = queue_of(**scaling)

    async def run_pass(self) -> Scaled:
        scaled = await self.scaler.scale(self.queue, self.cluster.agents, queues=self.reader, at=monotonic())
        return scaled["work"]

    async def until_lowered(self) -> int:
        """Run reconciles until the replicas are lowered. Return the replicas."""

        async def is_lower() -> bool:
            scaled = await self.run_pass()
            assert scaled.replicas is not None
            self.lowered = scaled.replicas
            return self.lowered < self.cluster.replicas

        await until(is_lower, what="fewer are rendered")
        return self.lowered


def holding() -> tuple[Agent, asyncio.Event]:
    """An agent whose jobs run until the test releases them."""
    agent, let_go = Agent("work"), asyncio.Event()

    @agent.job
    async def hold(ctx: Context) -> str:
        await let_go.wait()
        return ctx.id

    return agent, let_go


async def beats(reader: QueueReader, count: int) -> None:
    """Wait until this number of workers has sent heartbeats."""

    async def are_heard() -> bool:
        return len((await reader.read({"work": 1.0}))["work"].heartbeats) == count

    await until(are_heard, what=f"{count} heartbeats")


async def test_an_idle_worker_goes_while_a_busy_one_ends_its_job(
    client: Client, server: Server, server_url: str
) -> None:
    agent, let_go = holding()
    bed = ScalerTestBed(server, "w-1", "w-2", mode="Fixed", replicas=1)
    async with working(agent, server_url, name="w-1", pod_uid="uid-w-1", concurrency=1):
        job = await client.enqueue("work", "hold")
        await until(lambda: _is_active(client, job.id), what="the job runs")
        async with working(agent, server_url, name="w-2", pod_uid="uid-w-2", concurrency=1) as second:
            await beats(bed.reader, 2)
            assert await bed.until_lowered() == 1
            assert bed.cluster.costs() == {"w-2"}
            assert second.state.drain_requested
            assert bed.cluster.lower(1) == ["w-2"]
        let_go.set()
        assert (await final(job)).deliveries == 1


async def _is_active(client: Client, job_id: str) -> bool:
    return str((await client.status(job_id, queue="work")).state) == "active"


async def test_a_suspended_queue_keeps_its_busy_worker_until_the_job_has_ended(
    client: Client, server: Server, server_url: str
) -> None:
    agent, let_go = holding()
    bed = ScalerTestBed(server, "w-1", suspend=True)
    async with working(agent, server_url, name="w-1", pod_uid="uid-w-1", concurrency=1) as worker:
        job = await client.enqueue("work", "hold")
        await until(lambda: _is_active(client, job.id), what="the job runs")
        await beats(bed.reader, 1)
        await bed.run_pass()
        await until(lambda: worker.state.drain_requested, what="the worker knows")
        for _ in range(60):
            assert (await bed.run_pass()).replicas == 1
        waiting = await client.enqueue("work", "hold")
        let_go.set()
        await final(job)
        assert await bed.until_lowered() == 0
        assert str((await waiting.status()).state) == "waiting"


async def test_a_worker_whose_mark_is_taken_back_works_again(client: Client, server: Server, server_url: str) -> None:
    agent, let_go = holding()
    bed = ScalerTestBed(server, "w-1", mode="Fixed", replicas=0)
    let_go.set()
    async with working(agent, server_url, name="w-1", pod_uid="uid-w-1") as worker:
        await beats(bed.reader, 1)
        await bed.run_pass()
        await until(lambda: worker.state.drain_requested, what="the worker knows")
        job = await client.enqueue("work", "hold")
        bed.queue = queue_of(mode="Fixed", replicas=1)
        assert (await bed.run_pass()).replicas == 1
        assert (await final(job)).deliveries == 1
        assert bed.cluster.costs() == set()


async def test_a_marked_worker_whose_operator_is_gone_works_again_after_a_while(
    client: Client, server: Server, server_url: str
) -> None:
    agent, let_go = holding()
    let_go.set()
    reader = QueueReader(server)
    async with working(agent, server_url, name="w-1", pod_uid="uid-w-1") as worker:
        await beats(reader, 1)
        await reader.mark("work", "w-1", drain=True, keep_s=3600.0)
        await until(lambda: worker.state.drain_requested, what="the worker knows")
        job = await client.enqueue("work", "hold")
        await reader.keep_marks("work", None)
        assert (await reader.read({"work": 1.0}))["work"].marked.keys() == {"w-1"}
        await reader.keep_marks("work", 0.2)
        assert (await final(job)).deliveries == 1
        assert not worker.state.drain_requested


async def test_long_jobs_show_by_their_age(client: Client, server: Server, server_url: str) -> None:
    agent, let_go = holding()
    reader = QueueReader(server)
    async with working(agent, server_url, name="w-1", pod_uid="uid-w-1"):
        await client.enqueue("work", "hold")

        async def has_run() -> bool:
            reports = (await reader.read({"work": 1.0}))["work"].heartbeats.values()
            return any(one.running_s > 1.0 and one.oldest_s == one.running_s for one in reports)

        await until(has_run, what="a heartbeat reports the age of the running job")
        let_go.set()


async def test_the_last_decision_is_found_in_redis(server: Server) -> None:
    bed = ScalerTestBed(server, mode="Fixed", replicas=3)
    await bed.run_pass()
    raw = await Store(server).decision("work")
    assert raw is not None
    assert decode(raw).decision.reason == "Fixed"
    assert await Store(server).queues() == ["work"]


async def test_a_full_redis_stops_no_scale_in(server: Server, server_url: str, shared_server: RunningServer) -> None:
    agent, _ = holding()
    bed = ScalerTestBed(server, "w-1", suspend=True)
    async with working(agent, server_url, name="w-1", pod_uid="uid-w-1"):
        await beats(bed.reader, 1)
        with shared_server.client() as plain:
            plain.config_set("maxmemory", 1)
        with pytest.raises(QueueFull):
            await bed.reader.publish({"work": b"{}"})
        assert await bed.until_lowered() == 0
        with shared_server.client() as plain:
            plain.config_set("maxmemory", 0)


# --- dead containers


@pytest.fixture
def start(server_url: str, tmp_path: Path) -> Any:
    (tmp_path / "held.py").write_text(HANDLERS)
    processes: list[WorkerProcess] = []

    def start(**environment: object) -> WorkerProcess:
        processes.append(WorkerProcess("held:agent", tmp_path, server_url, **environment))
        return processes[-1]

    yield start
    for one in processes:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait(10)
        assert one.process.stderr is not None
        one._reader.join(10)
        one.process.stderr.close()


def death(*, ended_ms: int | None = None, of_pod: bool = False, uid: str = "8a7b") -> WorkerCrash:
    return WorkerCrash(
        worker="w-1",
        pod_uid=uid,
        container="c1",
        ended_ms=ended_ms or now_ms() // 1000 * 1000 + 1000,
        why="OOMKilled, its container went over its memory limit (exit code 137)",
        of_pod=of_pod,
    )


@pytest.mark.parametrize("of_pod", [False, True])
async def test_what_a_dead_container_held_runs_again_at_once_and_its_history_names_the_kill(
    client: Client, server: Server, start: Callable[..., WorkerProcess], tmp_path: Path, of_pod: bool
) -> None:
    worker = start(WORKER_NAME="w-1", POD_UID="8a7b")
    job = await client.enqueue("work", "hold")
    await until((tmp_path / "begun-1").exists, what="the job runs")
    await beats(QueueReader(server), 1)
    other = start(WORKER_NAME="w-2", POD_UID="9c9c")
    await other.said("worker_started")
    worker.send(signal.SIGKILL)
    await worker.exit()
    assert await QueueReader(server).release_leases_of_container("work", death(of_pod=of_pod)) == 1
    await until((tmp_path / "begun-2").exists, what="the job runs again", deadline=4.0)  # a lease takes 8 s to run out
    status = await job.status()
    assert status.error is not None
    assert "worker w-1: OOMKilled" in status.error
    (tmp_path / "let-go").touch()
    assert (await final(job)).result == 2
    assert (await client.stats("work")).counters["crashed"] == 1


async def test_an_oom_kill_is_named_in_the_dead_letter(
    client: Client, server: Server, start: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    worker = start(WORKER_NAME="w-1", POD_UID="8a7b")
    job = await client.enqueue("work", "hold")
    await until((tmp_path / "begun-1").exists, what="the job runs")
    await beats(QueueReader(server), 1)
    worker.send(signal.SIGKILL)
    await worker.exit()
    await QueueReader(server).release_leases_of_container("work", death())
    start(WORKER_NAME="w-2", POD_UID="9c9c", RETRY_CRASHES=1)
    await final(job)
    (letter,) = await client.dead_letters("work")
    assert letter.reason is DeadLetterReason.CRASHED
    assert "OOMKilled" in letter.errors[0].message


Beat = Callable[..., Awaitable[Engine]]


@pytest.fixture
def beat(server: Server, client: Client) -> Beat:
    """Return an incarnation of a worker that has claimed a job and sent a heartbeat."""

    async def beat(incarnation: str, *, started_ms: int, uid: str = "8a7b", **said: Any) -> Engine:
        import orjson

        engine, owner = Engine(server, "work"), f"w-1/{uid}/{incarnation}"
        await client.enqueue("work", "hold")
        await engine.finish_and_claim(seq=1, owner=owner, want=1)
        raw = orjson.dumps({"podUid": uid, "incarnation": incarnation, "startedMs": started_ms} | said)
        await engine.renew(owner=owner, worker="w-1", heartbeat=raw, held=())
        return engine

    return beat


async def test_the_container_that_took_its_place_keeps_what_it_holds(
    server: Server, client: Client, beat: Beat
) -> None:
    ended_ms = now_ms() // 1000 * 1000
    await beat("second", started_ms=ended_ms)  # in the very second that the first one ended in
    assert await QueueReader(server).release_leases_of_container("work", death(ended_ms=ended_ms)) == 0
    assert (await client.stats("work")).active == 1


async def test_only_the_dead_incarnation_is_robbed(server: Server, client: Client, beat: Beat) -> None:
    ended_ms = now_ms() // 1000 * 1000
    engine = await beat("first", started_ms=ended_ms - 60_000)
    await client.enqueue("work", "hold")
    await engine.finish_and_claim(seq=1, owner="w-1/8a7b/second", want=1)  # before its first heartbeat
    assert (await client.stats("work")).active == 2
    assert await QueueReader(server).release_leases_of_container("work", death(ended_ms=ended_ms)) == 1
    assert (await client.stats("work")).active == 1


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"uid": "another-pods"}, id="another-pod-of-that-name"),
        pytest.param({"incarnation": "x", "startedMs": "noon"}, id="garbage"),
    ],
)
async def test_a_heartbeat_that_proves_nothing_robs_nobody(
    server: Server, client: Client, beat: Beat, given: dict[str, Any]
) -> None:
    incarnation = given.pop("incarnation", "first")
    await beat(incarnation, started_ms=1, **given)
    assert await QueueReader(server).release_leases_of_container("work", death()) == 0
    assert (await client.stats("work")).active == 1


async def test_a_dead_worker_that_never_said_anything_held_nothing_that_is_known(server: Server) -> None:
    assert await QueueReader(server).release_leases_of_container("work", death()) == 0
