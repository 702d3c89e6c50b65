"""What the parts of one worker share: what runs, what is held, and whether it may claim."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import structlog

from agentqueue.clock import monotonic
from agentqueue.model.attempts import Progress, encode_progress
from agentqueue_worker.app.forks import end_child
from agentqueue_worker.app.options import WorkerOptions
from agentqueue_worker.app.progress_writer import ProgressWriter
from agentqueue_worker.domain.leases import Leases
from agentqueue_worker.domain.outbox import Outbox
from agentqueue_worker.domain.wait_counts import Waits

if TYPE_CHECKING:
    from agentqueue.model.outcomes import Claimed
    from agentqueue_worker.app.job import RunningJob

log = structlog.get_logger("agentqueue.worker")


class WorkerState:
    """Belongs to the event loop's thread; the renewing thread and the probes only read it.

    Handlers see it as their `agentqueue.agent.context.Runtime`.
    """

    def __init__(self, options: WorkerOptions, notes: ProgressWriter) -> None:
        self.options = options
        self.queue = options.queue
        self.declared_queue = options.declared_queue or options.queue
        self.worker = options.identity.name
        self.state: Any = SimpleNamespace()
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.running: dict[str, RunningJob] = {}
        self.claimed: list[Claimed] = []
        """What the last step brought: held, and about to start."""
        self.leases = Leases()
        self.waits = Waits()
        self.outbox = Outbox()
        self.draining = False
        """A signal came: jobs end or go back, and the worker exits."""
        self.mark = 0
        """The mark by which it is to be scaled in: no claims as long as it stands; 0: none."""
        self.claiming = False
        """A step that claims jobs is under way: what it brings is not in `leases` yet."""
        self.renewed_at = float("inf")
        """When the renewal that last succeeded was answered, monotonic seconds. A claim needs one that is younger than
        a lease: its answer says whether the worker is marked, and without one nobody knows what the worker does."""
        self.ready = False
        """Handlers are loaded and opened."""
        self.paused = False
        self.started = 0
        """Jobs that were claimed."""
        self.finished = 0
        """Jobs whose outcome was recorded."""
        self.mean_seconds = 0.0
        """How long jobs take lately."""
        self.orphaned_threads = 0
        """Threads that run on though their job has ended; each keeps a slot."""
        self.orphaned_tasks: set[asyncio.Task[None]] = set()
        """Tasks that have not ended though their job left its slot: lost, or handed back by force."""
        self.wake_loop: Callable[[], None] = lambda: None
        """Has the claim loop look at once."""
        self.renew_soon: Callable[[], None] = lambda: None
        """Has a heartbeat sent at once: what it says has changed."""
        self.on_lost: Callable[[RunningJob], None] = lambda job: None  # noqa: ARG005
        """Stops a running job that another worker has."""
        self._progress_writer = notes
        self._tasks: set[asyncio.Task[None]] = set()
        self._executor: ThreadPoolExecutor | None = None

    @property
    def marked(self) -> bool:
        """Whether it is to be scaled in."""
        return self.mark > 0

    @property
    def admitted(self) -> bool:
        """Whether its heartbeat is young enough to claim jobs."""
        return monotonic() - self.renewed_at < self.options.engine.lease_ms / 1000

    @property
    def confirmed(self) -> int:
        """The mark that it obeys, once no claim is under way; 0: none. To be read before `busy`, from any thread: what
        a claim brings is in `leases` before the claim counts as over."""
        mark = self.mark
        return 0 if self.claiming else mark

    @property
    def free(self) -> int:
        """Slots that could take a job."""
        taken = len(self.running) + len(self.claimed) + self.orphaned_threads + self.outbox.blocked
        return self.options.concurrency - taken

    @property
    def want(self) -> int:
        """Jobs to claim now."""
        if self.draining or self.mark or not self.admitted:
            return 0
        limit = self.options.start_limit
        return max(self.free if limit is None else min(self.free, limit - self.started), 0)

    @property
    def start_limit_reached(self) -> bool:
        """All jobs that it was to start have been started."""
        limit = self.options.start_limit
        return limit is not None and self.started >= limit

    @property
    def busy(self) -> int:
        """Jobs that run, or whose outcome is not recorded yet, and threads that can't be stopped."""
        return max(len(self.running), len(self.leases)) + self.orphaned_threads

    def running_ms(self, now: float) -> int:
        """For how long its running jobs have run, added up: long ones show by their age before they show by their end.

        `now`: monotonic seconds.
        """
        return round(1000 * sum(now - job.started for job in tuple(self.running.values())))

    def oldest_ms(self, now: float) -> int:
        """Return for how many milliseconds the oldest running job has run; 0 if none runs. `now`: monotonic seconds."""
        return round(1000 * max((now - job.started for job in tuple(self.running.values())), default=0.0))

    def lose(self, job_id: str) -> None:
        """Another worker has the job by now."""
        self.leases.drop(job_id)
        job = self.running.get(job_id)
        if job is not None:
            self.on_lost(job)

    def progress(self, job_id: str, progress: Progress) -> None:
        """Note how far a job is; written soon."""
        job = self.running.get(job_id)
        if job is not None:
            self._progress_writer.schedule(job, "progress", encode_progress(progress))

    async def checkpoint(self, job_id: str, raw: bytes) -> None:
        """Keep a job's checkpoint: written when this returns, or later if Redis is away."""
        job = self.running.get(job_id)
        if job is not None and not await self._progress_writer.write(job, "checkpoint", raw):
            self.lose(job_id)

    async def run_in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a blocking function in a thread. Cancelled, it goes on there, and keeps its slot until it ends."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self.options.concurrency, thread_name_prefix="handler")
        context = contextvars.copy_context()
        future: Future[_Ended] = self._executor.submit(context.run, _call, function, args)
        try:
            ended = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if future.running():
                self.orphaned_threads += 1
                future.add_done_callback(lambda _: self._call_soon(self._thread_ended))
            raise
        if ended.exc is not None:
            raise ended.exc
        return ended.value

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run it beside the rest; it is kept until it ends."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)

    def _spawned(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("hook_failed", exc_info=task.exception())

    async def settle(self) -> None:
        """Wait for what was spawned."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _call_soon(self, function: Callable[[], None]) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(function)

    def _thread_ended(self) -> None:
        self.orphaned_threads -= 1
        self.wake_loop()

    def close(self) -> None:
        """Let the threads go; those that still run are not waited for."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)


@dataclass(slots=True)
class _Ended:
    """How a thread's function ended. Its exception goes through no future: those refuse some, and ask others' code."""

    value: Any = None
    exc: BaseException | None = None


def _call(function: Callable[..., Any], args: tuple[Any, ...]) -> _Ended:
    ended = _run(function, args)
    end_child(ended.exc)
    return ended


def _run(function: Callable[..., Any], args: tuple[Any, ...]) -> _Ended:
    try:
        return _Ended(function(*args))
    except StopIteration as exc:  # a coroutine can't raise it
        stopped = RuntimeError("the handler raised StopIteration")
        stopped.__cause__ = exc
        return _Ended(exc=stopped)
    except BaseException as exc:  # noqa: BLE001  # what the user's code raises (sys.exit too) ends this job alone
        return _Ended(exc=exc)
