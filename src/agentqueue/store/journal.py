"""A worker's operations on the journals of its running jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentqueue.errors import JournalUnreadable, QueueUnavailable
from agentqueue.keys import JOURNAL
from agentqueue.model.journal import EntryState
from agentqueue.model.suspension import PENDING
from agentqueue.store.replies import decode_hash
from agentqueue.store.scripts import Script, load
from agentqueue.store.server import Server

_ENDED: Final = (EntryState.DONE, EntryState.RAISED, EntryState.FAILED)
"""States of calls that have been made. A full server takes these entries, since it can't undo the calls."""


@dataclass(frozen=True, slots=True)
class OpenJournal:
    """Reply of `Journals.open`."""

    lease: bytes
    """In-progress value, by which later calls name this delivery of the job."""
    now_ms: int
    entries: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Recorded:
    """Reply of `Journals.record`."""

    now_ms: int
    """Time of the entry, in ms since the epoch, by the server's clock."""
    earlier: bytes | None = None
    """The entry that stands instead, since it had ended before."""


class Journals:
    """The journals of the jobs of one queue, as a worker uses them. Every method is one round trip."""

    def __init__(self, server: Server, queue: str) -> None:
        self._server = server
        self._queue = queue
        self._open = load("open_journal")
        self._record_ended = load("record_step", allow_oom=True)
        self._record_intent = load("record_step")

    async def open(self, *, owner: str, job_id: str, known: Mapping[str, bytes] | None = None) -> OpenJournal | None:
        """Return the journal of a running job. None if this owner no longer holds the job.

        Args:
            owner: the worker.
            job_id: ID of the job.
            known: the journal as it was when this owner suspended the job, if it has been in no other hands since. Then
                only the answers of its waits are read.

        Raises:
            JournalUnreadable: another program has written a key of another type in its place.
        """
        known = {} if known is None else known
        waits = [field for field, entry in known.items() if entry.startswith(PENDING)]
        reply = await self._run(self._open, job_id, [owner, job_id, *([len(known), *waits] if known else [])])
        if not reply:
            return None
        lease, now_ms, entries, *changed = reply
        if changed:
            return OpenJournal(lease, now_ms, {**known, **dict(zip(waits, changed[0], strict=True))})
        return OpenJournal(lease, now_ms, decode_hash(entries))

    async def record(
        self,
        *,
        lease: bytes,
        job_id: str,
        field: str,
        state: EntryState,
        body: bytes,
        meta: Mapping[str, bytes | str | int],
        events: bytes = b"",
    ) -> Recorded | None:
        """Write an entry, unless the one that stands there has ended. None if another delivery has begun.

        Args:
            lease: the delivery, see `OpenJournal`.
            job_id: ID of the job.
            field: the journal's field.
            state: the state of the call.
            body: JSON of `agentqueue.model.journal.encode_body`.
            meta: fields to write to the job's meta hash.
            events: JSON list of the events that the step has emitted; empty for none.

        Raises:
            JournalUnreadable: another program has written a key of another type in the journal's place.
            QueueFull: the server is at `maxmemory`, and the entry is an intent. Nothing was done.
        """
        script = self._record_ended if state in _ENDED else self._record_intent
        args = [lease, job_id, field, str(state), body, events, *(part for pair in meta.items() for part in pair)]
        reply = await self._run(script, job_id, args)
        return Recorded(reply[0], reply[1] if len(reply) > 1 else None) if reply else None

    async def _run(self, script: Script, job_id: str, args: Sequence[Any]) -> Any:
        try:
            return await self._server.run(script, self._queue, args)
        except QueueUnavailable as exc:
            if "WRONGTYPE" not in str(exc):
                raise
            raise JournalUnreadable(
                f"the journal of job {job_id} can't be read: {JOURNAL}{job_id} holds another Redis type, which "
                "AgentQueue did not write; restore the key, or delete it and run the job from its start"
            ) from exc
