"""Logs of a process that sets them up, in a test's own process."""

import contextlib
import logging
import sys
from collections.abc import Iterator

import structlog


@contextlib.contextmanager
def logs_as_before() -> Iterator[None]:
    """Undo at the end what `set_up_logs` does within the block."""
    root = logging.getLogger()
    handlers, level, streams = root.handlers[:], root.level, (sys.stdout, sys.stderr)
    try:
        yield
    finally:
        root.handlers[:], (sys.stdout, sys.stderr) = handlers, streams
        root.setLevel(level)
        structlog.reset_defaults()
