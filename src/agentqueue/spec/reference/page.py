"""Generate docs/reference/agentqueue.md from the CRD's schema."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from agentqueue.spec.crd import COLUMNS, schema
from agentqueue.spec.resource import API_VERSION
from agentqueue.spec.rules import RULES
from agentqueue.spec.status import ConditionType

Json = Mapping[str, Any]

HEAD = f"""# AgentQueue reference

`{API_VERSION}`, kind `AgentQueue`, short name `aq`. `kubectl explain aq.spec` shows the same.
This page is generated from the models in `agentqueue.spec` by `make generated`.

The value of an agent's field is the agent's own, else that of `agentDefaults`, else the default on this page. Objects
are merged field by field and `env` by name. `rateLimit` and `onDeadLetter` are not merged: the agent's object replaces
that of `agentDefaults`. `agentqueue render FILE` shows the result. `agentqueue validate FILE` checks a file as the API
server does.
"""


def reference() -> str:
    """Return the page as Markdown."""
    properties = schema()["properties"]
    return "\n".join(
        [
            HEAD,
            *_section("spec", properties["spec"]),
            *_section("status", properties["status"]),
            *_conditions(),
            *_columns(),
            *_rules(),
        ]
    )


def _section(path: str, node: Json) -> Iterator[str]:
    yield f"## {path}\n\n{node['description']}\n"
    if path == "spec.agentDefaults":
        yield "The fields of [spec.agents\\[\\]](#specagents) except `name`, `queueName` and `handler`.\n"
        return
    yield "| field | type | default | meaning |\n|---|---|---|---|"
    required = node.get("required", ())
    for key, value in node["properties"].items():
        yield _row(f"{path}.{key}", value, needed=key in required)
    if node.get("x-kubernetes-preserve-unknown-fields"):
        yield "| … | | | Any other field. |"
    yield ""
    for key, value in node["properties"].items():
        nested, suffix = (value["items"], "[]") if value.get("type") == "array" else (value, "")
        if "properties" in nested:
            yield from _section(f"{path}.{key}{suffix}", nested)


def _row(path: str, node: Json, *, needed: bool) -> str:
    meaning, _, built_in = node["description"].partition(" Default: ")
    default = "required" if needed else _default(node, built_in.removesuffix("."))
    kind = _linked(path, node) if "properties" in node.get("items", node) else _type(node)
    return f"| `{path.rpartition('.')[2]}` | {kind} | {default} | {meaning} |".replace("|  |", "| |")


def _linked(path: str, node: Json) -> str:
    anchor = re.sub(r"[^a-z]", "", path.lower())
    return _type(node).replace("object", f"[object](#{anchor})", 1)


def _default(node: Json, built_in: str) -> str:
    given = node.get("default")
    if isinstance(given, bool):
        given = str(given).lower()
    text = built_in if given is None or isinstance(given, dict) else str(given)
    return f"`{text}`" if text else ""


def _type(node: Json) -> str:
    if "enum" in node:
        return ", ".join(node["enum"])
    if "x-kubernetes-int-or-string" in node:
        return "integer or percentage" if "maximum" in node else "quantity"
    match node.get("type", "any JSON"):
        case "array":
            return f"list of {_type(node['items'])}s, {_range('minItems', 'maxItems', node)}"
        case "object" if "additionalProperties" in node:
            return f"map to {_type(node['additionalProperties'])}"
        case "integer" | "number":
            return f"{node['type']}{_bounds(node)}"
        case kind:
            return "text" if kind == "string" else str(kind)


def _range(low: str, high: str, node: Json) -> str:
    return f"{node.get(low, 0)} to {node[high]}"


def _bounds(node: Json) -> str:
    return f", {_range('minimum', 'maximum', node)}" if node["maximum"] < 2**53 - 1 else ""


def _conditions() -> Iterator[str]:
    yield f"## Conditions\n\n{', '.join(f'`{kind}`' for kind in ConditionType)}, each with `observedGeneration`.\n"


def _columns() -> Iterator[str]:
    usual, wide = ([name for name, _, _, level in COLUMNS if level == wanted] for wanted in (0, 1))
    yield f"## Columns\n\n`kubectl get aq` shows {', '.join(usual)}; with `-o wide` also {', '.join(wide)}.\n"


def _rules() -> Iterator[str]:
    yield "## Rules\n\nRules besides types and bounds. An error shows the message of the rule that is broken:\n"
    yield from (f"- {_escaped(rule.message)}." + (" (on changes)" if rule.transition else "") for rule in RULES)
    yield ""


def _escaped(text: str) -> str:
    return re.sub(r"([*_<>])", r"\\\1", text)
