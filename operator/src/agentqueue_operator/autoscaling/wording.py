"""Formatting of messages."""


def counted(number: int, noun: str) -> str:
    """Return the number with the noun in the singular or plural, as `1 pod` or `2 pods`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
