"""Output that never fails and never holds its writer up: who reads a log, or does not, must not stop the work."""

import contextlib
import io
import os
import select
import threading
import weakref
from typing import Any, Final, TextIO

from agentqueue.clock import monotonic

STALL_S: Final = 1.0
"""How long a write waits for a reader that is slow. After that, what finds no room is dropped until there is some."""


class DroppingFile(io.RawIOBase):
    """A file whose writes drop what finds no room: its disk is full, its reader gone or not reading.

    At most PIPE_BUF bytes go at once, for which there is room in a pipe that poll(2) calls writable (pipe(7)).
    """

    def __init__(self, stream: TextIO) -> None:
        self._fd = stream.fileno()
        self._stream = stream  # which would close the file if nobody held it
        self._lock = threading.RLock()  # a signal's handler may write while its thread writes
        _files.add(self)
        self._poll().poll(0)  # ValueError, OSError: no file to write to
        self._stalled = False
        self._cut = False
        """The end of the last line was dropped."""

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """The file's number."""
        return self._fd

    def isatty(self) -> bool:
        """Whether somebody looks at it."""
        return os.isatty(self._fd)

    def write(self, data: "bytes | bytearray | memoryview", /) -> int:  # type: ignore[override]  # any buffer
        """Always all of it, as far as the writer can know."""
        with self._lock:
            whole = rest = memoryview(b"\n" + bytes(data) if self._cut else data)
            until = monotonic() + (0.0 if self._stalled else STALL_S)
            with contextlib.suppress(OSError):
                while rest and self._has_room(until):
                    rest = rest[os.write(self._fd, rest[: select.PIPE_BUF]) :]
            if len(rest) < len(whole):
                self._cut = bool(rest) and whole[-len(rest) - 1] != ord("\n")
        return len(data)

    def _has_room(self, until: float) -> bool:
        self._stalled = not self._poll().poll(max(0.0, until - monotonic()) * 1000)
        return not self._stalled

    def _poll(self) -> select.poll:
        """A new one each time: a poll object refuses a second thread, or a handler of a signal, while it waits."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return poll

    def unlock(self) -> None:
        """In a forked child: the thread that may have held the lock is the parent's."""
        self._lock = threading.RLock()


_files: "weakref.WeakSet[DroppingFile]" = weakref.WeakSet()


def _unlock_all() -> None:
    for file in _files:
        file.unlock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_all)


def drop_when_blocked(stream: TextIO | None) -> TextIO:
    """The stream's file as one that never fails; as it is where it has no file, nowhere where there is none."""
    if stream is None:  # closed before Python started
        nowhere = os.open(os.devnull, os.O_WRONLY)  # open till the end
        stream = os.fdopen(nowhere, "w", encoding="utf-8", closefd=False)
    try:
        file: Any = DroppingFile(stream)
    except (OSError, ValueError):
        return stream
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
    # No BufferedWriter between them: a child that is forked while another thread holds its lock waits for ever.
    unbuffered, by_line = getattr(stream, "write_through", False), getattr(stream, "line_buffering", True)
    return io.TextIOWrapper(
        file, stream.encoding or "utf-8", "backslashreplace", line_buffering=by_line, write_through=unbuffered
    )
