"""What a process that is forked off a worker without exec must not inherit: signal handlers, event loop, connections.

A child of `os.fork()`, of multiprocessing (by fork) or of a ProcessPoolExecutor is a copy of the worker with one
thread. It has no renewing thread, and so renews no lease; logging replaces its own locks, and `service.safe_streams`
that of the log's file. The rest is here: while a worker runs, a child gets Python's own SIGTERM and SIGINT, it writes
nothing to the worker's Redis connections, and it ends where it would go on as a second worker.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import thread as executors
from typing import Any, Final, NoReturn

from agentqueue.model.exceptions import describe_traceback, is_a

_in_child: list[Callable[[], None]] = []
_is_child = False
_held = threading.local()
_SIGNALS: Final[dict[signal.Signals, Any]] = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
}
"""What a worker handles, and what Python does of itself."""


@contextlib.contextmanager
def guarded(in_child: Callable[[], None]) -> Iterator[None]:
    """While the block runs, have forked children forget the worker; `in_child` is called in each."""
    _in_child.append(in_child)
    try:
        yield
    finally:
        _in_child.remove(in_child)


def end_child(exc: BaseException | None = None) -> None:
    """Do nothing in a worker; end a forked child, as Python ends a process. `exc`: what its function raised.

    Called where a handler has returned: the child has done what it was forked for, and the job is the worker's to end.
    """
    if _is_child:
        _exit(exc)


def _exit(exc: BaseException | None) -> NoReturn:
    code: Any = 0
    if exc is not None and not is_a(exc, SystemExit):
        code = describe_traceback(exc)
    elif exc is not None:
        code = getattr(exc, "code", 1)
    if code is not None and type(code) is not int:
        sys.stderr.write(f"{code}\n")
        code = 1
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code or 0)


class Gone:
    """Stands for the worker's Redis client in a child that went on as if it were the worker."""

    def __getattr__(self, name: str) -> NoReturn:
        end_in_loop()
        raise AssertionError("the process has ended")


def end_in_loop() -> None:
    """End a child that came back to the worker's event loop, which it must not turn: its sockets are the worker's."""
    end_child(RuntimeError("a forked process awaited something in the worker's event loop; end it with os._exit()"))


def _hold_signals() -> None:
    """Before the fork: a signal that comes before the child has forgotten the worker would be the worker's."""
    _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS) if _in_child else None


def _release_signals() -> None:
    mask = getattr(_held, "mask", None)
    if mask is not None:
        _held.mask = None
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _forget_the_worker() -> None:
    if _in_child:
        global _is_child  # noqa: PLW0603  # the process is another one from here on
        _is_child = True
        signal.set_wakeup_fd(-1)  # it leads to the worker's event loop
        for number, default in _SIGNALS.items():
            if callable(signal.getsignal(number)):
                signal.signal(number, default)
        # The child's exit would join the worker's threads, its own first thread among them: RuntimeError, exit code 1.
        executors._threads_queues.clear()  # type: ignore[attr-defined]  # noqa: SLF001  # nothing public does it
        for forget in _in_child:
            forget()
        _in_child.clear()
    _release_signals()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_signals, after_in_parent=_release_signals, after_in_child=_forget_the_worker)
