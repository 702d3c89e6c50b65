"""Plan the changes of an AgentQueue's objects: manifests and live objects in, actions out. Pure; runs each reconcile.

Only objects that the AgentQueue owns are written or deleted. An object of the same name without our owner reference
belongs to somebody else, whatever labels it has.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agentqueue.spec.quantity import parse_quantity
from agentqueue_operator.resources.comparison import HASH_ANNOTATION, is_up_to_date, owns_fields
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
"""Field manager that keeps a Deployment's replicas while the field passes from the operator to another manager."""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Kind and name of an object in the AgentQueue's namespace."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def key_of(given: Object) -> Key:
    """Return the object's key."""
    return Key(given["kind"], given["metadata"]["name"])


KINDS: Final[Mapping[str, Kind]] = {kind.kind: kind for kind in PRUNED}
"""Kinds that the operator renders, by name."""
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
"""Order in which kinds are applied. Dependencies go first, such as Redis before the workers."""


@dataclass(frozen=True, slots=True)
class Apply:
    """Apply the manifest."""

    manifest: Object
    live: Object | None = None
    """The live object. None if it does not exist."""


@dataclass(frozen=True, slots=True)
class Skip:
    """The object is up to date."""

    live: Object
    manifest: Object


@dataclass(frozen=True, slots=True)
class HandOver:
    """The Deployment's replicas pass to another manager.

    First apply the current number as the manager `HANDOVER`, then apply the manifest. Dropping a field that no other
    manager owns would reset it to 1.
    """

    replicas: int
    manifest: Object


@dataclass(frozen=True, slots=True)
class Grow:
    """The storage grows. The claim templates of a StatefulSet are immutable.

    First grow the claims, then replace the StatefulSet and keep its pod.
    """

    claims: tuple[str, ...]
    size: str
    live: Object
    manifest: Object
    fallback: Object
    """The manifest with the present size, to apply if the claims can't grow."""


@dataclass(frozen=True, slots=True)
class Delete:
    """The object is no longer rendered."""

    live: Object


@dataclass(frozen=True, slots=True)
class Foreign:
    """Another owner has an object of that name. It is not touched."""

    manifest: Object
    live: Object


@dataclass(frozen=True, slots=True)
class AwaitDeletion:
    """The object is being deleted, or belongs to a deleted AgentQueue of this name. A later reconcile creates it."""

    live: Object


Action = Apply | Skip | HandOver | Grow | Delete | Foreign | AwaitDeletion


def plan(
    wanted: Iterable[Object], live: Iterable[Object], *, owner: Object, settled: Mapping[Key, str] | None = None
) -> tuple[Action, ...]:
    """Return the actions in the order in which to take them.

    Args:
        wanted: the rendered manifests.
        live: live objects, including objects of other owners.
        owner: the AgentQueue.
        settled: `fingerprint` of the last state of each object that is known to be up to date, from an apply or from an
            earlier comparison. It saves comparing again.
    """
    there = {key_of(one): one for one in live if one["kind"] in KINDS}
    manifests = sorted(wanted, key=lambda manifest: ORDER[manifest["kind"]])
    keys = {key_of(manifest) for manifest in manifests}
    return (
        *(_action(manifest, there.get(key_of(manifest)), owner, settled or {}) for manifest in manifests),
        *(
            Delete(one)
            for key, one in sorted(there.items())
            if key not in keys and is_owned(one, owner) and "deletionTimestamp" not in one["metadata"]
        ),
    )


def _action(manifest: Object, live: Object | None, owner: Object, settled: Mapping[Key, str]) -> Action:
    if live is None:
        return Apply(manifest)
    if not is_owned(live, owner):
        return AwaitDeletion(live) if _is_orphan(live, owner) else Foreign(manifest, live)
    if "deletionTimestamp" in live["metadata"]:
        return AwaitDeletion(live)
    if settled.get(key_of(live)) == fingerprint(live, manifest) or is_up_to_date(live, manifest):
        return Skip(live, manifest)
    # The API server refuses the uid if another object has replaced this one meanwhile.
    pinned = {**manifest, "metadata": {**manifest["metadata"], "uid": live["metadata"]["uid"]}}
    if (  # scaling changes from Auto or Fixed to External, and no other manager has the replicas yet
        manifest["kind"] == DEPLOYMENT.kind
        and "replicas" not in manifest["spec"]
        and owns_fields(live, "spec", "replicas")
        and not owns_fields(live, "spec", "replicas", manager=HANDOVER)
    ):
        return HandOver(live["spec"]["replicas"], pinned)
    if manifest["kind"] == STATEFUL_SET.kind and (growth := _growth(manifest, live)):
        return growth
    return Apply(pinned, live)


