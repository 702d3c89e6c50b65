"""Compare a live object with its manifest, to find out if applying the manifest would change anything.

Two checks are needed. The values: the object holds each rendered field, by the API server's notation (`0.010` is `10m`,
an empty map is an absent map). The owners: the operator's managed fields cover exactly what is rendered. Another
manager takes a field over when it changes or removes it, and fields that are no longer rendered must be dropped.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from agentqueue.spec.quantity import parse_quantity
from agentqueue_operator.resources.kinds import Object

MANAGER: Final = "agentqueue-operator"
"""Field manager of everything that the operator applies."""
HASH_ANNOTATION: Final = "agentqueue.dev/manifest-hash"
"""Annotation with the hash of the manifest that an object was rendered from."""
UNMANAGED: Final = frozenset({"apiVersion", "kind"})
"""Fields that identify an object. They never appear in managedFields."""
UNMANAGED_METADATA: Final = frozenset({"name", "namespace", "uid"})
"""Fields of `metadata` that identify an object. They never appear in managedFields."""
QUANTITY_MAPS: Final = frozenset({"requests", "limits"})
"""Maps whose values are quantities."""
QUANTITY_FIELDS: Final = frozenset({"sizeLimit", "divisor"})
"""Fields that are quantities."""
MERGE_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "ports": ("containerPort", "port", "protocol"),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "ownerReferences": ("uid",),
    "resourceClaims": ("name",),
    "schedulingGates": ("name",),
}
"""Keys that identify the items of lists that several managers may add to. Keys that an item lacks are skipped."""


def is_up_to_date(live: Object, manifest: Object) -> bool:
    """Return True if applying the manifest to the live object would change nothing."""
    ours = owned_fields(live)
    metadata = {key: value for key, value in manifest["metadata"].items() if key not in UNMANAGED_METADATA}
    managed = {key: value for key, value in manifest.items() if key not in UNMANAGED} | {"metadata": metadata}
    return (
        _hash_of(live) == _hash_of(manifest)
        and contains_desired(live, manifest)
        and ours is not None
        and _owns(ours, managed)
        and not list(_no_longer_rendered(ours, manifest))
    )


def _hash_of(manifest: Object) -> Any:
    return (manifest["metadata"].get("annotations") or {}).get(HASH_ANNOTATION)


def owned_fields(live: Object, manager: str = MANAGER) -> Mapping[str, Any] | None:
    """Return the fields that a manager has applied to the object, as `fieldsV1`. None if it never applied any."""
    for entry in live["metadata"].get("managedFields") or ():
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource"):
            found: Mapping[str, Any] = entry.get("fieldsV1") or {}
            return found
    return None


def owns_fields(live: Object, *path: str, manager: str = MANAGER) -> bool:
    """Return True if the manager has applied the field, as in `owns_fields(deployment, "spec", "replicas")`."""
    fields: Any = owned_fields(live, manager)
    for part in path:
        fields = (fields or {}).get(f"f:{part}")
    return fields is not None


def contains_desired(live: Any, wanted: Any, field: str = "") -> bool:
    """Return True if the live value holds everything that is wanted.

    Anything else in the live value is a default of the API server or belongs to another manager.

    Args:
        live: value of the live object.
        wanted: value of the manifest.
        field: name of the field, which decides how lists and quantities are compared.
    """
    if isinstance(wanted, Mapping):
        if not wanted:
            return live is None or isinstance(live, Mapping)
        if field in QUANTITY_MAPS:
            return isinstance(live, Mapping) and all(_same_quantity(live.get(key), wanted[key]) for key in wanted)
        return isinstance(live, Mapping) and all(contains_desired(live.get(key), wanted[key], key) for key in wanted)
    if _is_zero(wanted):
        return _is_zero(live)
    if isinstance(wanted, list | tuple):
        return isinstance(live, list | tuple) and _contains_items(live, wanted, MERGE_KEYS.get(field, ()))
    return bool(live == wanted) or (field in QUANTITY_FIELDS and _same_quantity(live, wanted))


def _is_zero(value: Any) -> bool:
    """Return True for a zero value, which the API server omits from what it stores."""
    return value is None or value in ("", 0, False) or (isinstance(value, Mapping | list | tuple) and not value)


def _contains_items(live: Sequence[Any], wanted: Sequence[Any], merge_keys: Sequence[str]) -> bool:
    if not merge_keys or not all(isinstance(item, Mapping) for item in wanted):
        return len(live) == len(wanted) and all(map(contains_desired, live, wanted))
    return all(
        any(
            all(there.get(key) == item[key] for key in merge_keys if key in item) and contains_desired(there, item)
            for there in live
        )
        for item in wanted
    )


def _same_quantity(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    first, second = parse_quantity(one), parse_quantity(other)
    return bool(one == other) or (first is not None and first == second)


def _owns(fields: Mapping[str, Any], wanted: Any) -> bool:
    """Return True if the managed fields cover the wanted value. A field without subfields is owned as a whole."""
    if not fields.keys() - {"."}:
        return True
    if isinstance(wanted, Mapping):
        return all(
            (below := fields.get(f"f:{key}")) is not None and _owns(below, value)
            for key, value in wanted.items()
            if not _is_zero(value)
        )
    if isinstance(wanted, list | tuple):
        return all(any(_is_at(key, item) and _owns(below, item) for key, below in fields.items()) for item in wanted)
    return True


def _no_longer_rendered(fields: Mapping[str, Any], wanted: Any) -> Iterator[str]:
    """Yield the managed fields that the manifest does not have any more."""
    for key, below in fields.items():
        if key == ".":
            continue
        found = find_field(key, wanted)
        if found is ABSENT:
            yield key
        elif below:
            yield from _no_longer_rendered(below, found)


ABSENT: Final = object()
"""Result of `find_field` for a field that does not exist. None would be a value."""


def find_field(key: str, wanted: Any) -> Any:
    """Return the value that a fieldsV1 key (`f:NAME`, `k:{KEYS}` or `v:VALUE`) points to, or `ABSENT`."""
    if key.startswith("f:"):
        return wanted.get(key[2:], ABSENT) if isinstance(wanted, Mapping) else ABSENT
    items = wanted if isinstance(wanted, list | tuple) else ()
    return next((item for item in items if _is_at(key, item)), ABSENT)


def _is_at(key: str, item: Any) -> bool:
    """Return True if a fieldsV1 key points to the item of a list.

    The manifest may lack a part of the key that the API server has filled in, such as a port's protocol.
    """
    kind, _, text = key.partition(":")
    if kind == "v":
        return bool(json.loads(text) == item)
    if kind != "k" or not isinstance(item, Mapping):
        return False
    return all(item.get(name, value) == value for name, value in json.loads(text).items())
