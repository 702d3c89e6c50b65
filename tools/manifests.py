"""manifests/install: what the Helm chart renders to with its defaults, for those who have kubectl and no Helm.

With Helm at hand the file is made anew. Without, a checksum over the chart's sources and the file itself tells whether
one has changed without the other.
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
MADE = "# Made from charts/agentqueue by `make generated`, with Helm at hand. Checksum of both: "
HELMS_OWN = re.compile(r"^ *(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n|^# Source: .*\n", re.MULTILINE)


def install_yaml() -> str:
    """The file's text.

    Raises:
        RuntimeError: the chart has changed since the file was made, and there is no Helm to make it anew.
    """
    helm = _helm()
    if helm is not None:
        body = _rendered(helm)
        return f"{MADE}{_checksum(body)}\n{body}"
    text = INSTALL.read_text(encoding="utf-8")
    head, _, body = text.partition("\n")
    if head != f"{MADE}{_checksum(body)}":
        raise RuntimeError(
            f"{INSTALL.relative_to(ROOT)} is not what charts/agentqueue renders to: install Helm "
            "(or `python -m tests.support.cluster build`), then `make generated`"
        )
    return text


def _helm() -> str | None:
    """The test cluster's own before another: each version of Helm orders what it renders in its own way."""
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
    """All that the rendering depends on."""
    templates = (CHART / "templates").iterdir()
    used = (one for one in templates if one.suffix in {".tpl", ".yaml"} and one.name != "crd.yaml")
    return sorted([CHART / "Chart.yaml", CHART / "values.yaml", *used])
