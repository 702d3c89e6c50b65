"""What kopf is asked to watch, and what becomes of what it sees: an event changes the cache, which wakes a loop.

`on.event` alone: it leaves no finalizer, no annotation and no state in the objects.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import kopf

from agentqueue_operator.resources.kinds import AGENT_QUEUE, Kind, Object

CHILDREN: Final = "agentqueue.dev/queue"
"""Children are watched by this label: the API server keeps all other objects' events to itself."""
BACKOFFS: Final = (0.5, 1.0, 2.0, 3.0)
"""Seconds between kopf's tries when the API server is away; then it ends, and is started anew."""
Fed = Callable[[Kind, str | None, Object], None]
"""Gets kind, ADDED, MODIFIED, DELETED or None (from a listing), and the object; in kopf's thread."""


def make_registry(kinds: Iterable[Kind], fed: Fed) -> kopf.OperatorRegistry:
    """Handlers for each kind, and the login."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(_log_in)
    for kind in kinds:
        kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=kind.plural)(_feeder(kind, fed))
    return registry


def make_kopf_settings(kinds: Sequence[Kind]) -> kopf.OperatorSettings:
    """As the operator needs them: no scanning, no Events, no finalizers, impatient with dead connections."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True  # it would need rights on CRDs and namespaces; we wait for the CRD ourselves
    settings.posting.enabled = False
    settings.process.ultimate_exiting_timeout = None  # kopf would kill the whole process
    settings.networking.error_backoffs = BACKOFFS
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.watching.connect_timeout = 5
    settings.watching.chunk_size = 100  # a page is in memory whole
    settings.queueing.idle_timeout = 1
    settings.queueing.exit_timeout = 0.5
    settings.persistence.finalizer = "agentqueue.dev/never"
    for kind in kinds:
        if kind is not AGENT_QUEUE:
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = CHILDREN
    return settings


def _feeder(kind: Kind, fed: Fed) -> Callable[..., Any]:
    async def feed(event: Any, **_: Any) -> None:
        fed(kind, event["type"], event["object"])

    return feed


def _log_in(**what: Any) -> Any:
    return kopf.login_via_client(**what)