def with_resource_versions(manifests: Iterable[Object], versions: Mapping[str, str]) -> Sequence[Object]:
    """Return the manifests with a resourceVersion in the Deployments that `versions` names.

    The API server refuses to apply such a manifest once the object has another version.
    """
    return [
        {**one, "metadata": {**one["metadata"], "resourceVersion": versions[one["metadata"]["name"]]}}
        if one["kind"] == DEPLOYMENT.kind and one["metadata"]["name"] in versions
        else one
        for one in manifests
    ]


def fingerprint(live: Object, manifest: Object) -> str:
    """Return text that identifies the state of a live object and the manifest that it was compared with."""
    metadata = live["metadata"]
    wanted = (manifest["metadata"].get("annotations") or {}).get(HASH_ANNOTATION)
    return f"{metadata.get('uid')} {metadata.get('resourceVersion')} {wanted}"


def is_newer(one: Object, other: Object) -> bool:
    """Return True if the first is a later state of the same object.

    Kubernetes 1.35 guarantees that resourceVersions of a kind are integers that grow.
    """
    first, second = one["metadata"], other["metadata"]
    if first.get("uid") != second.get("uid"):
        return False
    versions = (str(first.get("resourceVersion")), str(second.get("resourceVersion")))
    return all(map(str.isdecimal, versions)) and int(versions[0]) > int(versions[1])


def is_owned(live: Object, owner: Object) -> bool:
    """Return True if the AgentQueue is among the object's owners."""
    references = live["metadata"].get("ownerReferences") or ()
    return owner["metadata"]["uid"] in [reference.get("uid", "") for reference in references]


def _is_orphan(live: Object, owner: Object) -> bool:
    """Return True if a deleted AgentQueue of the same name owns the object. Kubernetes will garbage-collect it."""
    mine = (owner["apiVersion"].partition("/")[0], owner["kind"], owner["metadata"]["name"])
    return any(
        (reference["apiVersion"].partition("/")[0], reference["kind"], reference["name"]) == mine
        for reference in live["metadata"].get("ownerReferences") or ()
    )


def handover_manifest(manifest: Object, replicas: int) -> Object:
    """Return what the manager `HANDOVER` applies: the Deployment's replicas and nothing else."""
    metadata = {name: value for name, value in manifest["metadata"].items() if name in ("name", "namespace")}
    return {
        "apiVersion": manifest["apiVersion"],
        "kind": manifest["kind"],
        "metadata": metadata,
        "spec": {"replicas": replicas},
    }


def _growth(manifest: Object, live: Object) -> Grow | None:
    """Return the growth of the StatefulSet's storage. None if no size is larger than before."""
    before, after = _storage_sizes(live), _storage_sizes(manifest)
    grown = [name for name, size in after.items() if name in before and _is_larger(size, before[name])]
    if not grown:
        return None
    claims = tuple(f"{name}-{live['metadata']['name']}-0" for name in grown)
    return Grow(claims, after[grown[0]], live, manifest, _with_storage(manifest, before))


def _storage_sizes(manifest: Object) -> dict[str, str]:
    templates = manifest["spec"].get("volumeClaimTemplates") or ()
    return {one["metadata"]["name"]: one["spec"]["resources"]["requests"]["storage"] for one in templates}


def _is_larger(size: str, other: str) -> bool:
    return (parse_quantity(size) or 0) > (parse_quantity(other) or 0)


def _with_storage(manifest: Object, sizes: Mapping[str, str]) -> Object:
    """Return the StatefulSet's manifest with other sizes, and with another hash since it is not what was rendered."""
    templates = []
    for template in manifest["spec"]["volumeClaimTemplates"]:
        claim, size = template["spec"], sizes.get(template["metadata"]["name"])
        requests = claim["resources"]["requests"] if size is None else {"storage": size}
        templates.append({**template, "spec": {**claim, "resources": {**claim["resources"], "requests": requests}}})
    metadata = manifest["metadata"]
    annotations = {
        **metadata["annotations"],
        HASH_ANNOTATION: f"{metadata['annotations'][HASH_ANNOTATION]}-not-grown",
    }
    return {
        **manifest,
        "metadata": {**metadata, "annotations": annotations},
        "spec": {**manifest["spec"], "volumeClaimTemplates": templates},
    }


def has_grown(claim: Object, size: str) -> bool:
    """Return True if a volume claim requests at least that size."""
    return not _is_larger(size, claim["spec"]["resources"]["requests"]["storage"])


def without_live_object(wanted: Sequence[Object], live: Iterable[Object]) -> Iterator[Object]:
    """Yield the manifests that no live object matches.

    The object may not exist, or it lacks the operator's label and is therefore not watched.
    """
    there = {key_of(one) for one in live}
    return (manifest for manifest in wanted if key_of(manifest) not in there)
