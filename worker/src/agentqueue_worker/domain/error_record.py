"""Makes the recorded form of an exception."""

from collections.abc import Mapping, Sequence

from agentqueue.model.attempts import AttemptError, attempt_error, attempt_errors_of, encode_errors
from agentqueue.model.exceptions import describe_traceback, name_exception


def describe_failure(exc: BaseException, *, attempt: int, at_ms: int, hidden: Sequence[str] = ()) -> AttemptError:
    """Return the type, message and traceback of an exception.

    Args:
        exc: the exception.
        attempt: number of the attempt, from 1.
        at_ms: when it failed, in ms since the epoch.
        hidden: folders whose frames are left out at the top of the traceback.
    """
    cause = name_exception(exc)
    return attempt_error(attempt, at_ms, cause.type, cause.message, describe_traceback(exc, hidden))


def add_error(meta: Mapping[str, bytes], error: AttemptError) -> bytes:
    """Return the metadata field `errors` with one more error."""
    return encode_errors([*attempt_errors_of(meta), error])
