"""Handlers that fork: the child is a process of its own, and the worker goes on as if it were not there."""

import asyncio
import sys
from pathlib import Path

import orjson
import pytest

from agentqueue import Client
from agentqueue.model.job import State
from tests.support.arq_programs import surroundings
from tests.support.waiting import final
from tests.support.workers import worker_process

PROGRAM = """
import asyncio
import concurrent.futures
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

from agentqueue import Agent, Context

agent = Agent("forks")
forking = multiprocessing.get_context("fork")


def sleep60() -> None:
    time.sleep(60)


def signals() -> list[bool]:
    now = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    return [now[0] == signal.SIG_DFL, now[1] is signal.default_int_handler, signal.set_wakeup_fd(-1) == -1]


def wait_for(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def terminated() -> int:
    process = forking.Process(target=sleep60)
    process.start()
    process.terminate()
    process.join()
    return process.exitcode


@agent.job
async def terminate(ctx: Context) -> int:
    return terminated()


@agent.job
def terminate_in_thread(ctx: Context) -> int:
    return terminated()


@agent.job
async def pool(ctx: Context) -> list:
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=forking) as executor:
        return list(executor.map(signals_in_pool, range(2)))


def signals_in_pool(_: int) -> list[bool]:
    return signals()


@agent.job
def preexec(ctx: Context) -> str:
    show = lambda: os.write(1, repr(signals()).encode())
    return subprocess.run(["true"], preexec_fn=show, stdout=subprocess.PIPE, check=True).stdout.decode()


@agent.job
def fork_and_return(ctx: Context) -> int:
    pid = os.fork()
    if pid == 0:
        return 5  # as if the child were to end the job
    return wait_for(pid)


@agent.job
def fork_and_exit(ctx: Context) -> int:
    pid = os.fork()
    if pid == 0:
        sys.exit(7)
    return wait_for(pid)


@agent.job
async def fork_and_raise(ctx: Context) -> int:
    pid = os.fork()
    if pid == 0:
        raise LookupError("only in the child")
    return wait_for(pid)


@agent.job
async def fork_and_await(ctx: Context) -> int:
    future = asyncio.get_running_loop().create_future()
    pid = os.fork()
    if pid == 0:
        await future
    return await asyncio.to_thread(wait_for, pid)


@agent.job
async def fork_and_checkpoint(ctx: Context) -> int:
    pid = os.fork()
    if pid == 0:
        await ctx.checkpoint({"from": "the child"})
    return await asyncio.to_thread(wait_for, pid)


def talk() -> None:
    for _ in range(50):
        logging.getLogger("child").info("said by the child")


@agent.job
def log_in_child(ctx: Context) -> list:
    stop = threading.Event()

    def chatter() -> None:
        while not stop.wait(0.0005):  # more than the test reads would be dropped
            ctx.log.info("said beside")
            logging.getLogger("parent").info("said beside")

    threads = [threading.Thread(target=chatter) for _ in range(3)]
    for thread in threads:
        thread.start()
    codes = []
    for _ in range(10):
        process = forking.Process(target=talk)
        process.start()
        process.join(20)
        codes.append(process.exitcode)
    stop.set()
    for thread in threads:
        thread.join()
    return codes
"""
DEFAULTS = [True, True, True]
RESULTS = {
    "terminate": -15,
    "terminate-in-thread": -15,
    "pool": [DEFAULTS, DEFAULTS],
    "preexec": repr(DEFAULTS),
    "fork-and-return": 0,
    "fork-and-exit": 7,
    "fork-and-raise": 1,
    "fork-and-await": 1,
    "fork-and-checkpoint": 1,
    "log-in-child": [0] * 10,
}


@pytest.mark.parametrize("name", RESULTS)
async def test_a_forked_child_ends_by_itself_and_leaves_the_worker_alone(
    server_url: str, tmp_path: Path, name: str
) -> None:
    (tmp_path / "forks.py").write_text(PROGRAM)
    async with Client(server_url) as client:
        job = await client.enqueue("forks", name, attempts=1)
        with worker_process("forks:agent", tmp_path, server_url) as worker:
            status = await final(job, deadline=40)
            assert (status.state, status.result) == (State.COMPLETED, RESULTS[name]), [
                it for it in worker.lines if not it.startswith("{")
            ][:30]
            after = await client.enqueue("forks", "fork-and-exit")
            assert (await final(after)).result == 7
            worker.process.terminate()
            assert await worker.exit() == 0
    events = [orjson.loads(line)["event"] for line in worker.lines if line.startswith("{")]
    assert events.count("drain_started") == events.count("worker_stopped") == 1
    if name == "log-in-child":
        assert events.count("said by the child") == 500
    if name == "fork-and-await":
        assert "a forked process awaited something in the worker's event loop" in worker.output


ARQ = """
import multiprocessing
import os
import time

from agentqueue_worker.arq import RedisSettings, Worker


def sleep60() -> None:
    time.sleep(60)


async def terminate(ctx: dict) -> int:
    process = multiprocessing.get_context("fork").Process(target=sleep60)
    process.start()
    process.terminate()
    process.join()
    return process.exitcode


print("begins", flush=True)
Worker(functions=[terminate], redis_settings=RedisSettings.from_dsn(os.environ["REDIS_URL"])).run()
"""


async def test_a_child_of_an_arq_program_dies_of_sigterm_and_its_worker_does_not(
    server_url: str, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(ARQ)
    async with Client(server_url) as client:
        first, second = [await client.enqueue("arq:queue", "terminate") for _ in range(2)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "program.py", cwd=tmp_path, env=surroundings(server_url), start_new_session=True
        )
        try:
            assert (await final(first)).result == (await final(second)).result == -15
            process.terminate()
            await asyncio.wait_for(process.wait(), 15)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
