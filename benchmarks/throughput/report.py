"""Results as text: the table of a terminal, and the Markdown tables of the documentation."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from benchmarks.throughput.cases import CASES, Case
from benchmarks.throughput.figures import FIGURES, PRIVATE
from benchmarks.throughput.registry import OURS, SIDES
from benchmarks.throughput.results import Cell, Results
from benchmarks.throughput.stats import Spread, advantage, spread

LEAST_COUNTED: int = 50
"""Percent of a run's jobs below which its rate is marked: the run was too short."""


def versions_text(results: Results) -> str:
    """Return the machine, the server and every version in lines."""
    about, settings = results.machine, results.settings
    lines = [
        f"{about['processor']}, {about['cores']} cores, {about['system']}, Python {about['python']}",
        f"{about['date']}, load before the run {about['load_before']}",
        f"{settings['server']}, appendfsync {settings['appendfsync']}, {settings['rounds']} rounds in turns",
    ]
    for name, versions in settings["sides"].items():
        packages = ", ".join(f"{package} {version}" for package, version in versions.items() if package != "version")
        note = f" ({SIDES[name].note})" if SIDES[name].note else ""
        lines.append(f"{SIDES[name].title} {versions['version']}: {packages}{note}")
    return "\n".join(lines)


def case_text(case: Case, cells: Mapping[str, Cell]) -> str:
    """Return the table of one case: a line for each figure and side."""
    rows = [f"{case.title} [{case.name}]"]
    ours = cells.get(OURS, Cell())
    for figure, side, cell in _filled(cells):
        found = spread(cell.values(figure))
        kind = FIGURES[figure]
        low_to_high = f"({_number(found.low, kind.digits)} to {_number(found.high, kind.digits)})"
        row = f"  {kind.title:<24} {SIDES[side].title:<17} {_number(found.median, kind.digits):>10}"
        row += f"  {low_to_high:<19}"
        ratio = advantage(ours.values(figure), cell.values(figure), more_is_better=kind.more_is_better)
        if side != OURS and ratio is not None:
            row += f" AgentQueue {_times(ratio)}"
        rows.append(row.rstrip() + _mark(cell, figure))
    rows += [f"  {SIDES[side].title}: {text}" for side, cell in cells.items() if (text := _problem(cell))]
    return "\n".join(rows)


def markdown(results: Results) -> str:
    """Return one table for each figure: cases down, sides across, with AgentQueue's advantage and its spread."""
    sides = list(results.settings["sides"])
    parts = ["\n".join(f"- {line}" for line in versions_text(results).splitlines())]
    for figure, kind in FIGURES.items():
        rows = [row for case in CASES if (row := _markdown_row(results, case, figure, sides))]
        if rows and figure not in PRIVATE:
            better = "more" if kind.more_is_better else "less"
            head = [f"{kind.title} ({better} is better)", *(SIDES[side].title for side in sides)]
            parts.append(_table(head, rows))
    problems = [
        f"- {case.title}, {SIDES[side].title}: {text}."
        for case in CASES
        for side, cell in results.cells.get(case.name, {}).items()
        if (text := _problem(cell))
    ]
    return "\n\n".join([*parts, *(["Cells without figures:\n\n" + "\n".join(problems)] if problems else [])])


def _markdown_row(results: Results, case: Case, figure: str, sides: Sequence[str]) -> list[str]:
    cells = results.cells.get(case.name, {})
    if not any(cell.values(figure) for cell in cells.values()):
        return []
    return [case.title, *(_markdown_cell(cells, side, figure) for side in sides)]


def _markdown_cell(cells: Mapping[str, Cell], side: str, figure: str) -> str:
    cell, kind = cells.get(side, Cell()), FIGURES[figure]
    if not (values := cell.values(figure)):
        return "-"
    text = _number(spread(values).median, kind.digits) + _mark(cell, figure)
    ratio = advantage(cells.get(OURS, Cell()).values(figure), values, more_is_better=kind.more_is_better)
    return text if side == OURS or ratio is None else f"{text} ({_times(ratio)})"


def _filled(cells: Mapping[str, Cell]) -> Iterator[tuple[str, str, Cell]]:
    for figure in FIGURES:
        for side, cell in cells.items():
            if figure not in PRIVATE and cell.values(figure):
                yield figure, side, cell


def _problem(cell: Cell) -> str:
    too_short = cell.values("counted_percent") and not cell.values("jobs_per_s")
    return cell.problem or ("too few jobs for a rate" if too_short else "")


def _mark(cell: Cell, figure: str) -> str:
    shares = cell.values("counted_percent") if figure == "jobs_per_s" else []
    return " *" if shares and min(shares) < LEAST_COUNTED else ""


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def _times(ratio: Spread) -> str:
    return f"x{ratio.median:.2f}, {ratio.low:.2f} to {ratio.high:.2f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
