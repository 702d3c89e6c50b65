"""The definitions of Prometheus' operator: what it knows of PodMonitor, ServiceMonitor and PrometheusRule."""

import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from tests.support.cluster.kube import Object
from tests.support.cluster.shell import run

MODULE = "github.com/prometheus-operator/prometheus-operator@v0.83.0"
PLURALS = ("podmonitors", "servicemonitors", "prometheusrules")


def definitions() -> Sequence[Object]:
    """Out of its Go module, which Go keeps in its cache."""
    folder = Path(json.loads(run("go", "mod", "download", "-json", MODULE, timeout=300))["Dir"])
    files = (folder / f"example/prometheus-operator-crd/monitoring.coreos.com_{it}.yaml" for it in PLURALS)
    return [yaml.safe_load(file.read_text()) for file in files]
