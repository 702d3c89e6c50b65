"""What to do about an AgentQueue's objects: what is there and what is wanted in, actions out. Pure, asked each pass.

Only what the AgentQueue owns is ever written to or deleted: an object of the same name without our owner reference is
somebody else's, whatever labels it bears.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentqueue_operator.resources.comparison import HASH_ANNOTATION, amount, is_same, owns_fields
from agentqueue_operator.resources.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    NETWORK_POLICY,
    POD_MONITOR,
    PRUNED,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
    Kind,
    Object,
)

HANDOVER: Final = "agentqueue-handover"
"""Field manager that keeps a Deployment's replicas while the number passes from us to somebody else."""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Names an object of the AgentQueue's namespace."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def key_of(given: Object) -> Key:
    """The object's key."""
    return Key(given["kind"], given["metadata"]["name"])


KINDS: Final[Mapping[str, Kind]] = {kind.kind: kind for kind in PRUNED}
"""The kinds that are rendered, by name."""
ORDER: Final = {
    kind.kind: rank
    for rank, kind in enumerate(
        (
            SERVICE_ACCOUNT,
            SECRET,
            CONFIG_MAP,
            NETWORK_POLICY,
            DISRUPTION_BUDGET,
            SERVICE,
            STATEFUL_SET,
            DEPLOYMENT,
            POD_MONITOR,
        )
    )
}
"""What others need comes first: Redis before the workers."""


@dataclass(frozen=True, slots=True)
class Apply:
    """Apply the manifest."""

    manifest: Object
    live: Object | None = None
    """What is there now; None: nothing."""


@dataclass(frozen=True, slots=True)
class Skip:
    """The object is as it should be."""

    live: Object
    manifest: Object


@dataclass(frozen=True, slots=True)
class HandOver:
    """The Deployment's replicas pass to somebody else: give the present number another manager first, then apply."""

    replicas: int
    manifest: Object


@dataclass(frozen=True, slots=True)
class Grow:
    """Storage is to grow, which a StatefulSet can't be told: grow the claims, then make the StatefulSet anew around its
    pod. `fallback` is what to apply where the claims can't grow: the manifest with the storage that there is."""

    claims: tuple[str, ...]
    size: str
    live: Object
    manifest: Object
    fallback: Object


@dataclass(frozen=True, slots=True)
class Delete:
    """It is not wanted any more."""

    live: Object


@dataclass(frozen=True, slots=True)
class Foreign:
    """There is an object of that name that the AgentQueue does not own: it is left alone."""

    manifest: Object
    live: Object


@dataclass(frozen=True, slots=True)
class Wait:
    """The object is on its way out (deleted, or an earlier AgentQueue's of this name): the next pass finds it gone."""

    live: Object


Action = Apply | Skip | HandOver | Grow | Delete | Foreign | Wait


def plan(
    wanted: Iterable[Object], live: Iterable[Object], *, owner: Object, settled: Mapping[Key, str] | None = None
) -> tuple[Action, ...]:
    """What to do now, in this order.

    Args:
        wanted: the manifests.
        live: objects that are there; others' among them.
        owner: the AgentQueue.
        settled: object -> `fingerprint` of a state known to be as wanted: an apply gave it back, or it was found same.
    """
    there = {key_of(one): one for one in live if one["kind"] in KINDS}
    manifests = sorted(wanted, key=lambda manifest: ORDER[manifest["kind"]])
    keys = {key_of(manifest) for manifest in manifests}
    known = settled or {}
    return (
        *(_one(manifest, there.get(key_of(manifest)), owner, known) for manifest in manifests),
        *(Delete(one) for key, one in sorted(there.items()) if key not in keys and _may_delete(one, owner)),
    )


def _one(manifest: Object, live: Object | None, owner: Object, settled: Mapping[Key, str]) -> Action:
    if live is None:
        return Apply(manifest)
    if not is_owned(live, owner):
        return Wait(live) if _is_leaving(live, owner) else Foreign(manifest, live)
    if "deletionTimestamp" in live["metadata"]:
        return Wait(live)
    if settled.get(key_of(live)) == fingerprint(live, manifest) or is_same(live, manifest):
        return Skip(live, manifest)
    return _change(manifest, live)


def _change(manifest: Object, live: Object) -> Action:
    if manifest["kind"] == DEPLOYMENT.kind and _gives_up_replicas(manifest, live):
        return HandOver(live["spec"]["replicas"], _pinned(manifest, live))
    if manifest["kind"] == STATEFUL_SET.kind and (growth := _growth(manifest, live)):
        return growth
    return Apply(_pinned(manifest, live), live)


def _pinned(manifest: Object, live: Object) -> Object:
    """The API server refuses it, should another object have taken this one's place meanwhile."""
    return {**manifest, "metadata": {**manifest["metadata"], "uid": live["metadata"]["uid"]}}


