"""Workers for tests, in the test's own event loop or as a process that gets signals."""

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from agentqueue import Agent, Context
from agentqueue.clock import monotonic
from agentqueue.store import ServerOptions
from agentqueue_worker.app.worker import Worker
from agentqueue_worker.process import make_worker, program_of
from agentqueue_worker.settings import Settings
from tests.support.waiting import DEADLINE, final, until

__all__ = ["DEADLINE", "Work", "WorkerProcess", "final", "until", "work_off", "worker_for", "worker_process", "working"]
_numbers = itertools.count(1)


class Work:
    """An agent whose jobs wait for an event, and record each start."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.go = asyncio.Event()
        self.agent = Agent("q")

        @self.agent.job
        async def job(ctx: Context) -> str:
            self.runs.append(ctx.id)
            await self.go.wait()
            return "done"

        self.job: Callable[..., object] = job


def worker_for(agent: Agent, url: str, **settings: Any) -> Worker:
    """Return a worker of the agent that does not run yet."""
    given: dict[str, Any] = {"name": f"worker-{next(_numbers)}", "concurrency": 5} | settings
    return make_worker(program_of(agent, Settings(redis=ServerOptions(url), **given)))


@contextlib.asynccontextmanager
async def working(agent: Agent, url: str, **settings: Any) -> AsyncIterator[Worker]:
    """Run a worker while the block runs. At its end running jobs are released at once."""
    worker = worker_for(agent, url, **settings)
    running = asyncio.create_task(worker.run())
    try:
        await until(lambda: worker.state.ready or running.done(), what="the worker is ready")
        yield worker
    finally:
        if not worker.state.draining and not running.done():
            worker.stop(grace=0.0)
        await asyncio.wait_for(running, DEADLINE)


async def work_off(agent: Agent, url: str, *, deadline: float = DEADLINE, **settings: Any) -> Worker:
    """Run a worker until no job is ready and none runs."""
    worker = worker_for(agent, url, burst=True, **settings)
    await asyncio.wait_for(worker.run(), deadline)
    return worker


class WorkerProcess:
    """`python -m agentqueue_worker` with a module of the test. Its standard error is kept."""

    def __init__(self, target: str, folder: Path, url: str, **environment: object) -> None:
        own = {"AGENTQUEUE_REDIS_URL": url, "AGENTQUEUE_LOG_FORMAT": "json", "PYTHONUNBUFFERED": "1"}
        env = {**os.environ, **own, **{f"AGENTQUEUE_{name}": str(value) for name, value in environment.items()}}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agentqueue_worker", target],
            cwd=folder,
            env=env,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(iter(self.process.stderr.readline, ""))

    @property
    def output(self) -> str:
        """Lines that the worker has written to standard error."""
        return "".join(self.lines)

    async def said(self, word: str, *, deadline: float = DEADLINE) -> None:
        """Wait until the output contains that."""
        try:
            await until(lambda: word in self.output, what=f"the worker says {word!r}", deadline=deadline)
        except AssertionError as exc:
            raise AssertionError(f"{exc}; it said:\n{self.output}") from None

    def send(self, number: signal.Signals) -> float:
        """Send a signal, and return the time in monotonic seconds."""
        self.process.send_signal(number)
        return monotonic()

    async def exit(self, *, deadline: float = DEADLINE) -> int:
        """Wait until the worker has ended and its output is read, and return the exit code."""
        await until(lambda: self.process.poll() is not None, what="the worker exits", deadline=deadline)
        await asyncio.to_thread(self._reader.join, 5)
        return self.process.returncode

    def close(self) -> None:
        """Kill the process if it runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextlib.contextmanager
def worker_process(target: str, folder: Path, url: str, **environment: object) -> Iterator[WorkerProcess]:
    """Run a worker process while the block runs. Keywords are its variables without `AGENTQUEUE_`."""
    worker = WorkerProcess(target, folder, url, **environment)
    try:
        yield worker
    finally:
        worker.close()


def now() -> float:
    """Return monotonic seconds, which handlers in other processes can compare."""
    return time.monotonic()
