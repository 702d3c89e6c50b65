"""What a job returns to the parent that waits for it, as JSON: `{"v": value}`, or `{"e": error}` if it has failed.

The value of a job is a JSON value, and comes last, so that the scripts see by the beginning which of both it is.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from agentqueue.errors import InvalidPayload
from agentqueue.model.record_fields import TEXT, TEXT_OR_NONE, check_fields

MAX_MESSAGE_CHARACTERS: Final = 2_000
"""Length to which the message of a child's error is cut. The dead letter has all of it."""


class ChildEnd(StrEnum):
    """How a child that failed has ended."""

    DEAD = "dead"
    CANCELLED = "cancelled"
    COMPLETED = "completed"
    """It has completed, but its result can't be given to the parent."""
    LOST = "lost"
    """The server knows neither the job nor what it returned."""


@dataclass(frozen=True, slots=True)
class ChildError:
    """Why a child failed."""

    state: ChildEnd
    type: str
    """Class of the child's exception."""
    message: str
    reason: str | None = None
    """Reason of its dead letter."""

    @property
    def line(self) -> str:
        """Return the error in one line."""
        return f"{self.type}: {self.message}" if self.message else self.type


@dataclass(frozen=True, slots=True)
class ChildReturn:
    """A value, or an error."""

    value: Any = None
    error: ChildError | None = None


def encode_value(value: Any) -> bytes:
    """Return what a completed child returns.

    Raises:
        orjson.JSONEncodeError: The value is not JSON.
    """
    return orjson.dumps({"v": value})


def encode_error(error: ChildError) -> bytes:
    """Return what a child that failed returns."""
    wire = {name: text for name, text in asdict(error).items() if text is not None}
    return orjson.dumps({"e": wire | {"message": error.message[:MAX_MESSAGE_CHARACTERS]}})


def decode_return(raw: bytes) -> ChildReturn:
    """Return what a child has returned.

    Raises:
        InvalidPayload: The text is not a return.
    """
    try:
        wire = orjson.loads(raw)
        if "result" in wire:  # the whole result, since another program has ended the child
            return ChildReturn(wire["result"]["r"])
        if "v" in wire:
            return ChildReturn(wire["v"])
        found = wire["e"]
        error = ChildError(ChildEnd(found["state"]), found["type"], found["message"], found.get("reason"))
        check_fields(error, {"type": TEXT, "message": TEXT, "reason": TEXT_OR_NONE})
        return ChildReturn(error=error)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise InvalidPayload(f"what the child returned is not valid: {exc} ({raw[:40]!r}…)") from exc
