"""Standard input, output and error as a command may find them: closed, full, or with few letters."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, NoReturn, TextIO, cast

from agentqueue.errors import AgentQueueError
from agentqueue.service.safe_streams import drop_when_blocked


class OutputLost(AgentQueueError, OSError):
    """What a command prints can't be written."""


class Output:
    """A stream that fails in words of ours.

    What is left after a failure goes nowhere: else Python would fail on it once more at the exit.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or raise OutputLost (BrokenPipeError where the reader is gone)."""
        try:
            return self._stream.write(text)
        except OSError as exc:
            self._give_up(exc)

    def flush(self) -> None:
        """As `write`."""
        try:
            self._stream.flush()
        except OSError as exc:
            self._give_up(exc)

    def _give_up(self, exc: OSError) -> NoReturn:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), self._stream.fileno())
        if isinstance(exc, BrokenPipeError):
            raise exc
        raise OutputLost(f"the output can't be written: {exc.strerror}; make room there, or send it elsewhere") from exc


def prepare_streams() -> None:
    """Standard output becomes an `Output`, letters that it can't encode are escaped; what was closed goes nowhere.

    Standard input is UTF-8 in any locale, as files are; a closed one is empty.
    """
    sys.stdin = sys.stdin or io.TextIOWrapper(io.BytesIO())
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape")
    sys.stdout, sys.stderr = sys.stdout or drop_when_blocked(None), sys.stderr or drop_when_blocked(None)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stdout = cast("TextIO", Output(sys.stdout))
