"""A worker process: settings and the user's code in, exit code out."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import structlog
from prometheus_client import REGISTRY

import agentqueue
import agentqueue_worker
from agentqueue.agent.definition import Agent
from agentqueue.clock import monotonic
from agentqueue.errors import HandlerImportError, UsageError
from agentqueue.model.exceptions import describe_traceback
from agentqueue.service.environment import PROBE_PORT
from agentqueue.service.probes import probing
from agentqueue.service.signals import SIGTERM_CAN_BE_LOST, exit_now, unblock_sigterm
from agentqueue.store import Server, ServerOptions
from agentqueue_worker.adapters.loader import load_target
from agentqueue_worker.adapters.loop_monitor import LoopMonitor
from agentqueue_worker.adapters.metrics import Metrics
from agentqueue_worker.adapters.telemetry import WorkerTelemetry
from agentqueue_worker.app.lease_renewer import LEASE_THREAD_TIMEOUT_S
from agentqueue_worker.app.options import WorkerOptions
from agentqueue_worker.app.ports import Registry
from agentqueue_worker.app.worker import Worker
from agentqueue_worker.domain.drain_plan import DrainPlan, plan_drain
from agentqueue_worker.settings import Settings

RELEASE_SHARE: Final = 0.8
"""The share of what is left until the SIGKILL that the last hand-backs get, when the event loop is blocked."""
LIBRARY_FOLDERS: Final = (
    str(Path(agentqueue_worker.__file__).parent),
    str(Path(agentqueue.__file__).parent),
    os.path.dirname(asyncio.__file__),  # noqa: PTH120  # as tracebacks spell it
)
"""Frames of these folders are left out at the top of a handler's traceback."""
log = structlog.get_logger("agentqueue.worker")


@dataclass(frozen=True, slots=True)
class Program:
    """The user's code, ready to be served."""

    registry: Registry
    settings: Settings
    """With what the user's code says itself, where the settings were not given."""
    declared_queue: str
    """The queue that the code names."""
    adjust: Callable[[WorkerOptions], WorkerOptions] = lambda options: options
    """What only the code can say of how it is served (an arq program)."""
    open_server: Callable[[bool], Server] | None = None
    """How to reach the Redis that the code names itself, in a way that a URL can't say."""

    @property
    def options(self) -> WorkerOptions:
        """What the claim loop is told."""
        return self.adjust(self.settings.options(self.declared_queue))


def load_program(settings: Settings, find_server: Callable[[], ServerOptions | None] = lambda: None) -> Program:
    """Import what `settings.handler` names.

    Args:
        settings: as given.
        find_server: where to look for Redis when neither the settings nor an arq program name one.

    Raises:
        HandlerImportError: it does not import, or is neither an Agent nor an arq WorkerSettings.
        UsageError: no handler is named.
    """
    if not settings.handler:
        raise UsageError("no handler: name it as module:attribute (argument, or AGENTQUEUE_HANDLER)")
    target = load_target(settings.handler)
    if isinstance(target, Agent):
        return program_of(target, settings.override(redis=settings.redis or find_server()))
    if isinstance(target, type | dict):
        from agentqueue_worker.adapters.arq import adapt  # noqa: PLC0415  # arq only for an arq program

        return Program(*adapt(target, settings, find_server))
    raise HandlerImportError(
        f"handler {settings.handler!r} is a {type(target).__name__}, neither an Agent nor an arq WorkerSettings class"
    )


def program_of(agent: Agent, settings: Settings) -> Program:
    """An Agent to serve."""
    from agentqueue_worker.adapters.agents import AgentRegistry  # noqa: PLC0415  # not for an arq program

    if not agent.jobs:
        raise HandlerImportError(f"agent {agent.name!r} has no jobs: decorate a function with @agent.job")
    return Program(AgentRegistry(agent, settings), settings, agent.queue)


def server_opener(settings: Settings) -> Callable[[bool], Server]:
    """Makes connection pools; True: the renewing thread's, which must not wait long.

    Raises:
        UsageError: nobody said where Redis is.
    """
    if settings.redis is None:
        raise UsageError(
            "where is Redis? Give --redis URL, set AGENTQUEUE_REDIS_URL or REDIS_URL, or run `agentqueue up` here"
        )
    options = replace(settings.redis, allow_eviction=settings.allow_eviction)
    timeout = LEASE_THREAD_TIMEOUT_S
    thread_options = replace(options, connect_timeout=timeout, timeout=timeout, max_connections=2)
    return lambda for_lease_thread: Server(thread_options if for_lease_thread else options)


