"""The checks that the API server makes, offline: first types, bounds and keys, then the rules."""

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
    """All that is wrong with a resource; with `old`, a valid one, also with changing that one into it.

    A rule is not asked where its answer would only follow from another problem, as the API server doesn't either.
    """
    error = _validate(data)
    if error is None:
        return list(broken_rules(data, old))
    problems = explain(error, AgentQueue)
    if any(map(breaks_shape, error.errors())):
        return problems
    places = [problem.path[:-1] for problem in problems]
    return problems + [broken for broken in broken_rules(data, old) if not _follows(broken.path, places)]


def broken_rules(data: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> Iterator[Problem]:
    """The rules that a resource of the right shape breaks, each with its place."""
    before = None if old is None else with_defaults(AgentQueue, old)
    for path, model, node, was in _walk(AgentQueue, with_defaults(AgentQueue, data), before):
        for rule in rules_on(model):
            if not rule.transition or was is not None:
                for below in rule.find(node, was or {}):
                    yield Problem((*path, *below), rule.message_at(node, below))


def with_defaults(model: type[Model], data: Mapping[str, Any]) -> dict[str, Any]:
    """The object with the schema's defaults filled in and nulls left out, as the API server stores it."""
    result = {key: value for key, value in data.items() if value is not None}
    for info in model.model_fields.values():
        key, inner = str(info.alias), model_in(info.annotation)
        if key not in result and not info.is_required() and info.default is not None:
            result[key] = as_json(info.default)
        if inner is not None and key in result:
            result[key] = _nested(inner, result[key])
    return result


def _nested(model: type[Model], value: Any) -> Any:
    if isinstance(value, Mapping):
        return with_defaults(model, value)
    return [with_defaults(model, item) for item in value]


def as_json(default: Any) -> Any:
    """A field's default as JSON, an object's with all of its own: the API server checks defaults as they stand."""
    if isinstance(default, Model):
        return default.model_dump(mode="json", by_alias=True, exclude_none=True)
    return default.value if isinstance(default, StrEnum) else default


Visit = tuple[Path, type[Model], Mapping[str, Any], Mapping[str, Any] | None]


def _walk(
    model: type[Model], node: Mapping[str, Any], was: Mapping[str, Any] | None, path: Path = ()
) -> Iterator[Visit]:
    """Every object with what it was before. Lists are not followed there: no transition rule sits in one."""
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


def _validate(data: Mapping[str, Any]) -> ValidationError | None:
    try:
        AgentQueue.model_validate(data)
    except ValidationError as error:
        return error
    return None


def _follows(path: Path, places: list[Path]) -> bool:
    return any(path[: len(place)] == place[: len(path)] for place in places)
