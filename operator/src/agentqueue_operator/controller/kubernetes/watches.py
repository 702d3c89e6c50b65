"""The watches: kopf in a thread of its own, started anew whenever it ends, and listings that check what it tells.

A thread, since kopf ends every task of its event loop with itself, and would take the process's signals. kopf ends for
all kinds when one can't be watched (a right was taken away, a definition deleted): so each kind is asked for first,
what is refused is left out and told as trouble, and asked for again until it is there.
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
PAGE: Final = "500"
AUDIT_S: Final = 60.0
"""Between listings at rest: so long may an object that went during a cut be taken for there, in the worst case."""
SOON_S: Final = 1.0
"""Until the next one, after kopf has listed anew, or while the cache is not complete."""
TROUBLE_S: Final = 5.0
"""Between looks at what could not be watched."""
BEHIND_S: Final = 20.0
"""A watch that has not shown in so long what a listing has is started anew."""
STOP_S: Final = 0.5
GOODBYE_S: Final = 0.1
"""For aiohttp to end TLS connections, which it does not wait for: else their sockets stay until they are collected."""
"""For kopf to end; it takes some milliseconds."""
RESTARTS: Final = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before kopf is started again, when it ends again and again."""
STEADY_S: Final = 60.0
"""Having run for so long, an end is the first one."""
CRD_HINT: Final = "install the AgentQueue definition (`agentqueue crd | kubectl apply -f -`, or the chart)"
log = structlog.get_logger("agentqueue.operator")
Fed = Callable[[Kind, str | None, Object], None]
MakeRegistry = Callable[[Iterable[Kind], Fed], kopf.OperatorRegistry]
MakeSettings = Callable[[Sequence[Kind]], kopf.OperatorSettings]


