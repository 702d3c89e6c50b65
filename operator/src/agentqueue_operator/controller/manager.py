"""The operator's process: assembles watches, work queue, leader election, probes and metrics, and runs them."""

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
from agentqueue_operator.controller.kubernetes.event_recorder import EventRecorder
from agentqueue_operator.controller.kubernetes.kopf_handlers import make_kopf_settings, make_registry
from agentqueue_operator.controller.kubernetes.leader_elector import LeaderElector
from agentqueue_operator.controller.kubernetes.watches import Watches, silence_kopf
from agentqueue_operator.controller.metrics import Metrics
from agentqueue_operator.controller.reconciler import Dependencies, QueueReconciler
from agentqueue_operator.controller.redis_pool import RedisPool
from agentqueue_operator.controller.scaling.scaler import QueueScaler
from agentqueue_operator.controller.settings import PORT, Settings
from agentqueue_operator.controller.work_queue import WorkQueue
from agentqueue_operator.resources.kinds import AGENT_QUEUE, POD, POD_MONITOR, PRUNED, SECRET, Kind, QueueRef
from agentqueue_operator.resources.render import Images

OVERDUE_PERIODS: Final = 3
"""Number of resync periods after which an overdue reconcile counts as stuck."""
LOOP_STUCK_S: Final = 30.0
"""Seconds without progress of the event loop after which it counts as stuck and another replica should lead."""
ELECTOR_STUCK_S: Final = 60.0
"""Seconds without a round of the leader elector after which it counts as stuck. A round takes a few seconds."""
CLOSE_S: Final = 0.8
"""Seconds to wait for running reconciles at the end. A write that takes longer is left to the API server; the next
leader observes its result."""
SECRET_BYTES: Final = 24
"""Random bytes in a generated password or token: 192 bits cannot be guessed."""
log = structlog.get_logger("agentqueue.operator")


class Heartbeat:
    """Records when the event loop last made progress, so that other threads notice when it is stuck."""

    def __init__(self) -> None:
        self._at = monotonic()

    @property
    def age_s(self) -> float:
        """Return the seconds since the event loop last made progress."""
        return monotonic() - self._at

    async def run(self) -> None:
        """Record progress until cancelled."""
        while True:
            self._at = monotonic()
            await asyncio.sleep(0.5)


@dataclass(frozen=True, slots=True)
class Operator:
    """The assembled parts of the operator, for probes and metrics."""

    settings: Settings
    metrics: Metrics
    heartbeat: Heartbeat
    elector: LeaderElector
    cache: StoreCache
    watches: Watches
    work_queue: WorkQueue
    api: ApiServer

    @property
    def leads(self) -> bool:
        """Return whether this replica may reconcile: it is the leader, and its cache is complete."""
        return self.elector.leads and self.watches.synced

    def unhealthy(self) -> str:
        """Return the problem that a restart would fix, or an empty string.

        An unavailable API server or Redis is not such a problem.
        """
        if self.heartbeat.age_s > LOOP_STUCK_S:
            return "the event loop is stuck"
        if monotonic() - self.elector.last_round_at > ELECTOR_STUCK_S:
            return "the leader elector is stuck"
        age_s = self.work_queue.oldest_reconcile_s()
        limit_s = max(OVERDUE_PERIODS * self.settings.resync, LOOP_STUCK_S)
        if self.leads and age_s > limit_s and self.api.silent_s < DEADLINE_S:
            return f"the reconcile of an AgentQueue is {age_s:.0f} s late"
        return ""

    def unready(self) -> str:
        """Return the reason why this replica could not lead now, or an empty string. A standby is ready too."""
        return "" if self.watches.synced else "; ".join(self.cache.watch_problems()) or "the caches are not filled yet"


