"""Explain pydantic's errors in terms of the resource: the problem, the nearest valid key, and the correction."""

import json
from collections.abc import Iterator, Mapping, Sequence, Sized
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from agentqueue.redaction import redact
from agentqueue.spec.base import PATTERN_HINTS, Model, model_in
from agentqueue.spec.problems import Problem

WORDS = {
    "missing": "is required",
    "enum": "must be {expected}, is {shown}",
    "literal_error": "must be {expected}, is {shown}",
    "string_pattern_mismatch": "must be {hint}; is {shown}",
    "quantity": "must be {hint}; is {shown}",
    "quantity_type": "must be {hint}; is {shown}",
    "int_or_percent": "must be {hint}; is {shown}",
    "int_or_percent_type": "must be {hint}; is {shown}",
    "int_type": "must be a whole number, is {shown}",
    "float_type": "must be a number, is {shown}",
    "bool_type": "must be true or false, is {shown}",
    "string_type": "must be text, is {shown}",
    "model_type": "must be an object, is {shown}",
    "dict_type": "must be an object, is {shown}",
    "tuple_type": "must be a list, is {shown}",
    "greater_than_equal": "must be at least {ge:g}, is {shown}",
    "less_than_equal": "must be at most {le:g}, is {shown}",
    "string_too_long": "must have at most {max_length} characters, has {size}",
    "string_too_short": "must have at least {min_length} characters, has {size}",
    "too_long": "must have at most {max_length} items, has {size}",
    "too_short": "must have at least {min_length} items, has {size}",
}
"""Message for each type of error. `shown` is the value, `size` its length, and the rest is pydantic's context."""


def explain(error: ValidationError, root: type[Model]) -> list[Problem]:
    """Return a Problem for each error, in the same order."""
    return [
        Problem((*details["loc"], *details.get("ctx", {}).get("at", ())), _message(details, root))
        for details in error.errors(include_url=False)
        # pydantic counts valid items only, so a list whose items are all invalid is also too short.
        if details["type"] != "too_short" or len(details["input"]) < details["ctx"]["min_length"]
    ]


def breaks_shape(details: ErrorDetails) -> bool:
    """Return True if a value is missing or has the wrong type, so that no rule can be checked."""
    return details["type"] == "missing" or details["type"].endswith("_type")


def _message(details: ErrorDetails, root: type[Model]) -> str:
    kind, value = details["type"], details["input"]
    if kind == "extra_forbidden":
        return _unknown_key(details["loc"], root)
    context = details.get("ctx", {})
    if (pattern := context.get("pattern")) is not None:
        context = {**context, "hint": PATTERN_HINTS.get(pattern, f"text like {pattern}")}
    size = len(value) if isinstance(value, Sized) else 0
    template = WORDS.get(kind, details["msg"].replace("{", "{{").replace("}", "}}"))
    return template.format(**context, shown=show(value), size=size) + _advice(kind, value, context)


def _advice(kind: str, value: Any, context: Mapping[str, Any]) -> str:
    if kind in ("enum", "literal_error"):
        names = context["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        return _did_you_mean(str(value), names)
    if kind in ("string_type", "quantity_type") and isinstance(value, int | float):
        return f': write it in quotes, "{show(value)}"'
    if kind in ("int_type", "float_type", "bool_type") and isinstance(value, str):
        return ": write it without quotes"
    return ""


def show(value: Any) -> str:
    """Return a value in YAML notation, shortened. Text has quotes, so "5" differs from the number 5."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            value = redact(value)  # before it is shortened
            return json.dumps(value if len(value) <= 60 else f"{value[:57]}...", ensure_ascii=False)
        case Mapping():
            return "an object"
        case list() | tuple():
            return "a list"
        case _:
            return str(value)


def _did_you_mean(given: str, names: Sequence[str]) -> str:
    """Return a suggestion of the most similar name. Case, dashes and underscores make no difference."""
    plain = {_plain(name): name for name in names}
    close = get_close_matches(_plain(given), plain, n=1, cutoff=0.7)
    return f"; did you mean {plain[close[0]]}?" if close else ""


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _unknown_key(loc: Sequence[str | int], root: type[Model]) -> str:
    key = str(loc[-1])
    model = model_at(loc[:-1], root)
    here = [name for name, _ in keys(model)]
    below = {_plain(path[-1]): ".".join(path) for path in reversed(list(_below(model)))}
    if (exact := below.get(_plain(key))) and _plain(key) not in map(_plain, here):
        return f"unknown key here; it belongs in {exact}"
    return "unknown key" + (_did_you_mean(key, here) or f"; known here: {', '.join(here)}")


def keys(model: type[Model]) -> Iterator[tuple[str, type[Model] | None]]:
    """Yield each key of a model in YAML notation, with the model of its value or None."""
    for name, info in model.model_fields.items():
        yield info.alias or name, model_in(info.annotation)


def model_at(loc: Sequence[str | int], root: type[Model]) -> type[Model]:
    """Return the model of the object at a location of the resource.

    Raises:
        KeyError: the model has no object there.
    """
    for part in loc:
        if isinstance(part, str):
            root = {name: inner for name, inner in keys(root) if inner is not None}[part]
    return root


def _below(model: type[Model]) -> Iterator[tuple[str, ...]]:
    """Yield the paths of all keys below a model's own keys, nearest first."""
    level: list[tuple[tuple[str, ...], type[Model]]] = [((), model)]
    while level:
        deeper = [((*path, name), inner) for path, outer in level for name, inner in keys(outer)]
        yield from (path for path, _ in deeper if len(path) > 1)
        level = [(path, inner) for path, inner in deeper if inner is not None]
