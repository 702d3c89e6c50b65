"""The durable calls of one running job: its journal, the places of its calls, and the end of the run."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from agentqueue.agent.outcomes import DurableError
from agentqueue.clock import monotonic
from agentqueue.errors import JournalUnreadable, QueueFull, QueueUnavailable, UnsupportedServer
from agentqueue.model.journal import EntryState
from agentqueue.store.journal import Journals
from agentqueue_worker.app.job import Ending, RunningJob

FIRST_RETRY_DELAY_S: Final = 0.05
"""Seconds until a call is sent again while Redis is unavailable. A failover often takes less than a second."""
MAX_RETRY_DELAY_S: Final = 2.0
"""Maximum seconds between retries of a call while Redis is unavailable or full."""
NEEDS_RERUN: Final = (Ending.DRAIN, Ending.LOST)
"""Endings after which the handler runs again as if nothing had happened. A durable call of its cleanup would count as
done in the next run, so it raises. After a timeout or a cancellation the handler may still clean up with steps."""
log = structlog.get_logger("agentqueue.worker")
T = TypeVar("T")


class DurableRun:
    """One delivery of a job that makes durable calls. It is made at the first of them, and read by all.

    Args:
        job: the job.
        journals: the journals of its queue.
        owner: owner of the worker's leases.
        lost: called with the job's ID if another worker has taken it over.
    """

    def __init__(self, job: RunningJob, journals: Journals, owner: str, lost: Callable[[str], None]) -> None:
        self.job = job
        self.journals = journals
        self.lease = b""
        """In-progress value, by which scripts know this delivery."""
        self.entries: dict[str, bytes] = {}
        """The journal's entries by field: those of earlier deliveries, and those that this one has added."""
        self.has_journal = "journal" in job.claimed.meta
        """The job's meta hash says that there is a journal."""
        self.closed = False
        """The job has left its slot. Every call raises."""
        self.in_flight = 0
        """Number of steps that run now."""
        self.last_sign_of_life = monotonic()
        """When a step or a wait began or ended, in monotonic seconds."""
        self._owner = owner
        self._lost = lost
        self._opening: asyncio.Task[None] | None = None
        self._used: dict[str, int] = {}
        """How often the run has used a name with its namespace."""
        self._users: dict[str, object] = {}
        """The task that uses a name."""

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
            user = None
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
        self.check()
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open())
        await asyncio.shield(self._opening)  # several calls wait for it, and each may be cancelled alone
        self.check()

    async def _open(self) -> None:
        journal = await self.send(lambda: self.journals.open(owner=self._owner, job_id=self.job.id))
        if journal is None:
            self._stop_as_lost()
        else:
            self.lease, self.entries = journal.lease, dict(journal.entries)

    async def record(self, field: str, state: EntryState, body: bytes) -> bytes | None:
        """Write an entry, and return the earlier one that stands instead, if the call has ended before.

        While Redis is unavailable this waits and tries again, so that the call itself is not made again.

        Raises:
            DurableError: another program has overwritten the journal.
            CancelledError: another worker holds the job.
        """
        meta: dict[str, int] = {} if self.has_journal else {"journal": 1}
        recorded = await self.send(
            lambda: self.journals.record(
                lease=self.lease, job_id=self.job.id, field=field, state=state, body=body, meta=meta
            )
        )
        if recorded is None:
            self._stop_as_lost()
            return None
        self.has_journal = True
        self.entries[field] = recorded.earlier or b'{"is":"%s","at":%d,%s' % (state.encode(), recorded.now_ms, body[1:])
        return recorded.earlier

    async def send(self, call: Callable[[], Awaitable[T]]) -> T:
        """Send a call to Redis until it is answered, and return its reply."""
        delay = FIRST_RETRY_DELAY_S
        while True:
            try:
                return await call()
            except JournalUnreadable as exc:
                raise DurableError(str(exc)) from exc
            except (QueueUnavailable, QueueFull, UnsupportedServer) as exc:
                log.warning("durable_call_delayed", job_id=self.job.id, error=str(exc))
                await asyncio.sleep(delay)
                delay = min(delay * 2, MAX_RETRY_DELAY_S)

    # --- the end of the run

    def check(self) -> None:
        """Check that the run may make durable calls.

        Raises:
            DurableError: the job has ended; a task that it has started calls its context.
            CancelledError: the run is being ended, and the handler runs again later.
        """
        if self.closed:
            raise DurableError(f"job {self.job.id} has left its worker's slot; nothing may use its context any more")
        if self.job.ending in NEEDS_RERUN:
            raise asyncio.CancelledError(f"job {self.job.id} runs again later; nothing more is recorded in this run")

    def close(self) -> None:
        """Let every later call raise, because the job has left its slot."""
        self.closed = True
        if self._opening is not None:
            self._opening.cancel()

    def _stop_as_lost(self) -> None:
        self._lost(self.job.id)
        raise asyncio.CancelledError(f"another worker holds job {self.job.id}")
