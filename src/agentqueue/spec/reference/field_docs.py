"""Read the docstrings and the built-in defaults of the models' fields."""

import ast
import inspect
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from agentqueue.spec.agents import Overlay
from agentqueue.spec.base import Model


@cache
def field_docs(model: type[Model]) -> dict[str, str]:
    """Return the docstring below each field, by the field's Python name. Inherited fields are included."""
    inherited = {
        k: v for base in reversed(model.__mro__[1:]) if issubclass(base, Model) for k, v in field_docs(base).items()
    }
    return inherited | _module_docs(model.__module__).get(model.__name__, {})


@cache
def _module_docs(module: str) -> dict[str, dict[str, str]]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: dict(_docs_in(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _docs_in(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement, after in zip(node.body, node.body[1:], strict=False):
        match statement, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(doc))):
                yield name, " ".join(doc.split())


def class_doc(model: type[Model]) -> str:
    """Return the docstring of the class."""
    return inspect.cleandoc(model.__doc__ or "")


def built_in_default(model: type[Model], name: str) -> Any:
    """Return the default of a field that neither the agent nor agentDefaults sets. None if it has no default."""
    if not issubclass(model, Overlay):
        return None
    found = {field.name: _default(field) for field in fields(model.filled)}.get(name)
    if is_dataclass(found):
        return None
    return found.value if isinstance(found, StrEnum) else found


def _default(field: "Field[Any]") -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return None if field.default is MISSING else field.default
