"""A local port to a Service, by `kubectl port-forward`, while a command runs."""

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
"""kubectl's line with the local port. It means that the port is open."""
NOISE: Final = ("Forwarding from ", "Handling connection for ")
"""Beginnings of kubectl's lines that are not errors."""
START_SECONDS: Final = 30.0
"""Time until the port is open, in seconds. It includes a login at the cloud provider."""
RETRY_SECONDS: Final = 0.5
"""Time before kubectl is started again, in seconds. It ends with its pod, and the next pod needs time to be Ready."""
STOP_SECONDS: Final = 5.0
"""Time from SIGTERM to SIGKILL for kubectl, in seconds. It has nothing to finish."""
SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a program without cleaning up. SIGINT is not one: Python raises KeyboardInterrupt."""


class PortForward:
    """A local port to a port of a Service. `with PortForward(...) as forward:` always ends the kubectl process.

    The block starts immediately; `forward.local_port()` waits until the port is open. kubectl ends when the pod is
    gone. It is then started again, with the same local port.

    Args:
        kubectl: The command and its options for context and namespace.
        target: The Service in kubectl's notation, `service/NAME`.
        port: The port of the Service.
    """

    def __init__(self, kubectl: Sequence[str], target: str, port: int) -> None:
        self._command = [*kubectl, "port-forward", "--address", "127.0.0.1", target]
        self._target, self._port = target, port
        self._local = 0
        self._errors: deque[str] = deque(maxlen=3)
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._open_or_failed, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="port-forward", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def local_port(self) -> int:
        """Wait until the port is open, and return it.

        Raises:
            QueueUnavailable: kubectl cannot forward the port. The message has kubectl's errors.
        """
        if not self._open_or_failed.wait(START_SECONDS) or not self._local:
            reason = "; ".join(self._errors) or f"no answer within {START_SECONDS:g} s"
            raise QueueUnavailable(f"kubectl can't forward a port to {self._target}: {reason}")
        return self._local

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop kubectl."""
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
            self._run_kubectl()
            if not self._local:  # The first start failed, so `local_port` raises an error.
                break
            self._closing.wait(RETRY_SECONDS)
        self._open_or_failed.set()

    def _run_kubectl(self) -> None:
        """Start kubectl and read its output until it ends."""
        with self._lock:
            if self._closing.is_set():
                return
            # In its own session, kubectl does not get Ctrl-C. A command still needs the connection to finish its work.
            self._process = subprocess.Popen(  # noqa: S603  # the user's own kubectl
                [*self._command, f"{self._local or ''}:{self._port}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        with self._process as process:
            # The guard ends kubectl if this process is killed with SIGKILL.
            guard = ChildGuard(process.pid, start_time(process.pid) or "")
            try:
                assert process.stdout is not None
                for line in map(str.strip, process.stdout):
                    found = READY.match(line)
                    if found:
                        self._local = int(found[1])
                        self._open_or_failed.set()
                    elif line and not line.startswith(NOISE):
                        self._errors.append(line)
            finally:
                guard.stop()


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise SystemExit in the block, so that the program stops the processes it has started.

    A program that handles these signals in an event loop (a worker, the console) replaces the handlers.
    """

    def exit_program(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    in_main_thread = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, exit_program) for number in (SIGNALS if in_main_thread else ())}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
