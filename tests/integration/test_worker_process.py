"""Workers as processes: drain on SIGTERM (rule 5), kill -9 (rules 1, 3, 4), probes, metrics, start-up errors."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from agentqueue import Client
from agentqueue.client import Job
from agentqueue.clock import monotonic
from agentqueue.model.job import State
from agentqueue.store import Server
from tests.support.replies import field
from tests.support.servers import RunningServer, free_port
from tests.support.workers import WorkerProcess, final, until, worker_process

HANDLERS = """
import asyncio, pathlib, time
from agentqueue import Agent, Context

agent = Agent("q")

def begin(ctx: Context) -> None:
    pathlib.Path(f"begun-{ctx.id}-{ctx.delivery}").touch()

@agent.job
async def sleep(ctx: Context, seconds: float) -> dict:
    begin(ctx)
    for step in range(int(seconds / 0.05)):
        await ctx.checkpoint({"step": step})
        await asyncio.sleep(0.05)
    return {"delivery": ctx.delivery, "attempt": ctx.attempt, "resumed": ctx.resume}

@agent.job
async def yielding(ctx: Context) -> str:
    begin(ctx)
    while not ctx.should_yield:
        await asyncio.sleep(0.01)
    return "ended in time"

@agent.job
async def stubborn(ctx: Context) -> None:
    begin(ctx)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

@agent.job
def thread(ctx: Context, seconds: float) -> str:
    begin(ctx)
    time.sleep(seconds)
    return "slept"

@agent.job
async def block(ctx: Context, seconds: float) -> str:
    begin(ctx)
    time.sleep(seconds)
    return "blocked"

@agent.job
async def to_thread(ctx: Context, seconds: float) -> None:
    begin(ctx)
    await asyncio.to_thread(time.sleep, seconds)

@agent.job
async def quick(ctx: Context, n: int = 0) -> int:
    return n

@agent.job(attempts=1)
async def fail(ctx: Context) -> None:
    raise ValueError("no")
"""


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    return tmp_path


Start = Callable[..., WorkerProcess]


@pytest.fixture
def start(folder: Path, server_url: str) -> Iterator[Start]:
    """`start(GRACE…=2)`: a worker process; ended with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda **environment: stack.enter_context(
            worker_process("handlers:agent", folder, server_url, **environment)
        )


GRACE = "TERMINATION_GRACE_PERIOD_SECONDS"


async def begun(folder: Path, job: Job, *, delivery: int = 1) -> None:
    """Until its handler has begun. Redis calls a job active before the worker has read the claim's answer: what a
    signal overtakes there goes back unstarted."""
    await until((folder / f"begun-{job.id}-{delivery}").exists, what=f"job {job.id} has begun")


# --- drain


async def test_a_job_shorter_than_the_grace_period_finishes_after_sigterm(
    client: Client, start: Start, folder: Path
) -> None:
    worker = start(**{GRACE: 30})
    job = await client.enqueue("q", "sleep", 0.6)
    await begun(folder, job)
    sent = worker.send(signal.SIGTERM)
    late = await client.enqueue("q", "quick")
    assert await worker.exit() == 0
    assert monotonic() - sent < 20.0, "it does not sit out the grace period"
    status = await job.status()
    assert (status.state, status.attempts) == (State.COMPLETED, 1)
    assert (await late.status()).state is State.WAITING, "no new claim from that instant"
    assert (await client.stats("q")).workers == ()


async def test_a_job_longer_than_the_grace_period_goes_back_to_the_head_with_its_checkpoint(
    client: Client, start: Start, folder: Path, server: Server
) -> None:
    worker = start(**{GRACE: 4})
    job = await client.enqueue("q", "sleep", 6)
    score = await server.redis.zscore("q", job.id)
    await begun(folder, job)
    sent = worker.send(signal.SIGTERM)
    assert await worker.exit() == 0
    assert 1.9 < monotonic() - sent < 4.0, "it had the grace period less its margin, and exits before SIGKILL"
    status = await job.status()
    assert (status.state, status.attempts) == (State.WAITING, 0)
    assert await server.redis.zscore("q", job.id) == score, "where it stood"
    start()
    result = (await final(job)).result
    assert (result["delivery"], result["attempt"]) == (2, 1), "no attempt burnt"
    assert result["resumed"]["step"] >= 5


