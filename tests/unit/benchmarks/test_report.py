import json
import tomllib
from pathlib import Path

import pytest
from benchmarks.throughput.cases import CASES
from benchmarks.throughput.figures import FIGURES
from benchmarks.throughput.installs import PEERS
from benchmarks.throughput.publish import BEGIN, END
from benchmarks.throughput.registry import SIDES
from benchmarks.throughput.report import case_text, markdown
from benchmarks.throughput.results import Cell, Results, open_results

SETTINGS = {
    "sides": {"agentqueue": {"version": "abc"}, "arq": {"version": "0.28.0", "redis": "5.3.1"}},
    "server": "Valkey 9.1.2",
    "rounds": 2,
    "appendfsync": "everysec",
    "scale": {},
}
MACHINE = {"processor": "P", "cores": 2, "system": "Linux", "python": "3.11", "date": "2026-01-01", "load_before": 0.1}
NOOP = next(it for it in CASES if it.name == "noop-100")


def cells(counted: float = 90.0) -> dict[str, Cell]:
    ours = [{"jobs_per_s": 20_000.0, "counted_percent": counted}, {"jobs_per_s": 30_000.0, "counted_percent": 99.0}]
    theirs = [{"jobs_per_s": 1_000.0, "counted_percent": 90.0}, {"jobs_per_s": 1_000.0, "counted_percent": 90.0}]
    return {"agentqueue": Cell(ours), "arq": Cell(theirs)}


def test_names_of_cases_are_unique() -> None:
    names = [it.name for it in CASES]
    assert len(names) == len(set(names))
    assert all(it.name.replace("-", "").isalnum() for it in CASES)


def test_every_peer_has_its_group_of_packages() -> None:
    groups = tomllib.loads(PEERS.read_text())["dependency-groups"]
    assert groups.keys() == {it.group for it in SIDES.values() if it.group}
    for side in SIDES.values():
        if side.group:
            assert any(pin.startswith((f"{side.packages[0]}==", f"{side.packages[0]}[")) for pin in groups[side.group])


def test_table_has_medians_ranges_and_paired_ratios() -> None:
    lines = case_text(NOOP, cells()).splitlines()
    assert "25,000  (20,000 to 30,000)" in lines[1]
    assert "1,000  (1,000 to 1,000)" in lines[2]
    assert lines[2].endswith("AgentQueue x25.00, 20.00 to 30.00")


def test_rate_of_a_short_run_is_marked() -> None:
    assert case_text(NOOP, cells(counted=10.0)).splitlines()[1].endswith("*")


def test_problem_of_a_side_is_in_its_place() -> None:
    text = case_text(
        NOOP, cells() | {"rq": Cell(problem="at most 10 at a time"), "saq": Cell([{"counted_percent": 0}])}
    )
    assert "RQ: at most 10 at a time" in text
    assert "SAQ: too few jobs for a rate" in text


def test_documentation_has_a_row_for_a_case_and_a_column_for_a_side() -> None:
    text = markdown(Results(SETTINGS, MACHINE, {"noop-100": cells()}))
    assert "| jobs/s (more is better) | AgentQueue | arq |" in text
    assert "| no-op jobs, 100 at a time, 1 process | 25,000 | 1,000 (x25.00, 20.00 to 30.00) |" in text
    assert "arq 0.28.0: redis 5.3.1" in text
    assert "% of jobs counted" not in text
    assert "```" not in text  # tests/unit/test_docs.py counts the page's blocks


def test_page_has_the_marks_that_figures_go_between() -> None:
    page = (Path(__file__).parents[3] / "docs/benchmarks.md").read_text()
    assert page.index(BEGIN) < page.index(END)


def test_page_names_every_case_and_side() -> None:
    page = (Path(__file__).parents[3] / "docs/benchmarks.md").read_text()
    assert [it.name for it in CASES if f"`{it.name}`" not in page and it.processes == 1] == []
    assert [it.title for it in SIDES.values() if it.title not in page] == []


def test_run_goes_on_with_the_same_settings_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.json"
    Results(SETTINGS, MACHINE, {"noop-100": cells()}).save(path)
    assert open_results(path, SETTINGS, fresh=False).cells == {"noop-100": cells()}
    assert open_results(path, SETTINGS, fresh=True).cells == {}
    assert capsys.readouterr().out == ""
    assert open_results(path, SETTINGS | {"rounds": 3}, fresh=False).cells == {}
    assert "starting over" in capsys.readouterr().out


def test_case_that_was_cut_short_runs_again() -> None:
    short = cells() | {"arq": Cell([{"jobs_per_s": 1.0}])}
    found = Results(SETTINGS, MACHINE, {"noop-100": cells(), "idle": short})
    assert found.has("noop-100")
    assert not found.has("idle")
    assert not found.has("start")
    short["arq"].problem = "failed"
    assert found.has("idle")


def test_file_of_results_is_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    Results(SETTINGS, MACHINE, {"noop-100": cells()}).save(path)
    found = json.loads(path.read_text())
    assert found["cells"]["noop-100"]["arq"]["rounds"][0].keys() <= FIGURES.keys()
