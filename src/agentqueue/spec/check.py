"""The checks that the API server makes, offline: first types, bounds and keys, then the rules."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from agentqueue.spec.explain import breaks_shape, explain
from agentqueue.spec.problems import Path, Problem
from agentqueue.spec.resource import AgentQueue
from agentqueue.spec.rules import violations


def check(data: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[Problem]:
    """All that is wrong with a resource; with `old`, also with changing that one into it.

    A rule is not asked where its answer would only follow from another problem, as the API server doesn't either.
    """
    error = _validate(data)
    if error is None:
        return violations(data, old)
    problems = explain(error, AgentQueue)
    if any(map(breaks_shape, error.errors())):
        return problems
    places = [problem.path[:-1] for problem in problems]
    return problems + [broken for broken in violations(data, old) if not _follows(broken.path, places)]


def _validate(data: Mapping[str, Any]) -> ValidationError | None:
    try:
        AgentQueue.model_validate(data)
    except ValidationError as error:
        return error
    return None


def _follows(path: Path, places: list[Path]) -> bool:
    return any(path[: len(place)] == place[: len(path)] for place in places)
