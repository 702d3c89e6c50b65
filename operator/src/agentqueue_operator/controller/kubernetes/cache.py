"""Cache of the objects that the watches have delivered. It is used in one event loop and never blocks.

kopf reports the objects that it sees. It does not report objects that were deleted while a watch was interrupted, nor
the end of a list. So the operator lists names and versions itself and compares the cache with the list: this shows when
the cache is complete, which objects are gone, and which watch lags behind.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from agentqueue.clock import monotonic
from agentqueue_operator.resources.drift import CONTENT_FIELDS
from agentqueue_operator.resources.kinds import AGENT_QUEUE, POD, Kind, Object, QueueRef

QUEUE_LABEL: Final = "agentqueue.dev/queue"
"""Label of all children. The watches select by it."""
OURS: Final = frozenset({"agentqueue-operator", "agentqueue-handover"})
"""Field managers of the operator, whose managed fields are kept whole."""
UNREAD_OF_CONTAINERS: Final = frozenset(
    {"env", "envFrom", "volumeMounts", "livenessProbe", "readinessProbe", "startupProbe", "securityContext"}
)
"""Fields of containers that nothing reads. They are dropped to save memory, since there may be many pods."""
UNREAD_OF_PODS: Final = frozenset(
    {"volumes", "tolerations", "affinity", "topologySpreadConstraints", "securityContext"}
)
"""Fields of pods that nothing reads."""


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Address of an object."""

    plural: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """Scope of one watch: a kind in a namespace, or in all of them."""

    plural: str
    namespace: str | None

    def covers(self, address: Address) -> bool:
        """Return whether the watch delivers that object."""
        return self.plural == address.plural and self.namespace in {None, address.namespace}


@dataclass(frozen=True, slots=True)
class CachedObject:
    """A cached object and the time its current resourceVersion was first seen.

    It holds JSON: a dictionary takes eight times the memory, and an object is read only once in five seconds.
    """

    raw: bytes
    uid: str
    version: int
    ref: QueueRef
    since: float
    """Monotonic seconds."""

    @property
    def live(self) -> Object:
        """Return a copy of the object."""
        found: Object = orjson.loads(self.raw)
        return found