class Watches:
    """Keeps the cache true.

    Args:
        kinds: to watch; AgentQueues among them.
        namespaces: to watch in; empty: all.
        on_synced: is told when the cache is complete for the first time.
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
        self._hint = asyncio.Event()
        self._scopes: frozenset[Scope] = frozenset()
        self._behind: dict[Scope, tuple[frozenset[Address], float]] = {}
        self._restarts = 0
        self.synced = False
        """Whether the cache was complete at some time since the start."""
        self.begun = 0
        """How often kopf was started."""

    @property
    def down(self) -> int:
        """How many things can't be watched at present."""
        return len(self._cache.troubles)

    def watches(self, kind: Kind) -> bool:
        """Whether the kind is there and may be watched."""
        return any(scope.plural == kind.plural for scope in self._scopes)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            kinds = await self._watchable()
            began = monotonic()
            if kinds:
                await self._watch(kinds)
            self._restarts = 0 if monotonic() - began > STEADY_S else self._restarts + 1
            await asyncio.sleep(RESTARTS[min(self._restarts, len(RESTARTS)) - 1] if self._restarts else RESTARTS[0])

    async def _watch(self, kinds: Sequence[Kind]) -> None:
        """Run kopf until it ends, or must begin anew."""
        loop = asyncio.get_running_loop()
        self._scopes = frozenset(Scope(kind.plural, place) for kind in kinds for place in self._namespaces)
        self._behind.clear()
        self.begun += 1

        def fed(kind: Kind, what: str | None, live: Object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(self._fed, kind, what, live)

        thread = KopfThread(
            self._make_registry(kinds, fed),
            self._make_settings(kinds),
            [place for place in self._namespaces if place],
        )
        thread.start()
        try:
            why = await self._attend(kinds, thread)
        finally:
            await thread.stop()
        log.warning("watches_restarted", reason=why)

    def _fed(self, kind: Kind, what: str | None, live: Object) -> None:
        if what is None and self.synced:  # kopf lists anew: something may have gone meanwhile
            self._hint.set()
        if what == "DELETED":
            self._cache.drop(kind, live)
        else:
            self._cache.put(kind, live)

    async def _attend(self, kinds: Sequence[Kind], thread: "KopfThread") -> str:
        """Check the cache from time to time. Returns why kopf must be started anew."""
        while True:
            if thread.ended.is_set() or thread.failed.is_set():
                return thread.problem
            why = await self._check(kinds)
            if why:
                return why
            await self._pause(thread)

    async def _pause(self, thread: "KopfThread") -> None:
        complete = self._cache.is_complete(self._scopes)
        seconds = TROUBLE_S if self.down else AUDIT_S
        await _first(thread.ended, thread.failed, self._hint, seconds=seconds if complete else SOON_S)
        if self._hint.is_set():
            await _first(thread.ended, seconds=SOON_S)  # until kopf has told of the rest
            self._hint.clear()

    async def _check(self, kinds: Sequence[Kind]) -> str:
        for kind in self._kinds:
            problem = await self._audit(kind, watched=kind in kinds)
            if problem:
                return problem
        if not self.synced and AGENT_QUEUE in kinds and self._cache.is_complete(self._scopes):
            self.synced = True
            log.info("caches_synced", objects=len(self._cache), kinds=len(kinds))
            self._on_synced()
        return ""

    async def _audit(self, kind: Kind, *, watched: bool) -> str:
        """Returns why the watches must begin anew."""
        for place in self._namespaces:
            scope, asked_at = Scope(kind.plural, place), monotonic()
            try:
                listed = await self._list(kind, place)
            except (ApiRefused, ApiUnavailable) as exc:
                self._troubled(kind, exc)
                return ""
            if not watched:
                return f"{kind} can be watched now"
            unseen = self._cache.audit(scope, listed, asked_at=asked_at)
            if self._is_behind(scope, unseen, asked_at):
                return f"the watch of {kind} is behind by {len(unseen)} objects"
        self._fine(kind)
        return ""

    def _is_behind(self, scope: Scope, unseen: frozenset[Address], now: float) -> bool:
        before, since = self._behind.get(scope, (frozenset[Address](), now))
        still = unseen & before
        self._behind[scope] = (still or unseen, since if still else now)
        return bool(still) and now - since > BEHIND_S

    async def _watchable(self) -> Sequence[Kind]:
        """The kinds that may be listed in every namespace; the others become trouble."""
        found = []
        for kind in self._kinds:
            try:
                for place in self._namespaces:
                    await self._page(kind, place, {"limit": "1"})
            except (ApiRefused, ApiUnavailable) as exc:
                self._troubled(kind, exc)
            else:
                self._fine(kind)
                found.append(kind)
        return found

    async def _list(self, kind: Kind, place: str | None) -> dict[Address, int]:
        """Names and versions."""
        out: dict[Address, int] = {}
        query = {"limit": PAGE}
        while True:
            page = await self._page(kind, place, query)
            for item in page["items"] or ():  # null where the list of names has none
                metadata = item["metadata"]
                out[Address(kind.plural, metadata["namespace"], metadata["name"])] = version_of(item)
            more = page["metadata"].get("continue")
            if not more:
                return out
            query = {"limit": PAGE, "continue": more}

    async def _page(self, kind: Kind, place: str | None, query: dict[str, str]) -> Any:
        labelled = {} if kind is AGENT_QUEUE else {"labelSelector": QUEUE_LABEL}
        return await self._api.call("GET", paths.collection(kind, place), query=query | labelled, accept=NAMES_ONLY)

    def _troubled(self, kind: Kind, exc: ApiRefused | ApiUnavailable) -> None:
        if isinstance(exc, ApiRefused) and exc.status == 404:
            for place in self._namespaces:
                self._cache.forget_scope(Scope(kind.plural, place))
            if kind is POD_MONITOR:  # Prometheus' operator need not be there
                return
            why = f"the cluster has no such kind: {CRD_HINT}" if kind is AGENT_QUEUE else "the cluster has no such kind"
        else:
            why = str(exc)
        if self._cache.troubles.get(kind.plural) != why:
            log.warning("watch_trouble", kind=kind.plural, reason=why)
        self._cache.troubles[kind.plural] = why

    def _fine(self, kind: Kind) -> None:
        if self._cache.troubles.pop(kind.plural, None) is not None:
            log.info("watch_fine", kind=kind.plural)


class KopfThread:
    """One run of kopf, in an event loop and a thread of its own."""

    def __init__(
        self, registry: kopf.OperatorRegistry, settings: kopf.OperatorSettings, namespaces: Sequence[str]
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._namespaces = namespaces
        self._home = asyncio.get_running_loop()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._main, name="kopf", daemon=True)
        self.ended = asyncio.Event()
        """Set in the loop that made this."""
        self.failed = asyncio.Event()
        """Set when a watcher has failed: kopf ends then, but may hang on its way out."""
        self.problem = "it ended"

    def start(self) -> None:
        """Watch from now on."""
        self._thread.start()

    async def stop(self) -> None:
        """End it. What does not end in time is left to die with the process: it only reads."""
        with self._lock:
            self._stopping = True
            if self._loop is not None and self._stop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._stop.set)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self.ended.wait()

    def _fail(self, problem: str) -> None:
        self.problem = problem
        with contextlib.suppress(RuntimeError):  # the home loop is closed: the process ends
            self._home.call_soon_threadsafe(self.failed.set)

    def _main(self) -> None:
        listener = _Failures(self._fail)
        logging.getLogger("kopf").addHandler(listener)
        try:
            asyncio.run(self._run())
        except Exception as exc:  # noqa: BLE001  # whatever ends kopf is told, and it is started anew
            self.problem = name_exception(exc).line
        finally:
            logging.getLogger("kopf").removeHandler(listener)
            with contextlib.suppress(RuntimeError):  # the home loop is closed: the process ends
                self._home.call_soon_threadsafe(self.ended.set)

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
                identity=Identity("agentqueue-operator"),  # else kopf asks for its user's name; a pod's has none
            )
            await asyncio.sleep(GOODBYE_S)
        finally:
            with self._lock:
                self._loop = None


class _Failures(logging.Handler):
    """Hears kopf say in this thread that a watcher has failed: nothing else tells before it has ended."""

    def __init__(self, told: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._told = told
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread and record.getMessage().startswith("Watcher for "):
            self._told(record.getMessage())


def quieten_kopf() -> None:
    """Its own troubles are told as ours; that signals are not its business is how it is meant."""
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)


async def _first(*events: asyncio.Event, seconds: float) -> None:
    """Wait until one of them is set, but not longer."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
