"""Runs kopf's watches in a thread, restarts them when they end, and compares the cache with lists.

kopf needs a thread of its own: at its end it cancels every task of its event loop, and it would handle the process's
signals. kopf ends for all kinds when one kind cannot be watched, because a right was revoked or a CRD deleted. So each
kind is listed first. A kind that cannot be listed is left out, reported as a problem, and tried again until it works.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import kopf
import structlog
from kopf._core.engines.peering import Identity

from agentqueue.clock import monotonic
from agentqueue.model.exceptions import name_exception
from agentqueue_operator.controller.kubernetes import paths
from agentqueue_operator.controller.kubernetes.api import ApiServer
from agentqueue_operator.controller.kubernetes.cache import QUEUE_LABEL, Address, Scope, StoreCache, version_of
from agentqueue_operator.controller.ports import ApiRefused, ApiUnavailable
from agentqueue_operator.resources.kinds import AGENT_QUEUE, POD_MONITOR, Kind, Object

NAMES_ONLY: Final = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"
"""Accept header of a list without specs and statuses."""
PAGE: Final = "500"
"""Number of objects in one page of a list, as kubectl requests."""
AUDIT_S: Final = 60.0
"""Seconds between audits at rest: upper bound on how long a deletion missed by the watch goes unnoticed."""
AUDIT_SOON_S: Final = 1.0
"""Seconds until the next audit while the cache is incomplete, or after kopf has listed again."""
AUDIT_FAILED_S: Final = 5.0
"""Seconds between audits while a kind cannot be watched."""
MAX_LAG_S: Final = 20.0
"""Seconds after which a watch that has not delivered a listed object is restarted."""
STOP_S: Final = 0.5
"""Time limit for kopf to end, in seconds. It takes some milliseconds."""
CLOSE_CONNECTIONS_S: Final = 0.1
"""Seconds for aiohttp to close TLS connections, which it does not wait for. Otherwise their sockets leak."""
RESTARTS: Final = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before each restart of kopf when it ends repeatedly."""
STABLE_S: Final = 60.0
"""Seconds of running after which the next end counts as the first one."""
CRD_HINT: Final = "install the AgentQueue CRD (`agentqueue crd | kubectl apply -f -`, or the chart)"
"""Remedy for a cluster without the AgentQueue CRD."""
log = structlog.get_logger("agentqueue.operator")
OnObject = Callable[[Kind, str | None, Object], None]
"""Receives the kind, ADDED, MODIFIED, DELETED or None (from a list), and the object."""
MakeRegistry = Callable[[Iterable[Kind], OnObject], kopf.OperatorRegistry]
"""Returns kopf's handlers for the kinds."""
MakeSettings = Callable[[Sequence[Kind]], kopf.OperatorSettings]
"""Returns kopf's settings for the kinds."""


