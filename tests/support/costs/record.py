"""The recorded costs, and how to measure them once more."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support.costs.program import CASES, Costs

ROOT: Final = Path(__file__).parents[3]
PATH: Final = ROOT / "tests" / "integration" / "costs.json"
UPDATE: Final = "make costs"
TRIES: Final = 5
"""Most measurements of a case that exceeds its record. Load makes figures rise, and never fall."""
TOLERANCE: Final = 0.03
"""Share by which a figure may exceed its record. Repeated measurements differ by less than 2 %."""
SLACK: Final = {"bytes_in": 1.0, "bytes_out": 1.0}
"""What a figure may exceed that share by, in its unit; 0.01 for the others. A few bytes are the digits of a number."""
WIDER_TOLERANCE: Final = {"idle": 0.15, "noop-1": 1.5, "noop-10": 0.15, "retry": 0.1}
"""The same for cases that depend on time: `idle` has one poll more or less, and with few slots, the number of jobs that
are claimed ahead follows the time of a round trip. Without claims ahead, `noop-1` costs ten times its record."""
MEASURE_S: Final = 300.0
Record = dict[str, dict[str, Costs]]
"""Costs by the kind of server and the case."""


def read() -> Record:
    """Return the recorded costs."""
    record: Record = json.loads(PATH.read_text())
    return record


def write(record: Record) -> None:
    """Replace the recorded costs."""
    PATH.write_text(json.dumps(record, indent=2) + "\n")


def measure(case: str, url: str) -> Costs:
    """Return the costs of a case on an empty server, as a program of its own counts them."""
    command = [sys.executable, "-m", "tests.support.costs.program", case, url]
    for _ in range(2):  # on a loaded machine, the server's debugger may refuse a session once
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=MEASURE_S, check=False)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr[-3000:]
    costs: Costs = json.loads(done.stdout.splitlines()[-1])
    return {name: round(value, 3) for name, value in costs.items()}


def least(found: Costs, other: Costs) -> Costs:
    """Return the lower one of each figure."""
    return {name: min(value, other.get(name, value)) for name, value in found.items()}


def rises(case: str, found: Costs, recorded: Costs) -> list[str]:
    """Return a sentence for each figure that is above its record by more than the tolerance, or has none."""
    tolerance = WIDER_TOLERANCE.get(case, TOLERANCE)
    unit = "second" if case == "idle" else "job"
    sentences = []
    for name, value in found.items():
        if name not in recorded:
            sentences.append(f"{case}: {name} has no record")
        elif value > recorded[name] * (1 + tolerance) + SLACK.get(name, 0.01):
            sentences.append(f"{case}: {name} per {unit} rose from {recorded[name]:g} to {value:g}")
    return sentences


def measure_within(case: str, url: str, recorded: Costs) -> list[str]:
    """Return what rose in the least figures of up to `TRIES` measurements. It stops when nothing did."""
    assert case in CASES
    found: Costs = {}
    for _ in range(TRIES):
        found = least(measure(case, url), found)
        if not (sentences := rises(case, found, recorded)):
            return []
    return sentences
