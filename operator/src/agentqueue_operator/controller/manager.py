"""The operator's process: settings in; watches, loops, Lease, probes and metrics put together."""

import asyncio
import contextlib
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog

from agentqueue.clock import monotonic, now_ms
from agentqueue.model.times import from_ms
from agentqueue.service.probes import probing
from agentqueue_operator.controller.kubernetes.api import DEADLINE_S, ApiServer
from agentqueue_operator.controller.kubernetes.cache import StoreCache
from agentqueue_operator.controller.kubernetes.client import KubernetesCluster
from agentqueue_operator.controller.kubernetes.event_recorder import Recorder
from agentqueue_operator.controller.kubernetes.kopf_handlers import make_kopf_settings, make_registry
from agentqueue_operator.controller.kubernetes.leader_elector import Elector
from agentqueue_operator.controller.kubernetes.watches import Watches, quieten_kopf
from agentqueue_operator.controller.metrics import Metrics
from agentqueue_operator.controller.reconciler import Place, QueueReconciler
from agentqueue_operator.controller.redis_pool import Switchboard
from agentqueue_operator.controller.scaling.scaler import QueueScaler
from agentqueue_operator.controller.settings import PORT, Settings
from agentqueue_operator.controller.work_queue import Loops
from agentqueue_operator.resources.kinds import AGENT_QUEUE, POD, POD_MONITOR, PRUNED, SECRET, Kind, QueueRef
from agentqueue_operator.resources.render import Images

PERIODS: Final = 3
"""A loop that is later than so many periods hangs."""
LOOP_STUCK_S: Final = 30.0
"""The event loop has not turned for so long: it hangs, and another replica is to lead."""
ELECTOR_STUCK_S: Final = 60.0
"""A turn of the elector takes a few seconds at most."""
CLOSE_S: Final = 0.8
"""For the loops to end: writes under way are waited for no longer, the next leader sees what became of them."""
SECRET_BYTES: Final = 24
log = structlog.get_logger("agentqueue.operator")


class Pulse:
    """When the event loop last turned: a thread can tell whether it hangs."""

    def __init__(self) -> None:
        self._at = monotonic()

    @property
    def age_s(self) -> float:
        """Since its last turn."""
        return monotonic() - self._at

    async def beat(self) -> None:
        """Until cancelled."""
        while True:
            self._at = monotonic()
            await asyncio.sleep(0.5)


@dataclass(frozen=True, slots=True)
class Operator:
    """The parts that probes and metrics look at."""

    settings: Settings
    metrics: Metrics
    pulse: Pulse
    elector: Elector
    cache: StoreCache
    watches: Watches
    loops: Loops
    api: ApiServer

    @property
    def leads(self) -> bool:
        """Whether the loops may act: on a cache that is whole, and as the only one."""
        return self.elector.leads and self.watches.synced

    def unhealthy(self) -> str:
        """What a restart would heal; '': nothing. An API server or a Redis that is away is no such thing."""
        if self.pulse.age_s > LOOP_STUCK_S:
            return "the event loop hangs"
        if monotonic() - self.elector.turned_at > ELECTOR_STUCK_S:
            return "the elector hangs"
        late_s, limit_s = self.loops.oldest_pass_s(), max(PERIODS * self.settings.resync, LOOP_STUCK_S)
        if self.leads and late_s > limit_s and self.api.silent_s < DEADLINE_S:
            return f"an AgentQueue's loop is {late_s:.0f} s late"
        return ""

    def unready(self) -> str:
        """What keeps this replica from leading well; '': nothing. One that stands by is ready too."""
        return "" if self.watches.synced else "; ".join(self.cache.trouble()) or "the caches are being filled"


