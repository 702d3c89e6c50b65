"""Output that never fails and never holds its writer up: who reads a log, or does not, must not stop the work."""

import contextlib
import io
import os
import select
from typing import Any, Final, TextIO

from agentqueue.clock import monotonic

STALL_S: Final = 1.0
"""How long a write waits for a reader that is slow. After that, what finds no room is dropped until there is some."""


class LossyFile(io.RawIOBase):
    """A file whose writes drop what finds no room: its disk is full, its reader gone or not reading.

    At most PIPE_BUF bytes go at once, for which there is room in a pipe that poll(2) calls writable (pipe(7)).
    """

    def __init__(self, stream: TextIO) -> None:
        self._fd = fd = stream.fileno()
        self._stream = stream  # which would close the file if nobody held it
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
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
        whole = rest = memoryview(b"\n" + bytes(data) if self._cut else data)
        until = monotonic() + (0.0 if self._stalled else STALL_S)
        with contextlib.suppress(OSError):
            while rest and self._has_room(until):
                rest = rest[os.write(self._fd, rest[: select.PIPE_BUF]) :]
        if len(rest) < len(whole):
            self._cut = bool(rest) and whole[-len(rest) - 1] != ord("\n")
        return len(data)

    def _has_room(self, until: float) -> bool:
        self._stalled = not self._poll.poll(max(0.0, until - monotonic()) * 1000)
        return not self._stalled


def lossy(stream: TextIO | None) -> TextIO:
    """The stream's file as one that never fails; as it is where it has no file, nowhere where there is none."""
    if stream is None:  # closed before Python started
        nowhere = os.open(os.devnull, os.O_WRONLY)  # open till the end
        stream = os.fdopen(nowhere, "w", encoding="utf-8", closefd=False)
    try:
        file: Any = LossyFile(stream)
    except (OSError, ValueError):
        return stream
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
    unbuffered, by_line = getattr(stream, "write_through", False), getattr(stream, "line_buffering", True)
    if not unbuffered:  # python -u
        file = io.BufferedWriter(file)
    return io.TextIOWrapper(
        file, stream.encoding or "utf-8", "backslashreplace", line_buffering=by_line, write_through=unbuffered
    )
