"""What is wrong with a resource, so that it can be shown with its place, and read by programs."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agentqueue.errors import InvalidSpec
from agentqueue.redaction import redact

Path = tuple[str | int, ...]


def dotted(path: Sequence[str | int]) -> str:
    """A path as Kubernetes writes it: spec.agents[0].scaling.maxReplicas."""
    return redact("".join(map(_step, path)).removeprefix("."))


def _step(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if part.replace("-", "").replace("_", "").isalnum() else f"[{json.dumps(part)}]"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where, what, and what to write instead."""

    path: Path
    message: str
    source: str | None = None
    line: int | None = None
    """From 1; that of the nearest key above, where the place itself has none."""

    def __str__(self) -> str:
        place = [str(part) for part in (self.source, self.line) if part is not None]
        return ": ".join(part for part in (":".join(place), dotted(self.path), self.message) if part)

    def as_json(self) -> dict[str, Any]:
        """For `--json`: path as text, message, source, line."""
        return asdict(self) | {"path": dotted(self.path)}


class InvalidResource(InvalidSpec):
    """One or more resources break rules; `problems` has them all, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))
