"""The durable calls of one running job: its journal, the places of its calls, and the end of the run."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

import structlog

from agentqueue.agent.outcomes import DurableError
from agentqueue.clock import monotonic, now_ms
from agentqueue.errors import InvalidPayload, JournalUnreadable, QueueFull, QueueUnavailable, UnsupportedServer
from agentqueue.model.journal import (
    MAX_ENTRIES,
    MAX_JOURNAL_BYTES,
    RUNNING_STEPS,
    Entry,
    EntryState,
    RunningStep,
    StepRecord,
    decode_entry,
    encode_running,
    events_field,
    steps_of,
)
from agentqueue.store.journal import Journals
from agentqueue_worker.app.hold import Hold
from agentqueue_worker.app.job import Ending, RunningJob
from agentqueue_worker.app.state import WorkerState

FIRST_RETRY_DELAY_S: Final = 0.05
"""Seconds until a call is sent again while Redis is unavailable. A failover often takes less than a second."""
MAX_RETRY_DELAY_S: Final = 2.0
"""Maximum seconds between retries of a call while Redis is unavailable or full."""
NOTED_AFTER_S: Final = 1.0
"""Seconds that a step runs before the job's status shows it. Most steps are shorter, and cost nothing more."""
REPLAYED_PER_TURN: Final = 100
"""Number of calls that are answered from the journal before other jobs get a turn of the event loop."""
NEEDS_RERUN: Final = (Ending.DRAIN, Ending.LOST, Ending.SUSPEND)
"""Endings after which the handler runs again as if nothing had happened. A durable call of its cleanup would count as
done in the next run, so it raises. After a timeout or a cancellation the handler may still clean up with steps."""
MAX_REFUSED_CALLS: Final = 20
"""Number of calls of a run that is being ended that raise. Later ones block: a handler that ignores the cancellation
and calls again and again must not keep the event loop busy."""
log = structlog.get_logger("agentqueue.worker")
T = TypeVar("T")


class EmitterOfRun(Protocol):
    """The events that a run emits, `agentqueue_worker.app.emitter.Emitter`."""

    @property
    def has_stream(self) -> bool:
        """Return whether the job has a stream."""
        ...

    async def flush(self) -> None:
        """Write what the run has emitted so far."""
        ...

    async def finish(self) -> None:
        """Write all that the run has emitted, and drop what earlier runs have emitted besides."""
        ...


