"""Worker processes of plans, which are killed, drained and replaced, also those of `agentqueue up`."""

import base64
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agentqueue.service import environment as env
from tests.support.plans.plan import QUEUES
from tests.support.workers import WorkerProcess, until, worker_process

HANDLERS: Final = """
import sys
from pathlib import Path

sys.path.insert(0, {root!r})
from tests.support.plans.agents import make_agents

agents = make_agents(Path({record!r}))
"""
ROOT: Final = Path(__file__).parents[3]


def write_handlers(folder: Path, record: Path) -> None:
    """Write the module `handlers`, whose agents record what they do: `agent_0` of the first queue, and so on."""
    names = "\n".join(f"agent_{number} = agents[{queue!r}]" for number, queue in enumerate(QUEUES))
    (folder / "handlers.py").write_text(HANDLERS.format(root=str(ROOT), record=str(record)) + names)


@dataclass
class LocalUp:
    """`agentqueue up` with a worker for each queue, on an external Redis."""

    folder: Path
    record: Path
    url: str
    _process: "subprocess.Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        self.folder.mkdir()
        write_handlers(self.folder, self.record)
        agents: list[dict[str, Any]] = [
            {
                "name": f"agent-{number}",
                "queueName": queue,
                "image": "example/plans:1",
                "handler": f"handlers:agent_{number}",
                "concurrency": 3,
                "scaling": {"minReplicas": 1, "maxReplicas": 1},
            }
            for number, queue in enumerate(QUEUES)
        ]
        api = {"apiVersion": "agentqueue.dev/v1alpha1", "kind": "AgentQueue", "metadata": {"name": "storm"}}
        redis = {"external": {"urlSecretRef": {"name": "given"}}}
        url = base64.b64encode(self.url.encode()).decode()
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "given"}, "data": {"url": url}}
        documents = [api | {"spec": {"redis": redis, "agents": agents}}, secret]
        (self.folder / "agentqueue.yaml").write_text("\n---\n".join(map(json.dumps, documents)))

    def start(self) -> None:
        """Start it."""
        environ = {name: value for name, value in os.environ.items() if name not in (*env.CONNECTION, "REDIS_URL")}
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from agentqueue.cli.main import main; main()", "up", "agentqueue.yaml"],
                cwd=self.folder,
                env=environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def runs(self) -> None:
        """Wait until it runs. It does not start without a Redis that answers."""
        process, log = self._process, self.folder / "log"
        assert process is not None
        await until(
            lambda: "Ctrl-C drains" in log.read_text() or process.poll() is not None, what="`up` runs", deadline=60
        )

    async def end(self, number: signal.Signals) -> None:
        """End it by a signal. Its workers end with it."""
        process = self._process
        assert process is not None
        if process.poll() is not None:
            raise AssertionError(f"`up` has ended by itself: {(self.folder / 'log').read_text()[-2_000:]}")
        process.send_signal(number)
        await until(lambda: process.poll() is not None, what="`up` exits", deadline=40)

    def close(self) -> None:
        """Kill it, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)


@dataclass
class ProcessFleet:
    """Worker processes of both queues."""

    folder: Path
    record: Path
    url: str
    stack: contextlib.ExitStack
    chance: random.Random
    dealt: Counter[str] = field(default_factory=Counter)
    """Number of workers that were ended, by the way."""
    output: list[str] = field(default_factory=list)
    """What those have written that ended otherwise."""
    _workers: list[tuple[WorkerProcess, str, dict[str, str]]] = field(default_factory=list)
    _pods: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        write_handlers(self.folder, self.record)

    def start(self, queue: str, pod: dict[str, str] | None = None) -> None:
        """Start a worker in a new pod, or in the given one, whose container was restarted."""
        number = next(self._pods)
        pod = pod or {"WORKER_NAME": f"pod-{number}", "POD_UID": f"uid-{number}"}
        settings = {
            "CONCURRENCY": self.chance.choice((1, 3, 10)),
            "LOG_LEVEL": "critical",
            "TERMINATION_GRACE_PERIOD_SECONDS": 2,
        }
        target = f"handlers:agent_{QUEUES.index(queue)}"
        worker = self.stack.enter_context(worker_process(target, self.folder, self.url, **settings, **pod))
        self._workers.append((worker, queue, pod))

    async def end_one(self) -> None:
        """Kill or drain a worker, and start another one: in its pod, which releases what it held, or elsewhere."""
        place = self.chance.randrange(len(self._workers))
        worker, queue, pod = self._workers.pop(place)
        number = signal.SIGKILL if self.chance.random() < 0.6 else signal.SIGTERM
        if worker.process.poll() is not None:
            raise AssertionError(f"a worker ended by itself: {worker.output[-2_000:]}")
        self.dealt[number.name] += 1
        worker.send(number)
        await worker.exit(deadline=30)
        worker.close()
        self.start(queue, pod if self.chance.random() < 0.7 else None)
