"""`agentqueue worker module.WorkerSettings`: the class, and what goes over it."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from arq.worker import get_kwargs

from agentqueue.errors import HandlerImportError
from agentqueue.store import Server, ServerOptions
from agentqueue_worker.adapters.arq.connect import redis_settings_at
from agentqueue_worker.adapters.arq.registry import ArqRegistry
from agentqueue_worker.adapters.arq.worker import ArqWorker
from agentqueue_worker.app.options import WorkerOptions
from agentqueue_worker.settings import Settings


class Adapted(NamedTuple):
    """An arq program to serve: the parts of agentqueue_worker.process.Program, in its order."""

    registry: ArqRegistry
    settings: Settings
    declared_queue: str
    adjust: Callable[[WorkerOptions], WorkerOptions]
    open_server: Callable[[bool], Server] | None


def adapt(target: Any, settings: Settings, find_server: Callable[[], ServerOptions | None]) -> Adapted:
    """Take over a WorkerSettings class or dict. Place and size (Redis, queue, slots, grace) are the settings', where
    they were given; what jobs mean (tries, timeouts, results) is the class's.

    Raises:
        HandlerImportError: arq would not take it.
    """
    options = get_kwargs(target)
    own_redis = settings.redis is None and ("redis_settings" in options or "redis_pool" in options)
    if not own_redis:
        settings = settings.override(redis=settings.redis or find_server())
    worker = _make(target, options, settings)
    settings = settings.override(**_sizes(worker, settings))

    def open_server(for_lease_thread: bool) -> Server:  # noqa: FBT001  # the opener's shape
        return worker.open_server(for_lease_thread, allow_eviction=settings.allow_eviction)

    registry = ArqRegistry(worker, owned=True)
    return Adapted(registry, settings, worker.queue_name, worker.adjust, open_server if own_redis else None)


def _make(target: Any, options: dict[str, Any], settings: Settings) -> ArqWorker:
    told: dict[str, Any] = {**options, "handle_signals": False}
    if settings.redis is not None:
        told |= {"redis_settings": redis_settings_at(settings.redis), "redis_pool": None, "server": settings.redis}
    if settings.queue is not None:
        told["queue_name"] = settings.queue
    if "concurrency" in settings.given:
        told["max_jobs"] = settings.concurrency
    try:
        with _event_loop():
            return ArqWorker(pickle=settings.arq_pickle, **told)
    except (RuntimeError, ValueError, TypeError, ImportError) as exc:
        name = getattr(target, "__qualname__", "the dict")
        raise HandlerImportError(f"{name} is not an arq WorkerSettings: {exc}") from exc


@contextlib.contextmanager
def _event_loop() -> Iterator[None]:
    """arq's Worker takes hold of the current event loop, and makes one if there is none. This one runs in another."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            yield
        finally:
            asyncio.set_event_loop(None)
            loop.close()
    else:
        yield


def _sizes(worker: ArqWorker, settings: Settings) -> dict[str, Any]:
    sizes: dict[str, Any] = {"concurrency": worker.max_jobs, "burst": settings.burst or worker.burst}
    if "grace" not in settings.given and worker.completion_wait:
        sizes["grace"] = worker.completion_wait
    return sizes
