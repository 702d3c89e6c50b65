"""Tests of `agentqueue up`: a file runs on this machine, and jobs survive every kind of end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentqueue.client import SyncClient
from agentqueue.local.state import read_up_state

COMMAND = str(Path(sys.executable).parent / "agentqueue")
HANDLERS = """
import asyncio, os, pathlib
from agentqueue import Agent, Context

agent = Agent("work")
OUT = pathlib.Path(os.environ["OUT"])

@agent.job()
async def note(ctx: Context, n: int) -> int:
    with (OUT / "started").open("a") as file:
        file.write(f"{n}\\n")
    await asyncio.sleep(0.05)
    (OUT / f"done-{n}").touch()
    return n

@agent.job()
async def die(ctx: Context) -> str:
    if ctx.delivery == 1:
        os._exit(7)
    return "survived"

@agent.job()
async def hold(ctx: Context) -> str:
    (OUT / "holding").touch()
    while not (OUT / "let-go").exists():
        await asyncio.sleep(0.02)
    return "finished"
"""
RESOURCE = """
apiVersion: agentqueue.dev/v1alpha1
kind: AgentQueue
metadata: {name: tried}
spec:
  redis: {managed: {}}
  agents:
    - name: work
      image: example/work:1
      handler: handlers:agent
      concurrency: 4
      terminationGracePeriodSeconds: 20
      env: [{name: OUT, value: %s}]
      scaling: {maxReplicas: 2}
"""


def wait_for(what: Callable[[], Any], described: str, seconds: float = 30) -> Any:
    """Poll a condition until it holds. The deadline only makes a failure visible."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"gave up waiting for {described}"
        time.sleep(0.02)
    return found


class Running:
    """A running `up` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.out.mkdir(exist_ok=True)
        (folder / "handlers.py").write_text(HANDLERS)
        (folder / "agentqueue.yaml").write_text(RESOURCE % self.out)
        self.process: subprocess.Popen[str] | None = None
        self.starts = 0

    def start(self) -> "Running":
        self.starts += 1
        command = [COMMAND, "up", "agentqueue.yaml"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, text=True)
        wait_for(lambda: read_up_state(self.folder) and "Ctrl-C drains" in self.text, "up's note")
        return self

    @property
    def log(self) -> Path:
        return self.folder / f"up-{self.starts}.log"

    @property
    def text(self) -> str:
        return self.log.read_text()

    @property
    def client(self) -> SyncClient:
        return SyncClient.local(self.folder)

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(40)

    def workers(self) -> list[int]:
        ledger = self.folder / ".agentqueue" / "workers.json"
        return [row["pid"] for row in json.loads(ledger.read_text())] if ledger.exists() else []


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    if running.process is not None and running.process.poll() is None:
        assert running.end(signal.SIGINT) == 0


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def test_a_first_job_starts_a_worker_and_ctrl_c_ends_with_0(up: Running) -> None:
    with up.start().client as client:
        assert client.enqueue("work", "note", 1).result(timeout=30) == 1
    assert up.end(signal.SIGINT) == 0
    assert up.workers() == []
    assert read_up_state(up.folder) is None


def test_a_running_job_finishes_before_up_ends(up: Running) -> None:
    with up.start().client as client:
        client.enqueue("work", "hold", id="held")
        wait_for((up.out / "holding").exists, "the job to run")
        assert up.process is not None
        up.process.send_signal(signal.SIGINT)
        wait_for(lambda: "draining" in up.text, "the drain")
        (up.out / "let-go").touch()
    assert up.process.wait(30) == 0
    with up.start().client as client:
        assert client.job("held").result(timeout=10) == "finished"


def test_every_job_is_done_after_kill_9_and_up_again(up: Running) -> None:
    with up.start().client as client:
        client.enqueue_many([{"queue": "work", "name": "note", "data": n, "id": f"n{n}"} for n in range(60)])
        wait_for(lambda: any(up.out.glob("done-*")), "the first job")
        workers = up.workers()
    up.end(signal.SIGKILL)
    wait_for(lambda: not any(alive(pid) for pid in workers), "the orphans to end", 10)
    with up.start().client as client:
        for n in range(60):
            assert client.job(f"n{n}").result(timeout=30) == n
        assert client.stats("work").dead == 0


def test_a_job_runs_again_after_kill_9_of_all_though_nobody_remembers_its_worker(up: Running) -> None:
    """No other job waits, so a worker starts only for this one."""
    with up.start().client as client:
        client.enqueue("work", "hold", id="held")
        wait_for((up.out / "holding").exists, "the job to run")
        workers = up.workers()
    up.end(signal.SIGKILL)
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    (up.folder / ".agentqueue" / "workers.json").unlink()
    (up.out / "let-go").touch()
    with up.start().client as client:
        assert client.job("held").result(timeout=60) == "finished"
        assert client.job("held").status().deliveries == 2


def test_a_job_whose_worker_dies_runs_again_in_another(up: Running) -> None:
    with up.start().client as client:
        assert client.enqueue("work", "die").result(timeout=30) == "survived"
    assert "ended with 7" in up.text


def test_two_at_once_in_one_folder_are_refused(up: Running) -> None:
    up.start()
    command = [COMMAND, "up", "agentqueue.yaml"]
    second = subprocess.run(command, cwd=up.folder, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 2
    assert "runs here already" in second.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(RESOURCE.replace("concurrency", "concurency") % "/tmp", "concurrency", id="wrong-key"),
        pytest.param("kind: Nothing\n", "AgentQueue", id="no-resource"),
    ],
)
def test_a_wrong_file_says_what_to_write(up: Running, text: str, said: str) -> None:
    (up.folder / "agentqueue.yaml").write_text(text)
    command = [COMMAND, "up", "agentqueue.yaml"]
    tried = subprocess.run(command, cwd=up.folder, capture_output=True, text=True, timeout=30, check=False)
    assert tried.returncode == 2
    assert said in tried.stderr
    assert "Traceback" not in tried.stderr


def test_a_handler_that_does_not_import_is_shown_and_up_goes_on(up: Running) -> None:
    (up.folder / "handlers.py").write_text("import no_such_module_here\n")
    up.start()
    with up.client as client:
        client.enqueue("work", "note", 1, id="later")
    wait_for(lambda: "no_such_module_here" in up.text, "the reason")
    (up.folder / "handlers.py").write_text(HANDLERS)
    with up.client as client:
        assert client.job("later").result(timeout=60) == 1


def test_when_its_reader_is_gone_it_runs_on_and_ctrl_c_ends_it(up: Running) -> None:
    """`agentqueue up … | head` or `| tee`: the same Ctrl-C ends the reader first."""
    command = [COMMAND, "up", "agentqueue.yaml"]
    up.process = subprocess.Popen(command, cwd=up.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert up.process.stdout is not None
    while "Ctrl-C drains" not in up.process.stdout.readline():
        pass
    up.process.stdout.close()
    with up.client as client:
        assert client.enqueue("work", "die").result(timeout=30) == "survived"
    assert up.end(signal.SIGINT) == 0
