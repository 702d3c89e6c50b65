"""The elector: a thread that takes and renews the Lease, whatever the loops are doing."""

import asyncio
import random
import threading
from collections.abc import Callable
from typing import Any, Final

import structlog

from agentqueue.clock import monotonic, now_ms
from agentqueue.model.times import from_ms
from agentqueue_operator.controller.kubernetes import paths
from agentqueue_operator.controller.kubernetes.api import ApiServer
from agentqueue_operator.controller.kubernetes.leader_election import (
    DURATION_S,
    RENEW_S,
    RETRY_S,
    Claim,
    Create,
    Renew,
    Sighting,
    Step,
    Take,
    Term,
    Wait,
    decide,
    sight,
)
from agentqueue_operator.controller.ports import ApiRefused, ApiUnavailable
from agentqueue_operator.resources.kinds import LEASE, Object

CALL_S: Final = 3.0
"""For a read or a write of the Lease: two tries fit before the leader must step down."""
RELEASE_S: Final = 0.7
"""For the last write, when the process ends: without it the others wait until the Lease runs out."""
JITTER: Final = 0.2
"""Part of each pause that is random, so that replicas don't ask in step."""
log = structlog.get_logger("agentqueue.operator")


class Elector:
    """Holds the Lease while it can, and while the work that it leads turns.

    Args:
        open_api: makes the thread's own pool of connections, in the thread.
        me: the holder's name.
        healthy: whether this replica does its work; called in the thread. One that hangs lets go of the Lease.
        changed: is told when the lead is won (True) or lost (False); called in the thread.
    """

    def __init__(
        self,
        open_api: Callable[[], ApiServer],
        *,
        namespace: str,
        name: str,
        me: str,
        healthy: Callable[[], bool],
        changed: Callable[[bool], None],
    ) -> None:
        self._open_api = open_api
        self._namespace = namespace
        self._name = name
        self._me = me
        self._healthy = healthy
        self._changed = changed
        self._term: Term | None = None
        self._seen: Sighting | None = None
        self._told: bool = False
        self._problem = ""
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._poke: asyncio.Event | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._main, name="elector", daemon=True)
        self.turned_at = monotonic()
        """When it last got round, whether the API server answers or not."""

    def start(self) -> None:
        """Stand for election."""
        self._thread.start()

    def stop(self, timeout: float = 1.0) -> None:
        """Let go of the Lease, so that another leads at once. From any thread; nothing may be written any more."""
        self._stopping.set()
        with self._lock:
            if self._loop is not None and self._poke is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._poke.set)
        if self._thread.is_alive():
            self._thread.join(timeout)

    @property
    def leads(self) -> bool:
        """Whether this replica may begin to write."""
        term = self._term
        return term is not None and term.leads(monotonic())

    def left_s(self) -> float:
        """For how long a write that begins now may take; 0: another may lead."""
        term = self._term
        return 0.0 if term is None else term.left_s(monotonic())

    @property
    def holder(self) -> str:
        """Who leads, as far as this replica knows."""
        seen = self._seen
        return seen.claim.holder if seen is not None else ""

    def _main(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        poke, api = asyncio.Event(), self._open_api()
        with self._lock:
            self._loop, self._poke = asyncio.get_running_loop(), poke
        try:
            while not self._stopping.is_set():
                pause = await self._turn(api)
                self.turned_at = monotonic()
                self._tell()
                if not self._stopping.is_set():
                    await _sleep(poke, pause)
            await self._release(api)
        finally:
            with self._lock:
                self._loop = None
            await api.close()

    async def _turn(self, api: ApiServer) -> float:
        """One look, and one write if it is ours to make. Returns the pause until the next."""
        try:
            if not self._healthy():
                await self._resign(api)
                return _jittered(RENEW_S)
            await self._campaign(api)
        except (ApiRefused, ApiUnavailable) as exc:
            self._note(str(exc))
            return _jittered(RETRY_S)
        self._note("")
        return _jittered(RENEW_S)

    async def _campaign(self, api: ApiServer) -> None:
        looked_at = monotonic()
        live = await self._look(api)
        self._seen = None if live is None else sight(self._seen, claim_of(live), looked_at)
        step = decide(self._seen, me=self._me, now_s=monotonic())
        if isinstance(step, Wait):
            self._term = None
            return
        sent_at = monotonic()
        written = await self._write(api, live, claimed(live, step, me=self._me, at=_now()))
        self._seen = Sighting(claim_of(written), sent_at)
        self._term = Term(sent_at)

    async def _look(self, api: ApiServer) -> Object | None:
        try:
            live: Object = await api.call("GET", self._path, deadline_s=CALL_S)
        except ApiRefused as exc:
            if exc.reason == "NotFound":
                return None
            raise
        return live

    async def _write(self, api: ApiServer, live: Object | None, spec: Object, *, deadline_s: float = CALL_S) -> Object:
        if live is None:
            metadata: Object = {"name": self._name, "namespace": self._namespace}
            method, path = "POST", paths.collection(LEASE, self._namespace)
        else:  # with the resourceVersion that was seen: whoever wrote since goes first
            metadata = live["metadata"]
            method, path = "PUT", self._path
        body = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}
        written: Object = await api.call(method, path, body=body, deadline_s=deadline_s)
        return written

    async def _resign(self, api: ApiServer) -> None:
        if self._term is not None:
            log.error("lease_let_go", reason="the loops hang: another replica is to lead")
        await self._release(api)

    async def _release(self, api: ApiServer) -> None:
        """Best effort: if it fails, the Lease runs out."""
        held, self._term = self._term, None
        if held is None:
            return
        self._tell()
        try:
            async with asyncio.timeout(RELEASE_S):
                live = await self._look(api)
                if live is not None and claim_of(live).holder == self._me:
                    await self._write(api, live, released(live, at=_now()))
        except (ApiRefused, ApiUnavailable, TimeoutError) as exc:
            log.warning("lease_not_released", error=str(exc) or type(exc).__name__)
        else:
            log.info("lease_released")

    def _tell(self) -> None:
        leads = self.leads
        if leads != self._told:
            self._told = leads
            log.info("leading" if leads else "not_leading", holder=self.holder)
            self._changed(leads)

    def _note(self, problem: str) -> None:
        if problem and problem != self._problem:
            log.warning("lease_trouble", error=problem)
        self._problem = problem

    @property
    def _path(self) -> str:
        return paths.one(LEASE, self._namespace, self._name)


