"""The CustomResourceDefinition, made from the models: a structural schema with our defaults and CEL rules.

Structural means: no $ref, a type for every node, nothing that apiextensions/v1 refuses. Defaults stand in the schema
outside of agents[] and agentDefaults only; inside, they would mask agentDefaults, so the descriptions tell them.
"""

from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any

from agentqueue.spec.agents import Overlay
from agentqueue.spec.base import Model, model_in
from agentqueue.spec.check import as_json
from agentqueue.spec.reference.field_docs import built_in_default, class_doc, field_docs
from agentqueue.spec.resource import API_VERSION, GROUP, KIND, PLURAL, VERSION, AgentQueue, AgentQueueSpec
from agentqueue.spec.rules import Rule, rules_on
from agentqueue.spec.status import NOT_OBSERVED, AgentQueueStatus

Json = dict[str, Any]

COLUMNS = (
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', 0),
    ("Status", "string", '.status.conditions[?(@.type=="Ready")].reason', 0),
    ("Agents", "string", ".status.readyAgents", 0),
    ("Pods", "string", ".status.pods", 0),
    ("Waiting", "integer", ".status.waiting", 0),
    ("Active", "integer", ".status.active", 0),
    ("Dead", "integer", ".status.deadLetters", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Redis", "string", '.status.conditions[?(@.type=="RedisReady")].reason', 1),
    ("Warning", "string", '.status.conditions[?(@.type=="ConfigurationWarning")].reason', 1),
    ("Console", "string", ".status.console.service", 1),
    ("Message", "string", '.status.conditions[?(@.type=="Ready")].message', 1),
)
"""What `kubectl get aq` shows: whether it is well, and if not, what is wrong. The last four with `-o wide`."""


def crd() -> Json:
    """The CustomResourceDefinition, as JSON."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["aq"],
                "categories": ["all"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema()},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path} | ({"priority": wide} if wide else {})
                        for name, kind, path, wide in COLUMNS
                    ],
                }
            ],
        },
    }


def crd_yaml() -> str:
    """The CustomResourceDefinition as a YAML file."""
    from ruamel.yaml import YAML  # noqa: PLC0415 (slow to import, and an extra)

    yaml = YAML()
    yaml.width = 10_000  # no folding: a folded line can't be searched for
    yaml.representer.ignore_aliases = lambda _: True
    out = StringIO()
    out.write("# Made by `agentqueue crd` from the models in agentqueue.spec; `make generated` makes it anew.\n")
    yaml.dump(crd(), out)
    return out.getvalue()


def schema() -> Json:
    """The schema of an AgentQueue."""
    builder = _Builder(AgentQueue)
    return {
        "type": "object",
        "description": class_doc(AgentQueue),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Version of this object's schema: {API_VERSION}."},
            "kind": {"type": "string", "description": f"Kind of this object: {KIND}."},
            # The bound is Kubernetes' own; it is here since CEL's cost is estimated from it.
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 253}}},
            "spec": builder.object(AgentQueueSpec),
            # kstatus takes an object without a status for one that is well; the operator has not seen this one yet.
            "status": {**builder.object(AgentQueueStatus), "default": {"observedGeneration": NOT_OBSERVED}},
        },
        "x-kubernetes-validations": list(map(_validation, rules_on(AgentQueue))),
    }


def _validation(rule: Rule) -> Json:
    naming = {"messageExpression": rule.message_cel} if rule.message_cel else {}
    return {"rule": rule.cel, "message": rule.message, **naming}


def _models(model: type[Model]) -> Iterator[type[Model]]:
    yield model
    for info in model.model_fields.values():
        if (inner := model_in(info.annotation)) is not None:
            yield from _models(inner)


DROPPED = ("title", "default", "$ref", "$defs", "anyOf", "properties", "required", "additionalProperties", "items")


class _Builder:
    """Spells out pydantic's JSON schema: references in place, null as absence, and what is ours added."""

    def __init__(self, root: type[Model]) -> None:
        self.models = {model.__name__: model for model in _models(root)}
        self.definitions: Mapping[str, Json] = root.model_json_schema()["$defs"]

    def object(self, model: type[Model]) -> Json:
        raw = self.definitions[model.__name__]
        result: Json = {"description": class_doc(model)} | self.without_description(raw)
        result["properties"] = dict(sorted(self.properties(model, raw["properties"])))
        if raw.get("required"):
            result["required"] = raw["required"]
        if model.model_config.get("extra") == "allow":
            result["x-kubernetes-preserve-unknown-fields"] = True
        if rules := rules_on(model):
            result["x-kubernetes-validations"] = list(map(_validation, rules))
        return result

    def properties(self, model: type[Model], raw: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
        docs = field_docs(model)
        for name, info in model.model_fields.items():
            key = str(info.alias)
            built_in = built_in_default(model, name)
            told = "" if built_in is None else f" Default: {built_in}."
            result = {"description": docs[name] + told} | self.without_description(raw[key])
            if not issubclass(model, Overlay) and not info.is_required() and info.default is not None:
                result["default"] = as_json(info.default)
            yield key, result

    def without_description(self, raw: Json) -> Json:
        return {key: value for key, value in self.node(raw).items() if key != "description"}

    def node(self, raw: Json) -> Json:
        result = {key: value for key, value in raw.items() if key not in DROPPED}
        if "$ref" in raw:
            result = self.reference(raw["$ref"].rpartition("/")[2]) | result
        elif "anyOf" in raw and "x-kubernetes-int-or-string" not in raw:
            (present,) = (option for option in raw["anyOf"] if option.get("type") != "null")
            result = self.node(present) | result
        elif "anyOf" in raw:
            result["anyOf"] = raw["anyOf"]
        for key in ("items", "additionalProperties"):
            if isinstance(raw.get(key), dict):
                result[key] = self.node(raw[key])
        return result

    def reference(self, name: str) -> Json:
        return self.object(self.models[name]) if name in self.models else self.node(self.definitions[name])
