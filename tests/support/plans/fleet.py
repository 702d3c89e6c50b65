"""Worker processes of plans, which are killed, drained and replaced."""

import contextlib
import itertools
import random
import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.plans.plan import QUEUES
from tests.support.workers import WorkerProcess, worker_process

HANDLERS: Final = """
import sys
from pathlib import Path

sys.path.insert(0, {root!r})
from tests.support.plans.agents import make_agents

agents = make_agents(Path({record!r}))
"""
ROOT: Final = Path(__file__).parents[3]


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
        names = "\n".join(f"agent_{number} = agents[{queue!r}]" for number, queue in enumerate(QUEUES))
        text = HANDLERS.format(root=str(ROOT), record=str(self.record)) + names
        (self.folder / "handlers.py").write_text(text)

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
