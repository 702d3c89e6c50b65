"""`agentqueue worker` as people type it, and what it says when it can't."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentqueue import Client

HANDLERS = """
from agentqueue import Agent

agent = Agent("q")

@agent.job
async def quick(ctx, n: int) -> int:
    return n
"""


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


def agentqueue(folder: Path, *args: str) -> "subprocess.CompletedProcess[str]":
    env = {name: value for name, value in os.environ.items() if "REDIS_URL" not in name}
    return subprocess.run(
        [str(Path(sys.executable).with_name("agentqueue")), *args],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


async def test_it_works_a_queue_off_in_burst_mode(client: Client, server_url: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HANDLERS)
    job = await client.enqueue("other", "quick", 7)
    done = agentqueue(tmp_path, "worker", "mine:agent", "--redis", server_url, "--queue", "other", "-c", "2", "--burst")
    assert done.returncode == 0, done.stderr
    assert await job.result() == 7
    assert '"event":"worker_started"' in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        pytest.param(["mine:agent"], 2, "--redis URL", id="no-redis"),
        pytest.param([], 2, "module:attribute", id="no-handler"),
        pytest.param(["mine:agnet"], 1, "did you mean 'agent'", id="misspelt"),
        pytest.param(["mine:agent", "-c", "0"], 2, "concurrency", id="no-slots"),
        pytest.param(["mine:agent", "--queue", "a b"], 2, "queue name", id="bad-queue"),
        pytest.param(["mine:agent", "--grace", "inf"], 2, "--grace 'inf': must be a number from 0", id="endless-grace"),
        pytest.param(["mine:agent", "--name", ""], 2, "--name '': must have 1 to 253", id="empty-name"),
        pytest.param(["mine:agent", "--redis", "http://x"], 2, "starts with none of redis://", id="bad-url"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tmp_path: Path, args: list[str], code: int, words: str) -> None:
    (tmp_path / "mine.py").write_text(HANDLERS)
    done = agentqueue(tmp_path, "worker", *args)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
