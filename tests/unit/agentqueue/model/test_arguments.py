"""Equal arguments have the same fingerprint in every process, and others have another one."""

import subprocess
import sys
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agentqueue.model.arguments import fingerprint_arguments


class Trip(BaseModel):
    to: str
    on: date


class Tool:
    """An object without content."""


PAIRS: list[tuple[Any, Any]] = [
    (1, 2),
    ("a", "b"),
    ({"a": 1, "b": 2}, {"a": 1, "b": 3}),
    ({1, 2}, {1, 3}),
    (b"a", b"b"),
    (Decimal("1.0"), Decimal("1.1")),
    (Path("a"), Path("b")),
    (Trip(to="x", on=date(2026, 1, 1)), Trip(to="x", on=date(2026, 1, 2))),
    ([Trip(to="x", on=date(2026, 1, 1))], []),
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_other_arguments_have_another_fingerprint(one: Any, other: Any) -> None:
    assert fingerprint_arguments((one,), {}) == fingerprint_arguments((one,), {})
    assert fingerprint_arguments((one,), {}) != fingerprint_arguments((other,), {})
    assert fingerprint_arguments((), {"a": one}) != fingerprint_arguments((), {"b": one})


def test_the_order_of_keys_does_not_count() -> None:
    assert fingerprint_arguments(({"a": 1, "b": 2},), {}) == fingerprint_arguments(({"b": 2, "a": 1},), {})


def test_objects_without_content_count_by_their_class() -> None:
    assert fingerprint_arguments((Tool(), timedelta(1)), {}) == fingerprint_arguments((Tool(), timedelta(2)), {})
    assert fingerprint_arguments((Tool(),), {}) != fingerprint_arguments((object(),), {})


def test_a_mapping_that_is_no_dict_counts_by_its_items() -> None:
    from types import MappingProxyType

    assert fingerprint_arguments((MappingProxyType({"a": 1}),), {}) == fingerprint_arguments(({"a": 1},), {})


def test_what_can_not_be_compared_has_no_fingerprint() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert fingerprint_arguments((), {}) is None
    assert fingerprint_arguments((endless,), {}) is None
    assert fingerprint_arguments((2**70,), {}) is None


def test_it_is_the_same_in_another_process() -> None:
    code = (
        "from agentqueue.model.arguments import fingerprint_arguments;"
        "print(fingerprint_arguments(({'x', 'y', 'z'}, 1.5), {'k': None}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == fingerprint_arguments(({"z", "y", "x"}, 1.5), {"k": None})
