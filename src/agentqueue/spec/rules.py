"""The rules that types and bounds can't say: one object each, with its CEL for the API server and its Python twin."""

from collections.abc import Mapping
from typing import Any

from agentqueue.spec.problems import Problem


def violations(_data: Mapping[str, Any], _old: Mapping[str, Any] | None = None) -> list[Problem]:
    """What rules are broken."""
    return []
