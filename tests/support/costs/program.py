"""Run one case and print its costs as JSON: `python -m tests.support.costs.program CASE URL`.

It is a process of its own, so that neither pytest nor a coverage tool is counted. The worker is the real one with its
default settings and its logs, on uvloop. What only depends on time (the lease thread's renewals) adds to a run that
takes longer, so the least figures of several runs are the true ones.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import redis
import uvloop

from agentqueue import Agent, Client, Retry
from agentqueue.clock import monotonic
from agentqueue.service.logging import set_up_logs
from agentqueue.store import Server, ServerOptions, Store
from agentqueue.store.scripts import Script
from agentqueue_worker.app.worker import Worker
from agentqueue_worker.process import make_worker, program_of
from agentqueue_worker.settings import Settings
from tests.support.costs.debugger import LineCountingServer
from tests.support.waiting import until

QUEUE: Final = "costs"
DELAY_S: Final = 0.05
SLOWNESS: Final = 100.0
"""How much slower the clock of a busy worker runs than time. The worker claims less at a time if its jobs get long, and
no-op jobs look long on a machine under load. With this clock they look short, and little depends on time."""
TURNS: Final = 10
"""Turns of the event loop in which every claimed no-op job starts and ends."""
IDLE_S: Final = 4.0
"""Seconds that an idle worker is watched: two renewals and eight polls."""
Costs = dict[str, float]
agent = Agent(QUEUE)


@agent.job
async def work(_ctx: object, n: int) -> int:
    return n


@agent.job
async def fail_once(ctx: Any, n: int) -> int:
    if ctx.attempt == 1:
        raise Retry("once more", after=0)
    return n


class LateServer(Server):
    """A server whose replies to steps come after the jobs that were claimed before have ended.

    With ten slots or more, how many jobs have ended by then would depend on the machine, and the size of steps with it.
    """

    async def run_dedicated(self, script: Script, queue: str, args: Sequence[Any]) -> Any:
        reply = await super().run_dedicated(script, queue, args)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        return reply


class Meter:
    """Counts what a section of a case uses, in the three ways that do not disturb each other.

    Args:
        url: the server.
        counts_calls: count the calls of Python and C functions in this thread. That makes the program slower.
        counts_lines: run the scripts in the debugger, which is much slower.
    """

    def __init__(self, url: str, *, counts_calls: bool = False, counts_lines: bool = False) -> None:
        self.options = ServerOptions(url)
        self.costs: Costs = {}
        self._redis = redis.Redis.from_url(url)
        self._counts_calls = counts_calls
        self._debugged: list[LineCountingServer] | None = [] if counts_lines else None

    def server(self, kind: type[Server] = Server) -> Server:
        """Return a new server whose scripts are counted."""
        if self._debugged is None:
            return kind(self.options)
        server = LineCountingServer(self.options)
        self._debugged.append(server)
        return server

    def client(self) -> Client:
        """Return a client whose scripts are counted."""
        client = Client.at(self.options)
        client.server = self.server()
        client.store = Store(client.server)
        return client

    def worker(self, concurrency: int, *, burst: bool = True) -> Worker:
        """Return a worker. Scripts of its lease thread are not counted as lines, as their number depends on time."""
        settings = Settings(redis=self.options, concurrency=concurrency, burst=burst)
        kind = LateServer if burst and concurrency >= 10 else Server
        program = replace(
            program_of(agent, settings), open_server=lambda lease: Server(self.options) if lease else self.server(kind)
        )
        return make_worker(program)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what the block uses."""
        calls = 0

        def count(_frame: object, event: str, _arg: object) -> None:
            nonlocal calls
            calls += event in {"call", "c_call"}

        before = self._lines
        self._redis.config_resetstat()
        if self._counts_calls:
            sys.setprofile(count)
        try:
            yield
        finally:
            sys.setprofile(None)
            found = cast("dict[str, Any]", self._redis.info("everything"))
        if self._debugged is not None:
            self._add({"script_lines": self._lines - before})
        elif self._counts_calls:
            self._add({"calls": calls})
        else:
            commands = {name: use["calls"] for name, use in found.items() if name.startswith("cmdstat_")}
            own = ("cmdstat_info", "cmdstat_config|resetstat")
            self._add(
                {
                    "commands": sum(n for name, n in commands.items() if name not in own),
                    "bytes_in": found["total_net_input_bytes"],
                    "bytes_out": found["total_net_output_bytes"],
                }
            )

    @property
    def _lines(self) -> int:
        return sum(server.lines for server in self._debugged or ())

    def _add(self, costs: Costs) -> None:
        self.costs = {name: self.costs.get(name, 0) + value for name, value in costs.items()}

    def reset(self) -> None:
        """Empty the server."""
        self._redis.flushall()

    def ended(self) -> int:
        """Return how many jobs of the queue have a result."""
        return sum(1 for _ in self._redis.scan_iter("arq:result:*", count=1_000))


