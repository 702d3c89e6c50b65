"""Worker processes on this machine instead of pods, and the data folder of `agentqueue up`."""

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
"""Module that a worker process runs."""
LAST_LINES: Final = 20
"""Number of lines of a worker's output that are kept to explain its death."""
MAX_LINE_BYTES: Final = 64 * 1024
"""Length in bytes at which a line of output is split, so that output without line ends cannot fill the memory."""
PIPE_GRACE_S: Final = 1.0
"""Time in seconds for which the output is read after a worker has ended. A process that it started may keep the pipe
open for ever."""
_NAME_CHARACTERS: Final = "bcdfghjklmnpqrstvwxz2456789"
"""Characters of random names, as in Kubernetes: without vowels they form no words."""

PrintOutput = Callable[[str, str], None]
"""Takes the name of a worker and a line of its output."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A worker that was started by an earlier `up`, which was killed."""

    worker: str
    queue: str
    pid: int
    start: str
    """Start time of the process, which distinguishes it from a later one with the same ID."""


@dataclass(slots=True)
class _RunningWorker:
    """A worker process, and the task that waits for its end."""

    name: str
    run: AgentRun
    process: asyncio.subprocess.Process
    start: str
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    following: asyncio.Task[None] | None = None


class LocalProcesses:
    """Worker processes. Each has its own session, so that Ctrl-C on the terminal reaches only `up`.

    Args:
        folder: data folder, with a list of the running processes. The next `up` ends those that a killed `up` left.
        base: environment of all workers.
        cwd: working directory of the workers, the folder of the resource file.
        print_output: called with each line of a worker's output.
        wake: called when a worker has ended.
    """

    def __init__(
        self, folder: Path, *, base: Mapping[str, str], cwd: Path, print_output: PrintOutput, wake: Callable[[], None]
    ) -> None:
        self._ledger = folder / "workers.json"
        self._base = dict(base)
        self._cwd = cwd
        self._print_output = print_output
        self._wake = wake
        self._running: dict[str, _RunningWorker] = {}
        self._ended: list[Exit] = []
        self._leftovers: list[Leftover] = []

    async def start(self, run: AgentRun) -> str:
        """Start a worker of the agent. Return its name, which is unique.

        Raises:
            OSError: the system cannot start a process.
        """
        name = f"{run.name}-{''.join(random.choices(_NAME_CHARACTERS, k=5))}"  # noqa: S311 - a name, not a secret
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
        running = self._running[name] = _RunningWorker(name, run, process, start_time(process.pid) or "")
        running.following = asyncio.create_task(self._follow(running, reader))
        self._write_ledger()
        return name

    def stop(self, worker: str) -> None:
        """Send SIGTERM: the worker finishes its jobs within its grace period, or releases them."""
        running = self._running.get(worker)
        if running is not None and running.process.returncode is None:
            with suppress(ProcessLookupError):
                running.process.send_signal(signal.SIGTERM)

    def kill(self, worker: str) -> None:
        """Send SIGKILL to the worker and to all processes that it has started."""
        if worker in self._running:
            _kill_group(self._running[worker].process.pid)

    def exits(self) -> list[Exit]:
        """Return the workers that have ended since the last call, in order."""
        ended, self._ended = self._ended, []
        return ended

    def end_leftovers(self) -> list[Leftover]:
        """End the workers that an earlier `up` in this folder left running.

        Return all its workers, including those that have ended.
        """
        try:
            self._leftovers = [Leftover(**row) for row in json.loads(self._ledger.read_text())]
        except (OSError, ValueError, TypeError):  # A damaged list proves nothing, so no process is ended because of it.
            self._leftovers = []
        for leftover in self._leftovers:
            process = Process(leftover.pid, leftover.start)
            if process.is_alive:
                _kill_group(leftover.pid)
                stop_process(process)
        return self._leftovers

    def forget_leftovers(self) -> None:
        """Remove the leftover workers from the list, after their leases have been released."""
        self._leftovers = []
        self._write_ledger()

    async def _follow(self, running: _RunningWorker, pipe: int) -> None:
        reading = asyncio.create_task(self._read(running, pipe))
        code = await running.process.wait()
        _kill_group(running.process.pid)  # As in a container, the processes that it started end with it.
        await asyncio.wait({reading}, timeout=PIPE_GRACE_S)
        reading.cancel()
        del self._running[running.name]
        self._ended.append(Exit(running.name, code, tuple(running.last_lines)))
        self._write_ledger()
        self._wake()

    async def _read(self, running: _RunningWorker, pipe: int) -> None:
        reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
        loop = asyncio.get_running_loop()
        with os.fdopen(pipe, "rb", 0) as file:
            transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
            try:
                while line := await _read_line(reader):
                    text = line.decode(errors="replace").rstrip()
                    running.last_lines.append(text)
                    self._print_output(running.name, text)
            finally:
                transport.close()

    def _write_ledger(self) -> None:
        running = [Leftover(r.name, r.run.queue, r.process.pid, r.start) for r in self._running.values()]
        try:
            write_private(self._ledger, json.dumps([asdict(worker) for worker in (*self._leftovers, *running)]))
        except OSError as error:  # The workers continue. The leases of a killed `up` expire.
            self._print_output(
                "up", f"cannot write the list of workers {self._ledger} ({error.strerror}): free disk space"
            )


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    """Return the next line, or as much of it as the limit allows; empty at the end of the output."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as end:
        return end.partial
    except asyncio.LimitOverrunError as overrun:
        return await reader.readexactly(max(1, overrun.consumed))


def _kill_group(pid: int) -> None:
    """Kill the process group of a worker. Each worker has its own session, and so its own group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


@contextmanager
def hold_folder(folder: Path) -> Iterator[Path]:
    """Create the data folder if needed, and lock it for one `up` at a time.

    The kernel releases the lock when this process ends.

    Raises:
        UsageError: another `up` uses the folder, or it cannot be written.
    """
    try:
        file = (private_folder(folder) / "up.lock").open("a+")
    except OSError as error:
        raise unwritable(folder, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = Path(file.name).read_text() or "it is starting"
            raise UsageError(
                f"`agentqueue up` runs here already ({holder}; data folder {folder}): stop it with Ctrl-C, "
                "or choose another folder with --data DIR"
            ) from None
        since = from_ms(now_ms()).astimezone()
        file.truncate(0)
        with suppress(OSError):  # On a full disk, the error message of a second `up` has less detail.
            os.write(file.fileno(), f"pid {os.getpid()}, since {since:%Y-%m-%d %H:%M:%S}".encode())
        yield folder
        file.truncate(0)


def unwritable(folder: Path, error: OSError) -> UsageError:
    """Return the error for a data folder that is read-only or full."""
    return UsageError(
        f"cannot write to the data folder {folder} ({error.strerror}): free disk space, make it writable, or choose "
        "another folder with --data DIR"
    )


def write_code(folder: Path, files: Mapping[str, str]) -> Path:
    """Write the files of a ConfigMap to a folder and remove its other files. Return the folder."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.is_file() and old.name not in files:
            old.unlink()
    for name, text in files.items():
        (folder / Path(name).name).write_text(text)
    return folder


def import_path(folders: Sequence[Path], inherited: str | None) -> str:
    """Return the PYTHONPATH of a worker. `inherited`: the variable in the environment of `up`, or None."""
    return os.pathsep.join([*(str(folder) for folder in folders), *([inherited] if inherited else [])])
