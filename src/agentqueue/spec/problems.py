"""Problems of a resource, with their location, for people and programs."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agentqueue.errors import InvalidSpec
from agentqueue.redaction import redact

Path = tuple[str | int, ...]
"""Location in a resource: keys of objects and indexes of lists."""


def dotted(path: Sequence[str | int]) -> str:
    """Return a path in the notation of Kubernetes, such as spec.agents[0].scaling.maxReplicas."""
    return redact("".join(map(_step, path)).removeprefix("."))


def _step(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if part.replace("-", "").replace("_", "").isalnum() else f"[{json.dumps(part)}]"


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem: its location, and a message with the correction."""

    path: Path
    message: str
    source: str | None = None
    line: int | None = None
    """Line in the file, from 1. The nearest parent's line if the location itself has none."""

    def __str__(self) -> str:
        place = [str(part) for part in (self.source, self.line) if part is not None]
        return ": ".join(part for part in (":".join(place), dotted(self.path), self.message) if part)

    def as_json(self) -> dict[str, Any]:
        """Return the problem for `--json`: path as text, message, source and line."""
        return asdict(self) | {"path": dotted(self.path)}


class InvalidResource(InvalidSpec):
    """One or more resources are invalid. `problems` has all problems in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))
