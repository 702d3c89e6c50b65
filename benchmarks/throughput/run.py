"""Rounds of all sides in turns, case by case."""

import math
import time
from collections.abc import Sequence

from benchmarks.throughput.cases import Case
from benchmarks.throughput.installs import Installed
from benchmarks.throughput.measures import Figures, Scale
from benchmarks.throughput.results import Cell
from benchmarks.throughput.trial import Trial

from agentqueue.local.server import AppendFsync


def run_once(installed: Installed, case: Case, scale: Scale, *, fsync: AppendFsync = "everysec") -> Figures:
    """Run a case once on one side.

    Raises:
        RuntimeError: a process failed, or (Slow) the side did not get there in time.
    """
    with Trial(installed, needs=case.needs, network_ms=case.network_ms, fsync=fsync) as trial:
        return case.measure(trial, case, scale)


def run_case(
    sides: Sequence[Installed],
    case: Case,
    scale: Scale,
    *,
    rounds: int,
    fsync: AppendFsync = "everysec",
    deadline: float = math.inf,
) -> dict[str, Cell]:
    """Run a case on all sides in turns.

    Every round begins with another side, so that none always runs after the same one. A side that fails once leaves
    the case. Past the deadline (`time.monotonic`), no further round starts.
    """
    sides = [it for it in sides if not it.side.only or it.side.only in case.needs]
    cells = {it.name: Cell(problem=_obstacle(it, case)) for it in sides}
    for turn in range(rounds):
        if time.monotonic() > deadline:
            break
        for place in range(len(sides)):
            installed = sides[(place + turn) % len(sides)]
            cell = cells[installed.name]
            if not cell.problem:
                try:
                    cell.rounds.append(run_once(installed, case, scale, fsync=fsync))
                except RuntimeError as exc:
                    cell.problem = str(exc)
    return cells


def _obstacle(installed: Installed, case: Case) -> str:
    if missing := installed.side.lacks & set(case.needs):
        return f"no {', '.join(sorted(missing))}"
    if case.concurrency > installed.side.most:
        return f"at most {installed.side.most} at a time: {installed.side.note}"
    return ""
