"""Strategic merge of a partial pod template into a complete one, by the merge keys of the Kubernetes types.

The table of keys follows the `patchMergeKey` tags in k8s.io/api core/v1 types.go. Lists without a key are replaced.
Four cases differ from the plain merge, because its result would be refused by the API server:

- An environment variable is replaced, since `value` and `valueFrom` exclude each other.
- A volume keeps no source but the patch's, as `kubectl apply` does by `retainKeys`.
- Ports are identified by protocol too.
- `$patch: delete` in an object removes the whole object.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from agentqueue.errors import InvalidSpec

Json = dict[str, Any]
DIRECTIVE: Final = "$patch"
"""Key that asks for another operation than a merge, as in `kubectl patch`."""
KEY_DEFAULTS: Final = {"protocol": "TCP"}
"""Values that the API server fills in for absent merge keys."""


class OnMatch(Enum):
    """Treatment of an existing item whose key the patch has too."""

    MERGE = "merge"
    RETAIN_KEYS = "keep only the fields that the patch's item has, and merge"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class KeyedList:
    """A list whose items are identified by merge keys."""

    keys: tuple[str, ...]
    on_match: OnMatch = OnMatch.MERGE
    items: Fields = field(default_factory=dict)

    def identity(self, item: Mapping[str, Any]) -> str:
        """Return the item's merge keys as text, since users may write any JSON value there."""
        return json.dumps([item.get(key, KEY_DEFAULTS.get(key)) for key in self.keys], sort_keys=True)

    def retained(self, old: Mapping[str, Any], item: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the part of an existing item that the patch's item is merged into."""
        if self.on_match is OnMatch.REPLACE:
            return {}
        return old if self.on_match is OnMatch.MERGE else {key: value for key, value in old.items() if key in item}


Fields = Mapping[str, "KeyedList | Fields"]
"""Fields of an object that are keyed lists or contain some."""

_CONTAINER: Final[Fields] = {
    "env": KeyedList(("name",), OnMatch.REPLACE),
    "ports": KeyedList(("containerPort", "protocol")),
    "volumeMounts": KeyedList(("mountPath",)),
    "volumeDevices": KeyedList(("devicePath",)),
}
POD_TEMPLATE: Final[Fields] = {
    "spec": {
        "containers": KeyedList(("name",), items=_CONTAINER),
        "initContainers": KeyedList(("name",), items=_CONTAINER),
        "volumes": KeyedList(("name",), OnMatch.RETAIN_KEYS),
        "imagePullSecrets": KeyedList(("name",)),
        "hostAliases": KeyedList(("ip",)),
        "topologySpreadConstraints": KeyedList(("topologyKey", "whenUnsatisfiable")),
        "schedulingGates": KeyedList(("name",)),
        "resourceClaims": KeyedList(("name",), OnMatch.RETAIN_KEYS),
    }
}
"""Keyed lists of a pod template."""


def merge(base: Mapping[str, Any], patch: Mapping[str, Any], fields: Fields = POD_TEMPLATE, path: str = "") -> Json:
    """Return `base` with `patch` merged into it.

    Neither argument is changed; the result shares unchanged values with them. A null removes a field. `$patch: delete`
    in an object or in an item of a list removes that object; unlike a null, it survives `kubectl apply`.
    `$patch: replace` replaces an object or a list.

    Raises:
        InvalidSpec: an item of a list lacks its merge key, or a directive is unknown. The message has the path.
    """
    result = {} if _directive(patch, path) == "replace" else dict(base)
    for key, value in patch.items():
        place = f"{path}.{key}".lstrip(".")
        old, known = result.get(key), fields.get(key, {})
        if value is None or key == DIRECTIVE or (isinstance(value, Mapping) and _directive(value, place) == "delete"):
            result.pop(key, None)
        elif isinstance(known, KeyedList) and isinstance(value, list | tuple):
            result[key] = _merge_list(old if isinstance(old, list) else [], value, known, place)
        elif isinstance(value, Mapping):
            below = {} if isinstance(known, KeyedList) else known
            result[key] = merge(old if isinstance(old, Mapping) else {}, value, below, place)
        else:
            result[key] = value
    return result


def _merge_list(old: Sequence[Any], patch: Sequence[Any], known: KeyedList, path: str) -> list[Any]:
    places = [f"{path}[{index}]" for index in range(len(patch))]
    directives = [_directive_of_item(item, known, place) for item, place in zip(patch, places, strict=True)]
    result = {} if "replace" in directives else {known.identity(item): item for item in old}
    for item, directive, place in zip(patch, directives, places, strict=True):
        if directive == "replace":
            continue
        key = known.identity(item)
        if directive == "delete":
            result.pop(key, None)
        else:
            result[key] = merge(known.retained(result.get(key, {}), item), item, known.items, place)
    return list(result.values())


def _directive_of_item(item: Any, known: KeyedList, path: str) -> Any:
    """Check an item of a patch's list and return its directive."""
    if not isinstance(item, Mapping):
        raise InvalidSpec(f"podTemplate.{path} must be an object with {known.keys[0]}, is {item!r:.80}")
    directive = _directive(item, path)
    missing = [key for key in known.keys if key not in item and key not in KEY_DEFAULTS]
    if missing and directive != "replace":
        raise InvalidSpec(f"podTemplate.{path} lacks its merge key {missing[0]}: add it")
    return directive


def _directive(patch: Mapping[str, Any], path: str) -> Any:
    directive = patch.get(DIRECTIVE)
    if directive not in (None, "merge", "replace", "delete"):
        where = f"podTemplate.{path}".rstrip(".")
        raise InvalidSpec(f"{where}.$patch is {directive!r:.80}: write replace or delete, or remove it")
    return directive
