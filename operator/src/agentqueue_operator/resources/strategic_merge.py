"""Strategic merge of a partial pod template over a whole one, by the merge keys of Kubernetes' own types.

The table is that of the `patchMergeKey` tags in k8s.io/api core/v1 types.go. Lists that are not in it are replaced.
Where the plain merge only makes what the API server refuses, this one does what is meant: a variable is replaced (value
and valueFrom exclude each other), a volume keeps no other source than the patch's (as `kubectl apply` has it, by
`retainKeys`), ports are told apart by protocol too, and `$patch: delete` in an object takes the whole object out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from agentqueue.errors import InvalidSpec

Json = dict[str, Any]
DIRECTIVE: Final = "$patch"
DEFAULTS: Final = {"protocol": "TCP"}
"""What the API server fills in for a part of a merge key."""


class Same(Enum):
    """What becomes of an item when the patch has one with the same key."""

    MERGED = "merged"
    SOURCE_REPLACED = "only what the patch's item has too is kept, and merged"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class Keyed:
    """A list whose items are told apart by these keys."""

    keys: tuple[str, ...]
    same: Same = Same.MERGED
    items: Fields = field(default_factory=dict)

    def identity(self, item: Mapping[str, Any]) -> tuple[Any, ...]:
        """By what it is told apart."""
        return tuple(item.get(key, DEFAULTS.get(key)) for key in self.keys)


Fields = Mapping[str, "Keyed | Fields"]
"""The fields below which there is a keyed list, and that list."""

_CONTAINER: Final[Fields] = {
    "env": Keyed(("name",), Same.REPLACED),
    "ports": Keyed(("containerPort", "protocol")),
    "volumeMounts": Keyed(("mountPath",)),
    "volumeDevices": Keyed(("devicePath",)),
}
POD_TEMPLATE: Final[Fields] = {
    "spec": {
        "containers": Keyed(("name",), items=_CONTAINER),
        "initContainers": Keyed(("name",), items=_CONTAINER),
        "volumes": Keyed(("name",), Same.SOURCE_REPLACED),
        "imagePullSecrets": Keyed(("name",)),
        "hostAliases": Keyed(("ip",)),
        "topologySpreadConstraints": Keyed(("topologyKey", "whenUnsatisfiable")),
        "schedulingGates": Keyed(("name",)),
        "resourceClaims": Keyed(("name",), Same.SOURCE_REPLACED),
    }
}


def merge(base: Mapping[str, Any], patch: Mapping[str, Any], fields: Fields = POD_TEMPLATE, path: str = "") -> Json:
    """`patch` laid over `base`; neither is changed, and the result shares with them what is the same.

    A null takes a field out, and so does `$patch: delete` in an object or a list's item, which also survives `kubectl
    apply`, where nulls are lost. `$patch: replace` replaces an object or a list.

    Raises:
        InvalidSpec: a list's item without its key, or a directive that is none; the message has its path.
    """
    result = {} if _directive(patch, path) == "replace" else dict(base)
    for key, value in patch.items():
        place = f"{path}.{key}".lstrip(".")
        if value is None or key == DIRECTIVE or (isinstance(value, Mapping) and _directive(value, place) == "delete"):
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value, fields.get(key, {}), place)
    return result


def _merged(old: Any, new: Any, known: Keyed | Fields, path: str) -> Any:
    if isinstance(known, Keyed) and isinstance(new, Sequence) and not isinstance(new, str):
        return _merged_list(old if isinstance(old, list) else [], new, known, path)
    if isinstance(new, Mapping):
        below = {} if isinstance(known, Keyed) else known
        return merge(old if isinstance(old, Mapping) else {}, new, below, path)
    return new


def _merged_list(old: list[Any], new: Sequence[Any], known: Keyed, path: str) -> list[Any]:
    places = [(_checked(item, known, f"{path}[{index}]"), f"{path}[{index}]") for index, item in enumerate(new)]
    result = [] if any(item.get(DIRECTIVE) == "replace" for item, _ in places) else list(old)
    for item, place in places:
        directive = item.get(DIRECTIVE)
        at = next((at for at, it in enumerate(result) if known.identity(it) == known.identity(item)), None)
        if directive == "replace":
            continue
        if directive == "delete":
            result = [it for it in result if known.identity(it) != known.identity(item)]
        elif at is None:
            result.append(merge({}, item, known.items, place))
        else:
            result[at] = merge(_kept(result[at], item, known), item, known.items, place)
    return result


def _kept(old: Mapping[str, Any], item: Mapping[str, Any], known: Keyed) -> Mapping[str, Any]:
    if known.same is Same.REPLACED:
        return {}
    return old if known.same is Same.MERGED else {key: value for key, value in old.items() if key in item}


def _checked(item: Any, known: Keyed, path: str) -> Mapping[str, Any]:
    if not isinstance(item, Mapping):
        raise InvalidSpec(f"podTemplate.{path} must be an object with {known.keys[0]}, is {item!r:.80}")
    directive = _directive(item, path)
    missing = [key for key in known.keys if key not in item and key not in DEFAULTS]
    if missing and directive != "replace":
        raise InvalidSpec(f"podTemplate.{path} has no {missing[0]}, by which it is laid over ours: write it")
    return item


def _directive(patch: Mapping[str, Any], path: str) -> Any:
    directive = patch.get(DIRECTIVE)
    if directive not in (None, "merge", "replace", "delete"):
        where = f"podTemplate.{path}".rstrip(".")
        raise InvalidSpec(f"{where}.$patch is {directive!r:.80}: write replace or delete, or take it out")
    return directive
