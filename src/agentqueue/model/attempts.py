"""Errors and progress of a job's attempts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from agentqueue.model.exceptions import MAX_MESSAGE, MAX_TRACEBACK, clean_text
from agentqueue.model.record_fields import INT, TEXT, TEXT_OR_NONE, check_fields


@dataclass(frozen=True, slots=True)
class AttemptError:
    """Error of one attempt, or crash of a worker that ran the job."""

    attempt: int
    at_ms: int
    type: str
    message: str
    traceback: str = ""

    @property
    def line(self) -> str:
        """Return the error in one line."""
        return f"{self.type}: {self.message}" if self.message else self.type


def attempt_error(attempt: int, at_ms: int, type_: str, message: str, traceback: str = "") -> AttemptError:
    """Return an error with the start of its message and the end of its traceback, as they are stored."""
    return AttemptError(
        attempt,
        at_ms,
        type_,
        clean_text(message[:MAX_MESSAGE]),
        clean_text(traceback[-MAX_TRACEBACK:]),
    )


MAX_ERRORS: Final = 10
"""Maximum number of errors that are stored for a job: the last ones."""


def encode_errors(errors: Sequence[AttemptError]) -> bytes:
    """Return the last errors as the meta field `errors` holds them."""
    return orjson.dumps([asdict(error) for error in errors[-MAX_ERRORS:]])


# A job's meta is a hash beside its record. Another program may write it: an unreadable field counts as missing, so that
# it stops neither the job nor the worker.


SNOOZES: Final = "snoozes"
"""Field of a job's meta that holds how often the job has snoozed."""
SNOOZE_REASON: Final = "snooze"
"""Field of a job's meta that holds why it did so last."""
MAX_COUNTER: Final = 1_000_000_000_000_000
"""Largest count that is read from a meta field. Larger ones are cut to it, so that sums stay within 64 bits."""


def number_of(raw: bytes | None) -> int:
    """Return a count from a job's meta. It is 0 if the field is missing or not a number."""
    try:
        return min(int(raw or 0), MAX_COUNTER)
    except ValueError:
        return 0


def snoozes_of(meta: Mapping[str, bytes]) -> tuple[int, str | None]:
    """Return how often the job has snoozed, and why it did so last."""
    count, reason = number_of(meta.get(SNOOZES)), meta.get(SNOOZE_REASON)
    return count, None if reason is None else reason.decode(errors="replace")


def returns_of(meta: Mapping[str, bytes]) -> int:
    """Return how often the job came back without an outcome: its worker crashed or released it, or it was suspended."""
    return sum(number_of(meta.get(name)) for name in ("crashes", "releases", "suspensions"))


def attempt_errors_of(meta: Mapping[str, bytes]) -> list[AttemptError]:
    """Return the stored errors of the job's attempts, oldest first."""
    try:
        return [attempt_error_of(error) for error in orjson.loads(meta.get("errors", b"[]"))]
    except (TypeError, ValueError):  # a JSONDecodeError is a ValueError
        return []


def errors_of(meta: Mapping[str, bytes]) -> list[AttemptError]:
    """Return every error and crash in a job's meta, oldest first. The type of a crash is `Crashed`."""
    crashes = [_crash(value) for name, value in meta.items() if name.startswith("crash:")]
    return sorted([*attempt_errors_of(meta), *filter(None, crashes)], key=lambda error: error.at_ms)


def _crash(raw: bytes) -> AttemptError | None:
    try:
        at, owner, why = raw.decode().split("|", 2)
        return AttemptError(0, int(float(at)), "Crashed", f"worker {owner.partition('/')[0]}: {why}")
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a job, as its handler reports it."""

    percent: float
    message: str | None = None
    at_ms: int = 0


def encode_progress(progress: Progress) -> bytes:
    """Return the progress as the meta field `progress` holds it."""
    return orjson.dumps(asdict(progress))


def decode_progress(raw: bytes | None) -> Progress | None:
    """Return the progress in the meta field `progress`. None if it is missing or cannot be read."""
    try:
        return progress_of(orjson.loads(raw)) if raw else None
    except (TypeError, ValueError):  # a JSONDecodeError is a ValueError
        return None


_ERROR_TYPES: Final = {"attempt": INT, "at_ms": INT, "type": TEXT, "message": TEXT, "traceback": TEXT}
_PROGRESS_TYPES: Final = {"percent": (int, float), "message": TEXT_OR_NONE, "at_ms": INT}


def attempt_error_of(wire: Mapping[str, Any]) -> AttemptError:
    """Return the error with these fields.

    Raises:
        TypeError, ValueError: A field is missing, unknown or of another type.
    """
    error = AttemptError(**wire)
    check_fields(error, _ERROR_TYPES)
    return error


def progress_of(wire: Mapping[str, Any]) -> Progress:
    """Return the progress with these fields.

    Raises:
        TypeError, ValueError: A field is missing, unknown or of another type.
    """
    progress = Progress(**wire)
    check_fields(progress, _PROGRESS_TYPES)
    return progress
