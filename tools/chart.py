"""What the Helm charts hold that is made of other sources: the CRD, the operator's rights, the table of values, the
travel example."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from agentqueue.spec.crd import crd_yaml
from agentqueue_operator.resources.rbac import LEADER_ELECTION_RULES, PolicyRule, namespace_rules

ROOT = Path(__file__).parent.parent
CHART = ROOT / "charts" / "agentqueue"
README = CHART / "README.md"
BEGIN, END = "<!-- values: made from values.yaml -->\n", "<!-- end of values -->\n"
MADE = "{{- /* Made by tools/chart.py; `make generated` makes it anew. */ -}}\n"
TRAVEL_IMAGE = "agentqueue-travel:dev"

KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z]\w*):")
DESCRIPTION = re.compile(r"^ *# -- (?P<text>.*)$")


def crd_template() -> str:
    """The CRD as a template that Helm upgrades and never removes (OPERATOR 13), labelled as all of the chart."""
    text = crd_yaml().replace("{{", '{{ "{{" }}')
    name = re.search(r"^  name: .*\n", text, re.MULTILINE)
    if name is None:
        raise ValueError("the CRD has no name")
    kept = "  annotations:\n    helm.sh/resource-policy: keep\n"
    kept += '  labels: {{- include "agentqueue.labels" . | nindent 4 }}\n'
    comment, body = text[: text.index("apiVersion")], text[text.index("apiVersion") : name.end()]
    return f"{{{{- if .Values.crds.enabled }}}}\n{comment}{body}{kept}{text[name.end() :]}{{{{- end }}}}\n"


def rules_template() -> str:
    """The rules of the operator's Roles, as domain/rights.py declares them."""
    always, without = namespace_rules(read_secrets=True), namespace_rules(read_secrets=False)
    both = [right for right in always if right in without]
    reading = "".join(_rule(right) for right in always if right not in without)
    blind = "".join(_rule(right) for right in without if right not in always)
    chosen = f"{{{{- if .Values.rbac.readSecrets }}}}\n{reading}{{{{- else }}}}\n{blind}{{{{- end }}}}\n"
    return (
        MADE
        + _define("agentqueue.rules.own", "".join(map(_rule, LEADER_ELECTION_RULES)))
        + _define("agentqueue.rules", "".join(map(_rule, both)) + chosen)
    )


def _define(name: str, text: str) -> str:
    return f'{{{{- define "{name}" -}}}}\n{text}{{{{- end }}}}\n'


def _rule(right: PolicyRule) -> str:
    group, verbs = right.group or '""', ", ".join(right.verbs)
    return f"# {right.why}\n- apiGroups: [{group}]\n  resources: [{right.resource}]\n  verbs: [{verbs}]\n"


def travel_template() -> str:
    """The travel sample as a template: its name is the release's, its image a value."""
    text = (ROOT / "manifests" / "samples" / "agentqueue.yaml").read_text(encoding="utf-8")
    text = text[text.index("apiVersion:") :]
    for given, value in (
        ("name: travel\n", "name: {{ .Release.Name }}\n"),
        (TRAVEL_IMAGE, "{{ .Values.image | quote }}"),
    ):
        if text.count(given) != 1:
            raise ValueError(f"manifests/samples/agentqueue.yaml must have {given.strip()!r} once")
        text = text.replace(given, value)
    return MADE + text


def readme() -> str:
    """The chart's README with the table of values as values.yaml has it."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after and END not in rest:
        raise ValueError(f"{README} has lost its marks: {BEGIN.strip()} … {END.strip()}")
    return f"{before}{BEGIN}{values_table((CHART / 'values.yaml').read_text(encoding='utf-8'))}{END}{after}"


def values_table(source: str) -> str:
    """A Markdown table of the values that `# --` comments describe.

    Raises:
        ValueError: a value has no description.
    """
    values = yaml.safe_load(source)
    described = dict(_described(source))
    missing = [".".join(path) for path in _leaves(values) if not any(path[: len(one)] == one for one in described)]
    if missing:
        raise ValueError(f"values.yaml describes nothing at {', '.join(missing)}: write `# -- …` above it")
    rows = (f"| `{'.'.join(path)}` | `{_default(values, path)}` | {text} |\n" for path, text in described.items())
    return "| value | default | what it does |\n|---|---|---|\n" + "".join(rows)


def _described(source: str) -> Iterator[tuple[tuple[str, ...], str]]:
    path: list[tuple[int, str]] = []
    text = ""
    for line in source.splitlines():
        if comment := DESCRIPTION.match(line):
            text = comment["text"]
        elif key := KEY.match(line):
            path = [one for one in path if one[0] < len(key["indent"])] + [(len(key["indent"]), key["key"])]
            if text:
                yield tuple(name for _, name in path), text
            text = ""


def _leaves(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if not isinstance(values, dict) or not values:
        yield path
        return
    for key, value in values.items():
        yield from _leaves(value, (*path, key))


def _default(values: Any, path: Sequence[str]) -> str:
    for key in path:
        values = values[key]
    return json.dumps(values, ensure_ascii=False)
