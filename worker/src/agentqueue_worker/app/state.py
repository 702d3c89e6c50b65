"""State that the parts of one worker share: running jobs, held leases, and the conditions for claiming."""

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import structlog

from agentqueue.clock import monotonic
from agentqueue.model.attempts import Progress, encode_progress
from agentqueue_worker.app.forks import end_child
from agentqueue_worker.app.job_tasks import running_jobs
from agentqueue_worker.app.journal_cache import JournalCache
from agentqueue_worker.app.options import WorkerOptions
from agentqueue_worker.app.progress_writer import ProgressWriter
from agentqueue_worker.domain.claim_size import ahead_size
from agentqueue_worker.domain.leases import Leases
from agentqueue_worker.domain.outbox import Outbox
from agentqueue_worker.domain.wait_counts import Waits

if TYPE_CHECKING:
    from agentqueue.agent.durable import Durable
    from agentqueue.agent.limit import LimitCalls
    from agentqueue.client import Client
    from agentqueue.model.outcomes import Claimed, Outcome
    from agentqueue_worker.app.job import Ending, RunningJob

STEP_THREADS: Final = 64
"""Maximum number of plain functions of steps that run at a time. They mostly wait for a network."""
log = structlog.get_logger("agentqueue.worker")


class WorkerState:
    """State of one worker. The event loop's thread writes it, the lease thread and the probes only read it.

    Handlers see it as their `agentqueue.agent.context.Runtime`.
    """

    suspect: "Claimed | None" = None
    """A job that runs alone, or waits to start until all other jobs have ended. Nothing is claimed meanwhile."""
    round_trip_seconds = 0.0
    """Moving mean of the durations of round trips."""
    holds_ahead = 0
    """Number of jobs beyond its slots that this worker may hold, as its heartbeat says. 0 if its jobs are long."""

    def __init__(self, options: WorkerOptions, notes: ProgressWriter) -> None:  # noqa: PLR0915  # it only assigns
        self.options = options
        self.queue = options.queue
        self.declared_queue = options.declared_queue or options.queue
        self.worker = options.identity.name
        self.state: Any = SimpleNamespace()
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.running: dict[str, RunningJob] = running_jobs(self.loop)
        self.claimed: deque[Claimed] = deque()
        """Claimed jobs that have not started. They start in this order, when slots are free."""
        self.leases = Leases()
        self.waits = Waits()
        self.outbox = Outbox()
        self.journals = JournalCache()
        self.draining = False
        """True after a signal. Running jobs end or are released, and the worker exits."""
        self.drain_requested_ms = 0
        """Time of the request to drain, by which the autoscaler removes this worker. 0 if there is none.

        The worker claims no jobs while it is set.
        """
        self.claiming = False
        """True while a round trip that claims jobs is in flight. Its jobs are not in `leases` yet."""
        self.renewed_at = float("inf")
        """Time of the last successful renewal, in monotonic seconds.

        A claim needs a renewal that is younger than a lease. Its reply carries the drain request, and its heartbeat
        lets the autoscaler see what the worker does.
        """
        self.ready = False
        """True while handlers are loaded and their startup hooks have run."""
        self.paused = False
        self.started = 0
        """Number of jobs that were claimed."""
        self.finished = 0
        """Number of jobs whose outcome was recorded."""
        self.mean_seconds = 0.0
        """Moving mean of the durations of jobs."""
        self.blocked_calls = 0
        """Number of durable calls that wait for Redis, which is unavailable or full."""
        self.orphaned_threads = 0
        """Number of threads that run on after their job has ended. Each keeps a slot."""
        self.orphaned_tasks: set[asyncio.Task[None]] = set()
        """Tasks that run on after their job left its slot, because its lease was lost or it was abandoned."""
        self.wake_loop: Callable[[], None] = lambda: None
        """Wakes the claim loop."""
        self.renew_soon: Callable[[], None] = lambda: None
        """Makes the lease thread renew and send a heartbeat now, because its content has changed."""
        self.on_lost: Callable[[RunningJob], None] = lambda job: None  # noqa: ARG005
        """Stops a running job whose lease was lost."""
        self.waiting_jobs: set[RunningJob] = set()
        """Jobs that wait in their slot for a signal, a time or children."""
        self.limited_jobs: set[RunningJob] = set()
        """Jobs that wait in their slot for room under a limit."""
        self.listen: Callable[[], None] = lambda: None
        """Makes the worker listen for news of the jobs that wait in their slots."""
        self.suspend: Callable[[RunningJob], None] = lambda job: None  # noqa: ARG005
        """Ends a run whose handler only waits, so that the job waits without a slot."""
        self.end_between_calls: Callable[[RunningJob, Ending], None] = lambda job, ending: None  # noqa: ARG005
        """Ends a run that is about to make a durable call, or waits for one."""
        self.tick_ended: Callable[[RunningJob, Outcome], None] = lambda job, outcome: None  # noqa: ARG005
        """Notes how the job of a schedule's tick has ended, once its outcome is recorded."""
        self.open_durable: Callable[[RunningJob], Durable]  # set by the worker
        """Makes the durable calls of a running job."""
        self.open_limits: Callable[[RunningJob], LimitCalls]  # set by the worker
        """Makes the calls of a running job under limits."""
        self._call_numbers = count(1)
        self.open_client: Callable[[], Client]  # set by the worker
        """Makes the client that handlers use."""
        self.opened_client: Client | None = None
        """That client, once a handler has used it."""
        self._progress_writer = notes
        self._tasks: set[asyncio.Task[None]] = set()
        self._executor: ThreadPoolExecutor | None = None
        self._step_executor: ThreadPoolExecutor | None = None

    @property
    def drain_requested(self) -> bool:
        """True if the autoscaler removes this worker."""
        return self.drain_requested_ms > 0

    @property
    def heartbeat_is_fresh(self) -> bool:
        """True if the last heartbeat is recent enough to claim jobs."""
        return monotonic() - self.renewed_at < self.options.engine.lease_ms / 1000

    @property
    def drain_confirmed_ms(self) -> int:
        """Time of the request to drain that the worker follows, once no claim is in flight. 0 if there is none.

        Read it before `busy`, from any thread. Claimed jobs are in `leases` before the claim counts as finished.
        """
        requested_ms = self.drain_requested_ms
        return 0 if self.claiming else requested_ms

    @property
    def open_slots(self) -> int:
        """Number of slots in which no job runs. Claimed jobs start in them."""
        return self.options.concurrency - len(self.running) - self.orphaned_threads - self.outbox.blocked

    @property
    def free(self) -> int:
        """Number of slots without a job that runs or is claimed. Negative if jobs were claimed ahead."""
        return self.open_slots - len(self.claimed)

    @property
    def ahead(self) -> int:
        """Number of jobs to hold beyond the slots.

        None with a rate limit, for which a claim counts as a start, none with limits, for which jobs stay in the queue
        while calls wait, and none if slots may stay taken for long, by
        threads that run on or by outcomes that Redis refuses.
        """
        options = self.options
        if options.engine.rate_max or options.limits or self.orphaned_threads or self.outbox.blocked:
            return 0
        return ahead_size(options.concurrency, self.mean_seconds, self.round_trip_seconds)

    @property
    def want(self) -> int:
        """Number of jobs to claim now."""
        if self.draining or self.drain_requested_ms or self.suspect is not None or not self.heartbeat_is_fresh:
            return 0
        wanted, limit = self.free + self.ahead, self.options.start_limit
        return max(wanted if limit is None else min(wanted, limit - self.started), 0)

    @property
    def suspect_waits(self) -> bool:
        """True if a suspect has not started, and nothing else is left to end before it."""
        if self.suspect is None or not (self.draining or not (self.running or self.claimed)):
            return False
        return not self._runs(self.suspect)

    @property
    def start_limit_reached(self) -> bool:
        """True if the worker has started as many jobs as it may."""
        limit = self.options.start_limit
        return limit is not None and self.started >= limit

    @property
    def busy(self) -> int:
        """Number of jobs that run or whose outcome is not recorded yet, and of threads that can't be stopped.

        Jobs that were claimed ahead are left out, since they take no slot. They count while the autoscaler waits for
        this worker to hold nothing.
        """
        ahead = 0 if self.drain_requested_ms else max(len(self.claimed) - max(self.open_slots, 0), 0)
        return max(len(self.running), len(self.leases) - ahead) + self.orphaned_threads

    def running_ms(self, now: float) -> int:
        """Return the ages of all running jobs added up, in ms. Long jobs are visible in it before they end.

        `now` is in monotonic seconds.
        """
        return round(1000 * sum(now - job.started for job in tuple(self.running.values())))

    def oldest_ms(self, now: float) -> int:
        """Return the age of the oldest running job in ms, 0 if none runs. `now` is in monotonic seconds."""
        return round(1000 * max((now - job.started for job in tuple(self.running.values())), default=0.0))

    def lose(self, job_id: str) -> None:
        """Stop a job whose lease was lost, if it still runs."""
        self.leases.drop([job_id])
        job = self.running.get(job_id)
        if job is not None:
            self.on_lost(job)
        elif any(claimed.id == job_id for claimed in self.claimed):
            self.claimed = deque(claimed for claimed in self.claimed if claimed.id != job_id)
        if self.suspect is not None and self.suspect.id == job_id:
            self.suspect = None

    def unstarted(self) -> "Iterator[Claimed]":
        """Yield the claimed jobs that have not started."""
        yield from self.claimed
        if self.suspect is not None and not self._runs(self.suspect):
            yield self.suspect

    def _runs(self, claimed: "Claimed") -> bool:
        job = self.running.get(claimed.id)
        return job is not None and job.claimed is claimed

    def progress(self, job_id: str, progress: Progress) -> None:
        """Write a job's progress within half a second."""
        job = self.running.get(job_id)
        if job is not None:
            self._progress_writer.schedule(job, "progress", encode_progress(progress))

    def note(self, job_id: str, field: str, raw: bytes) -> None:
        """Write a field of a running job's meta hash within half a second."""
        job = self.running.get(job_id)
        if job is not None:
            self._progress_writer.schedule(job, field, raw)

    async def checkpoint(self, job_id: str, raw: bytes, *, strict: bool) -> None:
        """Write a job's checkpoint. While Redis is unavailable this waits, or raises if it is strict."""
        job = self.running.get(job_id)
        if job is None:
            return
        fields = {"checkpoint": raw}
        if raw != job.claimed.meta.get("checkpoint"):
            fields |= {name: b"%d" % count for name, count in job.progress_fields().items()}
            job.has_progressed = True
        if not await self._progress_writer.write(job, fields, strict=strict):
            self.lose(job_id)

    @property
    def client(self) -> "Client":
        """Return the client that handlers use. It is made at the first use, and has connections of its own."""
        if self.opened_client is None:
            self.opened_client = self.open_client()
        return self.opened_client

    def durable(self, job_id: str) -> "Durable":
        """Return the durable calls of a running job."""
        return self.open_durable(self.running[job_id])

    def limits(self, job_id: str) -> "LimitCalls":
        """Return a running job's calls under limits."""
        return self.open_limits(self.running[job_id])

    def next_call_number(self) -> int:
        """Return the number of a call under limits. This process uses each once."""
        return next(self._call_numbers)

    @property
    def awaits_news(self) -> bool:
        """True if a job waits in its slot for something that others send news of."""
        return bool(self.waiting_jobs or self.limited_jobs)

    async def run_in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a blocking function in a thread. If it is cancelled, it runs on and keeps its slot until it ends."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self.options.concurrency, thread_name_prefix="handler")
        return await self._run_in(self._executor, function, args)

    async def run_step_in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a blocking function of a step in a thread. Handlers that wait for steps may hold all handler threads."""
        if self._step_executor is None:
            self._step_executor = ThreadPoolExecutor(STEP_THREADS, thread_name_prefix="step")
        return await self._run_in(self._step_executor, function, args)

    async def _run_in(self, executor: ThreadPoolExecutor, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        context = contextvars.copy_context()
        future: Future[_Ended] = executor.submit(context.run, _call, function, args)
        try:
            ended = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if future.running():
                self.orphaned_threads += 1

                def orphan_ended(_: Future[_Ended]) -> None:
                    if not self.loop.is_closed():
                        self.loop.call_soon_threadsafe(self._free_orphan)

                future.add_done_callback(orphan_ended)
            raise
        if ended.exc is not None:
            raise ended.exc
        return ended.value

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in a task of its own, and log the exception that it raises."""

        def ended(task: "asyncio.Task[None]") -> None:
            self._tasks.discard(task)
            if not task.cancelled() and task.exception() is not None:
                log.error("hook_failed", exc_info=task.exception())

        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(ended)

    async def settle(self) -> None:
        """Wait until all spawned tasks have ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _free_orphan(self) -> None:
        self.orphaned_threads -= 1
        self.wake_loop()

    def close(self) -> None:
        """End the idle threads. Busy ones are not waited for."""
        for executor in (self._executor, self._step_executor):
            if executor is not None:
                executor.shutdown(wait=False, cancel_futures=True)


@dataclass(slots=True)
class _Ended:
    """Result or exception of a thread's function.

    The exception does not pass through a future. Futures refuse some exceptions, and run the code of others.
    """

    value: Any = None
    exc: BaseException | None = None


def _call(function: Callable[..., Any], args: tuple[Any, ...]) -> _Ended:
    try:
        ended = _Ended(function(*args))
    except StopIteration as exc:  # a coroutine can't raise it
        stopped = RuntimeError("the function raised StopIteration")
        stopped.__cause__ = exc
        ended = _Ended(exc=stopped)
    except BaseException as exc:  # noqa: BLE001  # what the user's code raises (sys.exit too) ends this job alone
        ended = _Ended(exc=exc)
    end_child(ended.exc)
    return ended
