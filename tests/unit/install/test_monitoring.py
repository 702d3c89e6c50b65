"""Dashboards and alerts ask for metrics and labels that there are, and each alert has its page in the handbook."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry

from tools.dashboards import DASHBOARDS
from tools.metrics import operator_registry, worker_registry

ROOT = Path(__file__).parents[3]
ALERTS = [
    rule
    for group in yaml.safe_load((ROOT / "charts/agentqueue/alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
TARGET = {"namespace", "pod"}
"""Labels that Prometheus adds for the pod that it scrapes."""
FROM_POD = {"agentqueue", "agent"}
"""Labels that the PodMonitor adds to a worker's metrics."""
PROCESS = {"process_cpu_seconds_total": TARGET, "process_resident_memory_bytes": TARGET}


def samples(registry: CollectorRegistry, added: set[str]) -> dict[str, set[str]]:
    return {sample.name: {*sample.labels} | added for family in registry.collect() for sample in family.samples}


OF_WORKERS = samples(worker_registry(), TARGET | FROM_POD)
OF_THE_OPERATOR = samples(operator_registry(), TARGET)
KNOWN = PROCESS | OF_WORKERS | OF_THE_OPERATOR


def selectors(expression: Any) -> Iterator[tuple[str, set[str]]]:
    """Yield each metric that a query reads, with the labels that select its series."""
    if isinstance(expression, promql_parser.VectorSelector):
        assert expression.name is not None
        yield expression.name, {matcher.name for matcher in expression.matchers.matchers}
    for part in ("expr", "lhs", "rhs", "vector_selector", "vs"):
        if (inner := getattr(expression, part, None)) is not None:
            yield from selectors(inner)
    for inner in getattr(expression, "args", None) or ():
        yield from selectors(inner)


def groupings(query: str) -> set[str]:
    return {name.strip() for found in re.findall(r"\b(?:by|on) ?\(([^)]*)\)", query) for name in found.split(",")} - {
        "le"
    }


def check(query: str) -> None:
    parsed = promql_parser.parse(query.replace("$__rate_interval", "5m"))
    read = list(selectors(parsed))
    assert read, query
    for name, labels in read:
        assert name in KNOWN, f"no such metric: {name}"
        assert labels <= KNOWN[name], f"{name} has no label {labels - KNOWN[name]}"
    assert groupings(query) <= set.union(*(KNOWN[name] for name, _ in read)), query


@pytest.mark.parametrize("path", DASHBOARDS)
def test_dashboards_read_existing_metrics(path: str) -> None:
    panels = [panel for panel in json.loads(DASHBOARDS[path]())["panels"] if panel["type"] != "row"]
    assert panels
    for panel in panels:
        for target in panel["targets"]:
            check(target["expr"])
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert shown <= groupings(target["expr"]), f"{panel['title']}: the query has no such label"


@pytest.mark.parametrize("path", DASHBOARDS)
def test_panels_have_a_question_and_a_unit(path: str) -> None:
    made = json.loads(DASHBOARDS[path]())
    panels = [panel for panel in made["panels"] if panel["type"] != "row"]
    titles = [panel["title"] for panel in panels]
    assert len(titles) == len(set(titles))
    assert all(
        panel["description"].endswith((".", "?")) and panel["fieldConfig"]["defaults"]["unit"] for panel in panels
    )
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_alerts_read_metrics_that_there_are_and_say_of_whom_they_speak(rule: dict[str, Any]) -> None:
    check(rule["expr"])
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    parsed = promql_parser.parse(rule["expr"])
    left: set[str] = set.union(*(KNOWN[name] for name, _ in selectors(parsed)))
    grouped = groupings(rule["expr"])
    said = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    assert said <= (grouped or left)
    assert set(rule["annotations"]) == {"summary", "description"}


def test_the_handbook_has_each_alert_and_no_other() -> None:
    rows = re.findall(r"^\| `(AgentQueue\w+)` \|", (ROOT / "docs/operations.md").read_text(), flags=re.MULTILINE)
    assert rows == [rule["alert"] for rule in ALERTS]
