"""Reads and writes objects through the API server. Each write is fenced by the Lease."""

from collections.abc import Callable
from typing import Any, Final

from agentqueue_operator.controller.kubernetes import paths
from agentqueue_operator.controller.kubernetes.api import DEADLINE_S, ApiServer
from agentqueue_operator.controller.kubernetes.event_recorder import EventRecorder
from agentqueue_operator.controller.ports import ApiRefused, Gone, NotLeading
from agentqueue_operator.resources.kinds import AGENT_QUEUE, Kind, Object, QueueRef

MANAGER: Final = "agentqueue-operator"
"""Field manager of the fields that the operator applies."""
APPLY: Final = "application/apply-patch+yaml"
"""Content type of a server-side apply."""
MERGE: Final = "application/merge-patch+json"
"""Content type of a JSON merge patch (RFC 7386)."""
JSON_PATCH: Final = "application/json-patch+json"
"""Content type of a JSON patch (RFC 6902)."""


class KubernetesCluster:
    """Reads and writes through an API server (`ports.Cluster`).

    Args:
        api: the API server.
        write_budget_s: returns how long a write that begins now may take, in seconds; 0: another replica may lead.
        recorder: writes the Events.
    """

    def __init__(self, api: ApiServer, write_budget_s: Callable[[], float], recorder: EventRecorder) -> None:
        self._api = api
        self._write_budget_s = write_budget_s
        self._recorder = recorder

    def check_leads(self) -> None:
        """Raise NotLeading unless this replica leads now."""
        self._check_leads("a write to Redis")

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return the object, or None if it does not exist."""
        try:
            found: Object = await self._api.call("GET", paths.one(kind, namespace, name))
        except ApiRefused as exc:
            if exc.reason == "NotFound":
                return None
            raise
        return found

    async def create(self, manifest: Object) -> Object:
        """Create an object. Raises ApiRefused(409, AlreadyExists) if it exists."""
        kind, namespace = paths.kind_of(manifest), manifest["metadata"]["namespace"]
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
        made: Object = await self._write("POST", paths.collection(kind, namespace), query=query, body=manifest)
        return made

    async def apply(self, manifest: Object, *, manager: str = MANAGER) -> Object:
        """Apply the manifest by server-side apply with force, and return the object as it is now."""
        query = {"fieldManager": manager, "force": "true", "fieldValidation": "Strict"}
        live: Object = await self._write("PATCH", paths.of(manifest), query=query, body=manifest, content_type=APPLY)
        return live

    async def patch(self, kind: Kind, namespace: str, name: str, changes: Object) -> Object:
        """Patch an object of another owner by JSON merge patch: a volume claim's size, a pod's deletion cost."""
        path, query = paths.one(kind, namespace, name), {"fieldManager": MANAGER}
        live: Object = await self._write("PATCH", path, query=query, body=changes, content_type=MERGE)
        return live

    async def patch_status(self, ref: QueueRef, status: Object, *, uid: str) -> None:
        """Replace the whole status of an AgentQueue, but not of a later one of the same name."""
        changes = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/status", "value": status},
        ]
        path = f"{paths.one(AGENT_QUEUE, ref.namespace, ref.name)}/status"
        # A CRD of an older release drops fields that it does not know. It must not reject the whole status.
        query = {"fieldManager": MANAGER, "fieldValidation": "Ignore"}
        try:
            await self._write("PATCH", path, query=query, body=changes, content_type=JSON_PATCH)
        except ApiRefused as exc:
            live = await self.get(AGENT_QUEUE, ref.namespace, ref.name)
            if live is None or live["metadata"]["uid"] != uid:
                raise Gone(f"{ref} was deleted") from exc
            raise

    async def delete(self, live: Object, *, orphan: bool = False) -> None:
        """Delete exactly this object in the background. It may be gone already, or replaced by one of the same name."""
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

    async def record_event(self, regarding: Object, *, reason: str, note: str, warning: bool = False) -> None:
        """Record an Event about an object. A repeated event increases its count. Never raises."""
        await self._recorder.record(regarding, reason=reason, note=note, warning=warning, write=self._write)

    async def _write(self, method: str, path: str, **request: Any) -> Any:
        budget_s = self._check_leads(f"{method} {path}")
        return await self._api.call(method, path, deadline_s=min(DEADLINE_S, budget_s), **request)

    def _check_leads(self, write: str) -> float:
        budget_s = self._write_budget_s()
        if budget_s <= 0.0:
            raise NotLeading(f"{write}: this replica does not lead")
        return budget_s
