"""Print rendered manifests as text for people and for `kubectl apply -f -`."""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import Any, Final

import orjson
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

from agentqueue.spec import ResolvedQueue
from agentqueue_operator.resources.kinds import SECRET, Object
from agentqueue_operator.resources.render import Images, render
from agentqueue_operator.resources.render.placeholders import offline_context

HEADER: Final = """\
# Objects that the operator creates for this AgentQueue. Values that begin with PLACEHOLDER are only known in a cluster.
# Replicas are those of empty queues. Owner references are omitted.
"""
"""Comment at the start of the YAML, for readers who miss a value."""
_NOT_TEXT_IN_YAML_1_1: Final = re.compile(
    r"(y|n|yes|no|on|off|true|false|null|~|=|<<|[-+.]*[0-9][-+._:0-9a-f]*|0[box][0-9a-f_]+)",
    re.IGNORECASE,
)
"""Plain text that YAML 1.1 reads as another type, such as `on`. kubectl reads YAML 1.1."""


def offline_manifests(queue: ResolvedQueue, namespace: str | None, images: Images) -> list[Object]:
    """Return the manifests that the operator would apply, with placeholders and with readable Secrets.

    Raises:
        InvalidSpec: a podTemplate can't be merged.
    """
    context = offline_context(queue, namespace or queue.namespace or "default", images)
    manifests = list(render(queue, context))
    for secret in manifests:
        if secret["kind"] == SECRET.kind:
            data = secret.pop("data")
            secret["stringData"] = {key: base64.b64decode(value).decode() for key, value in data.items()}
    return manifests


def as_json(manifests: Sequence[Object]) -> str:
    """Return the manifests as one JSON object of kind List, which kubectl accepts."""
    whole = {"apiVersion": "v1", "kind": "List", "items": manifests}
    return orjson.dumps(whole, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def as_yaml(manifests: Iterable[Object]) -> str:
    """Return the manifests as YAML, one document each."""
    yaml = YAML()
    yaml.width = 10_000  # no folding: a folded line can't be searched for
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.ignore_aliases = lambda _: True
    out = StringIO()
    out.write(HEADER)
    for manifest in manifests:
        out.write("---\n")
        yaml.dump(_with_text_styles(manifest), out)
    return out.getvalue()


def _with_text_styles(value: Any) -> Any:
    """Return a value in which YAML 1.1 reads every text as text. Text of several lines becomes a block."""
    if isinstance(value, Mapping):
        return {_with_text_styles(key): _with_text_styles(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_text_styles(item) for item in value]
    if not isinstance(value, str):
        return value
    if "\n" in value and value.replace("\n", "").isprintable():
        return LiteralScalarString(value)
    plain = value.isprintable() and not _NOT_TEXT_IN_YAML_1_1.fullmatch(value)
    return value if plain else DoubleQuotedScalarString(value)
