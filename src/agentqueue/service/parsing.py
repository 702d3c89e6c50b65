"""Readers of numbers and words for our processes' settings. Each raises ValueError that says what to write."""

import math
from collections.abc import Callable

from agentqueue.model.retry_policy import MAX_DURATION_S


def number(least: float, most: float, *, unit: str = "") -> Callable[[str], float]:
    """A number from `least` to `most`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:  # NaN fails the comparison
            raise ValueError(f"must be a number from {least:.12g} to {most:.12g}{unit and f' {unit}'}")
        return value

    return parse


def seconds(least: float = 0.0) -> Callable[[str], float]:
    """A duration in seconds, from `least` to the longest."""
    return number(least, MAX_DURATION_S, unit="seconds")


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number from `least` to `most`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return value

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    """One of the words, whatever its case."""

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text.lower()

    return parse


port = whole(0, 65_535)
log_level = one_of("debug", "info", "warning", "error", "critical")
log_format = one_of("json", "console")
