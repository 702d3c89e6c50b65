"""Kubernetes' quantities: `500m`, `1.5Gi`, `2e3`."""

import re
from decimal import Decimal
from typing import Final

_PARTS: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?)(?:([KMGTPE]i|[numkMGTPE])|[eE]([-+]?[0-9]+))?")
_UNITS: Final = {
    **{unit: Decimal(10) ** power for unit, power in zip("numkMGTPE", (-9, -6, -3, 3, 6, 9, 12, 15, 18), strict=True)},
    **{f"{unit}i": Decimal(1024) ** (power + 1) for power, unit in enumerate("KMGTPE")},
}


def amount(quantity: str) -> Decimal:
    """A quantity's value in its base unit; of the form that `agentqueue.spec.base.QUANTITY` lets in."""
    found = _PARTS.fullmatch(quantity)
    assert found is not None, quantity
    number, unit, exponent = found.groups()
    if exponent is not None:
        return Decimal(number) * Decimal(10) ** int(exponent)
    return Decimal(number) * (_UNITS[unit] if unit else 1)
