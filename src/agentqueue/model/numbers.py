"""Numbers of all types: Python's own, Decimal, Fraction, and those of numpy and other libraries."""

import math
from typing import Any, Final

PLAIN: Final = frozenset((int, float))
"""Types of numbers that need no conversion."""


def plain_number(value: Any) -> int | float | None:
    """Return the value as an int or a float. None if it is not a number.

    A number has `__index__` or `__float__`: numpy's scalars, arrays of one element, Decimal, Fraction. True and False
    do not count, since they are usually mistakes. A value that exceeds a float becomes infinite.
    """
    kind = type(value)
    if kind in PLAIN:
        return value  # type: ignore[no-any-return]  # it is one of these
    if kind.__name__ in ("bool", "bool_"):  # numpy's own has `__float__` too
        return None
    try:
        if hasattr(kind, "__index__"):
            return int(value.__index__())
        return float(value) if hasattr(kind, "__float__") else None
    except OverflowError:  # a Fraction over 1e308
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):  # an array of several elements, a signalling NaN
        return None
