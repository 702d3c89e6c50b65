"""A worker's operations on the children of its running jobs: the jobs whose results they wait for."""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, cast

from agentqueue.keys import RETURNS
from agentqueue.model.new_job import NewJob
from agentqueue.store.replies import decode_ids
from agentqueue.store.scripts import load
from agentqueue.store.server import Server

MAX_CANCELLED_PER_CALL: Final = 100
"""Maximum number of children that one call cancels."""
RETURNS_PER_READ: Final = 100
"""Maximum number of results that one call reads. All results of a job have 16 MiB at most."""


@dataclass(frozen=True, slots=True)
class NewChild:
    """A child to send. The server gives it an ID, so the ID of `job` is not used."""

    call: str
    """Name of the call by which the parent asks for the child, the same in each delivery."""
    fingerprint: str
    """Fingerprint of target and payload."""
    job: NewJob


class SendStatus(StrEnum):
    """What became of a child that was to be sent."""

    SENT = "sent"
    KNOWN = "known"
    """It was sent before."""
    MISSING = "missing"
    """It must be sent with its record."""
    DIFFERS = "differs"
    """Under the name of its call another target or payload was sent before. Nothing was sent."""


@dataclass(frozen=True, slots=True)
class SentChild:
    """A child, as `Children.send` has found or made it."""

    id: str
    status: SendStatus


@dataclass(frozen=True, slots=True)
class GatherRule:
    """When a gather is complete."""

    need: int
    """Number of children that must have completed."""
    limit: int
    """Number of failed children with which the gather has failed; 0: failures count as answers, and it never fails."""
    timeout_ms: int | None = None


@dataclass(frozen=True, slots=True)
class GatherReply:
    """Reply of `Children.gather`."""

    entry: bytes
    """The journal's entry: a wait, or its answer, as gather.lua describes them."""
    now_ms: int
    """Server time."""


class Children:
    """The children of the jobs of one queue. Every method is one round trip."""

    def __init__(self, server: Server, queue: str) -> None:
        self._server = server
        self._queue = queue
        self._send = load("send_children")
        self._gather = load("gather", allow_oom=True)
        self._cancel = load("cancel_children", allow_oom=True)

    async def send(
        self,
        *,
        lease: bytes,
        parent: str,
        enqueueing: str,
        children: Sequence[NewChild],
        with_records: bool = True,
        may_run_again: bool = True,
    ) -> list[SentChild] | None:
        """Send children, each once, whatever is sent again. None if another delivery of the parent has begun.

        Args:
            lease: the parent's delivery, see `OpenJournal`.
            parent: ID of the parent.
            enqueueing: see `JobRecord.enqueueing`.
            children: at most MAX_CHILDREN_PER_CALL children with MAX_CHILD_BYTES_PER_CALL.
            with_records: False leaves the records out, because an earlier delivery has sent the children.
            may_run_again: children that failed before the parent was replayed run again. False if their gather has an
                answer that stands.

        Raises:
            QueueFull: the server is at `maxmemory`; nothing was sent.
        """
        args: list[Any] = [lease, parent, enqueueing, int(may_run_again)]
        for child in children:
            job = child.job
            record = job.record if with_records else b""
            args += (job.queue, child.call, child.fingerprint, int(job.level), job.delay_ms, record)
        reply = await self._server.run(self._send, self._queue, args)
        if not reply:
            return None
        words = decode_ids(reply)
        return [SentChild(id_, SendStatus(status)) for id_, status in zip(words[::2], words[1::2], strict=True)]

    async def gather(
        self,
        *,
        lease: bytes,
        parent: str,
        field: str,
        what: bytes,
        rule: GatherRule,
        delivery: int,
        ids: Sequence[str],
        progress: Mapping[str, bytes | str | int] | None = None,
    ) -> GatherReply | None:
        """Ask for what a gather has come to. None if another delivery has begun.

        Args:
            lease: the parent's delivery, see `OpenJournal`.
            parent: ID of the parent.
            field: field of the journal.
            what: what the gather waits for, as a JSON string for people.
            rule: when it is complete.
            delivery: number of the delivery.
            ids: IDs of its children, which `send` has returned.
            progress: fields to write to the job's meta hash if the gather is complete now.
        """
        timeout_ms = "" if rule.timeout_ms is None else rule.timeout_ms
        args = [lease, parent, field, what, rule.need, rule.limit, timeout_ms, delivery]
        meta = [part for pair in (progress or {}).items() for part in pair]
        args += [len(meta), *meta, *ids]
        reply = await self._server.run(self._gather, self._queue, args)
        return GatherReply(*reply) if reply else None

    async def returns(self, parent: str, ids: Sequence[str]) -> list[bytes | None]:
        """Return what children have returned to their parent, each None if there is nothing.

        Args:
            parent: ID of the parent.
            ids: at most RETURNS_PER_READ children.
        """
        redis, key = self._server.redis, RETURNS + parent
        return await self._server.call(lambda: cast("Awaitable[list[bytes | None]]", redis.hmget(key, list(ids))))

    async def cancel(self, *, lease: bytes, parent: str, ids: Sequence[str]) -> bool:
        """Cancel children that have not ended. Return False if another delivery of the parent has begun.

        Args:
            lease: the parent's delivery, see `OpenJournal`.
            parent: ID of the parent.
            ids: at most MAX_CANCELLED_PER_CALL children.
        """
        return bool(await self._server.run(self._cancel, self._queue, [lease, parent, *ids]))
