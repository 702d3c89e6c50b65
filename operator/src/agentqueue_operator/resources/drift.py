"""Find what others have changed in an object of the operator, from its managedFields. Pure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agentqueue_operator.resources.comparison import ABSENT, MANAGER, at, owned_fields
from agentqueue_operator.resources.kinds import Object

CONTENT: Final = ("f:spec", "f:data")
"""Where an object says what it does. Others' labels and annotations do nothing to our pods, and many tools add some."""
OTHERS_OWN: Final = "spec.template.metadata"
"""`kubectl rollout restart` writes an annotation there, and so do tools that reload configuration."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A field that somebody else has written."""

    field: str
    """`spec.replicas`, `spec.template.spec.containers[worker].env[DEBUG]`."""
    manager: str
    """Who wrote it, as the API server has it: kubectl, kubectl-set, helm, …"""
    is_ours: bool
    """We render the field, and write it back. Else it stays: server-side apply removes only what was ours."""


def drift(live: Object, manifest: Object, *, ours: tuple[str, ...] = (MANAGER,)) -> Iterator[Drift]:
    """Yield what others have written into the object.

    Args:
        live: the object as it is.
        manifest: as it is rendered; a field that it leaves out on purpose (`replicas` in mode External) is not drift.
        ours: field managers that are not others.
    """
    own = owned_fields(live) or {}
    for entry in live["metadata"].get("managedFields") or ():
        manager = entry.get("manager", "")
        if manager in ours or entry.get("subresource") == "status":
            continue
        for top in CONTENT:
            fields, wanted = (entry.get("fieldsV1") or {}).get(top), manifest.get(top[2:])
            if fields and wanted is not None:
                found = _foreign(fields, own.get(top) or {}, wanted, top[2:])
                yield from (Drift(field, manager, is_ours) for field, is_ours in found if not _is_left(field, manifest))


def _is_left(field: str, manifest: Object) -> bool:
    """It is others' to set."""
    return field.startswith(OTHERS_OWN) or (field == "spec.replicas" and "replicas" not in manifest["spec"])


def _foreign(fields: Mapping[str, Any], own: Mapping[str, Any], wanted: Any, path: str) -> Iterator[tuple[str, bool]]:
    for key, below in fields.items():
        if key == ".":
            continue
        field, rendered, mine = path + _step(key), at(key, wanted), own.get(key)
        if rendered is ABSENT:
            yield field, False
        elif below and any(inner != "." for inner in below):
            yield from _foreign(below, mine or {}, rendered, field)
        elif mine is None:
            yield field, True


def _step(key: str) -> str:
    """`f:NAME` as `.NAME`, `k:{"name":"x"}` as `[x]`."""
    kind, _, text = key.partition(":")
    if kind == "f":
        return f".{text}"
    parts = json.loads(text)
    return f"[{'/'.join(map(str, parts.values())) if isinstance(parts, dict) else parts}]"
