"""Runs a worker process, from its settings and the user's code to its exit."""

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
"""Fraction of the time left before SIGKILL that is used to release leases when the event loop is blocked."""
LIBRARY_FOLDERS: Final = (
    str(Path(agentqueue_worker.__file__).parent),
    str(Path(agentqueue.__file__).parent),
    os.path.dirname(asyncio.__file__),  # noqa: PTH120  # as tracebacks spell it
)
"""Folders whose frames are left out at the top of a handler's traceback, so that it shows the user's code first."""
log = structlog.get_logger("agentqueue.worker")


@dataclass(frozen=True, slots=True)
class Program:
    """The user's code with its settings, ready to be served."""

    registry: Registry
    settings: Settings
    """Settings of the worker. Values that were not given are taken from the user's code."""
    declared_queue: str
    """Queue that the code declares."""
    adjust: Callable[[WorkerOptions], WorkerOptions] = lambda options: options
    """Changes the options by what an arq program declares and settings can't express."""
    open_server: Callable[[bool], Server] | None = None
    """Opens the Redis that the code declares in a way that a URL can't express. None: the settings have the Redis."""

    @property
    def options(self) -> WorkerOptions:
        """Options of the claim loop."""
        return self.adjust(self.settings.options(self.declared_queue))


def load_program(settings: Settings, find_server: Callable[[], ServerOptions | None] = lambda: None) -> Program:
    """Import the Agent or the arq program that `settings.handler` names.

    Args:
        settings: settings of the worker.
        find_server: returns the Redis to use if neither the settings nor an arq program name one.

    Raises:
        HandlerImportError: the handler does not import, or is neither an Agent nor an arq WorkerSettings.
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
    """Return an Agent as a program.

    Raises:
        HandlerImportError: the agent has no jobs, or one that can't be used.
    """
    from agentqueue_worker.adapters.agents import AgentRegistry  # noqa: PLC0415  # not for an arq program

    if not agent.jobs:
        raise HandlerImportError(f"agent {agent.name!r} has no jobs: decorate a function with @agent.job")
    return Program(AgentRegistry(agent, settings), settings, agent.queue)


def server_opener(settings: Settings) -> Callable[[bool], Server]:
    """Return a function that opens connection pools. Its argument is True for the lease thread, which must not wait.

    Raises:
        UsageError: no Redis is configured.
    """
    if settings.redis is None:
        raise UsageError(
            "no Redis configured: give --redis URL, set AGENTQUEUE_REDIS_URL or REDIS_URL, or run `agentqueue up` here"
        )
    options = replace(settings.redis, allow_eviction=settings.allow_eviction)
    timeout = LEASE_THREAD_TIMEOUT_S
    thread_options = replace(options, connect_timeout=timeout, timeout=timeout, max_connections=2)
    return lambda for_lease_thread: Server(thread_options if for_lease_thread else options)


def make_worker(program: Program, options: WorkerOptions | None = None, metrics: Metrics | None = None) -> Worker:
    """Return the worker of a program. Call it inside a running event loop."""
    options = options or program.options
    metrics = metrics or Metrics(options.queue, options.agent)
    metrics.expect(program.registry.names)
    opener = program.open_server or server_opener(program.settings)
    worker = Worker(options, program.registry, opener, WorkerTelemetry(metrics), hidden=LIBRARY_FOLDERS)
    metrics.state = worker.state
    return worker


async def serve(program: Program) -> None:
    """Work until a signal has come and the worker is drained, or in burst mode until the queue is empty."""
    settings = program.settings
    options = program.options
    metrics = Metrics(options.queue, options.agent)
    worker = make_worker(program, options, metrics)
    monitor = LoopMonitor(worker.state, hidden=LIBRARY_FOLDERS)
    metrics.loop_lag = lambda: monitor.lag
    Signals(worker).install()
    if SIGTERM_CAN_BE_LOST:
        log.warning(
            "sigterm_can_be_lost",
            reason="this is process 1 of its container, and a SIGTERM before Python has started does not reach it",
            fix="write `env --block-signal=TERM` before the container's command, as the worker image does, or start it "
            "with an init such as tini",
        )
    with (
        monitor.running(),
        _registered(metrics),
        probing(
            settings.probe_port,
            PROBE_PORT,
            live=lambda: "" if worker.live else "the lease thread is stuck",
            ready=lambda: "" if worker.state.ready else "the worker is starting or stopping",
        ),
    ):
        await worker.run()
    threads, tasks = worker.state.orphaned_threads, len(worker.state.orphaned_tasks)
    if threads or tasks:  # the interpreter would wait for them at its exit, until after the SIGKILL
        log.warning("handlers_orphaned", threads=threads, tasks=tasks)
        exit_now(0)


class Signals:
    """Drains the worker on SIGTERM and SIGINT, faster on the second one. A watchdog thread ends the process in time.

    The handlers are Python's, not the event loop's. They run while a job blocks the event loop in `time.sleep` or in
    Python code.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._plan: DrainPlan | None = None
        self._changed = threading.Event()

    def install(self) -> None:
        """Install the handlers. Call it in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._received)
        unblock_sigterm()

    def _received(self, *_: object) -> None:
        now, options = monotonic(), self._worker.options
        if self._plan is None:
            self._plan = plan_drain(now, grace=options.grace, margin=options.drain_margin)
            threading.Thread(target=self._watch_exit, name="watchdog", daemon=True).start()
        else:
            self._plan = self._plan.hurry(now)
        self._changed.set()
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the process ends anyway
            self._worker.state.loop.call_soon_threadsafe(self._worker.stop)

    def _watch_exit(self) -> None:
        """Wait for the final deadline, then release all jobs and end the process. Normally it has exited before."""
        while True:
            plan = self._plan
            assert plan is not None
            self._changed.clear()
            if not self._changed.wait(plan.watchdog_at - monotonic()):
                break
        self._worker.release_from_thread(plan.release_budget_s * RELEASE_SHARE)
        log.error("drain_blocked", reason="the event loop or a thread does not end, its jobs were released")
        exit_now(0)


@contextlib.contextmanager
def _registered(metrics: Metrics) -> Iterator[None]:
    REGISTRY.register(metrics)
    try:
        yield
    finally:
        REGISTRY.unregister(metrics)


def run_program(program: Program) -> None:
    """Serve the program until it ends, on uvloop except on Windows."""
    loop_factory: Callable[[], Any] | None = None
    if sys.platform != "win32":
        import uvloop  # noqa: PLC0415

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        serving = runner.get_loop().create_task(serve(program))

        async def wait() -> None:
            await asyncio.shield(serving)

        while not serving.done():
            try:
                runner.run(wait())
            except SystemExit as exc:
                # A task that a handler started raised it, so the event loop stops. It fails the job that awaits the
                # task. It does not end the worker, whose other jobs would run again elsewhere.
                if serving.done():
                    raise
                traceback = describe_traceback(exc, LIBRARY_FOLDERS)
                log.error("exit_in_a_task", exception=traceback)  # noqa: TRY400  # the traceback is in the field
        serving.result()
    # All outcomes are recorded, so a late signal must not change the exit code.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
