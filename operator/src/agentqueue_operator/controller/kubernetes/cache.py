"""What the watches have shown so far. Written and read in one event loop; nothing here waits.

kopf tells of what it sees, but not of objects that went while a watch was cut (it lists anew, and says nothing of what
is missing), nor when a listing is over. So listings of our own, of names and versions only, check the cache: they tell
when it is complete, drop what is gone, and show a watch that has fallen behind.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from agentqueue.clock import monotonic
from agentqueue_operator.resources.drift import CONTENT
from agentqueue_operator.resources.kinds import AGENT_QUEUE, POD, Kind, Object, QueueRef

QUEUE_LABEL: Final = "agentqueue.dev/queue"
"""On all children; the watches ask for it."""
OURS: Final = frozenset({"agentqueue-operator", "agentqueue-handover"})
"""Field managers that the plan looks at."""
UNREAD_OF_CONTAINERS: Final = frozenset(
    {"env", "envFrom", "volumeMounts", "livenessProbe", "readinessProbe", "startupProbe", "securityContext"}
)
UNREAD_OF_PODS: Final = frozenset(
    {"volumes", "tolerations", "affinity", "topologySpreadConstraints", "securityContext"}
)
"""Of pods only their state is of interest, and there may be many."""


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Of an object."""

    plural: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """What one watch covers: a kind in a namespace, or in all of them."""

    plural: str
    namespace: str | None

    def covers(self, address: Address) -> bool:
        """Whether the watch shows that object."""
        return self.plural == address.plural and self.namespace in {None, address.namespace}


@dataclass(frozen=True, slots=True)
class Held:
    """An object, and since when (monotonic seconds) it is known in this version.

    As JSON: a dictionary takes eight times the memory, and an AgentQueue's are read once in five seconds.
    """

    raw: bytes
    uid: str
    version: int
    ref: QueueRef
    since: float

    @property
    def live(self) -> Object:
        """The object; the caller's own."""
        found: Object = orjson.loads(self.raw)
        return found


class StoreCache:
    """`app.cluster.ports.Cache`.

    Args:
        wake: is told of each AgentQueue about which there is news.
    """

    def __init__(self, wake: Callable[[QueueRef], None]) -> None:
        self._wake = wake
        self._held: dict[Address, Held] = {}
        self._children: dict[QueueRef, dict[Address, None]] = {}
        self._unseen: dict[Scope, dict[Address, int]] = {}
        """Audited scopes -> what a listing had and the watch has not shown, with its version."""
        self.troubles: dict[str, str] = {}
        """What can't be watched -> why. Kept by those who watch."""

    def queues(self) -> Sequence[QueueRef]:
        """All AgentQueues."""
        return [held.ref for address, held in self._held.items() if address.plural == AGENT_QUEUE.plural]

    def queue(self, ref: QueueRef) -> Object | None:
        """An AgentQueue."""
        held = self._held.get(Address(AGENT_QUEUE.plural, ref.namespace, ref.name))
        return held.live if held is not None else None

    def children(self, ref: QueueRef) -> Sequence[Object]:
        """All objects of watched kinds, pods among them, that bear the label of this AgentQueue."""
        return [self._held[address].live for address in self._children.get(ref, ())]

    def trouble(self) -> Sequence[str]:
        """What can't be watched at present, and why."""
        return [f"{what}: {why}" for what, why in sorted(self.troubles.items())]

    def __len__(self) -> int:
        return len(self._held)

    def put(self, kind: Kind, live: Object) -> None:
        """The object is there, in this version. An older one than is known changes nothing."""
        ref = _ref_of(kind, live)
        if ref is None:
            return
        address, version = address_of(kind, live), version_of(live)
        self._seen(address, version)
        before = self._held.get(address)
        if before is not None and before.version >= version:
            return
        if before is not None and before.ref != ref:
            self._forget(address)
        raw = orjson.dumps(trimmed(kind, live))
        self._held[address] = Held(raw, live["metadata"]["uid"], version, ref, monotonic())
        if kind is not AGENT_QUEUE:
            self._children.setdefault(ref, {})[address] = None
        if before is None or is_news(kind, before.live, live):
            self._wake(ref)

    def drop(self, kind: Kind, live: Object) -> None:
        """The object is gone (or bears our label no more); a newer one by its name stays."""
        address = address_of(kind, live)
        self._seen(address, version_of(live))
        held = self._held.get(address)
        if held is not None and held.uid == live["metadata"]["uid"]:
            self._forget(address)

    def audit(self, scope: Scope, listed: Mapping[Address, int], *, asked_at: float) -> frozenset[Address]:
        """Compare with a listing (address -> version) that was asked for at a moment, and drop what it has not.

        Returns what the listing has and no watch has shown yet. An object that was known in its present version before
        the listing was asked for, and is not in it, is gone.
        """
        gone = [
            address
            for address, held in self._held.items()
            if scope.covers(address) and address not in listed and held.since < asked_at
        ]
        for address in gone:
            self._forget(address)
        self._unseen[scope] = {
            address: version for address, version in listed.items() if self._version(address) < version
        }
        return frozenset(self._unseen[scope])

    def is_complete(self, scopes: Iterable[Scope]) -> bool:
        """Whether everything that the last listings of these scopes had has been shown by the watches."""
        return all(self._unseen.get(scope, True) == {} for scope in scopes)

    def forget_scope(self, scope: Scope) -> None:
        """It is watched no more, since its kind is there no more: so are its objects."""
        for address in [address for address in self._held if scope.covers(address)]:
            self._forget(address)
        self._unseen.pop(scope, None)

    def _version(self, address: Address) -> int:
        held = self._held.get(address)
        return held.version if held is not None else -1

    def _seen(self, address: Address, version: int) -> None:
        for unseen in self._unseen.values():
            if address in unseen and unseen[address] <= version:
                del unseen[address]

    def _forget(self, address: Address) -> None:
        held = self._held.pop(address)
        children = self._children.get(held.ref)
        if children is not None:
            children.pop(address, None)
            if not children:
                del self._children[held.ref]
        self._wake(held.ref)


