"""What `ctx.emit` does: it collects the events of a run, and writes them to the job's stream in batches.

A run that begins again after a crash, a failed attempt or a suspension emits again what its handler emits; what its
finished steps have emitted comes from the journal. Events that are in the stream already stand, and readers get nothing
twice. Where the run differs, the text is rewound (`agentqueue_worker.domain.emitted_text`).
"""

import asyncio
from collections.abc import Awaitable, Iterable, Iterator
from itertools import groupby
from typing import Final

import orjson

from agentqueue.agent.context import FINISHED
from agentqueue.agent.outcomes import DurableError
from agentqueue.model.journal import MAX_VALUE_BYTES, events_field
from agentqueue.model.stream import MAX_EVENTS
from agentqueue.store.streams import StoredBatch, Streams
from agentqueue_worker.app.durable_run import NEEDS_RERUN, DurableRun
from agentqueue_worker.domain.emitted_text import Emitted, EmittedText
from agentqueue_worker.domain.stream_window import StreamWindow

FLUSH_AFTER_S: Final = 0.05
"""Seconds after which an event is written. Readers see text appear about this often."""
MAX_BATCH_EVENTS: Final = 500
"""Number of events with which a batch is written at once."""
MAX_BATCH_BYTES: Final = 64 * 1024
"""Size of the events with which a batch is written at once, in bytes."""
MAX_CALL_BYTES: Final = 4 * MAX_BATCH_BYTES
"""Size of the batches that one call writes, in bytes, and one batch more."""


