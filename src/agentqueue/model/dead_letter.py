"""Dead letters: jobs that will not run again unless someone replays them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Final

import orjson

from agentqueue.errors import InvalidPayload
from agentqueue.keys import PRIORITY_NUMBERS, Level, level_of
from agentqueue.model.attempts import AttemptError, attempt_error_of
from agentqueue.model.exceptions import shape_of
from agentqueue.model.job import OMITTED
from agentqueue.model.json import camel
from agentqueue.model.record_fields import INT, LIST, TEXT, TEXT_OR_NONE, check_fields
from agentqueue.model.times import iso_of


class DeadLetterReason(StrEnum):
    """Why a job became a dead letter."""

    FAILED = "failed"
    """Its attempts are used up."""
    FATAL = "fatal"
    """The handler raised Fatal (or, for an arq function, a plain exception)."""
    CRASHED = "crashed"
    """Its workers died under it too often."""
    EXPIRED = "expired"
    """Its `_expires` passed before it was done."""
    NO_RECORD = "no-record"
    """Its id was in the queue without a record."""
    GARBAGE = "garbage"
    """Its record can't be read."""
    PICKLED = "pickled"
    """Its record is a pickle, which is not read unless asked for."""
    INVALID_PAYLOAD = "invalid-payload"
    """The handler's model refuses its payload."""
    UNKNOWN_JOB = "unknown-job"
    """No worker of the queue knows its name."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that will not run again by itself, with all that is known of why."""

    id: str
    queue: str
    name: str
    data: Any
    priority: int
    reason: DeadLetterReason
    errors: Sequence[AttemptError]
    fingerprint: str
    attempts: int
    deliveries: int
    enqueued_ms: int
    died_ms: int
    replayable: bool = True
    tags: Sequence[str] = ()
    parent: str | None = None
    tenant: str | None = None
    trace: str | None = None

    @property
    def error(self) -> str:
        """The last error in one line."""
        return self.errors[-1].line if self.errors else str(self.reason)


def encode_dead_letter(letter: DeadLetter) -> bytes:
    """The dead letter's bytes. What was decoded once can be encoded, so this can't fail on the job's own data."""
    wire = asdict(letter)
    errors, data = wire.pop("errors"), wire.pop("data")
    last = errors[-1] | {"traceback": ""} if errors else None
    # Last what may be large, and before it the last error's line: lists read the beginning alone.
    return orjson.dumps(wire | {"last": last, "errors": errors, "data": data})


def decode_dead_letter(raw: bytes) -> DeadLetter:
    """The dead letter in `raw`.

    Raises:
        InvalidPayload: not one.
    """
    try:
        wire = orjson.loads(raw)
        wire.pop("last", None)
        wire["errors"] = tuple(attempt_error_of(error) for error in wire["errors"])
        wire["reason"] = DeadLetterReason(wire["reason"])
        letter = DeadLetter(**wire)
        check_fields(letter, _DEAD_TYPES)
        return letter
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise InvalidPayload(f"the dead letter is not one: {exc}") from exc


_DEAD_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    **dict.fromkeys(("id", "queue", "name", "fingerprint"), TEXT),
    **dict.fromkeys(("priority", "attempts", "deliveries", "enqueued_ms", "died_ms"), INT),
    "replayable": (bool,),
    "tags": LIST,
    **dict.fromkeys(("parent", "tenant", "trace"), TEXT_OR_NONE),
}


def fingerprint(reason: DeadLetterReason, name: str, error_type: str, message: str) -> str:
    """12 hex digits that are equal for failures of one kind: numbers, ids, addresses and quoted values don't count.

    >>> fingerprint(DeadLetterReason.FATAL, "search", "Fatal", "no airport 'XYZ'") == fingerprint(
    ...     DeadLetterReason.FATAL, "search", "Fatal", "no airport 'QQQ'")
    True
    """
    return hashlib.sha256(f"{reason}\0{name}\0{error_type}\0{shape_of(message)}".encode()).hexdigest()[:12]


def priority_label(number: int | None) -> str:
    """The level's name for the number in a record (None: normal)."""
    return level_of(number if number and number > 0 else PRIORITY_NUMBERS[Level.NORMAL]).label


def dead_letter_to_json(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter with camelCase names and ISO 8601 times."""
    wire = {camel(field.name): getattr(letter, field.name) for field in fields(letter)}
    for name, value in (("enqueuedAt", wire.pop("enqueuedMs")), ("diedAt", wire.pop("diedMs"))):
        wire[name] = iso_of(value)
    if letter.data is OMITTED:
        del wire["data"]
    return wire | {
        "priority": priority_label(letter.priority),
        "error": letter.error,
        "errors": [error_to_json(error) for error in letter.errors],
        "tags": list(letter.tags),
    }


def error_to_json(error: AttemptError) -> dict[str, Any]:
    """How an attempt ended, with camelCase names and ISO 8601 times."""
    wire: dict[str, Any] = {"attempt": error.attempt, "at": iso_of(error.at_ms), "type": error.type}
    return wire | {"message": error.message, "traceback": error.traceback}