Run = Callable[[Meter, int], Awaitable[float]]
"""Runs a case with a number of jobs, and returns by what its costs are divided."""


@dataclass(frozen=True)
class Case:
    run: Run
    jobs: int
    debugged: int
    """Number of jobs in the debugger. With 0 jobs, the case depends on time, and its lines are not counted."""


def running(concurrency: int, name: str = "work") -> Run:
    """A worker runs a backlog from its start to its end."""

    async def run(meter: Meter, count: int) -> float:
        async with Client.at(meter.options) as client:
            await client.enqueue_many(_backlog(count, name))
        with meter.counting():
            await meter.worker(concurrency).run()
        assert meter.ended() == count
        return count

    return run


async def enqueueing_one_by_one(meter: Meter, count: int) -> float:
    async with meter.client() as client:
        await client.enqueue(QUEUE, "work", 0)
        with meter.counting():
            for n in range(count):
                await client.enqueue(QUEUE, "work", n)
    return count


async def enqueueing_in_bulk(meter: Meter, count: int) -> float:
    async with meter.client() as client:
        await client.enqueue(QUEUE, "work", 0)
        with meter.counting():
            await client.enqueue_many(_backlog(count))
    return count


async def delaying(meter: Meter, count: int) -> float:
    """Jobs are enqueued with a delay, and run when they are all due."""
    async with meter.client() as client:
        await client.enqueue(QUEUE, "work", 0)
        with meter.counting():
            for n in range(count - 1):
                await client.enqueue(QUEUE, "work", n, delay=DELAY_S)
    await asyncio.sleep(DELAY_S + 0.01)
    with meter.counting():
        await meter.worker(10).run()
    assert meter.ended() == count
    return count


async def idling(meter: Meter, _count: int) -> float:
    """A worker waits for jobs."""
    worker = meter.worker(10, burst=False)
    running_worker = asyncio.create_task(worker.run())
    await until(lambda: worker.state.heartbeat_is_fresh, what="the first heartbeat")
    began = monotonic()
    with meter.counting():
        await asyncio.sleep(IDLE_S)
        seconds = monotonic() - began
    worker.stop()
    await running_worker
    return seconds


def _backlog(count: int, name: str = "work") -> list[dict[str, Any]]:
    return [{"queue": QUEUE, "name": name, "data": n} for n in range(count)]


CASES: Final = {
    "enqueue-one": Case(enqueueing_one_by_one, jobs=300, debugged=10),
    "enqueue-bulk": Case(enqueueing_in_bulk, jobs=1_000, debugged=500),
    "noop-1": Case(running(1), jobs=1_000, debugged=20),
    "noop-10": Case(running(10), jobs=1_000, debugged=100),
    "noop-100": Case(running(100), jobs=2_000, debugged=200),
    "delayed": Case(delaying, jobs=300, debugged=50),
    "retry": Case(running(10, "fail-once"), jobs=300, debugged=50),
    "idle": Case(idling, jobs=0, debugged=0),
}
"""Costs are per job, those of `idle` per second. They include the start and the end of the worker."""


def slow_clock_down() -> None:
    """Make the worker's clock run slower than time by `SLOWNESS`."""
    for name, module in tuple(sys.modules.items()):
        if name.startswith("agentqueue_worker.") and getattr(module, "monotonic", None) is monotonic:
            module.monotonic = lambda: time.monotonic() / SLOWNESS  # type: ignore[attr-defined]


async def measure(case: Case, url: str) -> Costs:
    """Return the costs of a case."""
    Meter(url).reset()
    await running(10)(Meter(url), 20)  # Scripts are loaded, modules imported, caches filled.
    costs: Costs = {}
    ways = [(Meter(url), case.jobs), (Meter(url, counts_calls=True), case.jobs)]
    if case.jobs:
        slow_clock_down()
        ways = [(Meter(url), 20), *ways, (Meter(url, counts_lines=True), case.debugged)]
    for meter, count in ways:
        meter.reset()
        divisor = await case.run(meter, count)
        costs |= {name: value / divisor for name, value in meter.costs.items()}
    return costs


if __name__ == "__main__":
    set_up_logs("info", "json")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(measure(CASES[sys.argv[1]], sys.argv[2]))))
