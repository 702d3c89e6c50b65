"""Formatting of messages."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or plural, as `1 job` or `2,000 jobs`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
