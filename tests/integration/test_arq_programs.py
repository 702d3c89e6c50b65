"""arq programs as processes: `agentqueue worker module.WorkerSettings`, `run_worker`, arq's own command."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job

from agentqueue.arq import loads
from agentqueue.model.dead_letter import DeadLetterReason, decode_dead_letter
from tests.support.arq_programs import PICKLE, QUEUE, arq_client, command, execute, surroundings
from tests.support.replies import field, fields
from tests.support.workers import until, worker_process

PROGRAM = """
import asyncio, os, pathlib, signal
from arq import cron, func
from arq.connections import RedisSettings

async def add(ctx, one, two=0):
    return one + two

async def slow(ctx, seconds):
    ctx["redis"]
    pathlib.Path("started").write_text(str(ctx["job_try"]))
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        pathlib.Path("cancelled").touch()
        raise
    return ctx["job_try"]

async def stop_worker(ctx):
    os.kill(os.getpid(), signal.SIGTERM)
    return "stopped"

async def on_startup(ctx):
    pathlib.Path("startup").touch()

async def on_shutdown(ctx):
    pathlib.Path("shutdown").touch()

class WorkerSettings:
    functions = [func(add, name="add"), slow, stop_worker]
    on_startup = on_startup
    on_shutdown = on_shutdown
    redis_settings = RedisSettings.from_dsn(os.environ["REDIS_URL"])
    max_jobs = 7
    ignored_by_arq = "as everything it does not know"

class Pickling(WorkerSettings):
    functions = WorkerSettings.functions
    redis_settings = WorkerSettings.redis_settings

class Elsewhere:
    functions = [add]
    redis_settings = RedisSettings(port=1, conn_retries=0)

class Patient:
    functions = WorkerSettings.functions
    redis_settings = WorkerSettings.redis_settings
    job_completion_wait = 30

class Empty:
    pass

AS_DICT = {"functions": [add], "redis_settings": WorkerSettings.redis_settings}
"""
SCRIPT = """
from agentqueue.arq import dumps, loads
from agentqueue_worker.arq import run_worker
from program import {name}

if __name__ == "__main__":
    worker = run_worker({name}, {options})
    print(worker)
