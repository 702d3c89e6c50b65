"""Check a resource offline as the API server does: types, bounds and keys first, then the rules."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from agentqueue.spec.base import Model, model_in
from agentqueue.spec.explain import breaks_shape, explain
from agentqueue.spec.problems import Path, Problem
from agentqueue.spec.resource import AgentQueue
from agentqueue.spec.rules import rules_on


def check(data: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[Problem]:
    """Return all problems of a resource.

    Like the API server, it skips a rule whose result would only follow from another problem.

    Args:
        data: the resource as JSON.
        old: the valid resource that it replaces, to check the change too.
    """
    try:
        AgentQueue.model_validate(data)
    except ValidationError as invalid:
        error = invalid
    else:
        return list(broken_rules(data, old))
    problems = explain(error, AgentQueue)
    if any(map(breaks_shape, error.errors())):
        return problems
    places = [problem.path[:-1] for problem in problems]
    return problems + [
        broken
        for broken in broken_rules(data, old)
        if not any(broken.path[: len(place)] == place[: len(broken.path)] for place in places)
    ]


def broken_rules(data: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> Iterator[Problem]:
    """Yield the rules that a resource with valid types breaks, with their locations."""
    before = None if old is None else with_defaults(AgentQueue, old)
    for path, model, node, was in _walk(AgentQueue, with_defaults(AgentQueue, data), before):
        for rule in rules_on(model):
            if not rule.transition or was is not None:
                for below in rule.find_breaks(node, was or {}):
                    yield Problem((*path, *below), rule.message_at(node, below))


def with_defaults(model: type[Model], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object with the schema's defaults and without nulls, as the API server stores it."""
    result = {key: value for key, value in data.items() if value is not None}
    for info in model.model_fields.values():
        key, inner = str(info.alias), model_in(info.annotation)
        if key not in result and not info.is_required() and info.default is not None:
            result[key] = as_json(info.default)
        if inner is not None and key in result:
            value = result[key]
            result[key] = (
                with_defaults(inner, value)
                if isinstance(value, Mapping)
                else [with_defaults(inner, item) for item in value]
            )
    return result


def as_json(default: Any) -> Any:
    """Return a field's default as JSON. Objects are complete, because the API server validates defaults unmerged."""
    if isinstance(default, Model):
        return default.model_dump(mode="json", by_alias=True, exclude_none=True)
    return default.value if isinstance(default, StrEnum) else default


Visit = tuple[Path, type[Model], Mapping[str, Any], Mapping[str, Any] | None]


def _walk(
    model: type[Model], node: Mapping[str, Any], was: Mapping[str, Any] | None, path: Path = ()
) -> Iterator[Visit]:
    """Yield every object with its old version. Items of lists have none, as no transition rule applies to them."""
    yield path, model, node, was
    for info in model.model_fields.values():
        key, inner = str(info.alias), model_in(info.annotation)
        value = node.get(key)
        if inner is None or value is None:
            continue
        if isinstance(value, Mapping):
            yield from _walk(inner, value, (was or {}).get(key), (*path, key))
        else:
            for index, item in enumerate(value):
                yield from _walk(inner, item, None, (*path, key, index))