def address_of(kind: Kind, live: Object) -> Address:
    """Where an object is found."""
    return Address(kind.plural, live["metadata"]["namespace"], live["metadata"]["name"])


def version_of(live: Object) -> int:
    """resourceVersion, whose order Kubernetes promises (1.35); 0 where there is none that is a number."""
    version = live["metadata"].get("resourceVersion", "")
    return int(version) if version.isdecimal() else 0


def is_news(kind: Kind, before: Object, live: Object) -> bool:
    """Whether a change is worth a look: an AgentQueue's own status is written by the operator itself."""
    if kind is not AGENT_QUEUE:
        return True
    return any(
        before["metadata"].get(name) != live["metadata"].get(name)
        for name in ("uid", "generation", "labels", "annotations", "deletionTimestamp")
    )


def trimmed(kind: Kind, live: Object) -> Object:
    """Without what nobody reads: most of others' managed fields, and most of a pod's spec."""
    metadata = dict(live["metadata"])
    entries = metadata.pop("managedFields", ())
    managed = [] if kind in (POD, AGENT_QUEUE) else [kept for entry in entries if (kept := _managed(entry))]
    if managed:
        metadata["managedFields"] = managed
    out = {**live, "metadata": metadata}
    if kind is POD and "spec" in live:
        out["spec"] = _trimmed_pod(live["spec"])
    return out


def _managed(entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What is read of an entry of managedFields: ours whole, of others' what `domain.drift` looks at."""
    if entry.get("manager") in OURS:
        return entry
    fields = {name: below for name, below in (entry.get("fieldsV1") or {}).items() if name in CONTENT}
    return {**entry, "fieldsV1": fields} if fields else None


def _trimmed_pod(spec: Mapping[str, Any]) -> Object:
    out = {name: value for name, value in spec.items() if name not in UNREAD_OF_PODS}
    for name in ("containers", "initContainers"):
        if name in out:
            out[name] = [
                {field: value for field, value in container.items() if field not in UNREAD_OF_CONTAINERS}
                for container in out[name]
            ]
    return out


def _ref_of(kind: Kind, live: Object) -> QueueRef | None:
    metadata = live["metadata"]
    if kind is AGENT_QUEUE:
        return QueueRef(metadata["namespace"], metadata["name"])
    name = (metadata.get("labels") or {}).get(QUEUE_LABEL)
    return QueueRef(metadata["namespace"], name) if name else None
