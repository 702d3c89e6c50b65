"""Worker processes on this machine instead of pods, and the folder that `agentqueue up` keeps its things in."""

import asyncio
import fcntl
import json
import os
import random
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from agentqueue.clock import now_ms
from agentqueue.errors import UsageError
from agentqueue.local.server import Process, private_folder, start_time, stop_process, write_private
from agentqueue.model.times import from_ms
from agentqueue.service import environment
from agentqueue_operator.local.ports import AgentRun, Exit

WORKER_MODULE: Final = "agentqueue_worker"
LAST_WORDS: Final = 20
"""Lines of a worker's output that are kept to explain its death."""
LONGEST_LINE: Final = 64 * 1024
"""Longer lines of a worker's output are cut there, so that one without a line end can't fill the memory."""
PIPE_GRACE_S: Final = 1.0
"""How long after a worker's end its output is still read: something it started may hold the pipe open for ever."""
_LETTERS: Final = "bcdfghjklmnpqrstvwxz2456789"
"""As Kubernetes names pods: no vowels, so no words."""

Tell = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Leftover:
    """A worker that an `up` which was killed has started."""

    worker: str
    queue: str
    pid: int
    start: str


@dataclass(slots=True)
class _Running:
    """A worker process, and the task that follows it to its end."""

    name: str
    run: AgentRun
    process: asyncio.subprocess.Process
    start: str
    last_words: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_WORDS))
    following: asyncio.Task[None] | None = None


class LocalProcesses:
    """Worker processes, each in a session of its own, so that Ctrl-C on the terminal reaches `up` only.

    Args:
        folder: where the running processes are noted, so that the next `up` can end what a killed one left behind.
        base: environment of all workers.
        cwd: their working directory: the resource file's folder.
        tell: gets each line that a worker writes, with the worker's name.
        wake: called when one has ended.
    """

    def __init__(
        self, folder: Path, *, base: Mapping[str, str], cwd: Path, tell: Tell, wake: Callable[[], None]
    ) -> None:
        self._ledger = folder / "workers.json"
        self._base = dict(base)
        self._cwd = cwd
        self._tell = tell
        self._wake = wake
        self._running: dict[str, _Running] = {}
        self._ended: list[Exit] = []
        self._leftovers: list[Leftover] = []

    async def start(self, run: AgentRun) -> str:
        """Start a worker of the agent; returns its name, which no worker had before."""
        name = f"{run.name}-{''.join(random.choices(_LETTERS, k=5))}"  # noqa: S311 - a name, not a secret
        own = {environment.WORKER_NAME: name, environment.POD_UID: name}
        command = [sys.executable, "-m", "agentqueue_operator.local.child", str(os.getpid()), WORKER_MODULE]
        reader, writer = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                cwd=self._cwd,
                env={**self._base, **run.environment, **own},
                start_new_session=True,
            )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        running = self._running[name] = _Running(name, run, process, start_time(process.pid) or "")
        running.following = asyncio.create_task(self._follow(running, reader))
        self._note()
        return name

    def end(self, worker: str) -> None:
        """SIGTERM: it finishes what it runs within its grace period, or hands it back."""
        self._signal(worker, signal.SIGTERM)

    def kill(self, worker: str) -> None:
        """SIGKILL to it and to all that it has started."""
        if worker in self._running:
            _kill_group(self._running[worker].process.pid)

    def exits(self) -> list[Exit]:
        """Those that have ended since the last call, in order."""
        ended, self._ended = self._ended, []
        return ended

    def end_leftovers(self) -> list[Leftover]:
        """End what an earlier `up` in this folder left running; returns all workers it had, running or not."""
        self._leftovers = _read_ledger(self._ledger)
        for leftover in self._leftovers:
            process = Process(leftover.pid, leftover.start)
            if process.is_alive:
                _kill_group(leftover.pid)
                stop_process(process)
        return self._leftovers

    def forget_leftovers(self) -> None:
        """Their jobs are handed back: the next `up` need not know of them."""
        self._leftovers = []
        self._note()

    def _signal(self, worker: str, number: int) -> None:
        running = self._running.get(worker)
        if running is not None and running.process.returncode is None:
            with suppress(ProcessLookupError):
                running.process.send_signal(number)

    async def _follow(self, running: _Running, pipe: int) -> None:
        reading = asyncio.create_task(self._read(running, pipe))
        code = await running.process.wait()
        _kill_group(running.process.pid)  # as the end of a container ends all that is in it
        await asyncio.wait({reading}, timeout=PIPE_GRACE_S)
        reading.cancel()
        del self._running[running.name]
        self._ended.append(Exit(running.name, code, tuple(running.last_words)))
        self._note()
        self._wake()

    async def _read(self, running: _Running, pipe: int) -> None:
        reader = asyncio.StreamReader(limit=LONGEST_LINE)
        loop = asyncio.get_running_loop()
        with os.fdopen(pipe, "rb", 0) as file:
            transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
            try:
                while line := await _read_line(reader):
                    text = line.decode(errors="replace").rstrip()
                    running.last_words.append(text)
                    self._tell(running.name, text)
            finally:
                transport.close()

    def _note(self) -> None:
        running = [Leftover(r.name, r.run.queue, r.process.pid, r.start) for r in self._running.values()]
        try:
            write_private(self._ledger, json.dumps([asdict(worker) for worker in (*self._leftovers, *running)]))
        except OSError as error:  # a full disk ends no worker; what a killed `up` leaves behind, the leases tell later
            self._tell("up", f"can't note the running workers in {self._ledger} ({error.strerror}): make room there")


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    """The next line, or as much of it as is allowed; empty at the end."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as end:
        return end.partial
    except asyncio.LimitOverrunError as overrun:
        return await reader.readexactly(max(1, overrun.consumed))


def _kill_group(pid: int) -> None:
    """Each worker leads a session, and so a process group, of its own."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _read_ledger(path: Path) -> list[Leftover]:
    """What was noted; a broken note proves nothing, so nothing is ended for it."""
    try:
        return [Leftover(**row) for row in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError):
        return []


