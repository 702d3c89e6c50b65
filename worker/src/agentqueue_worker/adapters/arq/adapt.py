"""Makes a program of an arq WorkerSettings class and the settings that override it."""

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
    """An arq program to serve, with the fields of agentqueue_worker.process.Program in the same order."""

    registry: ArqRegistry
    settings: Settings
    declared_queue: str
    adjust: Callable[[WorkerOptions], WorkerOptions]
    open_server: Callable[[bool], Server] | None


def adapt(target: Any, settings: Settings, find_server: Callable[[], ServerOptions | None]) -> Adapted:
    """Return the program of a WorkerSettings class or dict.

    Worker settings override the class for Redis, queue, concurrency and grace period. The class defines retries,
    timeouts and results.

    Args:
        target: the class or the dict.
        settings: settings of the worker.
        find_server: returns the Redis to use if neither the settings nor the class name one.

    Raises:
        HandlerImportError: arq refuses the class.
    """
    options = get_kwargs(target)
    own_redis = settings.redis is None and ("redis_settings" in options or "redis_pool" in options)
    if not own_redis:
        settings = settings.override(redis=settings.redis or find_server())
    worker = _make_worker(target, options, settings)
    settings = settings.override(concurrency=worker.max_jobs, burst=settings.burst or worker.burst)
    if "grace" not in settings.given and worker.completion_wait:
        settings = settings.override(grace=worker.completion_wait)

    def open_server(for_lease_thread: bool) -> Server:  # noqa: FBT001  # the opener's shape
        return worker.open_server(for_lease_thread, allow_eviction=settings.allow_eviction)

    registry = ArqRegistry(worker, owned=True)
    return Adapted(registry, settings, worker.queue_name, worker.adjust, open_server if own_redis else None)


def _make_worker(target: Any, options: dict[str, Any], settings: Settings) -> ArqWorker:
    arguments: dict[str, Any] = {**options, "handle_signals": False}
    if settings.redis is not None:
        arguments |= {"redis_settings": redis_settings_at(settings.redis), "redis_pool": None, "server": settings.redis}
    if settings.queue is not None:
        arguments["queue_name"] = settings.queue
    if "concurrency" in settings.given:
        arguments["max_jobs"] = settings.concurrency
    try:
        with _event_loop():
            return ArqWorker(pickle=settings.arq_pickle, **arguments)
    except (RuntimeError, ValueError, TypeError, ImportError) as exc:
        name = getattr(target, "__qualname__", "the dict")
        raise HandlerImportError(f"{name} is not an arq WorkerSettings: {exc}") from exc


@contextlib.contextmanager
def _event_loop() -> Iterator[None]:
    """Provide the event loop that the constructor of arq's Worker stores. The worker runs in another loop."""
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
