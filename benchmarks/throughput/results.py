"""Results in a JSON file, written after every case, so that a run that was stopped goes on where it was."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.throughput.installs import Installed
from benchmarks.throughput.measures import Figures, Scale

from agentqueue.clock import now_ms


@dataclass(slots=True)
class Cell:
    """One side in one case: the figures of each round, or what kept it from having them."""

    rounds: list[Figures] = field(default_factory=list)
    problem: str = ""

    def values(self, figure: str) -> list[float]:
        """Return a figure's value of each round that has it."""
        return [it[figure] for it in self.rounds if figure in it]


@dataclass(slots=True)
class Results:
    """All cells by case and side."""

    settings: dict[str, Any]
    machine: dict[str, Any]
    cells: dict[str, dict[str, Cell]] = field(default_factory=dict)

    def has(self, case: str) -> bool:
        """Return True if every side has all rounds of a case, or a problem."""
        cells = self.cells.get(case, {})
        return bool(cells) and all(it.problem or len(it.rounds) >= self.settings["rounds"] for it in cells.values())

    def save(self, path: Path) -> None:
        """Write all to a file, in one step."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self), indent=1) + "\n")
        draft.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Results":
        """Read a file."""
        data = json.loads(path.read_text())
        cells = {
            case: {side: Cell(**cell) for side, cell in sides.items()} for case, sides in data.pop("cells").items()
        }
        return cls(**data, cells=cells)


def open_results(path: Path, settings: dict[str, Any], *, fresh: bool) -> Results:
    """Return the results of an earlier run with the same settings and versions, or empty ones."""
    if path.exists() and not fresh:
        found = Results.load(path)
        if found.settings == settings:
            return found
        print(f"{path} is of other settings or versions: starting over")
    return Results(settings, machine())


def settings_of(sides: Sequence[Installed], scale: Scale, *, rounds: int, fsync: str, server: str) -> dict[str, Any]:
    """Return everything that makes two runs comparable. It is plain JSON."""
    versions: Mapping[str, Any] = {it.name: {"version": it.version, **it.versions} for it in sides}
    return {"sides": versions, "server": server, "rounds": rounds, "appendfsync": fsync, "scale": asdict(scale)}


def machine() -> dict[str, Any]:
    """Return what the figures depend on besides versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {
        "date": datetime.fromtimestamp(now_ms() / 1_000, UTC).date().isoformat(),
        "processor": model[0] if model else platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }
