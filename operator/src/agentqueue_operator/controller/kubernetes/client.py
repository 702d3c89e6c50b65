"""The cluster as the loops ask for it: paths built from kinds, errors translated, each write fenced by the Lease."""

from collections.abc import Callable
from typing import Any, Final

from agentqueue_operator.controller.kubernetes import paths
from agentqueue_operator.controller.kubernetes.api import DEADLINE_S, ApiServer
from agentqueue_operator.controller.kubernetes.event_recorder import Recorder
from agentqueue_operator.controller.ports import ApiRefused, Gone, NotLeading
from agentqueue_operator.resources.kinds import AGENT_QUEUE, Kind, Object, QueueRef

MANAGER: Final = "agentqueue-operator"
"""Owner of the fields that the operator applies."""
APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"


class KubernetesCluster:
    """`app.cluster.ports.Cluster` on an API server.

    Args:
        left_s: for how long a write that begins now may take; 0: another may lead.
        recorder: writes the Events.
    """

    def __init__(self, api: ApiServer, left_s: Callable[[], float], recorder: Recorder) -> None:
        self._api = api
        self._left_s = left_s
        self._recorder = recorder

    def check_leads(self) -> None:
        """Raise NotLeading unless this replica leads now."""
        self._check_leads("a write to Redis")

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The object, None if there is none."""
        try:
            found: Object = await self._api.call("GET", paths.one(kind, namespace, name))
        except ApiRefused as exc:
            if exc.reason == "NotFound":
                return None
            raise
        return found

    async def create(self, manifest: Object) -> Object:
        """Make an object that is not there yet. ApiRefused(409, AlreadyExists) if it is."""
        kind, namespace = paths.kind_of(manifest), manifest["metadata"]["namespace"]
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
        made: Object = await self._write("POST", paths.collection(kind, namespace), query=query, body=manifest)
        return made

    async def apply(self, manifest: Object, *, manager: str = MANAGER) -> Object:
        """Server-side apply, forced. Returns the object as it is now."""
        query = {"fieldManager": manager, "force": "true", "fieldValidation": "Strict"}
        live: Object = await self._write("PATCH", paths.of(manifest), query=query, body=manifest, content_type=APPLY)
        return live

    async def patch(self, kind: Kind, namespace: str, name: str, changes: Object) -> Object:
        """JSON merge patch, for what belongs to others (a volume claim's size, a pod's deletion cost)."""
        path, query = paths.one(kind, namespace, name), {"fieldManager": MANAGER}
        live: Object = await self._write("PATCH", path, query=query, body=changes, content_type=MERGE)
        return live

    async def patch_status(self, ref: QueueRef, status: Object, *, uid: str) -> None:
        """Replace an AgentQueue's whole status; of this very one, not of its successor by the same name."""
        changes = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/status", "value": status},
        ]
        path = f"{paths.one(AGENT_QUEUE, ref.namespace, ref.name)}/status"
        # A definition of an older release drops the fields that it does not know; it must not refuse the whole status.
        query = {"fieldManager": MANAGER, "fieldValidation": "Ignore"}
        try:
            await self._write("PATCH", path, query=query, body=changes, content_type=JSON_PATCH)
        except ApiRefused as exc:
            live = await self.get(AGENT_QUEUE, ref.namespace, ref.name)
            if live is None or live["metadata"]["uid"] != uid:
                raise Gone(f"{ref} was deleted") from exc
            raise

    async def delete(self, live: Object, *, orphan: bool = False) -> None:
        """Delete just this object, in the background; it may be gone already, or another by its name be there."""
        options = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "preconditions": {"uid": live["metadata"]["uid"]},
            "propagationPolicy": "Orphan" if orphan else "Background",
        }
        try:
            await self._write("DELETE", paths.of(live), body=options)
        except ApiRefused as exc:
            if exc.reason not in {"NotFound", "Conflict"}:
                raise

    async def tell(self, regarding: Object, *, reason: str, note: str, warning: bool = False) -> None:
        """Record an Event about an object; the same one again raises its count. Never raises."""
        await self._recorder.record(regarding, reason=reason, note=note, warning=warning, write=self._write)

    async def _write(self, method: str, path: str, **what: Any) -> Any:
        left_s = self._check_leads(f"{method} {path}")
        return await self._api.call(method, path, deadline_s=min(DEADLINE_S, left_s), **what)

    def _check_leads(self, what: str) -> float:
        left_s = self._left_s()
        if left_s <= 0.0:
            raise NotLeading(f"{what}: this replica does not lead")
        return left_s
