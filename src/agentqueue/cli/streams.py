"""Standard streams of a command, which can be closed, full, or limited to a few characters."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, NoReturn, TextIO, cast

from agentqueue.errors import AgentQueueError
from agentqueue.service.safe_streams import drop_when_blocked


class OutputLost(AgentQueueError, OSError):
    """The output of a command cannot be written."""


class Output:
    """A stream whose failures are errors with a message for users.

    After a failure, further output is discarded. Otherwise Python would fail again at exit.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text.

        Raises:
            BrokenPipeError: The reader has closed the pipe.
            OutputLost: The text cannot be written, for example because the disk is full.
        """
        try:
            return self._stream.write(text)
        except OSError as exc:
            self._raise_lost(exc)

    def flush(self) -> None:
        """Write buffered text. Raises the same errors as `write`."""
        try:
            self._stream.flush()
        except OSError as exc:
            self._raise_lost(exc)

    def _raise_lost(self, exc: OSError) -> NoReturn:
        with open(os.devnull, "wb") as null:  # noqa: PTH123
            os.dup2(null.fileno(), self._stream.fileno())
        if isinstance(exc, BrokenPipeError):
            raise exc
        raise OutputLost(f"the output can't be written: {exc.strerror}; make room there, or send it elsewhere") from exc


def prepare_streams() -> None:
    """Prepare the standard streams for a command.

    Standard output becomes an `Output` that escapes characters it cannot encode. Output to a closed stream is
    discarded. Standard input is UTF-8 in any locale, as files are. A closed one is empty.
    """
    sys.stdin = sys.stdin or io.TextIOWrapper(io.BytesIO())
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape")
    sys.stdout, sys.stderr = sys.stdout or drop_when_blocked(None), sys.stderr or drop_when_blocked(None)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stdout = cast("TextIO", Output(sys.stdout))