def make_worker(program: Program, options: WorkerOptions | None = None, metrics: Metrics | None = None) -> Worker:
    """The worker of a program; inside a running event loop."""
    options = options or program.options
    metrics = metrics or Metrics(options.queue, options.agent)
    metrics.expect(program.registry.names)
    opener = program.open_server or server_opener(program.settings)
    worker = Worker(options, program.registry, opener, WorkerTelemetry(metrics), hidden=LIBRARY_FOLDERS)
    metrics.state = worker.state
    return worker


async def serve(program: Program) -> None:
    """Work until a signal came and all is drained; in burst mode until the queue is empty."""
    settings = program.settings
    options = program.options
    metrics = Metrics(options.queue, options.agent)
    worker = make_worker(program, options, metrics)
    watch = LoopMonitor(worker.state, hidden=LIBRARY_FOLDERS)
    metrics.loop_lag = lambda: watch.lag
    Signals(worker).take()
    if SIGTERM_CAN_BE_LOST:
        log.warning(
            "sigterm_can_be_lost",
            reason="this is process 1 of its container, and a SIGTERM before Python has started does not reach it",
            fix="write `env --block-signal=TERM` before the container's command, as the worker image does, or start it "
            "with an init such as tini",
        )
    with (
        watch.watching(),
        _collected(metrics),
        probing(
            settings.probe_port,
            PROBE_PORT,
            live=lambda: "" if worker.live else "the lease thread does not turn",
            ready=lambda: "" if worker.state.ready else "handlers are being loaded, or the worker ends",
        ),
    ):
        await worker.run()
    if (
        worker.state.orphaned_threads or worker.state.orphaned_tasks
    ):  # the interpreter would wait for these, past the SIGKILL
        log.warning("handlers_orphaned", threads=worker.state.orphaned_threads, tasks=len(worker.state.orphaned_tasks))
        exit_now(0)


class Signals:
    """SIGTERM and SIGINT drain; the second one hurries. A thread sees to it that the process ends in time.

    Plain Python handlers, since they run while a handler blocks the event loop in `time.sleep` or Python code.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._plan: DrainPlan | None = None
        self._changed = threading.Event()

    def take(self) -> None:
        """From now on; in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._received)
        unblock_sigterm()

    def _received(self, *_: object) -> None:
        now, options = monotonic(), self._worker.options
        if self._plan is None:
            self._plan = plan_drain(now, grace=options.grace, margin=options.drain_margin)
            threading.Thread(target=self._see_to_the_end, name="last-resort", daemon=True).start()
        else:
            self._plan = self._plan.hurry(now)
        self._changed.set()
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends anyway
            self._worker.state.loop.call_soon_threadsafe(self._worker.stop)

    def _see_to_the_end(self) -> None:
        """Wait for the plan's last moment, which the process does not live to see unless something blocks it."""
        while True:
            plan = self._plan
            assert plan is not None
            self._changed.clear()
            if not self._changed.wait(plan.watchdog_at - monotonic()):
                break
        self._worker.release_from_thread(plan.release_budget_s * RELEASE_SHARE)
        log.error("drain_blocked", reason="the event loop or a thread does not end; its jobs went back")
        exit_now(0)


@contextlib.contextmanager
def _collected(metrics: Metrics) -> Iterator[None]:
    REGISTRY.register(metrics)
    try:
        yield
    finally:
        REGISTRY.unregister(metrics)


def run_program(program: Program) -> None:
    """`serve` on uvloop where there is one."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        serving = runner.get_loop().create_task(serve(program))
        while not serving.done():
            try:
                runner.run(_wait_for(serving))
            except SystemExit as exc:
                # Of a task that a handler started: the event loop stops and raises it. It fails the job that awaits the
                # task, and does not end the worker, whose other jobs would run again elsewhere.
                if serving.done():
                    raise
                log.error("exit_in_a_task", exception=describe_traceback(exc, LIBRARY_FOLDERS))  # noqa: TRY400  # it is there
        serving.result()
    for number in (signal.SIGTERM, signal.SIGINT):  # all is recorded: one that comes late must not become the exit code
        signal.signal(number, signal.SIG_IGN)


async def _wait_for(serving: "asyncio.Task[None]") -> None:
    await asyncio.shield(serving)


def _loop_factory() -> Callable[[], Any] | None:
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415

    return uvloop.new_event_loop