async def test_a_draining_job_is_told_and_may_end_in_time(client: Client, start: Start, folder: Path) -> None:
    worker = start(**{GRACE: 10})
    job = await client.enqueue("q", "yielding")
    await begun(folder, job)
    worker.send(signal.SIGTERM)
    assert await worker.exit() == 0
    assert await job.result() == "ended in time"


@pytest.mark.parametrize("name", ["stubborn", "thread", "block", "to_thread"])
async def test_a_job_that_cant_be_stopped_is_handed_back_and_the_worker_exits(
    client: Client, start: Start, folder: Path, server: Server, name: str
) -> None:
    worker = start(**{GRACE: 4})
    job = await client.enqueue("q", name.replace("_", "-"), None if name == "stubborn" else 30)
    await begun(folder, job)
    sent = worker.send(signal.SIGTERM)
    assert await worker.exit() == 0
    assert monotonic() - sent < 4.0
    status = await job.status()
    assert (status.state, status.attempts) == (State.WAITING, 0)
    assert await field(server.redis, f"aq:meta:{job.id}", "crashes") is None


async def test_a_second_signal_hurries(client: Client, start: Start, folder: Path) -> None:
    worker = start(**{GRACE: 60})
    job = await client.enqueue("q", "sleep", 30)
    await begun(folder, job)
    worker.send(signal.SIGTERM)
    await worker.said("drain_started")
    assert worker.process.poll() is None
    sent = worker.send(signal.SIGINT)
    assert await worker.exit() == 0
    assert monotonic() - sent < 10.0, "of 60"
    assert (await job.status()).state is State.WAITING


async def test_an_idle_worker_exits_at_once(client: Client, start: Start) -> None:
    worker = start()
    await worker.said("worker_started")
    sent = worker.send(signal.SIGTERM)
    assert await worker.exit() == 0
    assert monotonic() - sent < 10.0, "of 60"


async def test_signals_up_to_its_last_moment_leave_the_exit_code_alone(start: Start) -> None:
    worker = start()
    await worker.said("worker_started")

    def ended() -> bool:
        worker.process.send_signal(signal.SIGINT)
        return worker.process.poll() is not None

    worker.send(signal.SIGTERM)
    await until(ended, what="the worker ends")
    assert await worker.exit() == 0


async def test_a_worker_exits_with_0_when_it_is_ended_while_it_still_imports(folder: Path, server_url: str) -> None:
    (folder / "slow.py").write_text("import sys, time\nprint('importing', file=sys.stderr)\ntime.sleep(30)\n")
    with worker_process("slow:agent", folder, server_url) as worker:
        await worker.said("importing")
        worker.send(signal.SIGTERM)
        assert await worker.exit() == 0


async def test_a_drain_without_a_server_ends_in_time(folder: Path, start_server: Callable[..., RunningServer]) -> None:
    server = start_server()
    async with Client(server.url) as client:
        with worker_process("handlers:agent", folder, server.url, **{GRACE: 8}) as worker:
            job = await client.enqueue("q", "sleep", 30)
            await begun(folder, job)
            server.kill()
            sent = worker.send(signal.SIGTERM)
            assert await worker.exit() == 0
            assert monotonic() - sent < 8.0
    assert "drain_overdue" in worker.output


# --- crash


async def test_a_killed_workers_jobs_start_again_within_10_s(
    client: Client, start: Start, folder: Path, server: Server
) -> None:
    first = start()
    other = start()
    await other.said("worker_started")

    async def looked_after() -> bool:
        """A cluster's everyday: leases have been reaped for a while, so that the 4 s after an outage are over."""
        last, hold = map(int, (await server.redis.get("q:reaped") or b"0|1").split(b"|"))
        return last >= hold

    await until(looked_after, what="leases are looked after")
    job = await client.enqueue("q", "block", 30)
    await begun(folder, job)
    victim = first if (await job.status()).worker == _name(first) else other
    killed = victim.send(signal.SIGKILL)

    async def again() -> bool:
        status = await job.status()
        return status.deliveries == 2 and status.state is State.ACTIVE

    await until(again, what="it runs again", deadline=12)
    assert monotonic() - killed < 10.0
    assert (await job.status()).attempts == 0


