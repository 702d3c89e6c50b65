"""Takes and renews the Lease in a thread of its own, so that a blocked event loop does not lose it."""

import asyncio
import contextlib
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
    Create,
    LeaseRecord,
    ObservedLease,
    Renew,
    Step,
    Take,
    Term,
    Wait,
    decide,
    observe,
)
from agentqueue_operator.controller.ports import ApiRefused, ApiUnavailable
from agentqueue_operator.resources.kinds import LEASE, Object

CALL_S: Final = 3.0
"""Deadline of a read or a write of the Lease, in seconds. Two attempts fit before the leader must step down."""
RELEASE_S: Final = 0.7
"""Time limit for releasing the Lease at the end, in seconds. If it fails, standbys wait until the Lease expires."""
JITTER: Final = 0.2
"""Fraction of each pause that is random, so that replicas do not send requests at the same time."""
log = structlog.get_logger("agentqueue.operator")


class LeaderElector:
    """Holds the Lease while it can, and while the event loop of this replica makes progress.

    Args:
        open_api: opens the thread's own connections; called in the thread.
        namespace: the namespace of the Lease.
        name: the name of the Lease.
        me: the holder name of this replica.
        healthy: returns whether this replica makes progress; called in the thread. A stuck one releases the Lease.
        on_change: called in the thread when leadership is gained (True) or lost (False).
    """

    def __init__(
        self,
        open_api: Callable[[], ApiServer],
        *,
        namespace: str,
        name: str,
        me: str,
        healthy: Callable[[], bool],
        on_change: Callable[[bool], None],
    ) -> None:
        self._open_api = open_api
        self._namespace = namespace
        self._name = name
        self._me = me
        self._healthy = healthy
        self._on_change = on_change
        self._term: Term | None = None
        self._observed: ObservedLease | None = None
        self._reported = False
        """The last value that `on_change` received."""
        self._problem = ""
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wakeup: asyncio.Event | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="elector", daemon=True)
        self.last_round_at = monotonic()
        """End of the last round in monotonic seconds, whether the API server responded or not."""

    def start(self) -> None:
        """Start to compete for the Lease."""
        self._thread.start()

    def stop(self, timeout: float = 1.0) -> None:
        """Release the Lease, so that another replica leads immediately. Nothing may be written afterwards.

        May be called from any thread.

        Args:
            timeout: seconds to wait for the thread.
        """
        self._stopping.set()
        with self._lock:
            if self._loop is not None and self._wakeup is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._wakeup.set)
        if self._thread.is_alive():
            self._thread.join(timeout)

    @property
    def leads(self) -> bool:
        """Return whether this replica may begin a write."""
        term = self._term
        return term is not None and term.leads(monotonic())

    def write_budget_s(self) -> float:
        """Return how long a write that begins now may take, in seconds; 0: another replica may lead."""
        term = self._term
        return 0.0 if term is None else term.write_budget_s(monotonic())

    @property
    def holder(self) -> str:
        """Return the holder of the Lease as far as this replica knows."""
        observed = self._observed
        return observed.record.holder if observed is not None else ""

    async def _run(self) -> None:
        wakeup, api = asyncio.Event(), self._open_api()
        with self._lock:
            self._loop, self._wakeup = asyncio.get_running_loop(), wakeup
        try:
            while not self._stopping.is_set():
                pause_s = await self._round(api)
                self.last_round_at = monotonic()
                self._report_change()
                if not self._stopping.is_set():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause_s):
                            await wakeup.wait()
            await self._release(api)
        finally:
            with self._lock:
                self._loop = None
            await api.close()

    async def _round(self, api: ApiServer) -> float:
        """Read the Lease, write it if it is ours or free, and return the pause until the next round in seconds."""
        try:
            if self._healthy():
                await self._compete(api)
                self._problem = ""
            else:
                if self._term is not None:
                    log.error("leadership_lost", reason="the event loop is stuck: another replica should lead")
                await self._release(api)
        except (ApiRefused, ApiUnavailable) as exc:
            if str(exc) != self._problem:
                self._problem = str(exc)
                log.warning("lease_renewal_failed", error=self._problem)
            return _jittered(RETRY_S)
        return _jittered(RENEW_S)

    async def _compete(self, api: ApiServer) -> None:
        read_at = monotonic()
        live = await self._read(api)
        self._observed = None if live is None else observe(self._observed, record_of(live), read_at)
        step = decide(self._observed, me=self._me, now_s=monotonic())
        if isinstance(step, Wait):
            self._term = None
            return
        sent_at = monotonic()
        written = await self._write(api, live, held_spec(live, step, me=self._me, at=_now()))
        self._observed = ObservedLease(record_of(written), sent_at)
        self._term = Term(sent_at)

    async def _read(self, api: ApiServer) -> Object | None:
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
        else:  # the resourceVersion is the precondition: a write by another replica since then wins
            metadata = live["metadata"]
            method, path = "PUT", self._path
        body = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}
        written: Object = await api.call(method, path, body=body, deadline_s=deadline_s)
        return written

    async def _release(self, api: ApiServer) -> None:
        """Release the Lease. This is best effort: if it fails, the Lease expires."""
        held, self._term = self._term, None
        if held is None:
            return
        self._report_change()
        try:
            async with asyncio.timeout(RELEASE_S):
                live = await self._read(api)
                if live is not None and record_of(live).holder == self._me:
                    await self._write(api, live, released_spec(live, at=_now()))
        except (ApiRefused, ApiUnavailable, TimeoutError) as exc:
            log.warning("leadership_release_failed", error=str(exc) or type(exc).__name__)
        else:
            log.info("lease_released")

    def _report_change(self) -> None:
        leads = self.leads
        if leads != self._reported:
            self._reported = leads
            log.info("leading" if leads else "not_leading", holder=self.holder)
            self._on_change(leads)

    @property
    def _path(self) -> str:
        return paths.one(LEASE, self._namespace, self._name)


def record_of(live: Object) -> LeaseRecord:
    """Return the content of a Lease. Values that someone wrote by hand must not stop the election."""
    spec = live.get("spec") or {}
    duration = spec.get("leaseDurationSeconds")
    return LeaseRecord(
        holder=str(spec.get("holderIdentity") or ""),
        duration_s=float(duration) if isinstance(duration, int | float) and duration > 0 else DURATION_S,
        renewed=str(spec.get("renewTime") or ""),
        transitions=int(spec.get("leaseTransitions") or 0),
    )


def held_spec(live: Object | None, step: Step, *, me: str, at: str) -> dict[str, Any]:
    """Return the spec of the Lease with this replica as its holder."""
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


def released_spec(live: Object, *, at: str) -> dict[str, Any]:
    """Return the spec of the Lease without a holder."""
    return {**live["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": at}


def _now() -> str:
    return from_ms(now_ms()).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(1 - JITTER / 2, 1 + JITTER / 2)  # noqa: S311  # not a secret
