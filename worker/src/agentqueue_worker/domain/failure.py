"""What is kept of an exception."""

import traceback
from collections.abc import Mapping, Sequence
from types import TracebackType

from agentqueue.wire import AttemptError, attempt_error, attempt_errors_of, describe_value, encode_errors


def describe_failure(exc: BaseException, *, attempt: int, at_ms: int, hidden: Sequence[str] = ()) -> AttemptError:
    """Type, message and traceback; frames at the top whose file is under one of the `hidden` folders are left out."""
    return attempt_error(attempt, at_ms, type(exc).__name__, describe_value(exc), _traceback(exc, hidden))


def _traceback(exc: BaseException, hidden: Sequence[str]) -> str:
    tb = exc.__traceback__
    while tb is not None and _is_hidden(tb, hidden):
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(exc), exc, tb))


def _is_hidden(tb: TracebackType, hidden: Sequence[str]) -> bool:
    return tb.tb_frame.f_code.co_filename.startswith(tuple(hidden))


def add_error(meta: Mapping[str, bytes], error: AttemptError) -> bytes:
    """The meta field `errors` with one more."""
    return encode_errors([*attempt_errors_of(meta), error])
