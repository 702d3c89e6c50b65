"""Type checks for the fields of stored records."""

from collections.abc import Mapping
from typing import Any, Final

from agentqueue.model.times import LAST_MS

INT_OR_NONE: Final = (int, type(None))
NUMBER_OR_NONE: Final = (int, float, type(None))


def expect_type(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


TEXT: Final = (str,)
TEXT_OR_NONE: Final = (str, type(None))
INT: Final = (int,)
LIST: Final = (list, tuple)


def check_fields(value: Any, types: Mapping[str, tuple[type, ...]]) -> None:
    """Refuse what somebody else has written into a record: a field of another type, or a time that no clock shows."""
    for name, allowed in types.items():
        found = getattr(value, name)
        if type(found) not in allowed:
            raise TypeError(f"{name} is a {type(found).__name__}")
        if name.endswith("_ms") and not 0 <= found <= LAST_MS:
            raise ValueError(f"{name} is {found}, which is no time")
