"""Durations, attempts and backoff: the only place that checks them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Literal

from agentqueue.errors import UsageError
from agentqueue.model.numbers import plain_number

Seconds = float | timedelta
"""Durations in what people write: seconds, or a timedelta."""


def seconds(value: Seconds, *, endless: bool = False) -> float:
    """The duration in seconds; `endless`: it may be `math.inf`.

    Raises:
        UsageError: negative, over 10 years, or not a number.
    """
    out = value.total_seconds() if isinstance(value, timedelta) else plain_number(value)
    if out is not None and (0 <= out <= LONGEST_S or (endless and out == math.inf)):
        return float(out)
    raise UsageError(f"duration {value!r} must be a number of seconds from 0 to {LONGEST_S:.0f}, or a timedelta")


def delay_seconds(value: Seconds) -> float:
    past = value < timedelta() if isinstance(value, timedelta) else (plain_number(value) or 0) < 0
    return 0.0 if past else seconds(value)


@dataclass(frozen=True, slots=True)
class Backoff:
    """The delay before a failed job is tried again. Durations in seconds."""

    type: Literal["exponential", "fixed"] = "exponential"
    """exponential: the delay doubles with each attempt; fixed: it stays the same."""
    delay: float = 2.0
    max_delay: float = 600.0
    """The delay never grows beyond this (10 minutes)."""
    jitter: float = 0.1
    """Share of the delay that is random, 0 to 1, so that jobs that failed together don't come back together."""

    def __post_init__(self) -> None:
        if self.type not in ("exponential", "fixed"):
            raise UsageError(f"backoff type {self.type!r} must be exponential or fixed")
        if not 0 <= self.jitter <= 1:
            raise UsageError(f"backoff jitter {self.jitter!r} must be a share from 0 to 1")
        seconds(self.delay)
        seconds(self.max_delay)

    @classmethod
    def parse(cls, wire: "Mapping[str, Any] | Backoff | Seconds", base: "Backoff | None" = None) -> "Backoff":
        """From the resource's words `{type, delaySeconds, maxDelaySeconds, jitter}`; what is absent is `base`'s.

        A number of seconds or a timedelta is a fixed delay, as it is for a producer.
        """
        if isinstance(wire, Backoff):
            return wire
        if not isinstance(wire, Mapping):
            return cls("fixed", delay=seconds(wire))
        base = base or cls()
        names = {"type": "type", "delaySeconds": "delay", "maxDelaySeconds": "max_delay", "jitter": "jitter"}
        unknown = wire.keys() - names.keys()
        if unknown:
            raise UsageError(f"backoff has no {min(unknown)!r}; it knows {', '.join(names)}")
        given = {names[key]: value for key, value in wire.items()}
        if "delay" in given and "max_delay" not in given:
            given["max_delay"] = max(base.max_delay, seconds(given["delay"]))
        return replace(base, **given)


def check_attempts(attempts: int | None) -> int | None:
    """The number itself, if it may be a number of attempts: 1 to 1,000."""
    if attempts is None or (type(attempts) is int and 1 <= attempts <= 1_000):
        return attempts
    raise UsageError(f"attempts {attempts!r} must be a whole number from 1 to 1000, the first run included")


LONGEST_S: Final = 315_360_000.0
"""10 years: no duration is longer. Clocks, threads and Redis count in whole numbers, which an endless one overflows."""
