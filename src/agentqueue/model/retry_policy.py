"""Durations, attempts and backoff. Handlers, producers, the HTTP API and the command line are all checked here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Literal

from agentqueue.errors import UsageError
from agentqueue.model.numbers import plain_number

Seconds = float | timedelta
"""A duration as callers give it: a number of seconds, or a timedelta."""
MAX_DURATION_S: Final = 315_360_000.0
"""Longest duration, in seconds: 10 years. Clocks, threads and Redis count in integers, which overflow."""
MIN_TIMEOUT_S: Final = 0.001
"""Shortest timeout of an attempt, in seconds. Redis and the worker count in milliseconds."""
MAX_ATTEMPTS: Final = 1_000
"""Highest number of attempts that a job may have."""
_BACKOFF_FIELDS: Final = {
    "type": "type",
    "delaySeconds": "delay",
    "maxDelaySeconds": "max_delay",
    "jitter": "jitter",
}
"""Names of a backoff's fields in the resource and in job records, each with the attribute of `Backoff`."""


def seconds(value: Seconds, name: str, *, least: float = 0.0, endless: bool = False) -> float:
    """Return a duration in seconds.

    Args:
        value: A number of seconds, or a timedelta.
        name: The option's name, for the error message.
        least: Lower bound, in seconds.
        endless: Accept `math.inf` as well.

    Raises:
        UsageError: The value is not a number, or lies outside `least` to `MAX_DURATION_S`.
    """
    out = value.total_seconds() if isinstance(value, timedelta) else plain_number(value)
    if out is not None and (least <= out <= MAX_DURATION_S or (endless and out == math.inf)):
        return float(out)
    bounds = f"from {least:g} to {MAX_DURATION_S:.0f}"
    raise UsageError(f"`{name}` must be a number of seconds {bounds}, or a timedelta, not {value!r:.80}")


def check_attempts(attempts: int | None) -> int | None:
    """Return the number of attempts, the first run included. None means that the caller sets none.

    Raises:
        UsageError: The number is not an integer from 1 to `MAX_ATTEMPTS`.
    """
    if attempts is None or (type(attempts) is int and 1 <= attempts <= MAX_ATTEMPTS):
        return attempts
    raise UsageError(f"`attempts` must be a whole number from 1 to {MAX_ATTEMPTS}, not {attempts!r:.80}")


@dataclass(frozen=True, slots=True)
class Backoff:
    """The delay before a failed job is tried again. Durations are in seconds."""

    type: Literal["exponential", "fixed"] = "exponential"
    """Growth of the delay. `exponential` doubles it with each attempt; `fixed` keeps it the same."""
    delay: float = 2.0
    """Delay before the second attempt."""
    max_delay: float = 600.0
    """Upper bound of the delay (10 minutes by default)."""
    jitter: float = 0.1
    """Random share of the delay, 0 to 1. It spreads out the retries of jobs that failed together."""

    def __post_init__(self) -> None:
        if self.type not in ("exponential", "fixed"):
            raise UsageError(f"`backoff.type` must be exponential or fixed, not {self.type!r:.80}")
        jitter = plain_number(self.jitter)
        if jitter is None or not 0 <= jitter <= 1:
            raise UsageError(f"`backoff.jitter` must be a number from 0 to 1, not {self.jitter!r:.80}")
        seconds(self.delay, "backoff.delay")
        seconds(self.max_delay, "backoff.max_delay")

    @classmethod
    def parse(cls, given: "Mapping[str, Any] | Backoff | Seconds", base: "Backoff | None" = None) -> "Backoff":
        """Return the backoff that a resource, a decorator or a producer gives.

        Args:
            given: A mapping with the resource's fields `{type, delaySeconds, maxDelaySeconds, jitter}`, a duration
                (a fixed delay), or a Backoff.
            base: The backoff that supplies the fields which the mapping leaves out or sets to None.

        Raises:
            UsageError: A field is unknown or out of range.
        """
        if isinstance(given, Backoff):
            return given
        if not isinstance(given, Mapping):
            return cls("fixed", delay=seconds(given, "backoff"))
        base = base or cls()
        fields: dict[str, Any] = {}
        for key, value in given.items():
            if key not in _BACKOFF_FIELDS:
                raise UsageError(f"`backoff` has no {key!r:.80}; it has {', '.join(_BACKOFF_FIELDS)}")
            if value is not None:
                is_duration = key.endswith("Seconds")
                fields[_BACKOFF_FIELDS[key]] = seconds(value, f"backoff.{key}") if is_duration else value
        if "delay" in fields and "max_delay" not in fields:
            fields["max_delay"] = max(base.max_delay, fields["delay"])
        return replace(base, **fields)


def backoff_to_record(given: Mapping[str, Any] | Backoff | Seconds) -> dict[str, Any]:
    """Return a producer's backoff as a job record holds it.

    The result has only the fields that the producer gave: the handler's backoff supplies the others.

    Raises:
        UsageError: A field is unknown or out of range.
    """
    backoff = Backoff.parse(given)
    if isinstance(given, Mapping):
        keys = [key for key in given if given[key] is not None]
    else:
        keys = list(_BACKOFF_FIELDS) if isinstance(given, Backoff) else ["type", "delaySeconds"]
    return {key: getattr(backoff, _BACKOFF_FIELDS[key]) for key in keys}
