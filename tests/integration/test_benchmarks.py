"""The benchmark's cases with a handful of jobs: every job that a case sends runs. Nothing here looks at a time."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from benchmarks.throughput.cases import CASES, Case
from benchmarks.throughput.figures import FIGURES
from benchmarks.throughput.installs import Installed, install
from benchmarks.throughput.measures import Scale
from benchmarks.throughput.registry import SIDES
from benchmarks.throughput.run import run_case
from benchmarks.throughput.trial import Trial

TINY = Scale(seconds=5.0, most=20, most_waiting=20, samples=5, idle_s=0.0, imports=1, recovery_s=0.0)
ALIKE = {
    "noop-1",
    "noop-10",
    "noop-100",
    "noop-1x2",
    "noop-100x2",
    "noop-1x4",
    "noop-10x4",
    "noop-100x4",
    "waiting-100k",
}
ALIKE |= {
    "waiting-1k",
    "waiting-1M",
    "payload-100k",
    "network-noop-10",
    "network-noop-100",
    "network-naps-100",
    "half-load",
    "steps-10",
}
"""Cases that differ from another one in numbers alone, which are tiny here."""

DURABLE = [it for it in CASES if "durable" in it.needs and it.name not in ALIKE]
PLAIN = [it for it in CASES if "durable" not in it.needs and it.name not in ALIKE]


@pytest.fixture(scope="module")
def sides() -> list[Installed]:
    return [install("agentqueue"), install("arq", here=True)]


@pytest.mark.parametrize("case", [pytest.param(it, id=it.name) for it in PLAIN])
def test_every_job_runs(case: Case, sides: list[Installed]) -> None:
    tiny = replace(case, delay=min(case.delay, 0.2))
    able = [it for it in sides if not it.side.lacks & set(case.needs)]
    with ThreadPoolExecutor(len(able)) as pool:
        for figures in pool.map(lambda side: _run(side, tiny), able):
            assert figures
            assert figures.keys() <= FIGURES.keys()


def _run(side: Installed, case: Case) -> dict[str, float]:
    with Trial(side, needs=case.needs, network_ms=case.network_ms) as trial:
        figures = case.measure(trial, case, TINY)
        assert trial.sent > 0
        if not trial.workers:
            trial.start_worker(case.concurrency)
        if case.name != "recovery" or side.name == "agentqueue":  # arq keeps what a killed worker held for minutes
            trial.wait_for(
                lambda: {n for worker in trial.workers for n, _ in worker.starts()} == set(range(trial.sent)), 60
            )
    return figures


@pytest.mark.parametrize("case", [pytest.param(it, id=it.name) for it in DURABLE])
def test_durable_work_is_measured(case: Case, sides: list[Installed]) -> None:
    with Trial(sides[0], needs=case.needs) as trial:
        figures = case.measure(trial, case, TINY)
    assert figures
    assert figures.keys() <= FIGURES.keys()


def test_a_side_for_durable_work_alone_has_no_place_in_other_cases() -> None:
    dbos = Installed("dbos", SIDES["dbos"], "no-interpreter", "", {})
    plain, steps = (next(it for it in CASES if it.name == name) for name in ("noop-1", "steps-1"))
    assert run_case([dbos], plain, TINY, rounds=1) == {}
    assert run_case([dbos], steps, TINY, rounds=0).keys() == {"dbos"}
