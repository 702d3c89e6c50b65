"""Wires `agentqueue up`: the file, the folder, the server, the screen and the loop."""

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
from agentqueue.service import environment
from agentqueue.spec import Loaded, load_file, resolve
from agentqueue.spec.redis import ExternalRedis
from agentqueue.spec.resolve import ResolvedQueue
from agentqueue.store import Server, ServerOptions, connection_environment
from agentqueue_operator.local.agent import Agent
from agentqueue_operator.local.agent_runs import agent_runs
from agentqueue_operator.local.code_watcher import CodeWatch
from agentqueue_operator.local.external_redis import external_server
from agentqueue_operator.local.plain_screen import UP, PlainScreen
from agentqueue_operator.local.processes import LocalProcesses, hold_folder, unwritable
from agentqueue_operator.local.supervisor import Up
from agentqueue_operator.local.terminal_screen import LiveScreen
from agentqueue_operator.queues.reader import QueueReader

AnyScreen = LiveScreen | PlainScreen
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds until an embedded server that can't start is tried again: a full disk takes a while to be seen to."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where it runs."""

    code: Path
    """The resource file's folder: handlers are imported from it."""
    folder: Path
    """`.agentqueue`"""
    redis: ServerOptions
    server: EmbeddedServer | None


def run_file(file: Path, *, watch: bool, port: int | None, base: Path, quiet: bool) -> None:
    """Run the AgentQueue of the file until SIGINT or SIGTERM; `base` gets the folder `.agentqueue`.

    Raises:
        NotFound: no such file.
        InvalidSpec: the file breaks a rule.
        UsageError: another `up` has the folder, or it can't be written.
        QueueUnavailable: the server does not start or answer.
    """
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise NotFound(f"{file} {what}; give the path of a file with an AgentQueue resource")
    loaded = load_file(file)
    queue = resolve(loaded.one())
    with ExitStack() as stack:
        folder = stack.enter_context(hold_folder(base / FOLDER))
        server = None if isinstance(queue.redis, ExternalRedis) else _embedded(queue, folder, port)
        if server is not None:
            stack.enter_context(server)
        redis = ServerOptions(server.url) if server is not None else _external(queue, loaded, folder)
        try:
            write_up_state(base, connection_environment(redis), pid=os.getpid())
        except OSError as error:
            raise unwritable(folder, error) from error
        stack.callback(remove_up_state, base)
        screen = _screen(queue, quiet=quiet)
        with screen:
            place = _Place(file.parent.absolute(), folder, redis, server)
            asyncio.run(_run(place, queue, loaded, screen, watch=watch))


def _embedded(queue: ResolvedQueue, folder: Path, port: int | None) -> EmbeddedServer:
    assert not isinstance(queue.redis, ExternalRedis)
    return EmbeddedServer(folder / "data", port=port, appendfsync=queue.redis.persistence.appendfsync.value)


def _external(queue: ResolvedQueue, loaded: Loaded, folder: Path) -> ServerOptions:
    assert isinstance(queue.redis, ExternalRedis)
    return external_server(queue.redis, loaded, os.environ, folder)


def _screen(queue: ResolvedQueue, *, quiet: bool) -> AnyScreen:
    width = max(len(agent.name) for agent in queue.agents) + len("-xxxxx")
    return (
        LiveScreen(quiet=quiet, width=width)
        if sys.stdout.isatty()
        else PlainScreen(sys.stdout, quiet=quiet, width=width)
    )


async def _run(place: _Place, queue: ResolvedQueue, loaded: Loaded, screen: AnyScreen, *, watch: bool) -> None:
    wake, stop, hurry = asyncio.Event(), asyncio.Event(), asyncio.Event()
    _stop_on_signals(stop, hurry, screen)
    runs = agent_runs(queue, loaded, code=place.code, data=place.folder)
    base = {
        environment.LOG_FORMAT: "console",
        **{name: value for name, value in os.environ.items() if name not in environment.CONNECTION},
        **connection_environment(place.redis),
        environment.PROBE_PORT: "0",
        "PYTHONUNBUFFERED": "1",
    }
    processes = LocalProcesses(place.folder, base=base, cwd=place.code, tell=screen.tell, wake=wake.set)
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(Server(place.redis))
        reader = QueueReader(connection)
        for leftover in processes.end_leftovers():
            await reader.bury_worker(leftover.queue, leftover.worker, "agentqueue up was killed")
        processes.forget_leftovers()
        agents = [Agent(run) for run in runs]
        images = sorted({agent.image for agent in queue.agents if agent.image})
        screen.say(UP, f"{queue.name}: {len(agents)} agents on Redis at {connection.name}; Ctrl-C drains")
        if images:
            screen.say(UP, f"images are for the cluster ({', '.join(images)}); here handlers come from {place.code}")
        loop = Up(
            agents,
            reader,
            processes,
            screen,
            clock=monotonic,
            wake=wake,
            changed=CodeWatch(place.code).changed if watch else _never,
            revive=_Reviver(place.server, screen),
        )
        await loop.run(stop, hurry)
        screen.finish([agent.row() for agent in agents])
    shutil.rmtree(place.folder / "code", ignore_errors=True)


def _never() -> bool:
    return False


class _Reviver:
    """Starts the embedded server again when it has died: at once, then ever less often while it can't start."""

    def __init__(self, server: EmbeddedServer | None, screen: AnyScreen) -> None:
        self._server = server
        self._screen = screen
        self._pause = FIRST_PAUSE
        self._not_before = 0.0

    def __call__(self) -> None:
        server = self._server
        if server is None or server.is_alive or monotonic() < self._not_before:
            return
        self._screen.say(UP, "the embedded Valkey has died: it starts again with its data", bad=True)
        try:
            server.start()
        except QueueUnavailable as error:
            self._screen.say(UP, f"{error}; tried again in {self._pause:g} s", bad=True)
            self._not_before = monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        else:
            self._pause = FIRST_PAUSE


def _stop_on_signals(stop: asyncio.Event, hurry: asyncio.Event, screen: AnyScreen) -> None:
    def asked() -> None:
        if stop.is_set():
            hurry.set()
            screen.say(UP, "hurrying: running jobs go back to the queue")
        else:
            stop.set()
            screen.say(UP, "draining: running jobs finish; again to hurry")

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, asked)
