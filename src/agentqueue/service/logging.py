"""Logs as JSON lines, or with colours on a terminal. Records of the standard `logging` module have the same form."""

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Final, TextIO, cast

import orjson
import structlog

from agentqueue.model.exceptions import clean_text, describe_traceback, describe_value
from agentqueue.service.safe_streams import drop_when_blocked

OPTIONS: Final = orjson.OPT_NON_STR_KEYS
"""Options of orjson. A handler's log values can be dictionaries with any keys."""
Renderer = Callable[[Any, str, MutableMapping[str, Any]], str]


def set_up_logs(level: str, form: str) -> None:
    """Set up the log of the process. Call it once.

    Afterwards, no write to stdout or stderr fails or blocks for long. This also holds for writes of handlers, and of
    Python at exit.

    Args:
        level: The lowest level that is logged, like `info`.
        form: `json`, `console`, or empty for `console` on a terminal and `json` elsewhere.
    """
    sys.stdout, sys.stderr = drop_when_blocked(sys.stdout), drop_when_blocked(sys.stderr)
    stream = sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    as_json = form == "json" or (not form and not stream.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _describe_exception,
    ]
    if as_json:
        last = _never_failing(lambda _, __, event: _json(event))
    else:
        # It has no exceptions to format: `_describe_exception` has replaced them.
        last = _never_failing(structlog.dev.ConsoleRenderer(colors=stream.isatty()))
    lines = _Lines(stream)
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    _configure_standard_logging(number, stream, shared, last)


class _Lines:
    """A logger that writes each event as a line.

    It replaces structlog's own loggers. They have a lock, which can be locked in a forked child.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, message: str) -> None:
        """Write a line."""
        self._stream.write(message + "\n")
        self._stream.flush()

    log = debug = info = warn = warning = err = error = fatal = failure = critical = exception = msg


def _describe_exception(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace `exc_info` with the field `exception`: the end of the traceback, or of as much of it as can be shown."""
    exc = _exception_in(event.pop("exc_info", None))
    if exc is not None:
        event["exception"] = describe_traceback(exc)
    return event


def _exception_in(exc_info: Any) -> BaseException | None:
    """Return the exception from a value that logging or structlog accept as `exc_info`."""
    if type(exc_info) is tuple and len(exc_info) == 3:
        exc_info = exc_info[1]
    if issubclass(type(exc_info), BaseException):
        return cast("BaseException", exc_info)
    return sys.exc_info()[1] if exc_info is True or exc_info == 1 else None


def _json(value: Any) -> str:
    return orjson.dumps(value, default=_text, option=OPTIONS).decode()


def _text(value: object) -> str:
    return clean_text(describe_value(value, repr))


def _never_failing(render: Renderer) -> Renderer:
    """Return a renderer that does not fail, since no job must fail because of its log.

    If a value cannot be written (its `__repr__` raises, or it has lone surrogates), values are written as plain text.
    """

    def render_safely(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        try:
            return render(logger, method, dict(event))
        except BaseException:  # noqa: BLE001  # raised by a value's own code
            return render(logger, method, {clean_text(describe_value(name)): _plain(it) for name, it in event.items()})

    return render_safely


def _plain(value: Any) -> Any:
    """Return a value that JSON can have, without running the value's own code unprotected."""
    kind = type(value)
    if value is None or kind in (bool, float) or (kind is int and -(2**63) <= value < 2**64):
        return value
    return clean_text(value) if kind is str else _text(value)


def _configure_standard_logging(level: int, stream: TextIO, shared: list[Any], last: Renderer) -> None:
    formatter = _Formatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder(), *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """A formatter that writes each record, even if its arguments do not fit its message or cannot become text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        record = logging.makeLogRecord(record.__dict__)
        try:
            record.msg = record.getMessage()
        except BaseException as exc:  # noqa: BLE001  # raised by an argument's own code
            problem = f"({type(exc).__name__} in the arguments of this log line)"
            record.msg = f"{describe_value(record.msg)} {problem}"
        record.args = None
        return super().format(record)