async def serve(settings: Settings, *, on_stop: Callable[[], None] = lambda: None) -> None:
    """Reconcile until a signal comes.

    Args:
        settings: all of them.
        on_stop: called when it has come.

    Raises:
        UsageError: the port is taken.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    quieten_kopf()
    operator = assemble(settings)
    probes = probing(
        operator.settings.port,
        PORT,
        live=operator.unhealthy,
        ready=operator.unready,
        registry=operator.metrics.registry,
    )
    with probes:
        async with _running(operator):
            log.info("started", holder=settings.holder, namespaces=settings.namespaces or "all")
            await stop.wait()
            on_stop()
            log.info("stopping")
    log.info("stopped")


def assemble(settings: Settings) -> Operator:
    """All parts, in the running event loop; nothing runs yet."""
    home, metrics, pulse, board = asyncio.get_running_loop(), Metrics(), Pulse(), Switchboard()
    api = ApiServer(noted=metrics.called)

    def wake(ref: QueueRef) -> None:  # the cache wakes the loops, which read the cache
        loops.wake(ref)

    def wake_all() -> None:
        loops.wake_all()

    cache = StoreCache(wake)

    def changed(_: bool) -> None:  # noqa: FBT001
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            home.call_soon_threadsafe(wake_all)

    elector = Elector(
        lambda: ApiServer(noted=metrics.called),
        namespace=settings.namespace,
        name=settings.lease_name,
        me=settings.holder,
        healthy=lambda: pulse.age_s < LOOP_STUCK_S,
        changed=changed,
    )
    watches = Watches(
        api,
        cache,
        watched(settings),
        settings.namespaces,
        make_registry=make_registry,
        make_settings=make_kopf_settings,
        on_synced=wake_all,
    )
    cluster = KubernetesCluster(api, elector.left_s, Recorder(settings.holder))

    def make_scaler(ref: QueueRef) -> QueueScaler:
        return QueueScaler(cluster, on_decision=partial(metrics.decided, ref))

    place = Place(
        cluster=cluster,
        cache=cache,
        dial=board.dial,
        make_scaler=make_scaler,
        images=Images(settings.worker_image, settings.redis_image, settings.console_image),
        clock=monotonic,
        now=lambda: from_ms(now_ms()),
        make_secret=lambda: secrets.token_urlsafe(SECRET_BYTES),
        wake=wake,
        operator_namespace=settings.namespace,
        read_secrets=settings.read_secrets,
        pod_monitors=lambda: watches.watches(POD_MONITOR),
        leads=lambda: elector.leads and watches.synced,
        on_observed=metrics.on_observed,
    )
    loops = Loops(
        lambda ref: QueueReconciler(ref, place),
        exists=lambda ref: cache.queue(ref) is not None,
        leads=lambda: elector.leads and watches.synced,
        clock=monotonic,
        watcher=metrics,
        period_s=settings.resync,
    )
    operator = Operator(settings, metrics, pulse, elector, cache, watches, loops, api)
    add_gauges(operator)
    return operator


def watched(settings: Settings) -> tuple[Kind, ...]:
    """The kinds to watch."""
    return tuple(kind for kind in (AGENT_QUEUE, *PRUNED, POD) if kind is not SECRET or settings.read_secrets)


def add_gauges(operator: Operator) -> None:
    """The numbers that are there anyway."""
    numbers: dict[str, tuple[str, Callable[[], float]]] = {
        "leader": ("1 while this replica leads", lambda: float(operator.elector.leads)),
        "synced": ("1 once the caches are filled", lambda: float(operator.watches.synced)),
        "watches_down": ("Kinds that can't be watched at present", lambda: float(operator.watches.down)),
        "cached_objects": ("Objects that the watches have shown", lambda: float(len(operator.cache))),
        "agentqueues": ("AgentQueues that are looked after", lambda: float(len(operator.loops))),
        "work_queue_depth": ("AgentQueues that wait for a pass", lambda: float(operator.loops.waiting())),
        "oldest_pass_seconds": ("How late the slowest loop is", operator.loops.oldest_pass_s),
        "loop_lag_seconds": ("Time since the event loop turned", lambda: operator.pulse.age_s),
    }
    for name, (text, read) in numbers.items():
        operator.metrics.gauge(f"agentqueue_operator_{name}", text, read)
    operator.metrics.counter(
        "agentqueue_operator_watch_restarts",
        "Times that the watches were started again",
        lambda: float(operator.watches.begun),
    )


@contextlib.asynccontextmanager
async def _running(operator: Operator) -> AsyncIterator[None]:
    """The loops end before the Lease is let go of: the next leader must be the only one that writes."""
    async with _background(operator.pulse.beat(), operator.watches.run()):
        operator.elector.start()
        try:
            yield
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await operator.loops.close()
            await asyncio.to_thread(operator.elector.stop)
    await operator.api.close()


@contextlib.asynccontextmanager
async def _background(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """One that fails takes the process with it: a new one is better than one that limps."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
