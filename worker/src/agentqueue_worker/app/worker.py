"""A worker: starts its parts and ends them in order."""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import orjson
import structlog

from agentqueue import __version__
from agentqueue.clock import monotonic, now_ms
from agentqueue.errors import QueueUnavailable, UnsupportedServer
from agentqueue.model.outcomes import Claimed
from agentqueue.store import Engine, RenewReply, Server, Store
from agentqueue.store.journal import Journals
from agentqueue.store.limits import Limits
from agentqueue_worker.app.claim_loop import FIRST_RETRY_DELAY_S, MAX_RETRY_DELAY_S, UNAVAILABLE_ERRORS, ClaimLoop
from agentqueue_worker.app.cron import CronClock
from agentqueue_worker.app.drain import Drain
from agentqueue_worker.app.durable_calls import DurableCalls
from agentqueue_worker.app.durable_run import DurableRun
from agentqueue_worker.app.forks import Gone, end_in_loop, guarded
from agentqueue_worker.app.job import RunningJob
from agentqueue_worker.app.lease_renewer import LeaseRenewer
from agentqueue_worker.app.limits import JobLimits
from agentqueue_worker.app.options import WorkerOptions
from agentqueue_worker.app.ports import Registry
from agentqueue_worker.app.progress_writer import ProgressWriter
from agentqueue_worker.app.registrar import Registrar
from agentqueue_worker.app.runner import Runner
from agentqueue_worker.app.state import WorkerState
from agentqueue_worker.app.telemetry import Telemetry

if TYPE_CHECKING:
    from agentqueue.client import Client

SERVER_CHECK_INTERVAL_S: Final = 60.0
"""Seconds between checks that the server keeps jobs. A failover may lead to a replica or to an evicting server."""
DEREGISTRATION_TIMEOUT_S: Final = 2.0
"""Seconds for removing the worker from Redis at its end. If it fails, its heartbeat becomes stale by itself."""
LEASE_THREAD_STUCK_AFTER_S: Final = 30.0
"""Seconds without a renewal attempt after which the lease thread counts as dead. Leases expire long before."""
log = structlog.get_logger("agentqueue.worker")


