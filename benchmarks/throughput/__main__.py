"""AgentQueue beside its peers: the same cases on every side, in turns, as ratios with their spread.

`make bench` runs the main cases beside arq and BullMQ in at most five minutes; `make bench-full` runs every case beside
every peer. docs/benchmarks.md describes what is measured. Results go to a JSON file after every case: the same command
goes on where it was stopped. With `--base REF`, AgentQueue of another commit of this repository is a further side.
"""

import argparse
import importlib.util
import subprocess
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Final

from benchmarks.throughput.cases import CASES, Case
from benchmarks.throughput.installs import ROOT, Installed, install
from benchmarks.throughput.measures import Scale
from benchmarks.throughput.registry import BASE, OURS, SIDES
from benchmarks.throughput.report import case_text, versions_text
from benchmarks.throughput.results import open_results, settings_of
from benchmarks.throughput.run import run_case
from benchmarks.throughput.trial import server_version

MAIN_SIDES: Final = (OURS, "arq", "bullmq")


def main() -> None:
    """Run cases and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="every peer and case")
    parser.add_argument("--sides", help=f"comma-separated: {', '.join(SIDES)}")
    parser.add_argument("--only", default="", help="comma-separated names of cases")
    parser.add_argument("--base", help="git reference of a commit to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=Scale().seconds, help="aim for the length of a run")
    sizes = ", ".join(it.name for it in fields(Scale))
    parser.add_argument(
        "--size", action="append", default=[], metavar="NAME=NUMBER", help=f"change a size of the runs: {sizes}"
    )
    parser.add_argument("--minutes", type=float, default=600.0, help="start no round after this time")
    parser.add_argument("--fsync", choices=("everysec", "always"), default="everysec")
    parser.add_argument("--output", type=Path, help="JSON file; by default dist/bench.json or dist/bench-full.json")
    parser.add_argument("--fresh", action="store_true", help="forget the results of an earlier run")
    given = parser.parse_args()
    names = given.sides.split(",") if given.sides else [it for it in SIDES if it != BASE] if given.full else MAIN_SIDES
    sides = _install([*names, *([BASE] if given.base and BASE not in names else [])], given.base)
    cases = _chosen(given.only, full=given.full)
    scale = sized(Scale(seconds=given.seconds), given.size)
    path = given.output or ROOT / "dist" / ("bench-full.json" if given.full else "bench.json")
    settings = settings_of(sides, scale, rounds=given.rounds, fsync=given.fsync, server=server_version())
    results = open_results(path, settings, fresh=given.fresh)
    print(versions_text(results), flush=True)
    deadline = time.monotonic() + 60 * given.minutes
    for case in cases:
        if not results.has(case.name):
            if time.monotonic() > deadline:
                print(f"\n{given.minutes:g} minutes are over: the same command goes on with {case.name}")
                break
            cells = run_case(sides, case, scale, rounds=given.rounds, fsync=given.fsync, deadline=deadline)
            results.cells[case.name] = cells
            results.save(path)
        print(f"\n{case_text(case, results.cells[case.name])}", flush=True)
    print(f"\nresults: {path}")
    if importlib.util.find_spec("matplotlib"):
        from benchmarks.throughput.chart import draw  # noqa: PLC0415  # only with the group `bench`

        draw(results, path.with_suffix(".svg"))
        print(f"chart: {path.with_suffix('.svg')}")


def _install(names: Sequence[str], base: str | None) -> list[Installed]:
    """Return the sides that this machine can run, and print which it cannot."""
    sides = []
    for name in names:
        try:
            sides.append(install(name, base=base))
        except (RuntimeError, subprocess.SubprocessError) as exc:
            print(f"without {SIDES[name].title}: {exc}")
    return sides


def sized(scale: Scale, sizes: Sequence[str]) -> Scale:
    """Return the scale with sizes that are given as `name=number`."""
    kinds = {it.name: type(getattr(scale, it.name)) for it in fields(scale)}
    for text in sizes:
        name, _, number = text.partition("=")
        if name not in kinds:
            raise SystemExit(f"no such size: {name!r}; known: {', '.join(kinds)}")
        scale = replace(scale, **{name: kinds[name](float(number))})
    return scale


def _chosen(only: str, *, full: bool) -> list[Case]:
    if only:
        wanted = only.split(",")
        if unknown := set(wanted) - {it.name for it in CASES}:
            raise SystemExit(f"no such case: {', '.join(sorted(unknown))}; known: {', '.join(it.name for it in CASES)}")
        return [it for it in CASES if it.name in wanted]
    return [it for it in CASES if full or it.main]


if __name__ == "__main__":
    main()