class Emitter:
    """The events that one run emits. Its methods are called in the event loop's thread."""

    def __init__(self, run: DurableRun, streams: Streams) -> None:
        self._run = run
        self._streams = streams
        self._buffer: list[Emitted] = []
        self._size = 0
        self._emitted = self._written = 0
        """Number of events that were emitted, and of those that are written or were there already."""
        self._of_step: dict[str, list[bytes]] = {}
        """Events of the steps that run now."""
        self._text: EmittedText | None = None
        """The text of earlier runs, as long as this run has not emitted all of it."""
        self._restarts = False
        """The text of earlier runs can't be compared, since its beginning is gone: the first event replaces it all."""
        self._position = 0
        """Number of events of the whole text."""
        self._number = 0
        """Number of the run in the IDs of the events that it adds."""
        self._window = StreamWindow()
        self._is_first = "stream" not in run.job.claimed.meta
        self._writing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failure: BaseException | None = None
        self._is_last = False
        run.emitter = self
        run.at_close.append(self._stop_timer)

    @property
    def has_stream(self) -> bool:
        """Return whether the job has a stream."""
        return not self._is_first

    def emit(self, event: bytes, step: str) -> Awaitable[None]:
        """Take an event. What is returned waits while the buffer is full.

        Args:
            event: the event as JSON.
            step: the step that emits it, such as `plan#1`; empty outside of steps.

        Raises:
            DurableError: the step has emitted too much.
        """
        run = self._run
        if run.closed or run.job.ending in NEEDS_RERUN:
            return run.check()
        if self._failure is not None:
            raise self._failure
        if step:
            self._keep_with_step(step, event)
        self._buffer.append((step, event))
        self._size += len(event)
        self._emitted += 1
        if self._size >= MAX_BATCH_BYTES or len(self._buffer) >= MAX_BATCH_EVENTS:
            return self.flush()
        if self._timer is None and self._writing is None:
            self._timer = run.state.loop.call_later(FLUSH_AFTER_S, self._write_soon)
        return FINISHED

    def _keep_with_step(self, step: str, event: bytes) -> None:
        events = self._of_step.setdefault(step, [])
        events.append(event)
        if len(events) % 100 == 0 and sum(map(len, events)) > MAX_VALUE_BYTES:
            raise DurableError(
                f'step "{step}" has emitted over {MAX_VALUE_BYTES >> 20} MiB, which its journal does not hold; '
                "emit outside of steps, or make several steps of it"
            )

    async def emit_again(self, step: str) -> None:
        """Emit what a finished step has emitted in an earlier run."""
        entry = await self._run.find(events_field(step))
        if entry is not None:
            for event in orjson.loads(entry.value):
                await self.emit(orjson.dumps(event), step)
            self._of_step.pop(step, None)

    async def take_events(self, step: str) -> bytes:
        """Write what is buffered, and return what a step that ends now has emitted: a JSON list, or empty."""
        events = self._of_step.get(step)
        if not events:
            return b""
        await self.flush()
        del self._of_step[step]
        return b"[%s]" % b",".join(events)

    async def take_back(self, step: str) -> None:
        """Take back what a step has emitted that is called again in this run."""
        if not self._of_step.pop(step, None):
            return
        await self.flush()
        if self._text is None:
            batches = await self._run.send(lambda: self._streams.read(self._run.job.id))
            self._text = EmittedText(
                [(batch.step, batch.events) for batch in batches], first=batches[0].first if batches else 0
            )
            self._text.claim_all()
        self._text.take_back(step)

    async def flush(self) -> None:
        """Write what the run has emitted so far."""
        target = self._emitted
        while self._written < target:
            if self._failure is not None:
                raise self._failure
            await asyncio.shield(self._write_soon())  # several calls wait for it, and each may be cancelled alone

    async def finish(self) -> None:
        """Write all that the run has emitted, and drop what earlier runs have emitted besides."""
        self._is_last = True
        await self.flush()
        if not self._is_first or self._text is not None:
            await self._open()
            if self._text is not None or self._restarts:
                await self._write_events([], settles=True)

    # --- writing

    def _write_soon(self) -> "asyncio.Task[None]":
        self._stop_timer()
        if self._writing is None or self._writing.done():
            self._writing = self._run.keep(asyncio.ensure_future(self._write()))
            self._writing.add_done_callback(self._written_one)
        return self._writing

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _written_one(self, task: "asyncio.Task[None]") -> None:
        if self._writing is task:
            self._writing = None
        self._failure = asyncio.CancelledError() if task.cancelled() else task.exception()
        if self._buffer and self._failure is None and self._writing is None and self._timer is None:
            self._timer = self._run.state.loop.call_later(FLUSH_AFTER_S, self._write_soon)

    async def _write(self) -> None:
        await self._open()
        events, self._buffer, self._size = self._buffer, [], 0
        await self._write_events(events)
        self._written += len(events)

    async def _open(self) -> None:
        """Read what earlier runs have left, once."""
        run = self._run
        if self._number:
            return
        if not run.lease:  # an opened run that is being ended may still write
            await run.open()
        batches = [] if self._is_first else await run.send(lambda: self._streams.read(run.job.id))
        for batch in batches:
            self._window.add(batch.id, first=batch.first, size=batch.size)
        self._position = batches[-1].last + 1 if batches else 0
        self._number = max([run.opened_ms, *(batch.run + 1 for batch in batches[-1:])])
        if batches and batches[0].first == 0:
            self._text = EmittedText([(batch.step, batch.events) for batch in batches])
        self._restarts = bool(batches) and self._text is None

    async def _write_events(self, events: Iterable[Emitted], *, settles: bool = False) -> None:
        """Write the events that are not there yet.

        Args:
            events: the events.
            settles: the run emits no more, so that what is left of earlier runs is dropped.
        """
        keep, new = None, list[Emitted]()
        for event in events:
            if self._restarts:
                keep, self._restarts = 0, False
            if self._text is not None:
                is_there = self._text.emit(*event)
                if is_there:
                    continue
                if is_there is None:
                    keep, new = self._settle()
            new.append(event)
        if self._restarts and settles:
            keep, self._restarts = 0, False
        if self._text is not None and self._text.is_settled:
            self._text = None
        elif self._text is not None and (settles or len(self._text) > 2 * MAX_EVENTS):
            keep, new = self._settle()
        if keep is not None:
            self._number += 1
            self._position = keep
            self._window.rewind(keep)
        await self._add(keep, new)

    def _settle(self) -> tuple[int, list[Emitted]]:
        assert self._text is not None
        text, self._text = self._text, None
        return text.settle()

    async def _add(self, keep: int | None, events: Iterable[Emitted]) -> None:
        run = self._run
        calls = list(self._calls_of(events))
        for batches in calls or ([[]] if keep is not None else []):
            for batch in batches:
                self._window.add(batch.id, first=batch.first, size=batch.size)
            oldest = self._window.trim(batches[-1].last + 1) if batches else ""
            is_held = await run.send(
                lambda batches=batches, keep=keep, oldest=oldest: self._streams.add(  # type: ignore[misc]  # see mypy#4226
                    lease=run.lease,
                    job_id=run.job.id,
                    batches=batches,
                    keep=keep,
                    oldest=oldest,
                    is_first=self._is_first,
                    allow_oom=self._is_last,
                )
            )
            if not is_held:
                run.stop_as_lost()
            self._is_first, keep = False, None

    def _calls_of(self, events: Iterable[Emitted]) -> Iterator[list[StoredBatch]]:
        """Yield the batches of each call."""
        batches, size = list[StoredBatch](), 0
        for step, emitted in groupby(events, key=lambda event: event[0]):
            for part in _parts(event for _, event in emitted):
                self._position += len(part)
                batches.append(StoredBatch(self._number, self._position - 1, step, part))
                size += batches[-1].size
                if size >= MAX_CALL_BYTES:
                    yield batches
                    batches, size = [], 0
        if batches:
            yield batches


def _parts(events: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield the events in parts of the size of a batch."""
    part, size = list[bytes](), 0
    for event in events:
        part.append(event)
        size += len(event)
        if size >= MAX_BATCH_BYTES or len(part) >= MAX_BATCH_EVENTS:
            yield part
            part, size = [], 0
    if part:
        yield part
