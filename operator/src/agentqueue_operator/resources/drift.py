"""Find fields of the operator's objects that other managers have written. Pure functions over managedFields."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agentqueue_operator.resources.comparison import ABSENT, MANAGER, find_field, owned_fields
from agentqueue_operator.resources.kinds import Object

CONTENT_FIELDS: Final = ("f:spec", "f:data")
"""Top-level fields that decide what an object does. Many tools add labels and annotations, which change nothing."""
OTHERS_FIELD: Final = "spec.template.metadata"
"""Field that others may write: `kubectl rollout restart` and tools that reload configuration annotate it."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A field that another manager has written."""

    field: str
    """Path of the field, such as `spec.replicas` or `spec.template.spec.containers[worker].env[DEBUG]`."""
    manager: str
    """Field manager that wrote it, such as kubectl, kubectl-set or helm."""
    is_ours: bool
    """True if the operator renders the field and writes it back. False if it stays: server-side apply removes only
    fields that the operator owned."""


def find_drift(live: Object, manifest: Object, *, ours: tuple[str, ...] = (MANAGER,)) -> Iterator[Drift]:
    """Yield the fields that other managers have written.

    Args:
        live: the live object.
        manifest: its manifest. A field that it omits on purpose (`replicas` in mode External) is not drift.
        ours: field managers of the operator.
    """
    own = owned_fields(live) or {}
    for entry in live["metadata"].get("managedFields") or ():
        manager = entry.get("manager", "")
        if manager in ours or entry.get("subresource") == "status":
            continue
        for top in CONTENT_FIELDS:
            fields, wanted = (entry.get("fieldsV1") or {}).get(top), manifest.get(top[2:])
            if fields and wanted is not None:
                for field, is_ours in _foreign(fields, own.get(top) or {}, wanted, top[2:]):
                    external = field == "spec.replicas" and "replicas" not in manifest["spec"]
                    if not external and not field.startswith(OTHERS_FIELD):
                        yield Drift(field, manager, is_ours)


def _foreign(fields: Mapping[str, Any], own: Mapping[str, Any], wanted: Any, path: str) -> Iterator[tuple[str, bool]]:
    for key, below in fields.items():
        if key == ".":
            continue
        field, rendered, mine = path + _path_segment(key), find_field(key, wanted), own.get(key)
        if rendered is ABSENT:
            yield field, False
        elif below and any(inner != "." for inner in below):
            yield from _foreign(below, mine or {}, rendered, field)
        elif mine is None:
            yield field, True


def _path_segment(key: str) -> str:
    """Return `f:NAME` as `.NAME`, and `k:{"name":"x"}` as `[x]`."""
    kind, _, text = key.partition(":")
    if kind == "f":
        return f".{text}"
    parts = json.loads(text)
    return f"[{'/'.join(map(str, parts.values())) if isinstance(parts, dict) else parts}]"