@contextmanager
def hold_folder(folder: Path) -> Iterator[Path]:
    """The data folder, made if needed, for one `up` at a time; the kernel lets it go when this process ends.

    Raises:
        UsageError: another `up` has it, or it can't be written.
    """
    try:
        file = (private_folder(folder) / "up.lock").open("a+")
    except OSError as error:
        raise unwritable(folder, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(_who_holds(folder, file.name)) from None
        since = from_ms(now_ms()).astimezone()
        file.truncate(0)
        with suppress(OSError):  # a full disk: only the words for a second `up` are missing then
            os.write(file.fileno(), f"pid {os.getpid()}, since {since:%Y-%m-%d %H:%M:%S}".encode())
        yield folder
        file.truncate(0)


def unwritable(folder: Path, error: OSError) -> UsageError:
    """What to say of a data folder that is read-only or full."""
    return UsageError(
        f"the data folder {folder} can't be written ({error.strerror}): make room or make it writable, or give another "
        "one with --data DIR"
    )


def _who_holds(folder: Path, lock: str) -> str:
    holder = Path(lock).read_text() or "it is just starting"
    return (
        f"`agentqueue up` runs here already ({holder}; data folder {folder}): stop that one with Ctrl-C, "
        "or give this one another folder with --data DIR"
    )


def write_code(folder: Path, files: Mapping[str, str]) -> Path:
    """The files of a ConfigMap as a folder to import from, in place of what was there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.is_file() and old.name not in files:
            old.unlink()
    for name, text in files.items():
        (folder / Path(name).name).write_text(text)
    return folder


def import_path(folders: Sequence[Path], inherited: str | None) -> str:
    """PYTHONPATH of a worker."""
    return os.pathsep.join([*(str(folder) for folder in folders), *([inherited] if inherited else [])])
