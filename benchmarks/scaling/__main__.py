"""`python -m benchmarks.scaling`: simulate, then write tables, plots and results into docs."""

import argparse
from pathlib import Path

from benchmarks.scaling.report import draw_plots, write_tables
from benchmarks.scaling.run import bound, run_all, save

DOCS = Path(__file__).parents[2] / "docs"


def main() -> None:
    """Run the simulation, which takes some minutes on two processors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8, help="how many runs per controller and load")
    parser.add_argument("--workers", type=int, default=None, help="processes; by default one per processor")
    given = parser.parse_args()
    results = run_all(range(given.seeds), workers=given.workers)
    bounds = bound(hours=300)
    folder = DOCS / "scaling"
    folder.mkdir(exist_ok=True)
    save(results, bounds, folder / "results.json")
    draw_plots(results, bounds, folder)
    write_tables(results, bounds, DOCS / "scaling.md")


if __name__ == "__main__":
    main()
