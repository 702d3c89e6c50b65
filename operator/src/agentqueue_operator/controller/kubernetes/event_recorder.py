"""Events (events.k8s.io/v1): what `kubectl describe` shows. The same one again becomes a series with a count."""

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
from agentqueue_operator.controller.status.api_errors import is_going_away
from agentqueue_operator.resources.kinds import EVENT, Object

CONTROLLER: Final = "agentqueue.dev/operator"
LONGEST_NOTE: Final = 1_000
"""Bytes; the API server takes 1 kB."""
SERIES_EVERY_S: Final = 60.0
"""An event that comes again and again is written so often; the count has those between."""
REMEMBERED: Final = 2_000
"""Events that may become a series. More than this at once would not be read by anybody."""
Key = tuple[str, str, str]
Write = Callable[..., Awaitable[Any]]
log = structlog.get_logger("agentqueue.operator")


@dataclass(slots=True)
class Told:
    """An event that was written."""

    namespace: str
    name: str
    count: int
    written_at: float
    """Monotonic seconds."""


class Recorder:
    """Writes events, and remembers them for a while.

    Args:
        instance: this replica, as people know it.
    """

    def __init__(self, instance: str) -> None:
        self._instance = instance[:128]
        self._told: OrderedDict[Key, Told] = OrderedDict()

    async def record(self, regarding: Object, *, reason: str, note: str, warning: bool, write: Write) -> None:
        """Write, or count. An event that can't be written is a line in the log: the work goes on."""
        note = _short(note)
        key = (regarding["metadata"]["uid"], reason, note)
        try:
            await self._record(key, regarding, warning=warning, write=write)
        except NotLeading:
            return
        except (ApiRefused, ApiUnavailable) as exc:
            if isinstance(exc, ApiRefused) and is_going_away(exc.status, exc.message):
                return  # with the namespace, in which nobody can read events any more
            name = f"{regarding['metadata'].get('namespace')}/{regarding['metadata']['name']}"
            log.warning("event_not_written", regarding=name, reason=reason, note=note, error=str(exc))

    async def _record(self, key: Key, regarding: Object, *, warning: bool, write: Write) -> None:
        if (told := self._told.get(key)) is not None:
            self._told.move_to_end(key)
            if await self._count(told, write):
                return
        body = self._event(regarding, reason=key[1], note=key[2], warning=warning)
        await write("POST", paths.collection(EVENT, body["metadata"]["namespace"]), body=body)
        self._told[key] = Told(body["metadata"]["namespace"], body["metadata"]["name"], 1, monotonic())
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)

    async def _count(self, told: Told, write: Write) -> bool:
        """False: it is there no more (the API server keeps events for an hour)."""
        told.count += 1
        if told.count > 2 and monotonic() - told.written_at < SERIES_EVERY_S:
            return True
        changes = {"series": {"count": told.count, "lastObservedTime": _now()}}
        path = paths.one(EVENT, told.namespace, told.name)
        try:
            await write("PATCH", path, body=changes, content_type="application/merge-patch+json")
        except ApiRefused as exc:
            if exc.reason == "NotFound":
                return False
            raise
        told.written_at = monotonic()
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


def _short(note: str) -> str:
    raw = note.encode()
    return note if len(raw) <= LONGEST_NOTE else raw[: LONGEST_NOTE - 3].decode(errors="ignore") + "…"
