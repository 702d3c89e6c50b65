"""Whether a live object is already as its manifest has it, so that applying it again would change nothing.

Two questions, since neither answers alone: does the object hold each rendered field, read as the API server reads it
(`0.010` is `10m`, an empty map is no map); and do our managed fields own all that is rendered and nothing else (a
foreign hand takes a field from us when it changes or removes it; what we render no more must be dropped).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from agentqueue_operator.resources.kinds import Object

MANAGER: Final = "agentqueue-operator"
"""The field manager of all that we apply."""
HASH_ANNOTATION: Final = "agentqueue.dev/manifest-hash"
"""On each rendered object: what it was rendered as."""
UNMANAGED: Final = frozenset({"apiVersion", "kind"})
UNMANAGED_METADATA: Final = frozenset({"name", "namespace", "uid"})
"""What says which object it is belongs to no manager."""
AMOUNTS: Final = frozenset({"requests", "limits"})
"""Maps whose values are quantities."""
QUANTITIES: Final = frozenset({"sizeLimit", "divisor"})
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
"""Lists of which others may own items too: those are told apart by these keys, as far as an item has them."""
SUFFIXES: Final[Mapping[str, Decimal]] = {
    "": Decimal(1),
    **{letter: Decimal(1000) ** power for power, letter in enumerate("num", -3)},
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
}


def is_same(live: Object, manifest: Object) -> bool:
    """Applying the manifest to this object would change nothing."""
    ours = owned_fields(live)
    return (
        _hash(live) == _hash(manifest)
        and contains_desired(live, manifest)
        and ours is not None
        and _owns_all(ours, manifest)
        and not list(_stale(ours, manifest))
    )


def _hash(given: Object) -> Any:
    return (given["metadata"].get("annotations") or {}).get(HASH_ANNOTATION)


def owned_fields(live: Object, manager: str = MANAGER) -> Mapping[str, Any] | None:
    """The fields of the object that a manager has applied, as `fieldsV1`; None if it never applied any."""
    for entry in live["metadata"].get("managedFields") or ():
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource"):
            found: Mapping[str, Any] = entry.get("fieldsV1") or {}
            return found
    return None


def owns_fields(live: Object, *path: str, manager: str = MANAGER) -> bool:
    """Whether the manager has applied the field, `owns_fields(deployment, "spec", "replicas")`."""
    fields: Any = owned_fields(live, manager)
    for part in path:
        fields = (fields or {}).get(f"f:{part}")
    return fields is not None


# What the object holds


def contains_desired(live: Any, wanted: Any, field: str = "") -> bool:
    """Whether all that is wanted is there; what else is there is somebody's own or a default. `field`: its name."""
    if wanted == {}:
        return live is None or isinstance(live, Mapping)
    if _is_empty(wanted):
        return _is_empty(live)
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and _holds_each(live, wanted, field)
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return _holds_items(live, wanted, field)
    return bool(live == wanted) or (field in QUANTITIES and _is_same_amount(live, wanted))


def _is_empty(value: Any) -> bool:
    """The API server leaves such values out where they are the type's zero."""
    return value is None or value in ("", 0, False) or (isinstance(value, Mapping | list | tuple) and not value)


def _holds_each(live: Mapping[str, Any], wanted: Mapping[str, Any], field: str) -> bool:
    if field in AMOUNTS:
        return all(_is_same_amount(live.get(key), value) for key, value in wanted.items())
    return all(contains_desired(live.get(key), value, key) for key, value in wanted.items())


def _holds_items(live: Any, wanted: Sequence[Any], field: str) -> bool:
    if not isinstance(live, Sequence):
        return False
    keys = MERGE_KEYS.get(field)
    if keys and all(isinstance(item, Mapping) for item in wanted):
        return all(
            any(_is_item(there, item, keys) and contains_desired(there, item) for there in live) for item in wanted
        )
    return len(live) == len(wanted) and all(map(contains_desired, live, wanted))


def _is_item(there: Mapping[str, Any], item: Mapping[str, Any], keys: Sequence[str]) -> bool:
    return all(there.get(key) == item[key] for key in keys if key in item)


def _is_same_amount(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    first, second = amount(one), amount(other)
    return bool(one == other) or (first is not None and first == second)


def amount(quantity: Any) -> Decimal | None:
    """A quantity as a number: 0.010 and 10m, 1024Mi and 1Gi are the same. None: it is none."""
    text = str(quantity).strip()
    number = text.rstrip("".join(SUFFIXES)) if text[-1:].isalpha() else text
    try:
        return Decimal(number) * SUFFIXES[text[len(number) :]]
    except (InvalidOperation, KeyError):
        return None


# Who owns it


def _owns_all(fields: Mapping[str, Any], manifest: Object) -> bool:
    metadata = {key: value for key, value in manifest["metadata"].items() if key not in UNMANAGED_METADATA}
    rest = {key: value for key, value in manifest.items() if key not in UNMANAGED}
    return _owns(fields, {**rest, "metadata": metadata})


def _owns(fields: Mapping[str, Any], wanted: Any) -> bool:
    """A field without fields below it is owned whole."""
    if not [key for key in fields if key != "."]:
        return True
    if isinstance(wanted, Mapping):
        return all(_owns_field(fields, key, value) for key, value in wanted.items() if not _is_empty(value))
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return all(any(_is_at(key, item) and _owns(below, item) for key, below in fields.items()) for item in wanted)
    return True


def _owns_field(fields: Mapping[str, Any], key: str, value: Any) -> bool:
    below = fields.get(f"f:{key}")
    return below is not None and _owns(below, value)


def _stale(fields: Mapping[str, Any], wanted: Any) -> Iterator[str]:
    """What we own and do not want any more."""
    for key, below in fields.items():
        if key == ".":
            continue
        found = at(key, wanted)
        if found is ABSENT:
            yield key
        elif below:
            yield from _stale(below, found)


ABSENT: Final = object()
"""What `at` gives for a field that is not there."""


def at(key: str, wanted: Any) -> Any:
    """Return what `f:NAME`, `k:{KEYS}` or `v:VALUE` points to; `ABSENT` if it is not there."""
    if key.startswith("f:"):
        return wanted.get(key[2:], ABSENT) if isinstance(wanted, Mapping) else ABSENT
    items = wanted if isinstance(wanted, Sequence) and not isinstance(wanted, str) else ()
    return next((item for item in items if _is_at(key, item)), ABSENT)


def _is_at(key: str, item: Any) -> bool:
    """A key that the API server has filled in (a port's protocol) need not be in the manifest."""
    what, _, text = key.partition(":")
    if what == "v":
        return bool(json.loads(text) == item)
    if what != "k" or not isinstance(item, Mapping):
        return False
    return all(item.get(name, value) == value for name, value in json.loads(text).items())
