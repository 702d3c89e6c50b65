"""structlog: JSON lines, or colours on a terminal. Handlers' own use of `logging` comes out in the same form."""

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Final, TextIO

import orjson
import structlog

from agentqueue.lossy import lossy
from agentqueue.wire import clean_text, describe_value

OPTIONS: Final = orjson.OPT_NON_STR_KEYS
Renderer = Callable[[Any, str, MutableMapping[str, Any]], str]


def set_up_logs(level: str, form: str) -> None:
    """Once per process. `form`: json, console, or '' to look whether stderr is a terminal.

    From then on no write to stdout or stderr fails or waits, whoever writes: handlers do, and Python at the end.
    """
    sys.stdout, sys.stderr = lossy(sys.stdout), lossy(sys.stderr)
    stream = sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    as_json = form == "json" or (not form and not stream.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if as_json:
        shared.append(structlog.processors.format_exc_info)
        last = _never_failing(lambda _, __, event: _json(event))
    else:
        console = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        last = _never_failing(console)
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    _take_over_logging(number, stream, shared, last)


def _json(value: Any) -> str:
    return orjson.dumps(value, default=_text, option=OPTIONS).decode()


def _text(value: object) -> str:
    return describe_value(value, repr)


def _never_failing(render: Renderer) -> Renderer:
    """A line whose values can't be written (their own `__repr__` raises, lone surrogates) says them as text: no job
    may fail for its log.
    """

    def rendered(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        try:
            return render(logger, method, dict(event))
        except Exception:  # noqa: BLE001  # the values' own code
            return render(logger, method, {clean_text(name): _plain(value) for name, value in event.items()})

    return rendered


def _plain(value: Any) -> Any:
    try:
        _json(value)
    except TypeError:
        return clean_text(_text(value))
    return value if isinstance(value, str | int | float | None) else _text(value)


def _take_over_logging(level: int, stream: TextIO, shared: list[Any], last: Renderer) -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
