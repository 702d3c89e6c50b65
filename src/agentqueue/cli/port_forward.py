"""`kubectl port-forward` for as long as a command needs it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self

from agentqueue.errors import QueueUnavailable
from agentqueue.local.server import start_time
from agentqueue.service.child_guard import ChildGuard

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

READY: Final = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) -> ")
NOISE: Final = ("Forwarding from ", "Handling connection for ")
START_SECONDS: Final = 30.0
"""For the first connection to the API server, with a login of the cloud's in between."""
RETRY_SECONDS: Final = 0.5
"""Until an ended port-forward is started again: the pod it led to is gone, another takes a while to be Ready."""
STOP_SECONDS: Final = 5.0
SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)


class Forward:
    """A local port that leads to a Service's port. `with Forward(...) as forward:` ends the process in any case.

    The block is entered at once; `forward.local_port()` waits until the port is there.
    kubectl ends it when the pod is gone: then it is started again, on the same local port.

    Args:
        kubectl: the command and its options for context and namespace.
        target: as kubectl takes it: `service/NAME`.
        port: the Service's.
    """

    def __init__(self, kubectl: Sequence[str], target: str, port: int) -> None:
        self._command = [*kubectl, "port-forward", "--address", "127.0.0.1", target]
        self._target, self._port = target, port
        self._local = 0
        self._said: deque[str] = deque(maxlen=3)
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._settled, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="port-forward", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def local_port(self) -> int:
        """Return the local port, once it leads there.

        Raises:
            QueueUnavailable: kubectl can't forward it; with what it said.
        """
        if not self._settled.wait(START_SECONDS) or not self._local:
            said = "; ".join(self._said) or f"nothing within {START_SECONDS:g} s"
            raise QueueUnavailable(f"kubectl can't forward a port to {self._target}: {said}")
        return self._local

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._closing.set()
        with self._lock:
            process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._follow()
            if not self._local:  # it never worked: the caller is told
                break
            self._closing.wait(RETRY_SECONDS)
        self._settled.set()

    def _follow(self) -> None:
        """One process, until it ends."""
        with self._lock:
            if self._closing.is_set():
                return
            # A session of its own: Ctrl-C on the terminal is for us, and what we still do then needs the connection.
            self._process = subprocess.Popen(  # noqa: S603  # a program that the user has named by installing it
                [*self._command, f"{self._local or ''}:{self._port}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        with self._process as process:
            guard = ChildGuard(process.pid, start_time(process.pid) or "")  # against a kill -9 of ours
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    self._read(line.strip())
            finally:
                guard.stop()

    def _read(self, line: str) -> None:
        found = READY.match(line)
        if found:
            self._local = int(found[1])
            self._settled.set()
        elif line and not line.startswith(NOISE):
            self._said.append(line)


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind the program, so that it ends what it has started.

    Who takes these signals in an event loop inside the block (a worker, the console) ends by itself.
    """

    def leave(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    mine = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, leave) for number in (SIGNALS if mine else ())}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
