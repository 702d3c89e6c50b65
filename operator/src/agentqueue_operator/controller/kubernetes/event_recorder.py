"""Records Events (events.k8s.io/v1), which `kubectl describe` shows. A repeated event becomes a series with a count."""

import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from agentqueue.clock import monotonic, now_ms
from agentqueue.model.times import from_ms
from agentqueue_operator.controller.kubernetes import paths
from agentqueue_operator.controller.ports import ApiRefused, ApiUnavailable, NotLeading
from agentqueue_operator.controller.status.api_errors import is_being_deleted
from agentqueue_operator.resources.kinds import EVENT, Object

CONTROLLER: Final = "agentqueue.dev/operator"
"""`reportingController` of all events."""
MAX_NOTE: Final = 1_000
"""Maximum length of a note, in bytes. The API server accepts 1 kB."""
SERIES_EVERY_S: Final = 60.0
"""Seconds between two writes of a repeated event. The count includes the repetitions in between."""
MAX_REMEMBERED: Final = 2_000
"""Number of events that are remembered and may become a series. No one could read more in an hour."""
Key = tuple[str, str, str]
"""uid of the object, reason and note."""
Write = Callable[..., Awaitable[Any]]
"""Sends a write to the API server, from `KubernetesCluster`."""
log = structlog.get_logger("agentqueue.operator")


@dataclass(slots=True)
class RecordedEvent:
    """An event that was written."""

    namespace: str
    name: str
    count: int
    written_at: float
    """Monotonic seconds."""


class EventRecorder:
    """Writes events, and remembers the latest ones.

    Args:
        instance: name of this replica.
    """

    def __init__(self, instance: str) -> None:
        self._instance = instance[:128]
        self._recorded: OrderedDict[Key, RecordedEvent] = OrderedDict()

    async def record(self, regarding: Object, *, reason: str, note: str, warning: bool, write: Write) -> None:
        """Write the event or count its repetition. A failure is logged and does not interrupt the reconcile."""
        raw = note.encode()
        if len(raw) > MAX_NOTE:
            note = raw[: MAX_NOTE - 3].decode(errors="ignore") + "…"
        key = (regarding["metadata"]["uid"], reason, note)
        try:
            if (event := self._recorded.get(key)) is not None:
                self._recorded.move_to_end(key)
                if await self._count(event, write):
                    return
            body = self._event(regarding, reason=reason, note=note, warning=warning)
            namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
            await write("POST", paths.collection(EVENT, namespace), body=body)
            self._recorded[key] = RecordedEvent(namespace, name, 1, monotonic())
            if len(self._recorded) > MAX_REMEMBERED:
                self._recorded.popitem(last=False)
        except NotLeading:
            return
        except (ApiRefused, ApiUnavailable) as exc:
            if isinstance(exc, ApiRefused) and is_being_deleted(exc.status, exc.message):
                return  # the namespace is deleted, and its events with it
            name = f"{regarding['metadata'].get('namespace')}/{regarding['metadata']['name']}"
            log.warning("event_write_failed", regarding=name, reason=reason, note=note, error=str(exc))

    async def _count(self, event: RecordedEvent, write: Write) -> bool:
        """Count a repetition. Return False if the event has expired (the API server keeps events for an hour)."""
        event.count += 1
        if event.count > 2 and monotonic() - event.written_at < SERIES_EVERY_S:
            return True
        changes = {"series": {"count": event.count, "lastObservedTime": _now()}}
        path = paths.one(EVENT, event.namespace, event.name)
        try:
            await write("PATCH", path, body=changes, content_type="application/merge-patch+json")
        except ApiRefused as exc:
            if exc.reason == "NotFound":
                return False
            raise
        event.written_at = monotonic()
        return True

    def _event(self, regarding: Object, *, reason: str, note: str, warning: bool) -> Object:
        metadata = regarding["metadata"]
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {
                "name": f"{metadata['name'][:230]}.{secrets.token_hex(8)}",
                "namespace": metadata.get("namespace") or "default",
            },
            "eventTime": _now(),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "action": "Reconcile",
            "reason": reason[:128],
            "regarding": {
                "apiVersion": regarding["apiVersion"],
                "kind": regarding["kind"],
                "namespace": metadata.get("namespace"),
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "note": note,
            "type": "Warning" if warning else "Normal",
        }


def _now() -> str:
    return from_ms(now_ms()).isoformat(timespec="microseconds").replace("+00:00", "Z")