class Watches:
    """Keeps the cache up to date.

    Args:
        api: the API server.
        cache: the cache to fill.
        kinds: the kinds to watch; AgentQueues among them.
        namespaces: the namespaces to watch; empty: all.
        make_registry: returns kopf's handlers.
        make_settings: returns kopf's settings.
        on_synced: called when the cache is complete for the first time.
    """

    def __init__(
        self,
        api: ApiServer,
        cache: StoreCache,
        kinds: Sequence[Kind],
        namespaces: Sequence[str],
        *,
        make_registry: MakeRegistry,
        make_settings: MakeSettings,
        on_synced: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_synced = on_synced
        self._api = api
        self._cache = cache
        self._kinds = tuple(kinds)
        self._namespaces: Sequence[str | None] = tuple(namespaces) or (None,)
        self._make_registry = make_registry
        self._make_settings = make_settings
        self._listed_again = asyncio.Event()
        self._scopes: frozenset[Scope] = frozenset()
        self._lagging: dict[Scope, tuple[frozenset[Address], float]] = {}
        self._restarts = 0
        self.synced = False
        """The cache has been complete since the start."""
        self.starts = 0
        """Number of starts of kopf."""

    @property
    def down(self) -> int:
        """Return the number of kinds that cannot be watched at present."""
        return len(self._cache.watch_errors)

    def watches(self, kind: Kind) -> bool:
        """Return whether the kind is watched."""
        return any(scope.plural == kind.plural for scope in self._scopes)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            kinds = await self._watchable_kinds()
            started_at = monotonic()
            if kinds:
                await self._watch(kinds)
            self._restarts = 0 if monotonic() - started_at > STABLE_S else self._restarts + 1
            await asyncio.sleep(RESTARTS[min(self._restarts, len(RESTARTS)) - 1] if self._restarts else RESTARTS[0])

    async def _watch(self, kinds: Sequence[Kind]) -> None:
        """Run kopf until it ends or must be restarted."""
        loop = asyncio.get_running_loop()
        self._scopes = frozenset(Scope(kind.plural, namespace) for kind in kinds for namespace in self._namespaces)
        self._lagging.clear()
        self.starts += 1

        def update_cache(kind: Kind, change: str | None, live: Object) -> None:
            if change is None and self.synced:  # kopf lists again: objects may have been deleted meanwhile
                self._listed_again.set()
            if change == "DELETED":
                self._cache.drop(kind, live)
            else:
                self._cache.put(kind, live)

        def on_object(kind: Kind, change: str | None, live: Object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(update_cache, kind, change, live)

        thread = KopfThread(
            self._make_registry(kinds, on_object),
            self._make_settings(kinds),
            [namespace for namespace in self._namespaces if namespace],
        )
        thread.start()
        try:
            reason = await self._supervise(kinds, thread)
        finally:
            await thread.stop()
        log.warning("watches_restarted", reason=reason)

    async def _supervise(self, kinds: Sequence[Kind], thread: "KopfThread") -> str:
        """Audit the cache regularly, and return the reason for a restart of kopf when there is one."""
        while not (thread.ended.is_set() or thread.failed.is_set()):
            for kind in self._kinds:
                if reason := await self._audit(kind, watched=kind in kinds):
                    return reason
            is_complete = self._cache.is_complete(self._scopes)
            if not self.synced and AGENT_QUEUE in kinds and is_complete:
                self.synced = True
                log.info("caches_synced", objects=len(self._cache), kinds=len(kinds))
                self._on_synced()
            seconds = (AUDIT_FAILED_S if self.down else AUDIT_S) if is_complete else AUDIT_SOON_S
            await _wait_for_first(thread.ended, thread.failed, self._listed_again, seconds=seconds)
            if self._listed_again.is_set():
                await _wait_for_first(thread.ended, seconds=AUDIT_SOON_S)  # until kopf has delivered the rest
                self._listed_again.clear()
        return thread.problem

    async def _audit(self, kind: Kind, *, watched: bool) -> str:
        """Compare the cache with lists of a kind. Return the reason for a restart of kopf, or an empty string."""
        for namespace in self._namespaces:
            scope, asked_at = Scope(kind.plural, namespace), monotonic()
            try:
                listed = await self._list(kind, namespace)
            except (ApiRefused, ApiUnavailable) as exc:
                self._report_failure(kind, exc)
                return ""
            if not watched:
                return f"{kind} can be watched now"
            unseen = self._cache.audit(scope, listed, asked_at=asked_at)
            before, since = self._lagging.get(scope, (frozenset[Address](), asked_at))
            still = unseen & before
            self._lagging[scope] = (still or unseen, since if still else asked_at)
            if still and asked_at - since > MAX_LAG_S:
                return f"the watch of {kind} lags behind by {len(unseen)} objects"
        self._report_recovery(kind)
        return ""

    async def _watchable_kinds(self) -> Sequence[Kind]:
        """Return the kinds that can be listed in every namespace. The others are reported as problems."""
        found = []
        for kind in self._kinds:
            try:
                for namespace in self._namespaces:
                    await self._page(kind, namespace, {"limit": "1"})
            except (ApiRefused, ApiUnavailable) as exc:
                self._report_failure(kind, exc)
            else:
                self._report_recovery(kind)
                found.append(kind)
        return found

    async def _list(self, kind: Kind, namespace: str | None) -> dict[Address, int]:
        """Return the version of each object of a kind."""
        out: dict[Address, int] = {}
        query = {"limit": PAGE}
        while True:
            page = await self._page(kind, namespace, query)
            for item in page["items"] or ():  # null if the list is empty
                metadata = item["metadata"]
                out[Address(kind.plural, metadata["namespace"], metadata["name"])] = version_of(item)
            more = page["metadata"].get("continue")
            if not more:
                return out
            query = {"limit": PAGE, "continue": more}

    async def _page(self, kind: Kind, namespace: str | None, query: dict[str, str]) -> Any:
        labelled = {} if kind is AGENT_QUEUE else {"labelSelector": QUEUE_LABEL}
        return await self._api.call("GET", paths.collection(kind, namespace), query=query | labelled, accept=NAMES_ONLY)

    def _report_failure(self, kind: Kind, exc: ApiRefused | ApiUnavailable) -> None:
        if isinstance(exc, ApiRefused) and exc.status == 404:
            for namespace in self._namespaces:
                self._cache.forget_scope(Scope(kind.plural, namespace))
            if kind is POD_MONITOR:  # the Prometheus operator is optional
                return
            error = (
                f"the cluster has no such kind: {CRD_HINT}" if kind is AGENT_QUEUE else "the cluster has no such kind"
            )
        else:
            error = str(exc)
        if self._cache.watch_errors.get(kind.plural) != error:
            log.warning("watch_failed", kind=kind.plural, error=error)
        self._cache.watch_errors[kind.plural] = error

    def _report_recovery(self, kind: Kind) -> None:
        if self._cache.watch_errors.pop(kind.plural, None) is not None:
            log.info("watch_recovered", kind=kind.plural)


class KopfThread:
    """One run of kopf in an event loop and a thread of its own.

    Args:
        registry: kopf's handlers.
        settings: kopf's settings.
        namespaces: the namespaces to watch; empty: all.
    """

    def __init__(
        self, registry: kopf.OperatorRegistry, settings: kopf.OperatorSettings, namespaces: Sequence[str]
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._namespaces = namespaces
        self._caller_loop = asyncio.get_running_loop()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._main, name="kopf", daemon=True)
        self.ended = asyncio.Event()
        """Set when kopf has ended, in the event loop that created this object."""
        self.failed = asyncio.Event()
        """Set when a watcher has failed. kopf then ends, but may take long to do so."""
        self.problem = "kopf ended"
        """Why kopf ended."""

    def start(self) -> None:
        """Start to watch."""
        self._thread.start()

    async def stop(self) -> None:
        """Stop kopf. If it does not end in time, it runs until the process ends: it only reads."""
        with self._lock:
            self._stopping = True
            if self._loop is not None and self._stop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._stop.set)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self.ended.wait()

    def _main(self) -> None:
        def fail(problem: str) -> None:
            self.problem = problem
            with contextlib.suppress(RuntimeError):  # that loop is closed: the process ends
                self._caller_loop.call_soon_threadsafe(self.failed.set)

        listener = _WatcherFailures(fail)
        logging.getLogger("kopf").addHandler(listener)
        try:
            asyncio.run(self._run())
        except Exception as exc:  # noqa: BLE001  # any error is reported, and kopf is restarted
            self.problem = name_exception(exc).line
        finally:
            logging.getLogger("kopf").removeHandler(listener)
            with contextlib.suppress(RuntimeError):  # that loop is closed: the process ends
                self._caller_loop.call_soon_threadsafe(self.ended.set)

    async def _run(self) -> None:
        stop = asyncio.Event()
        with self._lock:
            self._loop, self._stop = asyncio.get_running_loop(), stop
            if self._stopping:
                return
        try:
            await kopf.operator(
                registry=self._registry,
                settings=self._settings,
                standalone=True,
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
                stop_flag=stop,
                identity=Identity(
                    "agentqueue-operator"
                ),  # otherwise kopf looks up the user's name, which may not exist in a pod
            )
            await asyncio.sleep(CLOSE_CONNECTIONS_S)
        finally:
            with self._lock:
                self._loop = None


class _WatcherFailures(logging.Handler):
    """Detects failed watchers by kopf's log lines in this thread, since kopf does not report them before it ends."""

    def __init__(self, on_failure: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._on_failure = on_failure
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Report the failure of a watcher."""
        if record.thread == self._thread and record.getMessage().startswith("Watcher for "):
            self._on_failure(record.getMessage())


def silence_kopf() -> None:
    """Silence kopf's info lines, and its warning about signal handlers: we install our own on purpose."""
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)


async def _wait_for_first(*events: asyncio.Event, seconds: float) -> None:
    """Wait until one of the events is set or the time has passed."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
