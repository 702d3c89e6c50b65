"""Generate manifests/install, the chart with default values, for users of kubectl without Helm.

The file is rendered if Helm is installed. Otherwise a checksum of the chart's sources and of the file detects a change
of one without the other.
"""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.support.cluster.program import built

ROOT = Path(__file__).parent.parent
CHART = ROOT / "charts" / "agentqueue"
INSTALL = ROOT / "manifests" / "install" / "agentqueue.yaml"
NAMESPACE = "agentqueue-system"
MADE = "# Generated from charts/agentqueue by `make generated`, with Helm. Checksum of both: "
HELMS_OWN = re.compile(r"^ *(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n|^# Source: .*\n", re.MULTILINE)


def install_yaml() -> str:
    """Return the text of the file.

    Raises:
        RuntimeError: the chart has changed since the file was generated, and Helm is not installed.
    """
    helm = _helm()
    if helm is not None:
        body = _rendered(helm)
        return f"{MADE}{_checksum(body)}\n{body}"
    text = INSTALL.read_text(encoding="utf-8")
    head, _, body = text.partition("\n")
    if head != f"{MADE}{_checksum(body)}":
        raise RuntimeError(
            f"{INSTALL.relative_to(ROOT)} differs from what charts/agentqueue renders: install Helm "
            "(or `python -m tests.support.cluster build`), then `make generated`"
        )
    return text


def _helm() -> str | None:
    """Return the test cluster's Helm, else another. Versions of Helm differ in the order of what they render."""
    program = built()
    return str(program.folder / "helm") if program else shutil.which("helm")


def _rendered(helm: str) -> str:
    options = ("--namespace", NAMESPACE, "--no-hooks", "--set", "crds.enabled=false")
    command = [helm, "template", "agentqueue", str(CHART), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  # our own chart
    return HELMS_OWN.sub("", done.stdout)


def _checksum(body: str) -> str:
    whole = hashlib.sha256()
    for source in _sources():
        whole.update(f"{source.relative_to(CHART)}\0{source.read_text(encoding='utf-8')}\0".encode())
    whole.update(body.encode())
    return whole.hexdigest()


def _sources() -> Iterable[Path]:
    """Return the files that the rendering depends on."""
    templates = (CHART / "templates").iterdir()
    used = (one for one in templates if one.suffix in {".tpl", ".yaml"} and one.name != "crd.yaml")
    return sorted([CHART / "Chart.yaml", CHART / "values.yaml", *used])
