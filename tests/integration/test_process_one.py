"""SIGTERM at any moment of a worker's start under an init ends it, and nothing is claimed after it.

`docker run --init` and `init: true` of Compose make an init process 1; a pod's `shareProcessNamespace` makes its pause
process that. tests/integration/test_first_moments.py has the workers that are process 1 themselves.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentqueue import Client
from agentqueue.clock import monotonic

HANDLERS = """
from agentqueue import Agent, Context

agent = Agent("q")


@agent.job
async def job(ctx: Context) -> None:
    pass
"""
INIT = """
import os, signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "agentqueue_worker", "handlers:agent"])
signal.signal(signal.SIGTERM, lambda *_: child.terminate())
print("begun", flush=True)
sys.exit(child.wait() % 256)
"""
"""What a pause process or an init does: it hands the signal on, to a process that is not number 1."""
DELAYS_S = (0.0, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5)
END_S = 60.0


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


def begin(folder: Path, url: str, program: list[str]) -> "subprocess.Popen[str]":
    """The program as process 1 of a PID namespace of its own."""
    (folder / "handlers.py").write_text(HANDLERS)
    own = {"AGENTQUEUE_REDIS_URL": url, "PYTHONUNBUFFERED": "1", "AGENTQUEUE_GRACE_SECONDS": "5"}
    return subprocess.Popen(
        ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child", *program],
        cwd=folder,
        env=os.environ | own,
        text=True,
        stdout=subprocess.PIPE,
    )


def child_of(parent: int) -> int:
    """The process that `unshare` has forked."""
    deadline = monotonic() + END_S
    while monotonic() < deadline:
        found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        if found:
            return int(found[0])
        os.sched_yield()
    raise AssertionError("unshare has forked no process")


@pytest.mark.parametrize("delay", DELAYS_S)
async def test_nothing_is_claimed_after_a_sigterm_under_an_init(
    delay: float, client: Client, server_url: str, tmp_path: Path
) -> None:
    await client.enqueue_many([{"queue": "q", "name": "job"} for _ in range(15)])
    process = begin(tmp_path, server_url, [sys.executable, "-c", INIT])
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == "begun\n"
    await asyncio.sleep(delay)
    os.kill(child_of(process.pid), signal.SIGTERM)
    code = await asyncio.to_thread(process.wait, END_S)
    process.stdout.close()
    stats = await client.stats("q")
    assert code in {0, 256 - signal.SIGTERM}
    counted = stats.waiting + stats.counters.get("completed", 0)
    assert (counted, stats.active, stats.counters.get("crashed", 0)) == (15, 0, 0)
