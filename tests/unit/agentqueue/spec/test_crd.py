"""The CRD is up to date, and its schema is structural as apiextensions/v1 requires."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentqueue.spec import AgentQueue, check
from agentqueue.spec.base import Model, model_in
from agentqueue.spec.check import with_defaults
from agentqueue.spec.crd import crd, crd_yaml, schema
from agentqueue.spec.reference.field_docs import field_docs
from agentqueue.spec.reference.page import reference
from agentqueue.spec.resource import Metadata
from agentqueue.spec.rules import RULES
from tests.support import resources

ROOT = Path(__file__).parents[4]
Json = dict[str, Any]

KNOWN = {
    *("type", "description", "properties", "required", "items", "additionalProperties", "enum", "format", "pattern"),
    *("default", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties", "anyOf"),
    *("x-kubernetes-int-or-string", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
    *("x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations"),
}


def nodes(node: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    yield path, node
    for key, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{key}")
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from nodes(node[key], f"{path}[]")


NODES = dict(nodes(schema()))


def bad(holds: Any) -> list[str]:
    """Paths of nodes of which it does not hold."""
    return [path for path, node in NODES.items() if not holds(node)]


def test_it_is_committed_as_it_is_made() -> None:
    assert (ROOT / "manifests/crd/agentqueues.agentqueue.dev.yaml").read_text(encoding="utf-8") == crd_yaml()


def test_the_reference_is_committed_as_it_is_made() -> None:
    assert (ROOT / "docs/reference/agentqueue.md").read_text(encoding="utf-8") == reference()


def test_the_yaml_says_the_same_as_the_json() -> None:
    assert yaml.safe_load(crd_yaml()) == json.loads(json.dumps(crd()))


def test_names_columns_and_subresource() -> None:
    spec = crd()["spec"]
    assert crd()["metadata"]["name"] == f"{spec['names']['plural']}.{spec['group']}" == "agentqueues.agentqueue.dev"
    assert (spec["names"]["kind"], spec["names"]["shortNames"], spec["scope"]) == ("AgentQueue", ["aq"], "Namespaced")
    (version,) = spec["versions"]
    assert (version["name"], version["served"], version["storage"]) == ("v1alpha1", True, True)
    assert version["subresources"] == {"status": {}}
    usual = [column["name"] for column in version["additionalPrinterColumns"] if "priority" not in column]
    assert usual == ["Ready", "Status", "Agents", "Pods", "Waiting", "Suspended", "Active", "Dead", "Age"]


def test_every_node_is_structural() -> None:
    assert bad(lambda node: set(node) <= KNOWN) == []
    untyped = {"x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"}  # these nodes need no type
    assert bad(lambda node: "type" in node or bool(untyped & node.keys())) == []
    assert bad(lambda node: not ("type" in node and "x-kubernetes-int-or-string" in node)) == []
    assert (
        bad(lambda node: node.get("type") in (None, "object", "array", "string", "integer", "number", "boolean")) == []
    )
    assert bad(lambda node: not ("properties" in node and "additionalProperties" in node)) == []
    assert bad(lambda node: ("items" in node) == (node.get("type") == "array")) == []
    integer_or_string = [{"type": "integer"}, {"type": "string"}]
    assert bad(lambda node: node.get("anyOf", integer_or_string) == integer_or_string) == []
    assert bad(lambda node: set(node.get("required", ())) <= set(node.get("properties", ()))) == []


def test_every_field_has_a_description_that_is_a_sentence() -> None:
    own = (".spec", ".status")
    described = {path: node for path, node in NODES.items() if path.startswith(own) and not path.endswith("]")}
    assert [path for path, node in described.items() if not str(node.get("description", "")).endswith(".")] == []


def test_everything_is_bounded() -> None:
    inside = {path: node for path, node in NODES.items() if path.startswith((".spec", ".status"))}
    bounds = {"string": "maxLength", "array": "maxItems", "integer": "maximum", "number": "maximum"}
    loose = [
        p for p, n in inside.items() if (b := bounds.get(n.get("type", ""))) and not {b, "enum", "format"} & set(n)
    ]
    assert loose == []
    maps = [p for p, n in inside.items() if "additionalProperties" in n or "x-kubernetes-preserve-unknown-fields" in n]
    payloads = [".spec.agents[].schedules[].data"]  # any JSON, whose size the offline check and the operator bound
    assert [path for path in maps if "maxProperties" not in inside[path]] == payloads


def test_every_list_says_how_it_is_merged_and_map_keys_are_required() -> None:
    lists = {path: node for path, node in NODES.items() if node.get("type") == "array"}
    assert [path for path, node in lists.items() if "x-kubernetes-list-type" not in node] == []
    keyed = {path: node for path, node in lists.items() if node["x-kubernetes-list-type"] == "map"}
    assert {".spec.agents", ".spec.agents[].env", ".status.conditions", ".status.agents"} <= set(keyed)
    assert [
        p for p, n in keyed.items() if not set(n["x-kubernetes-list-map-keys"]) <= set(n["items"]["required"])
    ] == []


def test_no_default_stands_where_agent_defaults_may_set_a_field() -> None:
    own = ".spec.agents[].schedules[]"
    inside = [p for p in NODES if p.startswith((".spec.agents", ".spec.agentDefaults")) and not p.startswith(own)]
    assert inside
    assert [path for path in inside if "default" in NODES[path]] == []
    assert NODES[".spec.agents[].concurrency"]["description"].endswith(" Default: 5.")
    assert NODES[".spec.agents[].scaling.mode"]["description"].endswith(" Default: Auto.")
    assert NODES[".spec.redis.managed.storage.size"]["default"] == "1Gi"


def test_every_rule_is_in_the_schema_with_its_message() -> None:
    there = [(v["rule"], v["message"]) for n in NODES.values() for v in n.get("x-kubernetes-validations", ())]
    assert {(rule.cel, rule.message) for rule in RULES} == set(there)
    (everywhere,) = (rule for rule in RULES if rule.name == "restart-policy-is-ours")
    assert there.count((everywhere.cel, everywhere.message)) == 4


def test_pod_templates_and_payloads_keep_what_is_not_declared() -> None:
    kept = [path for path, node in NODES.items() if node.get("x-kubernetes-preserve-unknown-fields")]
    places = (".spec.agents[]", ".spec.agentDefaults", ".spec.redis.managed", ".spec.console")
    templates = [f"{place}.podTemplate.spec" for place in places]
    assert sorted(kept) == sorted([*templates, ".spec.agents[].schedules[].data"])


def test_two_calls_share_nothing() -> None:
    first = crd()
    before = copy.deepcopy(first)
    nodes_of_second = dict(nodes(crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]))
    for node in nodes_of_second.values():
        node.clear()
    assert first == before


def models(model: type[Model]) -> Iterator[type[Model]]:
    yield model
    for info in model.model_fields.values():
        if (inner := model_in(info.annotation)) is not None:
            yield from models(inner)


@pytest.mark.parametrize("model", [it for it in dict.fromkeys(models(AgentQueue)) if it not in (AgentQueue, Metadata)])
def test_every_field_of_every_model_is_documented(model: type[Model]) -> None:
    assert set(field_docs(model)) >= set(model.model_fields)
    assert model.__doc__


def test_defaults_are_filled_in_as_the_api_server_does() -> None:
    spec = with_defaults(AgentQueue, resources.resource(redis={"managed": {"storage": {}, "image": None}}))["spec"]
    assert spec["redis"]["managed"] == {
        "storage": {"size": "1Gi"},
        "persistence": {"appendfsync": "always"},
        "auth": {},
        "config": {},
    }
    assert spec["console"] == {"enabled": True, "replicas": 1, "service": {"type": "ClusterIP", "port": 80}}
    assert spec["agents"][0] == {"name": "a", "handler": "m:a"}


def test_with_its_defaults_filled_in_a_resource_is_still_valid_and_stays_as_it_is() -> None:
    filled = with_defaults(AgentQueue, resources.resource())
    assert check(filled) == []
    assert with_defaults(AgentQueue, filled) == filled


def test_status_is_built_by_python_names_and_written_by_the_resources() -> None:
    from datetime import UTC, datetime

    from agentqueue.spec import AgentQueueStatus, AgentStatus, Condition, ConditionStatus, ConditionType, LastScale

    at = datetime(2026, 1, 2, tzinfo=UTC)
    ready = Condition(
        type=ConditionType.READY,
        status=ConditionStatus.TRUE,
        reason="AllReady",
        message="",
        last_transition_time=at,
        observed_generation=3,
    )
    agent = AgentStatus(name="a", last_scale=LastScale(time=at, from_=1, to=2, reason="Backlog"))
    status = AgentQueueStatus(conditions=(ready,), agents=(agent,), ready_agents="1/1")
    assert status.model_dump(mode="json", by_alias=True, exclude_none=True) == {
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "AllReady",
                "message": "",
                "lastTransitionTime": "2026-01-02T00:00:00Z",
                "observedGeneration": 3,
            }
        ],
        "agents": [
            {"name": "a", "lastScale": {"time": "2026-01-02T00:00:00Z", "from": 1, "to": 2, "reason": "Backlog"}}
        ],
        "readyAgents": "1/1",
    }
