"""Type checks for the fields of stored records."""

from collections.abc import Mapping
from typing import Any, Final

from agentqueue.model.times import LAST_MS

INT_OR_NONE: Final = (int, type(None))
NUMBER_OR_NONE: Final = (int, float, type(None))


def expect_type(value: Any, kind: type) -> Any:
    """Return the value if it has the type.

    Raises:
        TypeError: The value has another type.
    """
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


TEXT: Final = (str,)
TEXT_OR_NONE: Final = (str, type(None))
INT: Final = (int,)
LIST: Final = (list, tuple)


def check_fields(value: Any, types: Mapping[str, tuple[type, ...]]) -> None:
    """Refuse a record with a field of another type or an impossible time. Another program may have written it.

    Raises:
        TypeError, ValueError: A field is not valid.
    """
    for name, allowed in types.items():
        found = getattr(value, name)
        if type(found) not in allowed:
            raise TypeError(f"{name} is a {type(found).__name__}")
        if name.endswith("_ms") and not 0 <= found <= LAST_MS:
            raise ValueError(f"{name} is {found}, which is no time")
