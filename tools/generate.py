"""Write the generated files. With --check, print the differences instead and fail if there are any.

`make generated` runs it, and `make check` runs it with --check. To add a file, add its path and a function that returns
its text.
"""

import argparse
import difflib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from agentqueue.cli.reference import cli_reference
from agentqueue.spec.crd import crd_yaml
from agentqueue.spec.reference.page import reference
from agentqueue_operator.controller.status.reference_page import conditions_page
from tools import chart, dashboards, decisions, golden, manifests, metrics, pictures

ROOT = Path(__file__).parent.parent

GENERATED: Mapping[str, Callable[[], str]] = {
    "manifests/crd/agentqueues.agentqueue.dev.yaml": crd_yaml,
    "docs/reference/agentqueue.md": reference,
    "docs/reference/cli.md": cli_reference,
    "docs/reference/conditions.md": conditions_page,
    "docs/reference/metrics.md": metrics.page,
    "charts/agentqueue/templates/crd.yaml": chart.crd_template,
    "charts/agentqueue/templates/_rules.tpl": chart.rules_template,
    "charts/agentqueue/README.md": chart.readme,
    "charts/agentqueue-travel/templates/agentqueue.yaml": chart.travel_template,
    "manifests/install/agentqueue.yaml": manifests.install_yaml,
    "docs/decisions/index.md": decisions.index,
    **dashboards.DASHBOARDS,
    **pictures.PICTURES,
    **golden.golden_files(),
}


def main() -> int:
    """Return 0 if all files are up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, print the differences")
    handle = _differs if parser.parse_args().check else _write
    changed = [path for path, make in GENERATED.items() if handle(ROOT / path, make())]
    return 1 if changed else 0


def _write(path: Path, text: str) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return False


def _differs(path: Path, text: str) -> bool:
    there = path.read_text(encoding="utf-8") if path.exists() else ""
    name = str(path.relative_to(ROOT))
    before, after = there.splitlines(keepends=True), text.splitlines(keepends=True)
    sys.stdout.writelines(difflib.unified_diff(before, after, name, f"{name} (generated)"))
    if there != text:
        print(f"{name} is not up to date: run `make generated` and commit it", file=sys.stderr)
    return there != text


if __name__ == "__main__":
    sys.exit(main())
