"""Handlers and settings for kopf: each watch event updates the cache, which wakes the work queue.

Only `on.event` is used, which leaves no finalizer, no annotation and no state in the objects.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import kopf

from agentqueue_operator.resources.kinds import AGENT_QUEUE, Kind, Object

CHILDREN: Final = "agentqueue.dev/queue"
"""Label by which children are watched. The API server sends no events of other objects."""
BACKOFFS: Final = (0.5, 1.0, 2.0, 3.0)
"""Seconds between kopf's retries while the API server is unavailable. Then kopf ends and is restarted."""
OnObject = Callable[[Kind, str | None, Object], None]
"""Receives the kind, ADDED, MODIFIED, DELETED or None (from a list), and the object, in kopf's thread."""


def make_registry(kinds: Iterable[Kind], on_object: OnObject) -> kopf.OperatorRegistry:
    """Return a registry with a handler for each kind, and the login."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def log_in(**kwargs: Any) -> Any:
        return kopf.login_via_client(**kwargs)

    for kind in kinds:
        kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=kind.plural)(
            _handler(kind, on_object)
        )
    return registry


def make_kopf_settings(kinds: Sequence[Kind]) -> kopf.OperatorSettings:
    """Return settings without scanning, Events and finalizers, and with short timeouts for dead connections."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True  # requires rights on CRDs and namespaces; the operator waits for the CRD itself
    settings.posting.enabled = False
    settings.process.ultimate_exiting_timeout = None  # kopf would kill the whole process
    settings.networking.error_backoffs = BACKOFFS
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.watching.connect_timeout = 5
    settings.watching.chunk_size = 100  # a whole page is in memory
    settings.queueing.idle_timeout = 1
    settings.queueing.exit_timeout = 0.5
    settings.persistence.finalizer = "agentqueue.dev/never"
    for kind in kinds:
        if kind is not AGENT_QUEUE:
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = CHILDREN
    return settings


def _handler(kind: Kind, on_object: OnObject) -> Callable[..., Any]:
    async def handle(event: Any, **_: Any) -> None:
        on_object(kind, event["type"], event["object"])

    return handle
