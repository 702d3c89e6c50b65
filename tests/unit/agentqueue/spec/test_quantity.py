"""Quantities of Kubernetes."""

from decimal import Decimal
from typing import Any

import pytest

from agentqueue.spec.quantity import parse_quantity


@pytest.mark.parametrize(
    ("quantity", "number"),
    [
        ("1", 1),
        (2, 2),
        ("10m", Decimal("0.01")),
        ("1Ki", 1024),
        ("1.5Gi", Decimal("1.5") * 1024**3),
        ("2M", 2_000_000),
        ("1e3", 1000),
        ("100n", Decimal("1e-7")),
        ("many", None),
        ("", None),
        ("1Q", None),
    ],
)
def test_a_quantity_is_a_number_in_its_base_unit(quantity: Any, number: Any) -> None:
    assert parse_quantity(quantity) == number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("500m", 0.5), ("1.5Gi", 1_610_612_736), ("2k", 2_000), ("1E", 1e18),
        ("1e3", 1_000), ("1E-1", 0.1), ("3n", 3e-9), ("2.", 2),
    ],
)  # fmt: skip
def test_every_notation_of_a_quantity_is_read(text: str, value: float) -> None:
    assert float(parse_quantity(text) or 0) == value
