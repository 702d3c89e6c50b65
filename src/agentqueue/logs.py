"""structlog: JSON lines, or colours on a terminal. Handlers' own use of `logging` comes out in the same form."""

import contextlib
import io
import logging
import sys
from typing import Any, TextIO, cast

import orjson
import structlog


class LossyStream(io.TextIOBase):
    """Writes what it can and drops the rest.

    On a full disk or a closed pipe there is nobody left to tell, and no job may fail for a line of its log, nor a
    process end with an error because Python can't write the last of it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        """All of the text, as far as its writer can know."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: it was closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As far as it goes."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Whether somebody looks at it."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The file's number."""
        return self._stream.fileno()


def set_up_logs(level: str, form: str) -> None:
    """Once per process. `form`: json, console, or '' to look whether stderr is a terminal. stderr fails no more."""
    stream = cast("TextIO", LossyStream(sys.stderr))
    sys.stderr = stream  # Python itself writes there too, and flushes it at the end
    number = logging.getLevelNamesMapping()[level.upper()]
    as_json = form == "json" or (not form and not sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if as_json:
        shared.append(structlog.processors.format_exc_info)
        last: Any = structlog.processors.JSONRenderer(serializer=_dumps)
    else:
        last = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    _take_over_logging(number, stream, shared, last)


def _dumps(value: Any, **_: Any) -> str:
    return orjson.dumps(value, default=repr).decode()


def _take_over_logging(level: int, stream: TextIO, shared: list[Any], last: Any) -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