def _name(worker: WorkerProcess) -> str:
    return f"{socket.gethostname()}-{worker.process.pid}"


async def test_a_restarted_container_gives_back_what_it_held_at_once(
    client: Client, start: Start, folder: Path
) -> None:
    pod = {"WORKER_NAME": "pod-1", "POD_UID": "8a7b"}
    first = start(**pod)
    job = await client.enqueue("q", "thread", 0.5)
    await begun(folder, job)
    first.send(signal.SIGKILL)
    await first.exit()
    second = start(**pod)
    assert (await final(job)).deliveries == 2
    assert "jobs_released" in second.output, "it did not wait until the lease ran out"


# --- probes and metrics


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


async def test_probes_answer_while_a_handler_blocks_the_loop(client: Client, start: Start, folder: Path) -> None:
    port = free_port()
    worker = start(PROBE_PORT=port)
    await worker.said("worker_started")
    job = await client.enqueue("q", "block", 4.0)
    await begun(folder, job)
    for path in ("/healthz", "/readyz"):
        assert (await asyncio.to_thread(fetch, port, path))[0] == 200
    assert (await asyncio.to_thread(fetch, port, "/nowhere"))[0] == 404


async def test_the_loops_lag_grows_while_a_handler_blocks_it(client: Client, start: Start, folder: Path) -> None:
    port = free_port()
    worker = start(PROBE_PORT=port)
    await worker.said("worker_started")
    job = await client.enqueue("q", "block", 5.0)
    await begun(folder, job)

    async def late() -> bool:
        _, text = await asyncio.to_thread(fetch, port, "/metrics")
        (lag,) = [line.split()[1] for line in text.splitlines() if line.startswith("agentqueue_loop_lag_seconds{")]
        return float(lag) > 1.5

    await until(late, what="the metric says that the loop is late")
    assert (await job.status()).state is State.ACTIVE, "while it blocks, not afterwards"


async def test_a_busy_worker_stays_ready_while_redis_is_away(
    folder: Path, start_server: Callable[..., RunningServer]
) -> None:
    server, port = start_server(), free_port()
    with worker_process("handlers:agent", folder, server.url, PROBE_PORT=port) as worker:
        await worker.said("worker_started")
        server.kill()
        await worker.said("redis_unavailable")
        for path in ("/healthz", "/readyz"):
            assert (await asyncio.to_thread(fetch, port, path))[0] == 200


async def test_metrics_count_jobs_by_name_and_outcome_and_never_by_id(client: Client, start: Start) -> None:
    port = free_port()
    start(PROBE_PORT=port)
    jobs = [await client.enqueue("q", "quick", n) for n in range(3)] + [await client.enqueue("q", "fail")]
    for job in jobs:
        await final(job)
    _, text = await asyncio.to_thread(fetch, port, "/metrics")
    assert 'agentqueue_jobs_total{job_name="quick",outcome="completed",queue="q"} 3.0' in text
    assert 'agentqueue_jobs_total{job_name="fail",outcome="dead",queue="q"} 1.0' in text
    assert 'agentqueue_job_duration_seconds_count{job_name="quick",queue="q"} 3.0' in text
    assert 'agentqueue_worker_slots{queue="q"} 5.0' in text
    assert not any(job.id in text for job in jobs)


# --- starting


async def test_logs_are_json_lines_and_failures_are_always_told(client: Client, start: Start) -> None:
    worker = start(CONCURRENCY=50)
    jobs = [await client.enqueue("q", "quick", n) for n in range(200)] + [await client.enqueue("q", "fail")]
    for job in jobs:
        await final(job)
    worker.send(signal.SIGTERM)
    await worker.exit()
    lines = [json.loads(line) for line in worker.lines]
    events = [line["event"] for line in lines]
    assert events.count("job_completed") < 100, "successes are sampled"
    (dead,) = [line for line in lines if line["event"] == "job_dead"]
    assert (dead["job"], dead["error"], dead["level"]) == ("fail", "ValueError: no", "error")


