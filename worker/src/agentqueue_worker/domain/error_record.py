"""What is kept of an exception."""

from collections.abc import Mapping, Sequence

from agentqueue.model.attempts import AttemptError, attempt_error, attempt_errors_of, encode_errors
from agentqueue.model.exceptions import describe_traceback, name_exception


def describe_failure(exc: BaseException, *, attempt: int, at_ms: int, hidden: Sequence[str] = ()) -> AttemptError:
    """Type, message and traceback; frames at the top whose file is under one of the `hidden` folders are left out."""
    cause = name_exception(exc)
    return attempt_error(attempt, at_ms, cause.type, cause.message, describe_traceback(exc, hidden))


def add_error(meta: Mapping[str, bytes], error: AttemptError) -> bytes:
    """The meta field `errors` with one more."""
    return encode_errors([*attempt_errors_of(meta), error])
