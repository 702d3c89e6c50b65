"""kill -9 of workers, of the server, of both, under load: each job runs once or more and is recorded once.

Rules 1, 2, 3, 4 and 12 of the design. Each job sends a child with its success (rule 12), so what is recorded twice
would show as a child too many, and what is recorded and forgotten as one too few.
"""

import asyncio
import contextlib
import itertools
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agentqueue import Client
from agentqueue.errors import QueueUnavailable
from agentqueue.store import Server, ServerOptions
from agentqueue_worker.domain.claim_size import ahead_limit
from tests.support.servers import RunningServer
from tests.support.workers import WorkerProcess, until, worker_process

HANDLERS = """
import asyncio, os
from agentqueue import Agent, Context

agent = Agent("q")
LOG = os.open(f"ran-{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

@agent.job
async def job(ctx: Context, n: int) -> int:
    os.write(LOG, f"{n}\\n".encode())  # before anything is recorded
    ctx.enqueue(("children", "child"), n)
    await asyncio.sleep(0.005)
    return n
"""
CONCURRENCY = 10
MAX_HELD = CONCURRENCY + ahead_limit(CONCURRENCY)
"""Number of jobs that a worker may have claimed and not recorded (docs/concepts.md, "Crashes")."""
DURABLE = {"appendonly": "yes", "appendfsync": "always"}


@dataclass
class Fleet:
    """Worker processes of one queue, which may be killed and replaced."""

    folder: Path
    url: str
    stack: contextlib.ExitStack
    workers: list[WorkerProcess] = field(default_factory=list)
    pods: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    names: dict[int, dict[str, str]] = field(default_factory=dict)

    def start(self, pod: dict[str, str] | None = None) -> WorkerProcess:
        """A worker in a new pod, or in the given one, whose container was restarted."""
        number = next(self.pods)
        pod = pod or {"WORKER_NAME": f"pod-{number}", "POD_UID": f"uid-{number}"}
        settings = {"CONCURRENCY": CONCURRENCY, "RETENTION_COMPLETED_COUNT": 100_000, "LOG_LEVEL": "warning"}
        worker = self.stack.enter_context(worker_process("handlers:agent", self.folder, self.url, **settings, **pod))
        self.names[worker.process.pid] = pod
        self.workers.append(worker)
        return worker

    async def kill(self, worker: WorkerProcess) -> None:
        """SIGKILL."""
        worker.send(signal.SIGKILL)
        await worker.exit()
        self.workers.remove(worker)

    async def replace(self, worker: WorkerProcess, *, same_pod: bool) -> None:
        """Kill a worker and start another: in its own pod (then it gives back what it held), or elsewhere."""
        await self.kill(worker)
        self.start(self.names[worker.process.pid] if same_pod else None)

    def runs(self) -> Counter[int]:
        """Return how many times each job was started, by all workers together."""
        return Counter(int(line) for file in self.folder.glob("ran-*") for line in file.read_text().split())


@pytest.fixture
def server(start_server: Callable[..., RunningServer]) -> RunningServer:
    return start_server(**DURABLE)


@pytest.fixture
async def client(server: RunningServer) -> AsyncIterator[Client]:
    async with Client(server.url) as connected:
        yield connected


@pytest.fixture
def fleet(server: RunningServer, tmp_path: Path) -> Iterator[Fleet]:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    with contextlib.ExitStack() as stack:
        yield Fleet(tmp_path, server.url, stack)


async def send(client: Client, numbers: range) -> None:
    await client.enqueue_many([{"queue": "q", "name": "job", "data": n, "id": f"job-{n}"} for n in numbers])


async def done(client: Client) -> int:
    """Return the number of recorded jobs, -1 while the server is unavailable."""
    try:
        return (await client.stats("q")).completed
    except QueueUnavailable:
        return -1


async def check(client: Client, fleet: Fleet, jobs: int, *, deadline: float = 90) -> Counter[int]:
    """Each job ran and was recorded once; how often each ran."""

    async def all_done() -> bool:
        return await done(client) >= jobs

    await until(all_done, what=f"{jobs} jobs are recorded", deadline=deadline)
    stats = await client.stats("q")
    assert (stats.waiting, stats.delayed, stats.active, stats.dead) == (0, 0, 0, 0)
    assert (stats.completed, stats.counters["enqueued"]) == (jobs, jobs), "recorded once"
    assert stats.counters.get("retried", 0) == 0, "no attempt was burnt"
    children = await client.stats("children")
    assert (children.waiting, children.counters["enqueued"]) == (jobs, jobs), "each child was sent once"
    async with Server(ServerOptions(fleet.url)) as plain:
        assert await plain.redis.zcard("q:done") == jobs
        results = await plain.redis.mget([f"arq:result:job-{n}" for n in range(jobs)])
    assert all(results), "each has its result"
    runs = fleet.runs()
    assert set(runs) == set(range(jobs)), "each ran"
    return runs


async def at(client: Client, count: int) -> None:
    """Wait until that number of jobs is done."""

    async def reached() -> bool:
        return await done(client) >= count

    await until(reached, what=f"{count} jobs are done", deadline=60)


async def test_a_worker_killed_under_load_loses_nothing(client: Client, fleet: Fleet) -> None:
    victim, _ = fleet.start(), fleet.start()
    await send(client, range(2_000))
    await at(client, 200)
    await fleet.kill(victim)
    runs = await check(client, fleet, 2_000)
    twice = [n for n, times in runs.items() if times > 1]
    assert len(twice) <= MAX_HELD, "only what it held"


async def test_the_server_killed_under_load_loses_nothing_that_it_acknowledged(
    client: Client, fleet: Fleet, server: RunningServer
) -> None:
    for _ in range(2):
        fleet.start()
    await send(client, range(1_000))
    jobs = 1_000
    for reached in (100, 500):
        await at(client, reached)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await send(client, range(jobs, jobs + 200))
        jobs += 200
    runs = await check(client, fleet, jobs)
    assert set(runs.values()) == {1}, "the workers lived, and had their outcomes recorded afterwards"


async def test_the_server_and_the_workers_killed_at_once_lose_nothing(
    client: Client, fleet: Fleet, server: RunningServer
) -> None:
    victims = [fleet.start(), fleet.start()]
    await send(client, range(1_000))
    await at(client, 200)
    for victim in victims:
        victim.send(signal.SIGKILL)
    await asyncio.to_thread(server.kill)
    for victim in victims:
        await victim.exit()
    await asyncio.to_thread(server.start)
    for _ in range(2):
        fleet.start()  # other pods: the leases have to run out
    runs = await check(client, fleet, 1_000)
    assert sum(runs.values()) <= 1_000 + 2 * MAX_HELD, "only what they held ran twice"


@pytest.mark.timeout(300)
async def test_ten_thousand_jobs_over_four_workers_with_random_kills(client: Client, fleet: Fleet) -> None:
    """A kill about every tenth of the work; half of the killed come back in their own pod, half elsewhere."""
    jobs, dice = 10_000, random.Random(20_260_101)
    for _ in range(4):
        fleet.start()
    await send(client, range(jobs))
    for part in range(1, 10):
        await at(client, part * jobs // 10 + dice.randrange(200))
        await fleet.replace(dice.choice(fleet.workers), same_pod=dice.random() < 0.5)
    runs = await check(client, fleet, jobs, deadline=200)
    assert sum(runs.values()) <= jobs + 9 * MAX_HELD, "only what the killed ones held ran twice"
