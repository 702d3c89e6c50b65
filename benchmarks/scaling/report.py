"""Tables of docs/scaling.md, and the plots beside it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean

import matplotlib as mpl
from benchmarks.scaling.controllers import (
    CONTROLLERS,
    KEDA_BEST,
    KEDA_WINDOWS,
    OUR_WINDOWS,
    OURS,
)
from benchmarks.scaling.loads import CONTINUOUS, LOADS, STUDY, Load
from benchmarks.scaling.run import Results
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BEGIN, END = "<!-- tables: begin, made by `make bench-scaling` -->", "<!-- tables: end -->"


def write_tables(results: Results, bounds: Sequence[tuple[float, float]], path: Path) -> None:
    """Replace the text between the two marks."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    parts = (_overall(results), _by_load(results), _goals(results, bounds))
    path.write_text(f"{before}{BEGIN}\n\n{_join(parts)}\n\n{END}{after}")


def _join(parts: Iterable[str]) -> str:
    return "\n\n".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _overall(results: Results) -> str:
    rows = [_overall_row(results, name) for name in CONTROLLERS]
    head = ["Means over the study's eight loads", "mean wait", "within 30 s", "waste", "jobs killed", "changes"]
    return _table(head, rows)


def _overall_row(results: Results, name: str) -> list[str]:
    fields = ("mean_wait", "within_30s", "waste", "killed", "scalings")
    wait, within, waste, killed, changes = (_over(results, name, STUDY, field) for field in fields)
    return [name, f"{wait:.1f} s", f"{within:.0%}", f"{waste:,.0f}", f"{killed:.1f}", f"{changes:.0f}"]


def _by_load(results: Results) -> str:
    rows = []
    for load in LOADS:
        keda, ours = results[KEDA_BEST][load.name], results[OURS][load.name]
        rows.append(
            [
                f"**{load.name}**: {load.about}",
                f"{ours['mean_wait']:.2f} s",
                f"{keda['mean_wait']:.2f} s",
                f"{ours['p95_wait']:.1f} s",
                f"{keda['p95_wait']:.1f} s",
                f"{ours['waste']:,.0f}",
                f"{keda['waste']:,.0f}",
                f"{ours['waste'] / keda['waste']:.0%}",
                f"{ours['killed']:.1f}",
                f"{keda['killed']:.1f}",
            ]
        )
    head = ["Load", "mean wait", "KEDA's", "p95", "KEDA's", "waste", "KEDA's", "share", "killed", "KEDA's"]
    return _table(head, rows)


def _goals(results: Results, bounds: Sequence[tuple[float, float]]) -> str:
    names = ("all eight loads", STUDY), ("the five continuous loads", CONTINUOUS)
    lines = [f"Waste against best-tuned KEDA, over {what}: {_share(results, loads):.0%}." for what, loads in names]
    lost = [
        load.name
        for load in LOADS
        if results[OURS][load.name]["mean_wait"] > results[KEDA_BEST][load.name]["mean_wait"]
    ]
    lines.append(f"Loads with a longer mean wait than KEDA's: {', '.join(lost) or 'none'}.")
    wasteful = [
        load.name for load in LOADS if results[OURS][load.name]["waste"] > results[KEDA_BEST][load.name]["waste"]
    ]
    lines.append(f"Loads with more waste than KEDA's: {', '.join(wasteful) or 'none'}.")
    steady = ", ".join(f"{wait:.2f} s at {waste:,.0f}" for wait, waste in bounds)
    lines.append(f"The least waste without foresight on the steady load: {steady}.")
    return "\n".join(f"- {line}" for line in lines)


def _share(results: Results, loads: Sequence[Load]) -> float:
    return _over(results, OURS, loads, "waste") / _over(results, KEDA_BEST, loads, "waste")


def _over(results: Results, controller: str, loads: Sequence[Load], field: str) -> float:
    return mean(results[controller][load.name][field] for load in loads)


# Plots


_KEDA_LINE = [*list(KEDA_WINDOWS)[:3], KEDA_BEST, *list(KEDA_WINDOWS)[3:]]
_OUR_LINE = [OURS, *OUR_WINDOWS]


def draw_plots(results: Results, bounds: Sequence[tuple[float, float]], folder: Path) -> None:
    """Write the plots pareto and pareto-loads, each as PNG and SVG."""
    mpl.rcParams.update({"svg.hashsalt": "agentqueue", "font.size": 9})
    mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    _save(_overview(results), folder / "pareto")
    _save(_small_multiples(results, bounds), folder / "pareto-loads")


def _overview(results: Results) -> Figure:
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    _lines(axes, results, STUDY)
    axes.set(xlabel="mean wait, s", ylabel="waste, pod-seconds in two hours", xlim=(0, None), ylim=(0, None))
    axes.set_title("Means over the study's eight loads: down and left is better")
    axes.legend(frameon=False)
    return figure


def _small_multiples(results: Results, bounds: Sequence[tuple[float, float]]) -> Figure:
    figure, grid = plt.subplots(2, 4, figsize=(13, 6), layout="constrained")
    for axes, load in zip(grid.flat, STUDY, strict=True):
        _lines(axes, results, [load])
        if load.name == "steady":
            axes.plot(*zip(*bounds, strict=True), color="grey", ls="--", label="least without foresight")
        axes.set(title=load.name, xlim=(0, None), ylim=(0, None))
    grid[0, 0].legend(frameon=False, fontsize=7)
    figure.supxlabel("mean wait, s")
    figure.supylabel("waste, pod-seconds in two hours")
    return figure


def _lines(axes: Axes, results: Results, loads: Sequence[Load]) -> None:
    """Draw both controllers with windows from 0 to 300 s, with a square for the settings of the tables."""
    for names, chosen, colour, label in (
        (_KEDA_LINE, KEDA_BEST, "C1", "KEDA, tuned, windows of 0-300 s"),
        (_OUR_LINE, OURS, "C0", "AgentQueue, windows of 0-300 s"),
    ):
        points = [_at(results, loads, name) for name in names]
        axes.plot(*zip(*points, strict=True), color=colour, marker=".", label=label)
        axes.plot(*_at(results, loads, chosen), color=colour, marker="s", ls="", label=chosen)


def _at(results: Results, loads: Sequence[Load], name: str) -> tuple[float, float]:
    return _over(results, name, loads, "mean_wait"), _over(results, name, loads, "waste")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path.with_suffix(".png"), dpi=110, metadata={"Software": None})
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)
