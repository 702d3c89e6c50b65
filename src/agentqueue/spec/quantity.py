"""Kubernetes quantities, such as `500m`, `1.5Gi` and `2e3`."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

SUFFIXES: Final[Mapping[str, Decimal]] = {
    "": Decimal(1),
    **{letter: Decimal(1_000) ** power for power, letter in enumerate("num", -3)},
    **{letter: Decimal(1_000) ** power for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": Decimal(1_024) ** power for power, letter in enumerate("KMGTPE", 1)},
}
"""Factor of each suffix that the Kubernetes API accepts."""


def parse_quantity(quantity: Any) -> Decimal | None:
    """Return a quantity in its base unit (cores, bytes), so that `1024Mi` and `1Gi` are equal.

    Returns:
        None if the value is not a quantity.
    """
    text = str(quantity).strip()
    number = text.rstrip("".join(SUFFIXES)) if text[-1:].isalpha() else text
    try:
        return Decimal(number) * SUFFIXES[text[len(number) :]]
    except (InvalidOperation, KeyError):
        return None
