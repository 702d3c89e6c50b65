"""Composition of `agentqueue up`: the file, the data folder, the server, the screen and the supervisor."""

import asyncio
import os
import shutil
import signal
import sys
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path

from agentqueue.clock import monotonic
from agentqueue.errors import NotFound, QueueUnavailable
from agentqueue.local.server import EmbeddedServer
from agentqueue.local.state import FOLDER, remove_up_state, write_up_state
from agentqueue.model.wording import counted
from agentqueue.service import environment
from agentqueue.spec import Loaded, load_file, resolve
from agentqueue.spec.redis import ExternalRedis
from agentqueue.spec.resolve import ResolvedQueue
from agentqueue.store import Server, ServerOptions, Store, connection_environment
from agentqueue_operator.local.agent import LocalAgent
from agentqueue_operator.local.agent_runs import agent_runs
from agentqueue_operator.local.code_watcher import CodeWatcher
from agentqueue_operator.local.external_redis import external_server
from agentqueue_operator.local.plain_screen import UP, PlainScreen
from agentqueue_operator.local.processes import LocalProcesses, hold_folder, unwritable
from agentqueue_operator.local.supervisor import LocalSupervisor
from agentqueue_operator.local.terminal_screen import TerminalScreen
from agentqueue_operator.queues.reader import QueueReader

AnyScreen = TerminalScreen | PlainScreen
FIRST_RETRY_S = 1.0
"""Time in seconds until the first retry of an embedded server that cannot start. It doubles with each retry."""
MAX_RETRY_S = 30.0
"""Longest time in seconds between two retries. The usual cause, a full disk, takes a while to be fixed."""


@dataclass(frozen=True, slots=True)
class _Location:
    """Folders and server of this `up`."""

    code: Path
    """Folder of the resource file, from which handlers are imported."""
    data: Path
    """Data folder, `.agentqueue`."""
    redis: ServerOptions
    server: EmbeddedServer | None
    """None with an external Redis."""


def run_file(file: Path, *, watch: bool, port: int | None, base: Path, quiet: bool) -> None:
    """Run the AgentQueue of a file until SIGINT or SIGTERM.

    Args:
        file: a YAML file with an AgentQueue resource.
        watch: replace the workers when their code changes.
        port: port of the embedded server; None for the one that it had before, or a free one.
        base: folder that gets the data folder `.agentqueue`.
        quiet: do not print the output of the workers.

    Raises:
        NotFound: the file does not exist.
        InvalidSpec: the file breaks a rule.
        UsageError: another `up` uses the data folder, or it cannot be written.
        QueueUnavailable: the server does not start or answer.
    """
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise NotFound(f"{file} {what}; give the path of a file with an AgentQueue resource")
    loaded = load_file(file)
    queue = resolve(loaded.one())
    with ExitStack() as stack:
        folder = stack.enter_context(hold_folder(base / FOLDER))
        server: EmbeddedServer | None = None
        if isinstance(queue.redis, ExternalRedis):
            redis = external_server(queue.redis, loaded, os.environ, folder)
        else:
            persistence = queue.redis.persistence
            server = EmbeddedServer(folder / "data", port=port, appendfsync=persistence.appendfsync.value)
            stack.enter_context(server)
            redis = ServerOptions(server.url)
        try:
            write_up_state(base, connection_environment(redis), pid=os.getpid())
        except OSError as error:
            raise unwritable(folder, error) from error
        stack.callback(remove_up_state, base)
        screen = _screen(queue, quiet=quiet)
        with screen:
            location = _Location(file.parent.absolute(), folder, redis, server)
            asyncio.run(_run(location, queue, loaded, screen, watch=watch))


def _screen(queue: ResolvedQueue, *, quiet: bool) -> AnyScreen:
    width = max(len(agent.name) for agent in queue.agents) + len("-xxxxx")
    if sys.stdout.isatty():
        return TerminalScreen(quiet=quiet, width=width)
    return PlainScreen(sys.stdout, quiet=quiet, width=width)


async def _run(location: _Location, queue: ResolvedQueue, loaded: Loaded, screen: AnyScreen, *, watch: bool) -> None:
    wake, stop, stop_now = asyncio.Event(), asyncio.Event(), asyncio.Event()
    _stop_on_signals(stop, stop_now, screen)
    runs = agent_runs(queue, loaded, code=location.code, data=location.data)
    base = {
        environment.LOG_FORMAT: "console",
        **{name: value for name, value in os.environ.items() if name not in environment.CONNECTION},
        **connection_environment(location.redis),
        environment.PROBE_PORT: "0",
        "PYTHONUNBUFFERED": "1",
    }
    processes = LocalProcesses(
        location.data, base=base, cwd=location.code, print_output=screen.print_output, wake=wake.set
    )
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(Server(location.redis))
        reader = QueueReader(connection)
        for leftover in processes.end_leftovers():
            await reader.release_leases_of_worker(leftover.queue, leftover.worker, "agentqueue up was killed")
        processes.forget_leftovers()
        agents = [LocalAgent(run) for run in runs]
        images = sorted({agent.image for agent in queue.agents if agent.image})
        screen.print_line(
            UP, f"{queue.name}: {counted(len(agents), 'agent')} on Redis at {connection.name}; Ctrl-C drains"
        )
        if images:
            text = f"images apply to the cluster only ({', '.join(images)}); handlers are imported from {location.code}"
            screen.print_line(UP, text)
        supervisor = LocalSupervisor(
            agents,
            reader,
            processes,
            screen,
            clock=monotonic,
            wake=wake,
            code_has_changed=CodeWatcher(location.code).has_changed if watch else lambda: False,
            revive=_Reviver(location.server, screen),
            left=() if location.server is None else await Store(connection).queues(),
        )
        await supervisor.run(stop, stop_now)
        screen.finish([agent.row() for agent in agents])
    shutil.rmtree(location.data / "code", ignore_errors=True)


class _Reviver:
    """Restarts the embedded server after it has died: at once, then with exponential backoff while it cannot start."""

    def __init__(self, server: EmbeddedServer | None, screen: AnyScreen) -> None:
        self._server = server
        self._screen = screen
        self._retry_s = FIRST_RETRY_S
        self._not_before = 0.0

    def __call__(self) -> None:
        server = self._server
        if server is None or server.is_alive or monotonic() < self._not_before:
            return
        self._screen.print_line(UP, "the embedded Valkey has died: it restarts with its data", error=True)
        try:
            server.start()
        except QueueUnavailable as error:
            self._screen.print_line(UP, f"{error}; next attempt in {self._retry_s:g} s", error=True)
            self._not_before = monotonic() + self._retry_s
            self._retry_s = min(2 * self._retry_s, MAX_RETRY_S)
        else:
            self._retry_s = FIRST_RETRY_S


def _stop_on_signals(stop: asyncio.Event, stop_now: asyncio.Event, screen: AnyScreen) -> None:
    def on_signal() -> None:
        if stop.is_set():
            stop_now.set()
            screen.print_line(UP, "stopping now: running jobs return to the queue")
        else:
            stop.set()
            screen.print_line(UP, "draining: running jobs finish; press Ctrl-C again to stop now")

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
