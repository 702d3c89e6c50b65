"""The figures in docs/scaling are what the code gives: a change of the decision shows here before a user reads them."""

import json
from dataclasses import asdict
from pathlib import Path
from statistics import mean

import pytest
from benchmarks.scaling.controllers import EVERY
from benchmarks.scaling.loads import LOADS
from benchmarks.scaling.world import World

RESULTS = json.loads((Path(__file__).parents[3] / "docs/scaling/results.json").read_text())["results"]
SEEDS = range(8)
AGAIN = "if the decision was meant to change: make bench-scaling writes tables, plots and results anew"


@pytest.mark.parametrize("name", ["trickle", "long-jobs", "longer-jobs"])
def test_results_are_what_the_code_gives(name: str) -> None:
    load = next(load for load in LOADS if load.name == name)
    controller = EVERY["AgentQueue, its defaults"]
    outcomes = [asdict(World(load.jobs(seed), load.setting, seed).run(controller(load))) for seed in SEEDS]
    found = {field: round(mean(outcome[field] for outcome in outcomes), 4) for field in outcomes[0]}
    assert found == RESULTS["AgentQueue, its defaults"][name], AGAIN
