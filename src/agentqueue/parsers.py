"""Readers of environment variables for our processes' settings. Each raises ValueError that says what to write."""

import math
from collections.abc import Callable


def number(least: float, most: float = math.inf, *, unit: str = "") -> Callable[[str], float]:
    """A number from `least` to `most`."""

    def parse(text: str) -> float:
        value = float(text)
        if not least <= value <= most:
            raise ValueError(f"must be from {least:g} to {most:g}{unit and f' {unit}'}")
        return value

    return parse


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number from `least` to `most`."""

    def parse(text: str) -> int:
        value = int(text)
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
