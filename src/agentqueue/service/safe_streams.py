"""Output streams that never fail and never block for long, so that a slow or missing log reader does not stop jobs."""

import contextlib
import io
import os
import select
import threading
import weakref
from typing import Any, Final, TextIO

from agentqueue.clock import monotonic

STALL_S: Final = 1.0
"""Maximum time that a write waits for a slow reader, in seconds. Later output is dropped while there is no room."""


class DroppingFile(io.RawIOBase):
    """A file that drops output if there is no room: the disk is full, or nobody reads the pipe.

    It writes at most PIPE_BUF bytes at a time. A pipe that poll(2) reports as writable has room for them (pipe(7)).
    """

    def __init__(self, stream: TextIO) -> None:
        self._fd = stream.fileno()
        self._stream = stream  # A reference, since the stream closes its file when it is freed.
        self._lock = threading.RLock()  # Reentrant: a signal handler can write while its thread writes.
        _files.add(self)
        self._poll().poll(0)  # Raises ValueError or OSError if there is no file to write to.
        self._stalled = False
        self._cut = False
        """True if the end of the last line was dropped."""

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._fd

    def isatty(self) -> bool:
        """Return whether the file is a terminal."""
        return os.isatty(self._fd)

    def write(self, data: "bytes | bytearray | memoryview", /) -> int:  # type: ignore[override]  # any buffer
        """Write the data, or drop what finds no room. Return its whole length in both cases."""
        with self._lock:
            whole = rest = memoryview(b"\n" + bytes(data) if self._cut else data)
            until = monotonic() + (0.0 if self._stalled else STALL_S)
            with contextlib.suppress(OSError):
                while rest:
                    self._stalled = not self._poll().poll(max(0.0, until - monotonic()) * 1000)
                    if self._stalled:
                        break
                    rest = rest[os.write(self._fd, rest[: select.PIPE_BUF]) :]
            if len(rest) < len(whole):
                self._cut = bool(rest) and whole[-len(rest) - 1] != ord("\n")
        return len(data)

    def _poll(self) -> select.poll:
        """Return a new poll object. One that waits cannot be used by another thread or by a signal handler."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return poll

    def unlock(self) -> None:
        """Replace the lock in a forked child. A thread of the parent can hold the old one for ever."""
        self._lock = threading.RLock()


_files: "weakref.WeakSet[DroppingFile]" = weakref.WeakSet()


def _unlock_all() -> None:
    """Replace the lock of every file, after a fork."""
    for file in _files:
        file.unlock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_all)


def drop_when_blocked(stream: TextIO | None) -> TextIO:
    """Wrap a stream so that writes never fail and never block for long.

    A stream without a file descriptor is returned unchanged. A missing stream is replaced with /dev/null.
    """
    if stream is None:  # It was closed before Python started.
        null = os.open(os.devnull, os.O_WRONLY)  # It stays open until the process ends.
        stream = os.fdopen(null, "w", encoding="utf-8", closefd=False)
    try:
        file: Any = DroppingFile(stream)
    except (OSError, ValueError):
        return stream
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
    # Without a BufferedWriter: in a child that is forked while another thread holds its lock, a write waits for ever.
    unbuffered, by_line = getattr(stream, "write_through", False), getattr(stream, "line_buffering", True)
    return io.TextIOWrapper(
        file, stream.encoding or "utf-8", "backslashreplace", line_buffering=by_line, write_through=unbuffered
    )