class Worker:
    """Serves one queue. Make it inside a running event loop, then `await run()`. `stop()` drains it.

    Args:
        options: options of the worker.
        registry: the user's code.
        open_server: opens a connection pool, once here and once in the lease thread, which needs shorter timeouts.
        telemetry: handles every event.
        hidden: folders whose frames are left out of tracebacks.
    """

    def __init__(
        self,
        options: WorkerOptions,
        registry: Registry,
        open_server: Callable[[bool], Server],
        telemetry: Telemetry,
        *,
        hidden: Sequence[str] = (),
    ) -> None:
        self.options = options
        self.registry = registry
        self._telemetry = telemetry
        self._server = open_server(False)  # noqa: FBT003
        self._engine = Engine(self._server, options.queue, options.engine)
        self._progress_writer = ProgressWriter(self._engine, options.identity.owner)
        self.state = WorkerState(options, self._progress_writer)
        self._runner = Runner(self.state, registry, ended=telemetry.ended, hidden=hidden)
        self._registrar = Registrar(self._server, options.queue, options.identity.name, registry.code)
        self.state.tick_ended = lambda job, outcome: self.state.spawn(self._registrar.note_end(job, outcome))
        self._loop = ClaimLoop(self._engine, self.state, self._runner, registry, telemetry)
        self._started_ms = now_ms()
        self._jobs = sorted(registry.names)[:100]
        self._renewer = LeaseRenewer(
            lambda: Engine(open_server(True), options.queue, options.engine),  # noqa: FBT003
            options.identity,
            held=self.state.leases.snapshot,
            unstarted=self.state.unstarted,
            heartbeat=self.heartbeat,
            waits=self.state.waits,
            renewed=lambda reply, held: self._call_in_loop(self._renewed, reply, held, monotonic()),
            failed=lambda exc: self._call_in_loop(self._report_before_first_renewal, exc),
            telemetry=telemetry,
        )
        journals = Journals(self._server, options.queue)

        def open_durable(job: RunningJob) -> DurableCalls:
            job.durable = run = DurableRun(job, journals, self.state)
            return DurableCalls(run, self._engine, telemetry.step_ended)

        def open_limits(job: RunningJob) -> JobLimits:
            job.limits = limits = JobLimits(job, Limits(self._server), self.state)
            return limits

        def open_client() -> "Client":
            from agentqueue.client import Client  # noqa: PLC0415  # most handlers need none

            client = Client.at(self._server.options)
            if self.crashed:
                client.server.sever()
            return client

        self.state.open_durable = open_durable
        self.state.open_limits = open_limits
        self.state.open_client = open_client
        self.state.renew_soon = self._renewer.renew_soon
        self.crashed = False
        """True after `crash`."""
        self._deadline: asyncio.Task[None] | None = None
        self._drain = Drain(self.state, self._runner, began=self._renewer.renew_soon)

    @property
    def live(self) -> bool:
        """True if the lease thread works. Read by the probes' thread."""
        return monotonic() - self._renewer.turned_at < LEASE_THREAD_STUCK_AFTER_S

    def stop(self, *, grace: float | None = None) -> None:
        """Drain the worker. It claims no more jobs, and running ones get `grace` seconds. A second call stops them."""
        self._drain.begin(grace=grace)

    def crash(self) -> None:
        """End as by SIGKILL, for tests: nothing more reaches Redis, and every job stops where it is.

        Unlike a killed process, a coroutine runs its `finally` blocks, and a thread runs to its end.
        """
        self.crashed = True
        self._server.sever()
        if self.state.opened_client is not None:
            self.state.opened_client.server.sever()
        for job in list(self.state.running.values()):
            self._runner.lose(job)
        if self._deadline is not None:
            self._deadline.cancel()

    def release_from_thread(self, timeout: float) -> None:
        """Release all jobs within `timeout` seconds although the event loop may be blocked, before the process ends."""
        self._renewer.release(timeout)

    async def run(self) -> None:
        """Work until stopped, or in burst mode until the queue is empty.

        Raises:
            UnsupportedServer: the server would lose jobs.
            Exception: what a startup hook raised.
        """
        state = self.state

        def leave_worker() -> None:
            """Keep a child that a handler forked from using this worker's connections and event loop."""
            self._server.redis = Gone()  # type: ignore[assignment]  # any call of its methods ends the child
            if threading.get_ident() == state.thread:
                state.loop.call_soon(end_in_loop)

        with guarded(leave_worker):
            try:
                await self.registry.start(state)
                state.ready = True
                if await self._connect():
                    await self._serve()
            finally:
                await self._close()

    async def _connect(self) -> bool:
        """Wait until the server answers and is fit for jobs. Return False if the worker was stopped before that."""
        identity, delay = self.options.identity, FIRST_RETRY_DELAY_S
        while not self.state.draining:
            try:
                await self._server.check()
                if definitions := self.options.limit_definitions:
                    await Limits(self._server).define(self.options.queue, f"worker {self.options.queue}", definitions)
                if identity.pod_uid is not None:
                    # Only this process knows so early that the earlier process of its container is dead.
                    released = await self._engine.release_worker_leases(
                        worker=identity.container, reason="its container was restarted", except_owner=identity.owner
                    )
                    if released:
                        reason = "an earlier process of this container held them"
                        log.warning("jobs_released", jobs=released, reason=reason)
                await self._registrar.register(starts=True)
                return True
            except QueueUnavailable as exc:
                self._telemetry.redis_failed(exc)
                await asyncio.sleep(delay)
                delay = min(delay * 2, MAX_RETRY_DELAY_S)
        return False

    async def _serve(self) -> None:
        self.state.renewed_at = float("-inf")
        self._renewer.start()
        log.info("worker_started", queue=self.options.queue, concurrency=self.options.concurrency, jobs=self._jobs)
        loop_task = asyncio.create_task(self._loop.run(), name="claim-loop")
        self._deadline = deadline = asyncio.create_task(self._drain.run(), name="drain")
        parts: list[tuple[str, Any]] = [
            ("progress", self._progress_writer.run()),
            ("check", self._check_server()),
            ("registration", self._registrar.run()),
        ]
        if not self.options.burst:
            parts.append(("listen", self._loop.listen()))
        store = Store(self._server)
        parts += [(f"cron {cron.name}", CronClock(store, self.state, cron).run()) for cron in self.registry.crons]
        background = [asyncio.create_task(part, name=name) for name, part in parts]
        try:
            await self._watch(loop_task, deadline, background)
        finally:
            for task in (loop_task, deadline, *background):
                task.cancel()
            await asyncio.gather(loop_task, deadline, *background, return_exceptions=True)
            await self.state.settle()

    async def _watch(
        self, loop_task: "asyncio.Task[None]", deadline: "asyncio.Task[None]", background: "list[asyncio.Task[None]]"
    ) -> None:
        """Wait until the claim loop or the drain ends. If another part fails, drain the worker and raise its error."""
        pending = {loop_task, deadline, *background}
        broken: BaseException | None = None
        while not (loop_task.done() or deadline.done()):
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {loop_task, deadline}:
                broken = task.exception()
                log.critical("worker_broken", part=task.get_name(), exc_info=broken)
                self.stop()
        if loop_task.done():
            loop_task.result()
        if broken is not None:
            raise broken

    async def _check_server(self) -> None:
        while True:
            await asyncio.sleep(SERVER_CHECK_INTERVAL_S)
            try:
                await self._server.check()
            except UnsupportedServer as exc:
                log.error("server_unsafe", error=str(exc))  # noqa: TRY400  # the message has the reason
            except QueueUnavailable as exc:
                self._telemetry.redis_failed(exc)

    # --- the lease thread

    def heartbeat(self) -> bytes:
        """Return the heartbeat's JSON, which the operator, the console and the command line read."""
        state = self.state
        confirmed_ms = state.drain_confirmed_ms  # read before `busy`, see there
        now = monotonic()
        return orjson.dumps(
            {
                "busy": state.busy,
                "slots": self.options.concurrency,
                "ahead": state.holds_ahead,
                "draining": state.draining or state.drain_requested,
                "drainMark": confirmed_ms,
                "jobs": self._jobs,
                "agent": self.options.agent,
                "podUid": self.options.identity.pod_uid,
                "incarnation": self.options.identity.incarnation,
                "pid": os.getpid(),
                "version": __version__,
                "registration": self._registrar.fingerprint,
                "startedMs": self._started_ms,
                "finished": state.finished,
                "runningMs": state.running_ms(now),
                "oldestMs": state.oldest_ms(now),
                "blocked": "redis full" if state.outbox.blocked_until is not None or state.blocked_calls else None,
            }
        )

    def _call_in_loop(self, function: Callable[..., None], *args: object) -> None:
        """Call a function in the event loop, from the lease thread."""
        loop = self.state.loop
        if not loop.is_closed():
            loop.call_soon_threadsafe(function, *args)

    def _report_before_first_renewal(self, exc: Exception) -> None:
        """Report that Redis does not answer. After the first renewal the claim loop reports it."""
        if self.state.renewed_at == float("-inf"):
            self._telemetry.redis_failed(exc if str(exc) else QueueUnavailable("no answer in time"))

    def _renewed(self, reply: RenewReply, held: dict[str, Claimed], at: float) -> None:
        state = self.state
        was_fresh, state.renewed_at = state.heartbeat_is_fresh, at
        for job_id in state.leases.confirm_lost(reply.lost, held):
            if job_id in state.running or any(claimed.id == job_id for claimed in state.unstarted()):
                state.lose(job_id)
        if reply.wrong_type_keys:
            self._telemetry.wrong_type_keys(reply.wrong_type_keys)
        if reply.lacks_times:
            state.spawn(self._registrar.tend())
        if reply.drain_requested_ms != state.drain_requested_ms:
            if bool(reply.drain_requested_ms) is not state.drain_requested:
                event = "drain_requested" if reply.drain_requested_ms else "drain_cancelled"
                log.info(event, running_jobs=len(state.running), requested_by="autoscaler")
            state.drain_requested_ms = reply.drain_requested_ms
            self._renewer.renew_soon()
            state.wake_loop()
        elif not was_fresh:
            state.wake_loop()

    # --- ending

    async def _close(self) -> None:
        self.state.ready = False
        await asyncio.to_thread(self._renewer.stop)  # joins a thread, while others may share this event loop
        try:
            async with asyncio.timeout(DEREGISTRATION_TIMEOUT_S):
                await self._engine.deregister_worker(self.options.identity.heartbeat_field)
                # A short-lived worker may have claimed all its jobs since the last renewal, which sends wait counts.
                if waits := self.state.waits.unsent():
                    await self._engine.increment_counters(waits)
                    self.state.waits.sent(waits)
        except (*UNAVAILABLE_ERRORS, TimeoutError) as exc:
            log.warning("deregistration_failed", error=str(exc) or "no answer in time")
        try:
            await self.registry.stop()
        finally:
            self.state.close()
            if self.state.opened_client is not None:
                await self.state.opened_client.close()
            await self._server.close()
            log.info("worker_stopped", finished=self.state.finished, left=len(self.state.leases))
