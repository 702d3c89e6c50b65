"""Alerts fire when they should and not otherwise, also while one operator takes over from another."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import generate_latest

from tests.support.prometheus import find_program
from tools.dashboards import DASHBOARDS
from tools.metrics import operator_registry, worker_registry

CASES = Path(__file__).parent / "alerts_test.yaml"
RULES = Path(__file__).parents[3] / "charts/agentqueue/alerts.yaml"
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
PANELS = [panel for make in DASHBOARDS.values() for panel in json.loads(make())["panels"] if panel["type"] != "row"]
QUERIES = [rule["expr"] for rule in ALERTS] + [target["expr"] for panel in PANELS for target in panel["targets"]]
SAMPLE = Path(__file__).parents[3] / "manifests/samples/scaledobject.yaml"
KEDA = next(it for it in yaml.safe_load_all(SAMPLE.read_text()) if it["kind"] == "ScaledObject")["spec"]["triggers"][0][
    "metadata"
]["query"]
OF_THE_OPERATOR = {sample.name for family in operator_registry().collect() for sample in family.samples}
POD = {"pod", "instance", "container", "endpoint"}
"""Labels that Prometheus adds for the pod that it scrapes."""
OF_COUNTERS = {"rate", "increase", "irate", "resets"}
OF_GAUGES = {"delta", "idelta", "deriv", "predict_linear"}


@pytest.fixture(scope="module")
def promtool() -> str:
    return find_program("promtool")


def test_every_case_of_the_alerts_holds(promtool: str) -> None:
    done = subprocess.run([promtool, "test", "rules", CASES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    tests = [test for case in yaml.safe_load(CASES.read_text())["tests"] for test in case["alert_rule_test"]]
    wanted = sorted(rule["alert"] for rule in ALERTS)
    assert sorted({test["alertname"] for test in tests if test.get("exp_alerts")}) == wanted
    assert sorted({test["alertname"] for test in tests if not test.get("exp_alerts")}) == wanted


@pytest.mark.parametrize("exported", [worker_registry, operator_registry])
def test_promtool_finds_nothing_amiss_in_what_is_exported(promtool: str, exported: Any) -> None:
    text = generate_latest(exported())
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr.decode() == ""


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_what_comes_from_the_operator_is_aggregated_over_its_pods(rule: dict[str, Any]) -> None:
    for name, around in selectors(promql_parser.parse(rule["expr"])):
        if name in OF_THE_OPERATOR:
            kept = [it for it in around if isinstance(it, promql_parser.AggregateExpr)]
            absent = any(isinstance(it, promql_parser.Call) and it.func.name == "absent" for it in around)
            assert kept or absent, f"{name} keeps the labels of the operator's pod"
            assert not any(POD & by(it) for it in kept), f"{name} is kept apart by the operator's pod"
            assert not any("without" in str(it.modifier) for it in kept)


@pytest.mark.parametrize("query", [*QUERIES, KEDA])
def test_two_operators_that_show_the_same_agent_double_nothing(query: str) -> None:
    for name, around in selectors(promql_parser.parse(query.replace("$__rate_interval", "5m"))):
        if name.startswith(("agentqueue_queue_", "agentqueue_agent_")):
            kept = [it for it in around if isinstance(it, promql_parser.AggregateExpr)]
            assert str(kept[-1].op) == "max", f"{name} is doubled in {query}"


@pytest.mark.parametrize("query", QUERIES)
def test_growth_is_asked_of_counters_and_of_them_alone(query: str) -> None:
    for name, around in selectors(promql_parser.parse(query.replace("$__rate_interval", "5m"))):
        asked = {it.func.name for it in around if isinstance(it, promql_parser.Call)}
        is_counter = bool(re.search(r"_(total|bucket|count|sum)$", name))
        assert not asked & OF_GAUGES, f"{name}: people lower it too"
        assert is_counter or not asked & OF_COUNTERS, f"{name} is a gauge"
        assert not is_counter or asked & OF_COUNTERS, f"{name} is shown as it is, and means nothing so"


def by(aggregate: promql_parser.AggregateExpr) -> set[str]:
    return set() if aggregate.modifier is None else set(aggregate.modifier.labels)


def selectors(expression: Any, around: tuple[Any, ...] = ()) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Each metric that a query reads, with the expressions around it, the outermost first."""
    if isinstance(expression, promql_parser.VectorSelector):
        assert expression.name is not None
        yield expression.name, around
    for part in ("expr", "lhs", "rhs", "vector_selector", "vs"):
        if (inner := getattr(expression, part, None)) is not None:
            yield from selectors(inner, (*around, expression))
    for inner in getattr(expression, "args", None) or ():
        yield from selectors(inner, (*around, expression))
