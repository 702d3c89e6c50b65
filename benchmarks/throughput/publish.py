"""Put the results of a full run into the documentation: `python -m benchmarks.throughput.publish RESULTS.json`."""

import argparse
from pathlib import Path
from typing import Final

from benchmarks.throughput.report import markdown
from benchmarks.throughput.results import Results

DOCS: Final = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- figures: begin, made by `make bench-publish` -->", "<!-- figures: end -->"


def publish(results: Results, docs: Path) -> None:
    """Write tables, chart and JSON. The tables replace what is between two marks of benchmarks.md."""
    from benchmarks.throughput.chart import draw  # noqa: PLC0415  # needs the group `bench`

    page, folder = docs / "benchmarks.md", docs / "benchmarks"
    folder.mkdir(exist_ok=True)
    results.save(folder / "results.json")
    draw(results, folder / "results.svg")
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    picture = "![Jobs per second, enqueued jobs per second and latency of every side](benchmarks/results.svg)"
    page.write_text(f"{before}{BEGIN}\n\n{picture}\n\n{markdown(results)}\n\n{END}{after}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    publish(Results.load(parser.parse_args().results), DOCS)