"""


@pytest.fixture
def folder(tmp_path: Path, server_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REDIS_URL", server_url)  # where the program's class looks
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


@pytest.fixture
async def redis(server_url: str) -> AsyncIterator[ArqRedis]:
    async with arq_client(server_url) as pool:
        yield pool


@contextlib.contextmanager
def process(*words: str, folder: Path, url: str, **env: str) -> Iterator["subprocess.Popen[str]"]:
    started = subprocess.Popen(
        words,
        cwd=folder,
        env=surroundings(url, **env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield started
    finally:
        if started.poll() is None:
            started.kill()
        started.communicate(timeout=10)


async def ended(started: "subprocess.Popen[str]") -> int:
    await until(lambda: started.poll() is not None, what="the program ends")
    return started.returncode


# --- agentqueue worker ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["program.WorkerSettings", "program:WorkerSettings", "program:AS_DICT"])
async def test_agentqueue_worker_runs_a_worker_settings_class(
    folder: Path, server_url: str, redis: ArqRedis, target: str
) -> None:
    job = await redis.enqueue_job("add", 40, two=2)
    assert job is not None
    later = await redis.enqueue_job("add", 1, _defer_by=0.3)
    assert later is not None
    execute(command("agentqueue"), "worker", target, "--burst", folder=folder, env=surroundings(server_url))
    assert await job.result(timeout=5) == 42
    assert await later.result(timeout=5) == 1  # a burst waits for deferred jobs, as arq's does
    if target != "program:AS_DICT":
        assert (folder / "startup").exists()
        assert (folder / "shutdown").exists()


async def test_a_running_worker_serves_until_sigterm_and_its_jobs_end(
    folder: Path, server_url: str, redis: ArqRedis
) -> None:
    job = await redis.enqueue_job("slow", 0.5)
    assert job is not None
    with worker_process("program.WorkerSettings", folder, server_url, QUEUE=QUEUE) as worker:
        await until((folder / "started").exists, what="the job starts")
        assert await redis.exists(f"{QUEUE}:health-check")
        worker.send(signal.SIGTERM)
        assert await worker.exit() == 0
    assert await job.result(timeout=5) == 1
    assert not (folder / "cancelled").exists()
    assert (folder / "shutdown").exists()
    assert not await redis.exists(f"{QUEUE}:health-check")


async def test_a_job_that_outlasts_the_grace_period_goes_back_with_its_try(
    folder: Path, server_url: str, redis: ArqRedis
) -> None:
    job = await redis.enqueue_job("slow", 60)
    assert job is not None
    with worker_process("program.WorkerSettings", folder, server_url, QUEUE=QUEUE, **_grace(1)) as worker:
        await until((folder / "started").exists, what="the job starts")
        worker.send(signal.SIGTERM)
        assert await worker.exit() == 0
    assert (folder / "cancelled").exists()
    info = await job.info()
    assert info is not None
    assert info.score is not None
    assert info.score > 0
    assert await redis.get(f"arq:retry:{job.job_id}") is None


def _grace(seconds: int) -> dict[str, Any]:
    return {"TERMINATION_GRACE_PERIOD_SECONDS": seconds}


async def test_arqs_own_check_finds_the_worker_healthy(folder: Path, server_url: str) -> None:
    words = (command("arq"), "--check", "program.WorkerSettings")
    env = surroundings(server_url)
    said = execute(*words, folder=folder, env=env, code=1)
    assert "no health check sentinel value found" in said
    with worker_process("program.WorkerSettings", folder, server_url, QUEUE=QUEUE) as worker:
        await worker.said("worker_started")
        assert "j_complete=0" in execute(*words, folder=folder, env=env)


async def test_pickles_are_read_with_arq_pickle_and_are_dead_letters_without(folder: Path, server_url: str) -> None:
    words = (command("agentqueue"), "worker", "program.Pickling", "--burst")
    env = surroundings(server_url)
    async with arq_client(server_url, **PICKLE) as client:
        assert await client.enqueue_job("add", 1, _job_id="refused") is not None
        execute(*words, folder=folder, env=env)
        job = await client.enqueue_job("add", 1, _job_id="read")
        assert job is not None
        execute(*words, "--arq-pickle", folder=folder, env=env)
        assert await job.result(timeout=5) == 1
        raw = await field(client, "aq:dead:refused", "dead_letter")
    assert raw is not None
    letter = decode_dead_letter(raw)
    assert letter.reason is DeadLetterReason.PICKLED
    assert "--arq-pickle" in letter.error


async def test_what_is_given_goes_over_the_class_for_place_and_size(
    folder: Path, server_url: str, redis: ArqRedis
) -> None:
    """On Kubernetes the AgentQueue resource sets the connection, the queue and the number of slots."""
    job = await redis.enqueue_job("add", 2, two=2, _queue_name="other")
    assert job is not None
    given = {"AGENTQUEUE_REDIS_URL": server_url, "AGENTQUEUE_QUEUE": "other", "AGENTQUEUE_CONCURRENCY": "3"}
    env = surroundings("redis://127.0.0.1:1", **given)
    said = execute(command("agentqueue"), "worker", "program.Elsewhere", "--burst", folder=folder, env=env)
    assert await Job(job.job_id, redis, "other", loads).result(timeout=5) == 4
    assert "concurrency=3" in said or '"concurrency":3' in said
    assert "queue=other" in said or '"queue":"other"' in said


async def test_redis_on_the_command_line_goes_over_the_class(folder: Path, server_url: str, redis: ArqRedis) -> None:
    job = await redis.enqueue_job("add", 1)
    assert job is not None
    words = ("worker", "program.Elsewhere", "--burst", "--redis", server_url)
    said = execute(command("agentqueue"), *words, folder=folder, env=surroundings("redis://127.0.0.1:1"))
    assert await job.result(timeout=5) == 1
    assert "concurrency=10" in said or '"concurrency":10' in said  # arq's default for max_jobs


@pytest.mark.parametrize(
    ("target", "texts"),
    [
        pytest.param(
            "program.Empty", ("Empty is not an arq WorkerSettings", "at least one function"), id="no-functions"
        ),
        pytest.param("program.WorkerSetting", ("did you mean 'WorkerSettings'",), id="misspelt"),
    ],
)
def test_what_can_not_be_run_is_explained(folder: Path, server_url: str, target: str, texts: tuple[str, ...]) -> None:
    words = (command("agentqueue"), "worker", target, "--burst")
    said = execute(*words, folder=folder, env=surroundings(server_url), code=1)
    assert "Traceback" not in said
    for text in texts:
        assert text in " ".join(said.split())


async def test_a_worker_waits_for_the_redis_that_the_class_names(folder: Path) -> None:
    with worker_process("program.Elsewhere", folder, "") as worker:
        await worker.said("redis_unavailable")
        worker.send(signal.SIGTERM)
        assert await worker.exit() == 0


# --- run_worker ----------------------------------------------------------------------------------------------------


def script(folder: Path, name: str, **options: str) -> str:
    given = {"job_serializer": "dumps", "job_deserializer": "loads"} | options
    text = SCRIPT.format(name=name, options=", ".join(f"{key}={value}" for key, value in given.items()))
    (folder / "script.py").write_text(text)
    return "script.py"


async def test_run_worker_runs_the_program_to_its_end(folder: Path, server_url: str, redis: ArqRedis) -> None:
    job = await redis.enqueue_job("add", 40, two=2)
    assert job is not None
    name = script(folder, "WorkerSettings", burst="True")
    said = execute(sys.executable, name, folder=folder, env=surroundings(server_url))
    assert "<Worker j_complete=1 j_failed=0 j_retried=0 j_ongoing=0>" in said
    assert await job.result(timeout=5) == 42
    assert (folder / "shutdown").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_run_worker_at_once_as_arqs_default(
    folder: Path, server_url: str, redis: ArqRedis, number: signal.Signals
) -> None:
    job = await redis.enqueue_job("slow", 60)
    assert job is not None
    with process(sys.executable, script(folder, "WorkerSettings"), folder=folder, url=server_url) as program:
        await until((folder / "started").exists, what="the job starts")
        program.send_signal(number)
        assert await ended(program) == 0
    assert (folder / "cancelled").exists()
    assert (folder / "shutdown").exists()
    assert await redis.zscore(QUEUE, job.job_id) is not None
    assert await redis.get(f"arq:retry:{job.job_id}") is None


async def test_job_completion_wait_lets_running_jobs_end(folder: Path, server_url: str, redis: ArqRedis) -> None:
    job = await redis.enqueue_job("slow", 1.5)
    assert job is not None
    with process(sys.executable, script(folder, "Patient"), folder=folder, url=server_url) as program:
        await until((folder / "started").exists, what="the job starts")
        program.send_signal(signal.SIGTERM)
        await until(lambda: _is_draining(redis), what="the worker says that it drains")
        second = await redis.enqueue_job("add", 1)
        assert second is not None
        assert await ended(program) == 0
    assert await job.result(timeout=5) == 1
    assert await redis.zscore(QUEUE, second.job_id) is not None  # no new job from the signal on
    assert not (folder / "cancelled").exists()


async def _is_draining(redis: ArqRedis) -> bool:
    beats = await fields(redis, f"{QUEUE}:workers")
    return any(b'"draining":true' in beat for beat in beats.values())


async def test_a_job_that_stops_its_own_worker_is_done(folder: Path, server_url: str, redis: ArqRedis) -> None:
    job = await redis.enqueue_job("stop_worker")
    assert job is not None
    with process(sys.executable, script(folder, "Patient"), folder=folder, url=server_url) as program:
        assert await ended(program) == 0
    assert await job.result(timeout=5) == "stopped"
