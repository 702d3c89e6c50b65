"""The chart of a run, drawn from its JSON."""

from pathlib import Path
from typing import Final

import matplotlib as mpl
from benchmarks.throughput.cases import CASES
from benchmarks.throughput.figures import FIGURES
from benchmarks.throughput.registry import OURS, SIDES
from benchmarks.throughput.results import Results
from benchmarks.throughput.stats import spread
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

PANELS: Final = (
    ("noop-1", "jobs_per_s"),
    ("noop-10", "jobs_per_s"),
    ("noop-100", "jobs_per_s"),
    ("enqueue-one", "sent_per_s"),
    ("enqueue-bulk", "sent_per_s"),
    ("idle", "p99_ms"),
)
WIDE: Final = 50
"""Ratio of the greatest to the least latency from which a panel is logarithmic."""
OUR_COLOUR, OTHER_COLOUR = "#2a6f97", "#b0b7bd"


def draw(results: Results, path: Path) -> None:
    """Write an SVG with one panel for each main case that was run: medians as bars, spreads as lines."""
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "agentqueue"  # the same figures give the same file
    panels = [it for it in PANELS if it[0] in results.cells]
    if not panels:
        return
    rows = -(-len(panels) // 3)
    height = 1.2 + 0.26 * len(results.settings["sides"])
    figure, axes = plt.subplots(rows, 3, figsize=(13, height * rows), squeeze=False, layout="constrained")
    for place, axis in enumerate(axes.flat):
        if place < len(panels):
            _panel(axis, results, *panels[place])
        else:
            axis.set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _panel(axis: Axes, results: Results, case: str, figure: str) -> None:
    cells = {side: cell.values(figure) for side, cell in results.cells[case].items() if cell.values(figure)}
    found = {side: spread(values) for side, values in cells.items()}
    order = sorted(found, key=lambda side: found[side].median, reverse=not FIGURES[figure].more_is_better)
    medians = [found[side].median for side in order]
    errors = [
        [it.median - it.low for it in map(found.__getitem__, order)],
        [it.high - it.median for it in map(found.__getitem__, order)],
    ]
    colours = [OUR_COLOUR if side == OURS else OTHER_COLOUR for side in order]
    axis.barh([SIDES[side].title for side in order], medians, xerr=errors, color=colours, ecolor="#444444")
    axis.set_title(next(it.title for it in CASES if it.name == case), fontsize=10)
    if max(medians) > WIDE * min(medians) > 0 and not FIGURES[figure].more_is_better:
        axis.set_xscale("log")
    axis.set_xlabel(FIGURES[figure].title)
    axis.spines[["top", "right"]].set_visible(False)