def claim_of(live: Object) -> Claim:
    """What a Lease says; whatever somebody wrote into it by hand must not stop the election."""
    spec = live.get("spec") or {}
    duration = spec.get("leaseDurationSeconds")
    return Claim(
        holder=str(spec.get("holderIdentity") or ""),
        duration_s=float(duration) if isinstance(duration, int | float) and duration > 0 else DURATION_S,
        renewed=str(spec.get("renewTime") or ""),
        transitions=int(spec.get("leaseTransitions") or 0),
    )


def claimed(live: Object | None, step: Step, *, me: str, at: str) -> dict[str, Any]:
    """The Lease's spec when we have it."""
    before = (live or {}).get("spec") or {}
    match step:
        case Renew():
            acquired, transitions = before.get("acquireTime") or at, before.get("leaseTransitions") or 0
        case Create() | Take() | Wait():
            acquired, transitions = at, (before.get("leaseTransitions") or 0) + (live is not None)
    return {
        "holderIdentity": me,
        "leaseDurationSeconds": round(DURATION_S),
        "acquireTime": acquired,
        "renewTime": at,
        "leaseTransitions": transitions,
    }


def released(live: Object, *, at: str) -> dict[str, Any]:
    """The Lease's spec when nobody has it."""
    return {**live["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": at}


def _now() -> str:
    return from_ms(now_ms()).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(1 - JITTER / 2, 1 + JITTER / 2)  # noqa: S311  # not a secret


async def _sleep(poke: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await poke.wait()
    except TimeoutError:
        return
    poke.clear()
