"""Runs every controller on every load, with paired seeds, over all processors."""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from statistics import mean

from benchmarks.scaling.bound import Queue, least_waste
from benchmarks.scaling.controllers import CONTROLLERS, EVERY
from benchmarks.scaling.loads import LOADS, STUDY
from benchmarks.scaling.world import Outcome, World

Results = dict[str, dict[str, dict[str, float]]]
"""Fields of an Outcome as means over the seeds, by controller and load."""
WEIGHTS = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0)

_BY_NAME = {load.name: load for load in LOADS}


def simulate(controller: str, load_name: str, seed: int) -> Outcome:
    """Run one controller on one load with one seed."""
    load = _BY_NAME[load_name]
    return World(load.jobs(seed), load.setting, seed).run(EVERY[controller](load))


def run_all(seeds: Sequence[int], *, workers: int | None = None) -> Results:
    """Run the four controllers on all loads, and their variants on the loads of the study."""
    pairs = [(name, load.name) for name in EVERY for load in (LOADS if name in CONTROLLERS else STUDY)]
    runs = [(name, load, seed) for name, load in pairs for seed in seeds]
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        outcomes = list(pool.map(simulate, *zip(*runs, strict=True), chunksize=4))
    found: dict[tuple[str, str], list[Outcome]] = {}
    for (name, load, _), outcome in zip(runs, outcomes, strict=True):
        found.setdefault((name, load), []).append(outcome)
    results: Results = {}
    for (name, load), several in found.items():
        results.setdefault(name, {})[load] = _mean([asdict(outcome) for outcome in several])
    return results


def bound(*, hours: float) -> list[tuple[float, float]]:
    """Return mean wait and waste of the best policies on the steady load."""
    return [least_waste(weight, Queue(), hours=hours) for weight in WEIGHTS]


def _mean(outcomes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {field: round(mean(outcome[field] for outcome in outcomes), 4) for field in outcomes[0]}


def save(results: Results, bounds: Sequence[tuple[float, float]], path: Path) -> None:
    """Write the results."""
    rounded = [[round(wait, 3), round(waste)] for wait, waste in bounds]
    path.write_text(json.dumps({"results": results, "bound": rounded}, indent=1) + "\n")
