"""Errors and progress of a job's attempts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from agentqueue.model.exceptions import MAX_MESSAGE, MAX_TRACEBACK, clean_text
from agentqueue.model.record_fields import INT, TEXT, TEXT_OR_NONE, check_fields


@dataclass(frozen=True, slots=True)
class AttemptError:
    """How one attempt, or one worker's death, ended."""

    attempt: int
    at_ms: int
    type: str
    message: str
    traceback: str = ""

    @property
    def line(self) -> str:
        """The error in one line."""
        return f"{self.type}: {self.message}" if self.message else self.type


def attempt_error(attempt: int, at_ms: int, type_: str, message: str, traceback: str = "") -> AttemptError:
    """The error, cut to what is kept: a message's start, a traceback's end."""
    return AttemptError(
        attempt,
        at_ms,
        type_,
        clean_text(message[:MAX_MESSAGE]),
        clean_text(traceback[-MAX_TRACEBACK:]),
    )


MAX_ERRORS: Final = 10
"""The last errors of a job that are kept."""


def encode_errors(errors: Sequence[AttemptError]) -> bytes:
    """The last errors, as meta `errors` holds them."""
    return orjson.dumps([asdict(error) for error in errors[-MAX_ERRORS:]])


# A job's meta is a hash beside its record. What can't be read there (somebody else wrote it) counts as not there: it
# must neither keep the job from running nor stop the worker.


MAX_COUNTER: Final = 1_000_000_000_000_000
"""The largest count or time that is believed."""


def number_of(raw: bytes | None) -> int:
    """A count in a job's meta or beside it; 0 if there is none."""
    try:
        return min(int(raw or 0), MAX_COUNTER)
    except ValueError:
        return 0


def returns_of(meta: Mapping[str, bytes]) -> int:
    """How many times the job came back without an attempt's end: its worker died, or handed it back."""
    return number_of(meta.get("crashes")) + number_of(meta.get("releases"))


def attempt_errors_of(meta: Mapping[str, bytes]) -> list[AttemptError]:
    """How the job's attempts ended, the oldest that is kept first."""
    try:
        return [attempt_error_of(error) for error in orjson.loads(meta.get("errors", b"[]"))]
    except (TypeError, ValueError):  # a JSONDecodeError is a ValueError
        return []


def errors_of(meta: Mapping[str, bytes]) -> list[AttemptError]:
    """Every error and crash that a job's meta tells of, oldest first. A crash's type is `Crashed`."""
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
    """How far a job says it is."""

    percent: float
    message: str | None = None
    at_ms: int = 0


def encode_progress(progress: Progress) -> bytes:
    """The progress, as meta `progress` holds it."""
    return orjson.dumps(asdict(progress))


def decode_progress(raw: bytes | None) -> Progress | None:
    """The progress in meta `progress`."""
    try:
        return progress_of(orjson.loads(raw)) if raw else None
    except (TypeError, ValueError):  # a JSONDecodeError is a ValueError
        return None


_ERROR_TYPES: Final = {"attempt": INT, "at_ms": INT, "type": TEXT, "message": TEXT, "traceback": TEXT}
_PROGRESS_TYPES: Final = {"percent": (int, float), "message": TEXT_OR_NONE, "at_ms": INT}


def attempt_error_of(wire: Mapping[str, Any]) -> AttemptError:
    error = AttemptError(**wire)
    check_fields(error, _ERROR_TYPES)
    return error


def progress_of(wire: Mapping[str, Any]) -> Progress:
    progress = Progress(**wire)
    check_fields(progress, _PROGRESS_TYPES)
    return progress
