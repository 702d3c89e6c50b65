"""Keeps a process that was forked without exec from inheriting signal handlers, event loop and connections.

A child of `os.fork()`, of multiprocessing (by fork) or of a ProcessPoolExecutor is a copy of the worker with one
thread. It has no lease thread, so it renews no lease. Logging replaces its own locks, and `service.safe_streams`
replaces that of the log's file. This module does the rest while a worker runs: a child gets Python's own handlers of
SIGTERM and SIGINT, writes nothing to the worker's Redis connections, and ends where it would continue as a second
worker.
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
"""Signals that a worker handles, with the handlers that Python installs."""


@contextlib.contextmanager
def guarded(in_child: Callable[[], None]) -> Iterator[None]:
    """Make forked children forget the worker while the block runs. `in_child` is called in each child."""
    _in_child.append(in_child)
    try:
        yield
    finally:
        _in_child.remove(in_child)


def end_child(exc: BaseException | None = None) -> None:
    """End the process if it is a forked child, as Python ends a process. Do nothing in a worker.

    Called where a handler has returned. The child has done its work, and the worker ends the job.

    Args:
        exc: the exception that the child's function raised, or None.
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
    """Replacement of the worker's Redis client in a child that continued as if it were the worker."""

    def __getattr__(self, name: str) -> NoReturn:
        end_in_loop()
        raise AssertionError("the process has ended")


def end_in_loop() -> None:
    """End a child that returned to the worker's event loop, whose sockets belong to the worker."""
    end_child(RuntimeError("a forked process awaited something in the worker's event loop; end it with os._exit()"))


def _hold_signals() -> None:
    """Block signals before a fork, so that the child does not handle one as the worker would."""
    _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS) if _in_child else None


def _release_signals() -> None:
    mask = getattr(_held, "mask", None)
    if mask is not None:
        _held.mask = None
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _forget_the_worker() -> None:
    if _in_child:
        global _is_child  # noqa: PLW0603  # a fork makes a new process of this module
        _is_child = True
        signal.set_wakeup_fd(-1)  # it leads to the worker's event loop
        for number, default in _SIGNALS.items():
            if callable(signal.getsignal(number)):
                signal.signal(number, default)
        # At its exit the child would join the worker's threads, one of which is its own: RuntimeError, exit code 1.
        executors._threads_queues.clear()  # type: ignore[attr-defined]  # noqa: SLF001  # there is no public way
        for forget in _in_child:
            forget()
        _in_child.clear()
    _release_signals()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_signals, after_in_parent=_release_signals, after_in_child=_forget_the_worker)