class DurableRun:
    """One delivery of a job that makes durable calls. It is made at the first of them, and all share it."""

    def __init__(self, job: RunningJob, journals: Journals, state: WorkerState) -> None:
        self.job = job
        self.state = state
        self.journals = journals
        self.lease = b""
        """In-progress value, by which scripts know this delivery."""
        self.opened_ms = 0
        """When this run read the journal, in ms since the epoch, by the server's clock."""
        self.emitter: EmitterOfRun | None = None
        """Writes the events that the run emits, once it has emitted one."""
        self.entries: dict[str, bytes] = {}
        """The journal's entries by field: those of earlier deliveries, and those that this one has added."""
        self.has_journal = "journal" in job.claimed.meta
        """The job's meta hash says that there is a journal."""
        self.closed = False
        """The job has left its slot. Every call raises."""
        self._in_flight = 0
        self.last_sign_of_life = monotonic()
        """When a step or a wait began or ended, in monotonic seconds."""
        self.at_close: list[Callable[[], None]] = []
        """Called when the job leaves its slot."""
        self._size = 0
        self._replayed = 0
        self._opening: asyncio.Task[None] | None = None
        self._used: dict[str, int] = {}
        """How often the run has used a name with its namespace."""
        self._users: dict[str, object] = {}
        """The task that uses a name."""
        self.in_thread = False
        """The handler is a plain function, so that its calls are tasks of the event loop that nobody else cancels."""
        self.hold = Hold(self)
        self._refused = 0
        self._running: dict[str, RunningStep] = {}
        """Steps whose functions run now, by their places."""
        self._tasks: set[asyncio.Future[Any]] = set()
        """Tasks that end with the run."""
        self._uncut: set[asyncio.Future[Any]] = set()
        """Tasks of `finish`."""
        self._settling = False

    @property
    def has_stream(self) -> bool:
        """Return whether the job has a stream."""
        return self.emitter is not None and self.emitter.has_stream

    @property
    def steps(self) -> list[StepRecord]:
        """Steps of the job, without their values. They stay with its result."""
        return steps_of(self.entries)

    @property
    def in_flight(self) -> int:
        """Number of steps that run now, and of calls that are on their way to Redis. None is cut by a suspension."""
        return self._in_flight

    @in_flight.setter
    def in_flight(self, number: int) -> None:
        self._in_flight = number
        if number == 0:
            self.last_sign_of_life = monotonic()
            self.hold.check()

    # --- a call's place in the journal

    def reserve(self, kind: str, name: str, what: str) -> str:
        """Return the journal's field for a call that is made now, in the handler's task or thread.

        Args:
            kind: namespace of the field, such as `step`.
            name: name of the call, with its key if it has one.
            what: the call in error messages, such as `step "plan"`.

        Raises:
            DurableError: another task of the job uses the name. The order of their calls may differ in another run,
                which would give each the value of the other.
        """
        field = f"{kind}:{name}"
        try:
            user: object = asyncio.current_task()
        except RuntimeError:  # the thread of a plain handler
            user, self.in_thread = None, True
        if self._users.setdefault(field, user) is not user:
            raise DurableError(
                f"{what} is called from two tasks of job {self.job.id}, whose order may differ in the next run; "
                "give each call a key=, such as the ID of its item, or use different names"
            )
        self._used[field] = number = self._used.get(field, 0) + 1
        return f"{field}#{number}"

    # --- the journal

    async def open(self) -> None:
        """Read the journal, once in each delivery.

        Raises:
            DurableError: another program has overwritten the journal.
            CancelledError: the run is being ended, or another worker holds the job.
        """
        if self.in_thread:
            self.keep(asyncio.current_task())
        await self.check()
        if self._opening is None:
            self._opening = self.keep(asyncio.ensure_future(self._open()))
        if not self._opening.done():
            await asyncio.shield(self._opening)  # several calls wait for it, and each may be cancelled alone
            await self.check()
        self._opening.result()

    async def _open(self) -> None:
        owner, known = self.state.options.identity.owner, self.state.journals.take(self.job.claimed)
        journal = await self.send(lambda: self.journals.open(owner=owner, job_id=self.job.id, known=known))
        if journal is None:
            self.stop_as_lost()
        else:
            self.lease, self.entries = journal.lease, dict(journal.entries)
            self.opened_ms = journal.now_ms
            self._size = sum(map(len, self.entries.values()))

    async def find(self, field: str) -> Entry | None:
        """Return what the journal has of a call.

        Raises:
            DurableError: another program has overwritten the entry.
        """
        raw = self.entries.get(field)
        if raw is None:
            return None
        self._replayed += 1
        if self._replayed % REPLAYED_PER_TURN == 0:
            await asyncio.sleep(0)
        try:
            return decode_entry(raw)
        except InvalidPayload as exc:
            raise DurableError(f"the journal of job {self.job.id} can't be read at {field}: {exc}") from exc

    def check_room(self, size: int = 0) -> None:
        """Check that another entry fits into the journal, of about that many bytes.

        Raises:
            DurableError: the journal has too many entries, or they are too large.
        """
        if len(self.entries) >= MAX_ENTRIES:
            raise DurableError(
                f"the journal of job {self.job.id} has {MAX_ENTRIES:,} entries, the limit; "
                "make steps of larger parts of the work, or give parts of it to other jobs"
            )
        if self._size + size > MAX_JOURNAL_BYTES:
            raise DurableError(
                f"the values in the journal of job {self.job.id} are over {MAX_JOURNAL_BYTES >> 20} MiB, the limit; "
                "store the bulk elsewhere and return references"
            )

    async def record(self, field: str, state: EntryState, body: bytes, *, events: bytes = b"") -> Entry | None:
        """Write an entry, and return the earlier one that stands instead, if the call has ended before.

        While Redis is unavailable this waits and tries again, so that the call itself is not made again.

        Args:
            field: the journal's field.
            state: the state of the call.
            body: JSON of `agentqueue.model.journal.encode_body`.
            events: JSON list of the events that the step has emitted; empty for none.

        Raises:
            DurableError: another program has overwritten the journal.
            CancelledError: another worker holds the job.
        """
        meta: dict[str, int] = {} if self.has_journal else {"journal": 1}
        if state is EntryState.DONE:
            meta |= self.progress_fields()
        recorded = await self.send(
            lambda: self.journals.record(
                lease=self.lease, job_id=self.job.id, field=field, state=state, body=body, meta=meta, events=events
            )
        )
        if recorded is None:
            self.stop_as_lost()
            return None
        self.has_journal = True
        if state is EntryState.DONE:
            self.job.has_progressed = True
        raw = recorded.earlier or b'{"is":"%s","at":%d,%s' % (state.encode(), recorded.now_ms, body[1:])
        self._size += len(raw) + len(events) - len(self.entries.get(field, b""))
        self.entries[field] = raw
        if events and recorded.earlier is None:
            self.entries[events_field(field)] = b'{"is":"done","at":%d,"v":%s}' % (recorded.now_ms, events)
        return None if recorded.earlier is None else decode_entry(recorded.earlier)

    def progress_fields(self) -> dict[str, int]:
        """Return the fields of the meta hash that a call which makes progress writes. See `RunningJob`."""
        return self.job.progress_fields()

    @contextmanager
    def running_step(self, label: str, attempt: int) -> Iterator[None]:
        """Note a step that runs longer than a moment in the job's status, as `agentqueue explain` shows it."""

        def note() -> None:
            self.state.note(self.job.id, RUNNING_STEPS, encode_running(self.job.delivery, self._running.values()))

        self._running[label] = RunningStep(label, now_ms(), attempt)
        timer = self.state.loop.call_later(NOTED_AFTER_S, note)
        try:
            yield
        finally:
            timer.cancel()
            del self._running[label]

    async def send(self, call: Callable[[], Awaitable[T]]) -> T:
        """Send a call to Redis until it is answered, and return its reply."""
        delay, failed = FIRST_RETRY_DELAY_S, False
        try:
            while True:
                try:
                    return await call()
                except JournalUnreadable as exc:
                    raise DurableError(str(exc)) from exc
                except (QueueUnavailable, QueueFull, UnsupportedServer) as exc:
                    if not failed:
                        log.warning("durable_call_delayed", job_id=self.job.id, error=str(exc))
                        self.state.blocked_calls += 1
                        failed = True
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, MAX_RETRY_DELAY_S)
        finally:
            if failed:
                self.state.blocked_calls -= 1

    # --- the end of the run

    async def check(self) -> None:
        """Check that the run may make durable calls.

        Raises:
            DurableError: the job has ended; a task that it has started calls its context.
            CancelledError: the run is being ended, and the handler runs again later.
        """
        if self.closed or self._settling:
            raise DurableError(f"job {self.job.id} has ended; nothing may use its context any more")
        if self.job.ending in NEEDS_RERUN:
            self._refused += 1
            await asyncio.sleep(0)  # a handler that calls again and again must not stop the event loop
            if self._refused > MAX_REFUSED_CALLS:
                self.keep(asyncio.current_task())  # cancelled when the run closes
                await self.state.loop.create_future()
            raise asyncio.CancelledError(f"job {self.job.id} runs again later; nothing more is recorded in this run")

    async def begin_new_call(self, *, is_step: bool = False) -> None:
        """End the run here if it is to end before its next call. Call it before what is not recorded.

        A cancellation that was requested before this delivery takes effect here. The handler has got all that the
        journal has by then, so that it can undo what its steps have done. And a worker that drains begins no step if
        the run has nothing else under way: another worker goes on at this place, whereas a step that the end of the
        grace period cuts off is run again.

        Args:
            is_step: True if the call would run a function here.

        Raises:
            CancelledError: somebody has asked to cancel the job, or its worker drains.
        """
        job = self.job
        if job.ending is not None:
            return
        if job.claimed.cancel:
            ending = Ending.CANCEL
        elif is_step and self.state.draining and not (self._in_flight or self.hold.is_busy):
            ending = Ending.DRAIN
        else:
            return
        self.state.end_between_calls(job, ending)
        if not self.in_thread:
            await self.state.loop.create_future()  # until the cancellation of the job's task gets here
        raise asyncio.CancelledError(f"job {job.id} is being ended: {ending}")

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Await work that a cancellation must not cut. The cancellation is raised when it is done; a second one cuts.

        It cuts the waiting alone: the work goes on until the run closes.
        """
        task = self.keep(asyncio.ensure_future(work))
        self._uncut.add(task)
        task.add_done_callback(self._uncut.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                await asyncio.wait([task])
            raise

    async def settle(self) -> None:
        """Wait for the work of `finish` that the handler has left behind, such as the siblings of a failed call.

        The handler has failed, and runs again. That run gets what these calls come to. Later calls of this run raise.
        """
        self._settling = True
        while self._uncut:
            await asyncio.wait(self._uncut)

    def close(self) -> None:
        """Let every later call raise, because the job has left its slot."""
        self.closed = True
        self.hold.cancel()
        if self.job.ending is Ending.SUSPEND and self._in_flight == 0:
            self.state.journals.keep(
                self.job.id, self.entries, size=self._size, delivery=self.job.delivery, lease=self.lease
            )
        for call in self.at_close:
            call()
        for task in tuple(self._tasks):
            task.cancel()

    def keep(self, task: "asyncio.Task[T] | None") -> "asyncio.Task[T]":
        """Return a task that is cancelled when the run closes."""
        assert task is not None
        self._tasks.add(task)

        def discard(task: "asyncio.Future[Any]") -> None:
            self._tasks.discard(task)
            if not task.cancelled():
                task.exception()  # the one who waited for it may have been cancelled

        task.add_done_callback(discard)
        return task

    def stop_as_lost(self) -> None:
        """Stop the job, because another worker holds it.

        Raises:
            CancelledError: in every case.
        """
        if not self.closed:
            self.state.lose(self.job.id)
        raise asyncio.CancelledError(f"another worker holds job {self.job.id}")