@pytest.mark.parametrize("broken", ["full-disk", "closed-pipe", "pipe-nobody-reads"])
async def test_a_log_that_cant_be_written_costs_no_job_and_no_exit_code(
    client: Client, server_url: str, folder: Path, broken: str
) -> None:
    jobs = [await client.enqueue("q", "quick", n) for n in range(3)] + [await client.enqueue("q", "fail")]
    with _unwritable(broken) as log:
        worker = subprocess.Popen(  # noqa: ASYNC220  # starts at once
            [sys.executable, "-m", "agentqueue_worker", "handlers:agent"],
            cwd=folder,
            env={**os.environ, "AGENTQUEUE_REDIS_URL": server_url, "AGENTQUEUE_LOG_FORMAT": "json"},
            stderr=log,
        )
        try:
            states = [(await final(job)).state for job in jobs]
            worker.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(worker.wait, 20)
        finally:
            worker.kill()
            worker.wait()
    assert states == [*[State.COMPLETED] * 3, State.DEAD]
    assert code == 0


@contextlib.contextmanager
def _unwritable(broken: str) -> Iterator[int]:
    ends = [os.open("/dev/full", os.O_WRONLY)] if broken == "full-disk" else [*os.pipe()]
    if broken == "closed-pipe":
        os.close(ends.pop(0))
    if broken == "pipe-nobody-reads":
        os.set_blocking(ends[1], False)
        with contextlib.suppress(BlockingIOError):  # it is full
            while True:
                os.write(ends[1], b"x" * 4096)
        os.set_blocking(ends[1], True)
    try:
        yield ends[-1]
    finally:
        for end in ends:
            os.close(end)


async def test_a_workers_resident_memory_is_under_60_mb(
    client: Client, start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the tests' own packages, not of a worker's: redis-py imports PyJWT, and that all of it where it is installed.
    (folder / "cryptography.py").write_text("raise ModuleNotFoundError('not here')\n")
    for name in [name for name in os.environ if name.startswith("COV")]:  # which measures itself too
        monkeypatch.delenv(name)
    worker = start()
    await final(await client.enqueue("q", "quick", 1))
    pages = await asyncio.to_thread(Path(f"/proc/{worker.process.pid}/status").read_text)
    (line,) = [line for line in pages.splitlines() if line.startswith("VmRSS")]
    assert int(line.split()[1]) < 60_000


@pytest.mark.parametrize(
    ("module", "target", "words"),
    [
        pytest.param("x = 1", "nowhere:agent", ["no module 'nowhere'", "PYTHONPATH"], id="no-such-module"),
        pytest.param("import nonesuch", "mine:agent", ["does not import", "nonesuch", "line 1"], id="broken-import"),
        pytest.param("1/0", "mine:agent", ["ZeroDivisionError", "mine.py, line 1"], id="raises-at-import"),
        pytest.param("agents = 1", "mine:agent", ["has no 'agent'", "did you mean 'agents'"], id="misspelt"),
        pytest.param("agent = 1", "mine:agent", ["is a int, neither an Agent"], id="not-an-agent"),
        pytest.param(
            "from agentqueue import Agent\nagent = Agent('q')", "mine:agent", ["has no jobs", "@agent.job"], id="empty"
        ),
        pytest.param(
            "from agentqueue import Agent\nagent = Agent('q')\n@agent.cron('61 * * * *')\ndef f(ctx): ...",
            "mine",
            ["61 * * * *", "five fields"],
            id="bad-cron",
        ),
        pytest.param(
            "from agentqueue import Agent\nagent = Agent('q')\n@agent.job\ndef f(ctx, x: 'Nope'): ...",
            "mine",
            ["Nope", "module level"],
            id="unknown-annotation",
        ),
    ],
)
async def test_a_handler_that_cant_be_loaded_is_explained(
    tmp_path: Path, module: str, target: str, words: list[str]
) -> None:
    (tmp_path / "mine.py").write_text(textwrap.dedent(module))
    with worker_process(target, tmp_path, "redis://127.0.0.1:1") as worker:
        assert await worker.exit() == 1
    for word in words:
        assert word in worker.output
    assert "Traceback" not in worker.output


async def test_a_bad_setting_is_explained(tmp_path: Path) -> None:
    with worker_process("mine:agent", tmp_path, "redis://127.0.0.1:1", CONCURRENCY="many") as worker:
        assert await worker.exit() == 2
    assert "AGENTQUEUE_CONCURRENCY='many'" in worker.output
