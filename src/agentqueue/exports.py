"""Public names of a package that are imported on first use, so that the package itself imports fast."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_exports(
    package: dict[str, Any], homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__` (PEP 562).

    Args:
        package: The globals of the package.
        homes: The module that defines each public name.
    """

    def get(name: str) -> Any:
        if name not in homes:
            public = ", ".join(package["__all__"])
            raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}; it has {public}")
        value = getattr(import_module(homes[name]), name)
        package[name] = value
        return value

    return get, lambda: sorted(package["__all__"])