def conditional(manifests: Iterable[Object], versions: Mapping[str, str]) -> Sequence[Object]:
    """Return the manifests, with a resourceVersion in those Deployments that `versions` names: the API server refuses
    to apply them once the object has another version."""
    return [
        {**one, "metadata": {**one["metadata"], "resourceVersion": versions[one["metadata"]["name"]]}}
        if one["kind"] == DEPLOYMENT.kind and one["metadata"]["name"] in versions
        else one
        for one in manifests
    ]


def fingerprint(live: Object, manifest: Object) -> str:
    """Names the state that an object is in, and what was wanted of it."""
    metadata = live["metadata"]
    wanted = (manifest["metadata"].get("annotations") or {}).get(HASH_ANNOTATION)
    return f"{metadata.get('uid')} {metadata.get('resourceVersion')} {wanted}"


def newer(one: Object, other: Object) -> bool:
    """Whether the first is a later state of the same object: resourceVersions grow (Kubernetes 1.35 promises it)."""
    first, second = one["metadata"], other["metadata"]
    if first.get("uid") != second.get("uid"):
        return False
    versions = (str(first.get("resourceVersion")), str(second.get("resourceVersion")))
    return all(map(str.isdecimal, versions)) and int(versions[0]) > int(versions[1])


def is_owned(live: Object, owner: Object) -> bool:
    """Whether the AgentQueue is among the object's owners."""
    return owner["metadata"]["uid"] in _owners(live)


def _owners(live: Object) -> list[str]:
    return [reference.get("uid", "") for reference in live["metadata"].get("ownerReferences") or ()]


def _is_leaving(live: Object, owner: Object) -> bool:
    """An earlier AgentQueue of the same name owns it: Kubernetes collects it as garbage."""
    mine = (owner["apiVersion"].partition("/")[0], owner["kind"], owner["metadata"]["name"])
    return any(
        (reference["apiVersion"].partition("/")[0], reference["kind"], reference["name"]) == mine
        for reference in live["metadata"].get("ownerReferences") or ()
    )


def _may_delete(live: Object, owner: Object) -> bool:
    return is_owned(live, owner) and "deletionTimestamp" not in live["metadata"]


# Replicas


def _gives_up_replicas(manifest: Object, live: Object) -> bool:
    """From Auto or Fixed to External (DESIGN 7): to drop a field without another owner is to reset it to 1."""
    return (
        "replicas" not in manifest["spec"]
        and owns_fields(live, "spec", "replicas")
        and not owns_fields(live, "spec", "replicas", manager=HANDOVER)
    )


def handover(manifest: Object, replicas: int) -> Object:
    """What the other manager applies."""
    metadata = {name: value for name, value in manifest["metadata"].items() if name in ("name", "namespace")}
    return {
        "apiVersion": manifest["apiVersion"],
        "kind": manifest["kind"],
        "metadata": metadata,
        "spec": {"replicas": replicas},
    }


# Storage


def _growth(manifest: Object, live: Object) -> Grow | None:
    """A StatefulSet's claim templates can't be changed."""
    before, after = _storage(live), _storage(manifest)
    grown = [name for name, size in after.items() if _is_larger(size, before.get(name))]
    if not grown:
        return None
    claims = tuple(f"{name}-{live['metadata']['name']}-0" for name in grown)
    return Grow(claims, after[grown[0]], live, manifest, _with_storage(manifest, before))


def _storage(given: Object) -> dict[str, str]:
    templates = given["spec"].get("volumeClaimTemplates") or ()
    return {one["metadata"]["name"]: one["spec"]["resources"]["requests"]["storage"] for one in templates}


def _is_larger(size: str, before: str | None) -> bool:
    return before is not None and (amount(size) or 0) > (amount(before) or 0)


def _with_storage(manifest: Object, sizes: Mapping[str, str]) -> Object:
    templates = [_sized(one, sizes) for one in manifest["spec"]["volumeClaimTemplates"]]
    metadata = manifest["metadata"]
    annotations = metadata["annotations"]
    other = {**annotations, HASH_ANNOTATION: f"{annotations[HASH_ANNOTATION]}-not-grown"}
    spec = {**manifest["spec"], "volumeClaimTemplates": templates}
    return {**manifest, "metadata": {**metadata, "annotations": other}, "spec": spec}


def _sized(template: Object, sizes: Mapping[str, str]) -> Object:
    size = sizes.get(template["metadata"]["name"])
    if size is None:
        return template
    spec = template["spec"]
    return {**template, "spec": {**spec, "resources": {**spec["resources"], "requests": {"storage": size}}}}


def has_grown(claim: Object, size: str) -> bool:
    """Whether a volume claim asks for that much already."""
    asked: Any = claim["spec"]["resources"]["requests"]["storage"]
    return (amount(asked) or 0) >= (amount(size) or 0)


def unseen(wanted: Sequence[Object], live: Iterable[Object]) -> Iterator[Object]:
    """Manifests without a live object: it may not be there, or be somebody else's without our label."""
    there = {key_of(one) for one in live}
    return (manifest for manifest in wanted if key_of(manifest) not in there)