class StoreCache:
    """Cache of AgentQueues and their children (`ports.Cache`).

    Args:
        wake: called with each AgentQueue for which something has changed.
    """

    def __init__(self, wake: Callable[[QueueRef], None]) -> None:
        self._wake = wake
        self._objects: dict[Address, CachedObject] = {}
        self._children: dict[QueueRef, dict[Address, None]] = {}
        self._unseen: dict[Scope, dict[Address, int]] = {}
        """Audited scope -> objects in the list that the watch has not delivered, with their versions."""
        self.watch_errors: dict[str, str] = {}
        """Plural of each kind that cannot be watched -> why. The watches maintain it."""

    def queues(self) -> Sequence[QueueRef]:
        """Return all AgentQueues."""
        return [held.ref for address, held in self._objects.items() if address.plural == AGENT_QUEUE.plural]

    def queue(self, ref: QueueRef) -> Object | None:
        """Return an AgentQueue, or None if there is none."""
        held = self._objects.get(Address(AGENT_QUEUE.plural, ref.namespace, ref.name))
        return held.live if held is not None else None

    def children(self, ref: QueueRef) -> Sequence[Object]:
        """Return all objects of watched kinds, pods among them, with the label of this AgentQueue."""
        return [self._objects[address].live for address in self._children.get(ref, ())]

    def watch_problems(self) -> Sequence[str]:
        """Return what cannot be watched at present, and why."""
        return [f"{plural}: {error}" for plural, error in sorted(self.watch_errors.items())]

    def __len__(self) -> int:
        return len(self._objects)

    def put(self, kind: Kind, live: Object) -> None:
        """Add or update an object. A version older than the cached one is ignored."""
        metadata = live["metadata"]
        name = metadata["name"] if kind is AGENT_QUEUE else (metadata.get("labels") or {}).get(QUEUE_LABEL)
        if not name:
            return
        ref = QueueRef(metadata["namespace"], name)
        address, version = address_of(kind, live), version_of(live)
        self._mark_delivered(address, version)
        before = self._objects.get(address)
        if before is not None and before.version >= version:
            return
        if before is not None and before.ref != ref:
            self._forget(address)
        raw = orjson.dumps(trimmed(kind, live))
        self._objects[address] = CachedObject(raw, live["metadata"]["uid"], version, ref, monotonic())
        if kind is not AGENT_QUEUE:
            self._children.setdefault(ref, {})[address] = None
        if before is None or is_news(kind, before.live, live):
            self._wake(ref)

    def drop(self, kind: Kind, live: Object) -> None:
        """Remove a deleted object, or one without our label. A newer object of the same name stays."""
        address = address_of(kind, live)
        self._mark_delivered(address, version_of(live))
        held = self._objects.get(address)
        if held is not None and held.uid == live["metadata"]["uid"]:
            self._forget(address)

    def audit(self, scope: Scope, listed: Mapping[Address, int], *, asked_at: float) -> frozenset[Address]:
        """Reconcile the cache with a fresh list: remove objects that the list does not contain.

        An object whose current version was cached before the request, and that is not in the list, was deleted.

        Args:
            scope: the scope of the list.
            listed: version of each listed object.
            asked_at: time of the request, in monotonic seconds.

        Returns:
            the listed objects that the watch has not delivered yet.
        """
        gone = [
            address
            for address, held in self._objects.items()
            if scope.covers(address) and address not in listed and held.since < asked_at
        ]
        for address in gone:
            self._forget(address)
        cached = {address: held.version for address, held in self._objects.items() if scope.covers(address)}
        self._unseen[scope] = {
            address: version for address, version in listed.items() if cached.get(address, -1) < version
        }
        return frozenset(self._unseen[scope])

    def is_complete(self, scopes: Iterable[Scope]) -> bool:
        """Return whether the watches have delivered everything in the last lists of these scopes."""
        return all(self._unseen.get(scope, True) == {} for scope in scopes)

    def forget_scope(self, scope: Scope) -> None:
        """Remove all objects of a scope whose kind the cluster does not have any more."""
        for address in [address for address in self._objects if scope.covers(address)]:
            self._forget(address)
        self._unseen.pop(scope, None)

    def _mark_delivered(self, address: Address, version: int) -> None:
        for unseen in self._unseen.values():
            if address in unseen and unseen[address] <= version:
                del unseen[address]

    def _forget(self, address: Address) -> None:
        held = self._objects.pop(address)
        children = self._children.get(held.ref)
        if children is not None:
            children.pop(address, None)
            if not children:
                del self._children[held.ref]
        self._wake(held.ref)


def address_of(kind: Kind, live: Object) -> Address:
    """Return the address of an object."""
    return Address(kind.plural, live["metadata"]["namespace"], live["metadata"]["name"])


def version_of(live: Object) -> int:
    """Return the resourceVersion as a number, whose order Kubernetes guarantees (1.35); 0 if it is no number."""
    version = live["metadata"].get("resourceVersion", "")
    return int(version) if version.isdecimal() else 0


def is_news(kind: Kind, before: Object, live: Object) -> bool:
    """Return whether a change needs a reconcile. The status of an AgentQueue does not: the operator wrote it."""
    if kind is not AGENT_QUEUE:
        return True
    return any(
        before["metadata"].get(name) != live["metadata"].get(name)
        for name in ("uid", "generation", "labels", "annotations", "deletionTimestamp")
    )


def trimmed(kind: Kind, live: Object) -> Object:
    """Return the object without what nothing reads: most managed fields of others, and most of a pod's spec."""
    metadata = dict(live["metadata"])
    managed = []
    for entry in metadata.pop("managedFields", ()):  # all fields of ours, and those of others that `find_drift` reads
        fields = {name: below for name, below in (entry.get("fieldsV1") or {}).items() if name in CONTENT_FIELDS}
        if entry.get("manager") in OURS:
            managed.append(entry)
        elif fields:
            managed.append({**entry, "fieldsV1": fields})
    if managed and kind not in (POD, AGENT_QUEUE):
        metadata["managedFields"] = managed
    out = {**live, "metadata": metadata}
    if kind is POD and "spec" in live:
        spec = out["spec"] = {name: value for name, value in live["spec"].items() if name not in UNREAD_OF_PODS}
        for name in spec.keys() & {"containers", "initContainers"}:
            spec[name] = [
                {field: value for field, value in container.items() if field not in UNREAD_OF_CONTAINERS}
                for container in spec[name]
            ]
    return out
