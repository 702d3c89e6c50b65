"""Parsers of settings. Each raises ValueError with the values that are allowed."""

import math
from collections.abc import Callable

from agentqueue.model.retry_policy import MAX_DURATION_S


def number(minimum: float, maximum: float, *, unit: str = "") -> Callable[[str], float]:
    """Return a parser of numbers from `minimum` to `maximum`. The message names the unit."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not minimum <= value <= maximum:  # NaN fails the comparison
            raise ValueError(f"must be a number from {minimum:.12g} to {maximum:.12g}{unit and f' {unit}'}")
        return value

    return parse


def seconds(minimum: float = 0.0) -> Callable[[str], float]:
    """Return a parser of durations in seconds, from `minimum` to the longest one that is supported."""
    return number(minimum, MAX_DURATION_S, unit="seconds")


def whole(minimum: int, maximum: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from `minimum` to `maximum`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if not minimum <= value <= maximum:
            raise ValueError(f"must be a whole number from {minimum} to {maximum}")
        return value

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    """Return a parser of one of the words, in upper or lower case."""

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text.lower()

    return parse


port = whole(0, 65_535)
log_level = one_of("debug", "info", "warning", "error", "critical")
log_format = one_of("json", "console")
