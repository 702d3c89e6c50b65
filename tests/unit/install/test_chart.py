"""Checks of the charts that need no Helm. tests/e2e installs them in a cluster."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

import agentqueue
from agentqueue_operator.controller.settings import VARIABLES, Settings
from tools.chart import values_table

CHARTS = Path(__file__).parents[3] / "charts"
CHART = CHARTS / "agentqueue"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = Draft202012Validator(json.loads((CHART / "values.schema.json").read_text()))
TEMPLATES = "\n".join(path.read_text() for path in sorted((CHART / "templates").rglob("*.*")))

FREE = {"nodeSelector", "podLabels", "podAnnotations", "annotations", "labels", "requests", "limits"}
"""Maps whose keys are the user's."""


def mappings(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all maps that have declared keys."""
    if isinstance(value, dict) and not FREE.intersection(path):
        yield path
        for key, inner in value.items():
            yield from mappings(inner, (*path, key))


def at(values: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        values = values[key]
    return values


def problems(values: Any) -> list[str]:
    return [error.message for error in SCHEMA.iter_errors(values)]


def test_default_values_pass_their_own_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA.schema)
    assert problems(VALUES) == []


@pytest.mark.parametrize("path", list(mappings(VALUES)), ids=lambda path: ".".join(path) or "top")
def test_key_that_is_no_value_is_refused_by_its_name(path: tuple[str, ...]) -> None:
    values = copy.deepcopy(VALUES)
    at(values, path)["replicaz"] = 3
    assert any("'replicaz'" in problem for problem in problems(values))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param("replicas", "two", id="text-for-a-number"),
        pytest.param("replicas", -1, id="below-zero"),
        pytest.param("image.pullPolicy", "Sometimes", id="no-such-policy"),
        pytest.param("image.digest", "md5:0", id="no-digest"),
        pytest.param("watch.namespaces", ["Shop"], id="capital-in-a-namespace"),
        pytest.param("watch.namespaces", ["shop", "shop"], id="the-same-namespace-twice"),
        pytest.param("watch.namespaces", "shop", id="no-list"),
        pytest.param("log.level", "loud", id="no-such-level"),
        pytest.param("podDisruptionBudget.maxUnavailable", 0, id="a-budget-that-no-drain-passes"),
        pytest.param("resources.requests", {"memory": "1 gigabyte"}, id="no-quantity"),
        pytest.param("serviceMonitor.interval", "often", id="no-duration"),
        pytest.param("extraEnv", [{"nmae": "A"}], id="typo-in-a-variable"),
        pytest.param("terminationGracePeriodSeconds", 1, id="too-short-to-give-the-lease-back"),
    ],
)
def test_value_of_the_wrong_shape_is_refused(path: str, value: object) -> None:
    values = copy.deepcopy(VALUES)
    *parents, last = path.split(".")
    at(values, tuple(parents))[last] = value
    assert problems(values)


def test_templates_and_values_know_the_same_keys() -> None:
    used = {tuple(found.split(".")) for found in re.findall(r"\.Values\.([\w.]+)", TEMPLATES)}
    unknown = [path for path in used if not _is_there(path)]
    assert unknown == []
    leaves = [path for path in mappings(VALUES) if path] + [
        (*path, key)
        for path in mappings(VALUES)
        for key, value in at(VALUES, path).items()
        if not isinstance(value, dict)
    ]
    unused = [
        leaf for leaf in leaves if not any(leaf[: len(path)] == path or path[: len(leaf)] == leaf for path in used)
    ]
    assert unused == []


def _is_there(path: tuple[str, ...]) -> bool:
    try:
        at(VALUES, path)
    except KeyError:
        return False
    return True


def test_operator_knows_each_variable_that_the_chart_sets() -> None:
    given = set(re.findall(r"AGENTQUEUE_OPERATOR_\w+", TEMPLATES))
    assert given
    assert given <= set(VARIABLES)


def test_defaults_are_the_operator_s_own() -> None:
    assert VALUES["defaults"]["redisImage"] == Settings.__dataclass_fields__["redis_image"].default
    assert Settings.__dataclass_fields__["worker_image"].default == f"agentqueue-worker:{agentqueue.__version__}"
    assert Settings.__dataclass_fields__["console_image"].default == f"agentqueue-operator:{agentqueue.__version__}"


@pytest.mark.parametrize("chart", ["agentqueue", "agentqueue-travel"])
def test_version_is_the_project_s(chart: str) -> None:
    about = yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())
    assert (about["version"], about["appVersion"]) == (agentqueue.__version__,) * 2


def test_value_without_a_description_is_not_let_through() -> None:
    source = "# -- How many.\nreplicas: 2\nimage:\n  # -- Which.\n  tag: ''\n  digest: ''\n"
    with pytest.raises(ValueError, match=r"image\.digest"):
        values_table(source)


def test_table_of_values_has_a_row_for_each() -> None:
    table = values_table("# -- How many.\nreplicas: 2\nimage:\n  # -- Which.\n  tag: ''\n# -- Free.\nlabels: {a: b}\n")
    assert table.splitlines()[2:] == [
        "| `replicas` | `2` | How many. |",
        '| `image.tag` | `""` | Which. |',
        '| `labels` | `{"a": "b"}` | Free. |',
    ]
