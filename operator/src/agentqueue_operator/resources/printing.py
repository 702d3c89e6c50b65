"""Rendered manifests as text: for people to read and for `kubectl apply -f -`."""

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
from agentqueue_operator.resources.render.placeholders import offline

HEADER: Final = """\
# What the operator makes of this AgentQueue: values that begin with PLACEHOLDER are not known here, replicas are those
# with empty queues, and owner references are left out.
"""
_NOT_TEXT_IN_YAML_1_1: Final = re.compile(
    r"(y|n|yes|no|on|off|true|false|null|~|=|<<|[-+.]*[0-9][-+._:0-9a-f]*|0[box][0-9a-f_]+)",
    re.IGNORECASE,
)
"""kubectl reads YAML 1.1, where `on` is true."""


def offline_manifests(queue: ResolvedQueue, namespace: str | None, images: Images) -> list[Object]:
    """As the operator would apply them, as far as that is known here; Secrets readable.

    Raises:
        InvalidSpec: a podTemplate that can't be laid over ours.
    """
    context = offline(queue, namespace or queue.namespace or "default", images)
    return [_readable(manifest) for manifest in render(queue, context)]


def _readable(manifest: Object) -> Object:
    if manifest["kind"] != SECRET.kind:
        return manifest
    plain = {key: base64.b64decode(value).decode() for key, value in manifest["data"].items()}
    return {**{key: value for key, value in manifest.items() if key != "data"}, "stringData": plain}


def as_json(manifests: Sequence[Object]) -> str:
    """One List, which kubectl takes."""
    whole = {"apiVersion": "v1", "kind": "List", "items": manifests}
    return orjson.dumps(whole, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def as_yaml(manifests: Iterable[Object]) -> str:
    """One document each."""
    yaml = YAML()
    yaml.width = 10_000  # no folding: a folded line can't be searched for
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.ignore_aliases = lambda _: True
    out = StringIO()
    out.write(HEADER)
    for manifest in manifests:
        out.write("---\n")
        yaml.dump(_spelled(manifest), out)
    return out.getvalue()


def _spelled(value: Any) -> Any:
    """Texts so that YAML 1.1 takes them for texts, and more than one line as a block."""
    if isinstance(value, Mapping):
        return {_spelled(key): _spelled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(item) for item in value]
    if not isinstance(value, str):
        return value
    if "\n" in value and value.replace("\n", "").isprintable():
        return LiteralScalarString(value)
    plain = value.isprintable() and not _NOT_TEXT_IN_YAML_1_1.fullmatch(value)
    return value if plain else DoubleQuotedScalarString(value)