async def serve(settings: Settings, *, on_stop: Callable[[], None] = lambda: None) -> None:
    """Run the operator until SIGTERM or SIGINT.

    Args:
        settings: the operator's settings.
        on_stop: called when the signal arrives.

    Raises:
        UsageError: the port is in use.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    silence_kopf()
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
    """Create all parts in the running event loop, without starting them."""
    loop, metrics, heartbeat = asyncio.get_running_loop(), Metrics(), Heartbeat()
    api = ApiServer(on_call=metrics.on_api_call)

    def wake(ref: QueueRef) -> None:  # the cache wakes the work queue, which reads the cache
        work_queue.wake(ref)

    def wake_all() -> None:
        work_queue.wake_all()

    def on_leadership(_: bool) -> None:  # noqa: FBT001
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            loop.call_soon_threadsafe(wake_all)

    def leads() -> bool:
        return elector.leads and watches.synced

    cache = StoreCache(wake)
    # The leader elector runs in a thread of its own, with its own connections.
    elector = LeaderElector(
        lambda: ApiServer(on_call=metrics.on_api_call),
        namespace=settings.namespace,
        name=settings.lease_name,
        me=settings.holder,
        healthy=lambda: heartbeat.age_s < LOOP_STUCK_S,
        on_change=on_leadership,
    )
    # Watches fill the cache; nothing is reconciled before it is complete.
    watches = Watches(
        api,
        cache,
        watched_kinds(settings),
        settings.namespaces,
        make_registry=make_registry,
        make_settings=make_kopf_settings,
        on_synced=wake_all,
    )
    # Every write to the cluster checks the lease first.
    cluster = KubernetesCluster(api, elector.write_budget_s, EventRecorder(settings.holder))
    dependencies = Dependencies(
        cluster=cluster,
        cache=cache,
        acquire=RedisPool().acquire,
        make_scaler=lambda ref: QueueScaler(cluster, on_decision=partial(metrics.on_decided, ref)),
        images=Images(settings.worker_image, settings.redis_image, settings.console_image),
        clock=monotonic,
        now=lambda: from_ms(now_ms()),
        make_secret=lambda: secrets.token_urlsafe(SECRET_BYTES),
        wake=wake,
        operator_namespace=settings.namespace,
        read_secrets=settings.read_secrets,
        pod_monitors=lambda: watches.watches(POD_MONITOR),
        leads=leads,
        on_observed=metrics.on_observed,
    )
    work_queue = WorkQueue(
        lambda ref: QueueReconciler(ref, dependencies),
        exists=lambda ref: cache.queue(ref) is not None,
        leads=leads,
        clock=monotonic,
        observer=metrics,
        period_s=settings.resync,
    )
    operator = Operator(settings, metrics, heartbeat, elector, cache, watches, work_queue, api)
    add_gauges(operator)
    return operator


def watched_kinds(settings: Settings) -> tuple[Kind, ...]:
    """Return the kinds to watch."""
    return tuple(kind for kind in (AGENT_QUEUE, *PRUNED, POD) if kind is not SECRET or settings.read_secrets)


def add_gauges(operator: Operator) -> None:
    """Add the metrics that are read from the parts at a scrape."""
    gauges: dict[str, tuple[str, Callable[[], float]]] = {
        "leader": ("1 while this replica leads", lambda: float(operator.elector.leads)),
        "synced": ("1 once the caches are filled", lambda: float(operator.watches.synced)),
        "watches_down": ("Kinds that cannot be watched at present", lambda: float(operator.watches.down)),
        "cached_objects": ("Objects in the cache", lambda: float(len(operator.cache))),
        "agentqueues": ("AgentQueues that this replica reconciles", lambda: float(len(operator.work_queue))),
        "work_queue_depth": ("AgentQueues that wait for a reconcile", lambda: float(operator.work_queue.waiting())),
        "oldest_reconcile_seconds": ("Age of the most overdue reconcile", operator.work_queue.oldest_reconcile_s),
        "loop_lag_seconds": ("Time since the event loop last made progress", lambda: operator.heartbeat.age_s),
    }
    for name, (text, read) in gauges.items():
        operator.metrics.gauge(f"agentqueue_operator_{name}", text, read)
    operator.metrics.counter(
        "agentqueue_operator_watch_restarts", "Starts of the watches", lambda: float(operator.watches.starts)
    )


@contextlib.asynccontextmanager
async def _running(operator: Operator) -> AsyncIterator[None]:
    """Run the parts. Reconciles end before the lease is released, so that the next leader is the only writer."""
    async with _background(operator.heartbeat.run(), operator.watches.run()):
        operator.elector.start()
        try:
            yield
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await operator.work_queue.close()
            await asyncio.to_thread(operator.elector.stop)
    await operator.api.close()


@contextlib.asynccontextmanager
async def _background(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run background tasks. An error in one ends the process: a restart is better than a partial failure."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
