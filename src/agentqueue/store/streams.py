"""Streams of the events that jobs emit: written by the worker that runs a job, and read by any number of readers."""

from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import orjson

from agentqueue.keys import JOB, META, STREAM
from agentqueue.model.stream import parse_event_id
from agentqueue.store.scripts import load
from agentqueue.store.server import Server

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

BATCHES_PER_READ: Final = 32
"""Number of batches that one call reads. Each has 64 KiB and one more event of that size at most: 4 MiB in all."""
BLOCK_S: Final = 1.0
"""Longest time for which a reader blocks its connection, in seconds."""


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """Events of one step, or of the handler outside of steps, as they follow one another in a stream."""

    run: int
    """Number of the run that has added them."""
    last: int
    """Position of the last of them in the text of all events, from 0."""
    step: str
    """The step, such as `plan#1`; empty outside of steps."""
    events: Sequence[bytes]
    """Events as JSON."""

    @property
    def id(self) -> str:
        """Return the ID in the stream."""
        return f"{self.run}-{self.last}"

    @property
    def first(self) -> int:
        """Return the position of the first of the events."""
        return self.last + 1 - len(self.events)

    @property
    def size(self) -> int:
        """Return the size of the events in bytes."""
        return sum(map(len, self.events))


class Streams:
    """The streams of the jobs of one queue, as a worker writes them."""

    def __init__(self, server: Server, queue: str) -> None:
        self._server = server
        self._queue = queue
        self._emit = load("emit")
        self._emit_last = load("emit", allow_oom=True)

    async def add(
        self,
        *,
        lease: bytes,
        job_id: str,
        batches: Sequence[StoredBatch],
        keep: int | None = None,
        oldest: str = "",
        is_first: bool = False,
        allow_oom: bool = False,
    ) -> bool:
        """Add events to a job's stream. Sent again, it adds nothing twice. False if another delivery has begun.

        Args:
            lease: the delivery, see `OpenJournal`.
            job_id: ID of the job.
            batches: the batches, with the highest run number of the stream.
            keep: how many events stand, counted from the first one, if others replace the rest. None adds to all.
            oldest: ID of the first batch that is kept; empty to keep all.
            is_first: the job had no stream when it was claimed, and this is the first call of the delivery. What an
                earlier job with the same ID has left is deleted.
            allow_oom: add them also to a full server, since the job ends.

        Raises:
            QueueFull: the server is at `maxmemory`. Nothing was done.
        """
        args: list[Any] = [lease, job_id, int(is_first), "" if keep is None else keep, oldest]
        for batch in batches:
            args += (batch.id, batch.step, b"[%s]" % b",".join(batch.events))
        script = self._emit_last if allow_oom else self._emit
        return bool(await self._server.run(script, self._queue, args))

    async def read(self, job_id: str) -> list[StoredBatch]:
        """Return all batches of a job's stream. What another program has written there is left out."""
        redis, found, start = self._server.redis, list[StoredBatch](), "-"
        while True:
            page = await self._server.call(
                lambda start=start: redis.execute_command(  # type: ignore[misc]  # mypy can't infer a default's type
                    "XRANGE", STREAM + job_id, start, "+", "COUNT", BATCHES_PER_READ
                )
            )
            entries = _decode_entries(page)
            for stored_id, fields in entries:
                with suppress(ValueError, KeyError, TypeError):
                    run, last = parse_event_id(stored_id)
                    events = [orjson.dumps(event) for event in orjson.loads(fields[b"v"])]
                    found.append(StoredBatch(run, last, fields.get(b"s", b"").decode(), events))
            if len(entries) < BATCHES_PER_READ:
                return found
            start = f"({entries[-1][0]}"


@dataclass(frozen=True, slots=True)
class StreamState:
    """Whether a job lives, and whether it has a stream."""

    is_live: bool
    """The job has not ended."""
    has_stream: bool
    """There are events that this job has emitted."""
    left_behind: str
    """ID of the last event that an earlier job with the same ID has left; empty if there is none."""
    end_id: str
    """ID of the end; empty if the stream goes on."""


class StreamReader:
    """Reads the stream of one job, over a connection of its own, since its calls block it.

    Every method raises QueueUnavailable if the server does not answer. The next call then uses another connection.
    """

    def __init__(self, server: Server, job_id: str) -> None:
        self._server = server
        self._job_id = job_id
        self._connection: AbstractConnection | None = None

    async def state(self) -> StreamState:
        """Return the state of the job."""
        redis, job_id = self._server.redis, self._job_id

        async def ask() -> tuple[Sequence[Any], int, bool]:
            async with redis.pipeline(transaction=False) as pipe:
                pipe.execute_command("XREVRANGE", STREAM + job_id, "+", "-", "COUNT", 1)
                pipe.exists(JOB + job_id)
                pipe.hexists(META + job_id, "stream")
                last, is_live, is_of_this_job = await pipe.execute()
                return last, is_live, bool(is_of_this_job)

        last, is_live, is_of_this_job = await self._server.call(ask)
        entries = _decode_entries(last)
        is_ours = bool(entries) and (is_of_this_job or not is_live)
        last_id, fields = entries[-1] if entries else ("", {})
        has_ended = is_ours and b"end" in fields
        return StreamState(bool(is_live), is_ours, "" if is_ours else last_id, last_id if has_ended else "")

    async def is_live(self) -> bool:
        """Return whether the job has not ended."""
        redis, key = self._server.redis, JOB + self._job_id
        return bool(await self._server.call(lambda: cast("Awaitable[int]", redis.exists(key))))

    async def next(self, after: str, *, wait: bool) -> list[tuple[str, Mapping[bytes, bytes]]]:
        """Return the next batches behind an ID, with the fields of each.

        Args:
            after: the ID.
            wait: if there are none, wait for them for a second.
        """
        block_ms = round(1000 * min(BLOCK_S, self._server.options.timeout / 2))
        words: list[Any] = ["XREAD", "COUNT", BATCHES_PER_READ]
        words += ["BLOCK", block_ms] if wait else []
        reply = await self._server.call(lambda: self._execute(*words, "STREAMS", STREAM + self._job_id, after))
        return _decode_entries(reply[0][1]) if reply else []

    async def _execute(self, *words: Any) -> Any:
        connection = self._connection
        if connection is None:
            pool = self._server.redis.connection_pool
            connection = self._connection = cast("AbstractConnection", pool.make_connection())
        try:
            await connection.send_packed_command(connection.pack_command(*words), check_health=False)
            return await connection.read_response()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)


def _decode_entries(reply: Any) -> list[tuple[str, Mapping[bytes, bytes]]]:
    """Return the entries of a stream. redis-py makes a dict of their fields if the call is one of its own."""
    return [
        (stored_id.decode(), fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True)))
        for stored_id, fields in reply or ()
    ]
