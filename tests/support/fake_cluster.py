"""A cluster in memory, for unit tests of the reconciler and its parts. It implements server-side apply for them."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentqueue_operator.controller.ports import ApiRefused
from agentqueue_operator.resources.kinds import Kind, Object, QueueRef
from tests.support.objects import applied


@dataclass
class FakeCluster:
    """Implements `ports.Cluster` and `ports.Cache`. The cache contains all objects, unless `shown` replaces it."""

    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    queues: dict[QueueRef, Object] = field(default_factory=dict)
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    refuse: dict[tuple[str, str], Exception] = field(default_factory=dict)
    """(verb, kind) -> the error to raise."""
    shown: list[Object] | None = None
    """The content of the cache; None: all objects."""
    statuses: list[Object] = field(default_factory=list)
    events: list[tuple[str, bool]] = field(default_factory=list)
    watch_errors: list[str] = field(default_factory=list)
    managers: list[str] = field(default_factory=list)
    version: int = 100

    def put(self, live: Object) -> Object:
        """Add the object."""
        self.objects[live["kind"], live["metadata"]["name"]] = live
        return live

    def _call(self, verb: str, kind: str, name: str) -> None:
        self.calls.append((verb, kind, name))
        if error := self.refuse.get((verb, kind)):
            raise error

    def check_leads(self) -> None: ...

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        self._call("get", kind.kind, name)
        return copy.deepcopy(self.objects.get((kind.kind, name)))

    async def apply(self, manifest: Object, *, manager: str = "agentqueue-operator") -> Object:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        self._call("apply", kind, name)
        self.managers.append(manager)
        before = self.objects.get((kind, name))
        if manager != "agentqueue-operator":
            assert before is not None
            entry = {"manager": manager, "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
            before["metadata"]["managedFields"].append(entry)
            return before
        live = applied({**manifest, "metadata": {n: v for n, v in manifest["metadata"].items() if n != "uid"}})
        self.version += 1
        live["metadata"]["resourceVersion"] = str(self.version)
        if before is not None:
            live["metadata"]["uid"] = before["metadata"]["uid"]
            others = [one for one in before["metadata"].get("managedFields") or () if one["operation"] == "Update"]
            live["metadata"]["managedFields"] = live["metadata"]["managedFields"][:1] + others
        return copy.deepcopy(self.put(live))

    async def patch(self, kind: Kind, namespace: str, name: str, changes: Object) -> Object:
        self._call("patch", kind.kind, name)
        live = self.objects[kind.kind, name]
        _merge(live, changes)
        return live

    async def patch_status(self, ref: QueueRef, status: Object, *, uid: str) -> None:
        self._call("status", "AgentQueue", ref.name)
        self.statuses.append(copy.deepcopy(status))

    async def delete(self, live: Object, *, orphan: bool = False) -> None:
        self._call("orphan" if orphan else "delete", live["kind"], live["metadata"]["name"])
        self.objects.pop((live["kind"], live["metadata"]["name"]), None)

    async def record_event(self, regarding: Object, *, reason: str, note: str, warning: bool = False) -> None:
        self.events.append((reason, warning))

    # --- the cache

    def queue(self, ref: QueueRef) -> Object | None:
        return self.queues.get(ref)

    def children(self, ref: QueueRef) -> list[Object]:
        return copy.deepcopy(list(self.objects.values()) if self.shown is None else self.shown)

    def age_s(self, live: Object) -> float:
        return 1.0

    def watch_problems(self) -> list[str]:
        return self.watch_errors

    # --- for tests

    def writes(self) -> list[tuple[str, str, str]]:
        """Return the calls that change something."""
        return [call for call in self.calls if call[0] != "get"]


def refused(status: int, message: str, reason: str = "Invalid") -> ApiRefused:
    """Return the error of a rejected request."""
    return ApiRefused(status, reason, message)


def _merge(live: Any, changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping):
            _merge(live.setdefault(key, {}), value)
        else:
            live[key] = value
