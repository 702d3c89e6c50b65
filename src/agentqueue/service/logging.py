"""structlog: JSON lines, or colours on a terminal. Handlers' own use of `logging` comes out in the same form."""

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Final, TextIO, cast

import orjson
import structlog

from agentqueue.model.exceptions import clean_text, describe_traceback, describe_value
from agentqueue.service.safe_streams import drop_when_blocked

OPTIONS: Final = orjson.OPT_NON_STR_KEYS
Renderer = Callable[[Any, str, MutableMapping[str, Any]], str]


def set_up_logs(level: str, form: str) -> None:
    """Once per process. `form`: json, console, or '' to look whether stderr is a terminal.

    From then on no write to stdout or stderr fails or waits, whoever writes: handlers do, and Python at the end.
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
        # It gets no exception to format: `_describe_exception` has done so.
        last = _never_failing(structlog.dev.ConsoleRenderer(colors=stream.isatty()))
    lines = _Lines(stream)
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    _take_over_logging(number, stream, shared, last)


class _Lines:
    """Writes each event as a line. structlog's own loggers have a lock, which a forked child may find locked."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, message: str) -> None:
        """Write it."""
        self._stream.write(message + "\n")
        self._stream.flush()

    log = debug = info = warn = warning = err = error = fatal = failure = critical = exception = msg


def _describe_exception(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """`exc_info` becomes the field `exception`: the traceback's end, whatever the exception's own code does."""
    exc = _exception_in(event.pop("exc_info", None))
    if exc is not None:
        event["exception"] = describe_traceback(exc)
    return event


def _exception_in(exc_info: Any) -> BaseException | None:
    """The exception in what logging and structlog take for `exc_info`."""
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
    """A line whose values can't be written (their own `__repr__` raises, lone surrogates) says them as text: no job
    may fail for its log.
    """

    def rendered(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        try:
            return render(logger, method, dict(event))
        except BaseException:  # noqa: BLE001  # the values' own code
            return render(logger, method, {_plain_key(name): _plain(value) for name, value in event.items()})

    return rendered


def _plain(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in (bool, float) or (kind is int and -(2**63) <= value < 2**64):
        return value
    return clean_text(value) if kind is str else _text(value)


def _plain_key(name: Any) -> str:
    return clean_text(describe_value(name))


def _take_over_logging(level: int, stream: TextIO, shared: list[Any], last: Renderer) -> None:
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
    """One line for each record, though its arguments don't fit its message or can't be made text."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        record = logging.makeLogRecord(record.__dict__)
        try:
            record.msg = record.getMessage()
        except BaseException as exc:  # noqa: BLE001  # the arguments' own code
            problem = f"({type(exc).__name__} in the arguments of this log line)"
            record.msg = f"{describe_value(record.msg)} {problem}"
        record.args = None
        return super().format(record)
