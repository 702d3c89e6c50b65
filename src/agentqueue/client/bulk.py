"""Send many jobs in chunks, in order within each queue. Small chunks keep the server responsive."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from agentqueue.errors import UsageError
from agentqueue.model.new_job import NewJob, Prepared

CHUNK: Final = 500
"""Maximum number of jobs in one call. It blocks the server for less than 5 ms."""
CHUNK_BYTES: Final = 4 * 1024 * 1024
"""Maximum size of the records in one call, in bytes. One larger job is still sent."""


@dataclass(slots=True)
class Chunk:
    """Jobs of one queue that are sent in one call, in order. Each ID is in a chunk once."""

    queue: str
    ids_are_random: bool = True
    """True while every ID was drawn at random for its job."""
    jobs: list[NewJob] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    """Position of each job in the caller's sequence."""
    repeated: list[tuple[int, str]] = field(default_factory=list)
    """Position and ID of each job whose ID is in the chunk already."""
    bytes: int = 0
    results: dict[int, Any] = field(default_factory=dict)
    """What reads the result of a job that was given by its function, by position."""
    _named: set[str] = field(default_factory=set)

    def add(self, position: int, prepared: Prepared) -> None:
        """Add a job."""
        job = prepared.job
        if prepared.result is not None:
            self.results[position] = prepared.result
        if not prepared.id_is_random:
            self.ids_are_random = False
            if job.id in self._named:
                self.repeated.append((position, job.id))
                return
            self._named.add(job.id)
        self.jobs.append(job)
        self.positions.append(position)
        self.bytes += len(job.record)

    @property
    def is_full(self) -> bool:
        """Return whether the chunk must be sent now."""
        return len(self.jobs) >= CHUNK or self.bytes >= CHUNK_BYTES or len(self.repeated) >= CHUNK


class Chunker:
    """A sorter of jobs into chunks by queue."""

    def __init__(self) -> None:
        self._open: dict[str, Chunk] = {}
        self._position = 0

    def add(self, prepared: Prepared) -> Chunk | None:
        """Add a job, and return its chunk if that is full now."""
        queue = prepared.job.queue
        chunk = self._open.get(queue)
        if chunk is None:
            chunk = self._open[queue] = Chunk(queue)
        chunk.add(self._position, prepared)
        self._position += 1
        return self._open.pop(queue) if chunk.is_full else None

    def rest(self) -> Iterator[Chunk]:
        """Return the chunks that are not full."""
        yield from self._open.values()
        self._open = {}


def prepare_each(
    items: Iterable[Mapping[str, Any]],
    prepare: Callable[[Sequence[Any], Mapping[str, Any]], Prepared],
    *,
    first: int = 0,
) -> Iterator[Prepared]:
    """Prepare each job of a bulk. An error names the job by its position, counted from `first`."""
    for index, item in enumerate(items, first):
        if type(item) is not dict and not isinstance(item, Mapping):
            raise UsageError(f"jobs[{index}] must be a mapping with queue, name and data, not {item!r:.80}")
        try:
            yield prepare((), item)
        except UsageError as exc:
            raise type(exc)(f"jobs[{index}]: {exc}") from exc


def sent_jobs(chunk: Chunk, known: set[str]) -> Sequence[tuple[int, str, bool]]:
    """Return position and ID of every job of a chunk that was sent, and whether its ID was known before."""
    sent = [(position, job.id, job.id in known) for position, job in zip(chunk.positions, chunk.jobs, strict=True)]
    return [*sent, *((position, job_id, True) for position, job_id in chunk.repeated)]


def chunks_of(jobs: Iterable[Prepared]) -> Iterator[Chunk]:
    """Return the jobs in chunks, each when it is full, and the others at the end."""
    chunker = Chunker()
    for prepared in jobs:
        chunk = chunker.add(prepared)
        if chunk is not None:
            yield chunk
    yield from chunker.rest()


async def chunks_of_each(jobs: AsyncIterator[Prepared]) -> AsyncIterator[Chunk]:
    """Return the jobs in chunks, as `chunks_of`, for an async iterator."""
    chunker = Chunker()
    async for prepared in jobs:
        chunk = chunker.add(prepared)
        if chunk is not None:
            yield chunk
    for chunk in chunker.rest():
        yield chunk


async def send_in_order(chunks: AsyncIterator[Chunk], send: Callable[[Chunk], Coroutine[Any, Any, None]]) -> None:
    """Send chunks one after the other. The next one is filled while a chunk is sent."""
    flying: asyncio.Task[None] | None = None
    try:
        async for chunk in chunks:
            if flying is not None:
                await flying
            flying = asyncio.create_task(send(chunk))
        if flying is not None:
            await flying
    finally:
        if flying is not None:
            await asyncio.wait([flying])  # otherwise its outcome would be unknown
