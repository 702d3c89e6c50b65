"""Dead letters: jobs that do not run again unless they are replayed."""

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
    """Reason why a job became a dead letter."""

    FAILED = "failed"
    """All its attempts failed."""
    FATAL = "fatal"
    """The handler raised Fatal (or, for an arq function, a plain exception)."""
    CRASHED = "crashed"
    """Its workers crashed too often while they ran it."""
    EXPIRED = "expired"
    """Its expiry (arq's `_expires`) passed before it was done."""
    NO_RECORD = "no-record"
    """Its ID was in the queue without a record."""
    GARBAGE = "garbage"
    """Its record cannot be read."""
    PICKLED = "pickled"
    """Its record is a pickle, which workers read with `--arq-pickle` only."""
    INVALID_PAYLOAD = "invalid-payload"
    """The handler's annotation refuses its payload."""
    UNKNOWN_JOB = "unknown-job"
    """No worker of the queue knows its name."""
    OUTCOME_UNKNOWN = "outcome-unknown"
    """A step with `once=True` was cut off, so that nobody knows what has become of it."""
    THROTTLED = "throttled"
    """A provider has refused its calls for longer than the limit allows (`maxThrottledSeconds`)."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that does not run again by itself, with its errors."""

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
        """Return the last error in one line."""
        return self.errors[-1].line if self.errors else str(self.reason)


def encode_dead_letter(dead_letter: DeadLetter) -> bytes:
    """Return the dead letter as JSON. It cannot fail on the payload, which was decoded from JSON."""
    wire = asdict(dead_letter)
    errors, data = wire.pop("errors"), wire.pop("data")
    last = errors[-1] | {"traceback": ""} if errors else None
    # Lists read only the beginning of a record: large fields come last, after the last error without its traceback.
    return orjson.dumps(wire | {"last": last, "errors": errors, "data": data})


def decode_dead_letter(raw: bytes) -> DeadLetter:
    """Return the dead letter in `raw`.

    Raises:
        InvalidPayload: The text is not a dead letter.
    """
    try:
        wire = orjson.loads(raw)
        wire.pop("last", None)
        wire["errors"] = tuple(attempt_error_of(error) for error in wire["errors"])
        wire["reason"] = DeadLetterReason(wire["reason"])
        dead_letter = DeadLetter(**wire)
        check_fields(dead_letter, _DEAD_TYPES)
        return dead_letter
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise InvalidPayload(f"the dead letter is not valid: {exc}") from exc


_DEAD_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    **dict.fromkeys(("id", "queue", "name", "fingerprint"), TEXT),
    **dict.fromkeys(("priority", "attempts", "deliveries", "enqueued_ms", "died_ms"), INT),
    "replayable": (bool,),
    "tags": LIST,
    **dict.fromkeys(("parent", "tenant", "trace"), TEXT_OR_NONE),
}


def fingerprint(reason: DeadLetterReason, name: str, error_type: str, message: str) -> str:
    """Return 12 hexadecimal digits that are equal for failures of the same kind.

    Numbers, IDs, addresses and quoted values in the message are ignored.

    >>> fingerprint(DeadLetterReason.FATAL, "search", "Fatal", "no airport 'XYZ'") == fingerprint(
    ...     DeadLetterReason.FATAL, "search", "Fatal", "no airport 'QQQ'")
    True
    """
    return hashlib.sha256(f"{reason}\0{name}\0{error_type}\0{shape_of(message)}".encode()).hexdigest()[:12]


def priority_label(number: int | None) -> str:
    """Return the name of the priority level for the number in a record. None is normal."""
    return level_of(number if number and number > 0 else PRIORITY_NUMBERS[Level.NORMAL]).label


def dead_letter_to_json(dead_letter: DeadLetter) -> dict[str, Any]:
    """Return a dead letter as JSON types, with camelCase names and ISO 8601 times."""
    wire = {camel(field.name): getattr(dead_letter, field.name) for field in fields(dead_letter)}
    for name, value in (("enqueuedAt", wire.pop("enqueuedMs")), ("diedAt", wire.pop("diedMs"))):
        wire[name] = iso_of(value)
    if dead_letter.data is OMITTED:
        del wire["data"]
    return wire | {
        "priority": priority_label(dead_letter.priority),
        "error": dead_letter.error,
        "errors": [error_to_json(error) for error in dead_letter.errors],
        "tags": list(dead_letter.tags),
    }


def error_to_json(error: AttemptError) -> dict[str, Any]:
    """Return an attempt's error as JSON types, with camelCase names and ISO 8601 times."""
    wire: dict[str, Any] = {"attempt": error.attempt, "at": iso_of(error.at_ms), "type": error.type}
    return wire | {"message": error.message, "traceback": error.traceback}
