"""Events of a job's stream, as they are stored and as a reader follows them. Pure.

The events of a job form one text, in which each has a position from 0. They are stored in batches. The ID of a batch is
`run-position`: a number that grows with each run that adds events, and the position of the batch's last event. A batch
replaces all that earlier runs have left at its first position and behind it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

from agentqueue.errors import UsageError

MAX_EVENT_BYTES: Final = 64 * 1024
"""Maximum size of one event, in bytes of JSON. Readers hold a batch of them at a time."""
MAX_EVENTS: Final = 10_000
"""Number of events that a stream keeps: the last ones, and up to a batch more."""
MAX_STREAM_BYTES: Final = 16 * 1024 * 1024
"""Size of the events that a stream keeps, in bytes."""
_ID: Final = re.compile(r"(\d{1,15})-(\d{1,15})")


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """What a reader of a job's stream gets."""

    id: str
    """Where to go on: `after=` of the next reader. Empty before the first event."""
    type: Literal["data", "rewind", "gap", "end"]
    """`data`: the job has emitted something. `rewind`: the job runs again and differs. `gap`: events are missing, since
    the reader has come too late for them. `end`: the job has ended, and nothing follows."""
    data: Any
    """Of `data`, the JSON value that the job has emitted. Of `rewind`, how many events stand, counted from the first
    one; the reader forgets the others. Of `gap`, the number of missing events. Of `end`, the state of the job."""


def batch_id(run: int, last: int) -> str:
    """Return the ID of a batch.

    Args:
        run: the run's number.
        last: position of the batch's last event.
    """
    return f"{run}-{last}"


def parse_event_id(text: str) -> tuple[int, int]:
    """Return run and position of an event's ID.

    Raises:
        UsageError: It is not an ID of a stream's event.
    """
    match = _ID.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{text!r:.80} is no ID of a stream's event, such as 1764538322000-17: leave it out to start over"
        )
    return int(match[1]), int(match[2])


class Follower:
    """A reader's place in a stream. It turns stored batches into events.

    Args:
        after: ID of the last event that the reader has got; empty or None for the beginning.

    Raises:
        UsageError: `after` is not an ID of a stream's event.
    """

    def __init__(self, after: str | None = None) -> None:
        self.id = after or ""
        """ID of the last event that was returned."""
        run, position = parse_event_id(after) if after else (0, -1)
        self._run = run
        self._count = position + 1

    @property
    def place(self) -> str:
        """Return the ID behind which the next batch stands."""
        return self.id or "0-0"

    def read(self, stored_id: str, fields: Mapping[bytes, bytes]) -> Iterator[StreamEvent]:
        """Yield the events of a batch, or the end.

        Args:
            stored_id: ID of the batch.
            fields: its fields.

        Raises:
            ValueError, KeyError, TypeError: another program has written it.
        """
        run, last = parse_event_id(stored_id)
        end = fields.get(b"end")
        values = [] if end is not None else orjson.loads(fields[b"v"])
        first = last if end is not None else last + 1 - len(values)
        if run == self._run:
            values = values[max(self._count - first, 0) :]
            first = last + 1 - len(values) if end is None else last
        elif first < self._count:
            yield self._rewind(first)
        elif first > self._count > 0:  # which of its events a rewind has dropped is not known any more
            yield self._rewind(0)
        if first > self._count:
            yield StreamEvent(self.id, "gap", first - self._count)
        self._run, self._count = run, first
        for value in values:
            self.id = batch_id(run, self._count)
            self._count += 1
            yield StreamEvent(self.id, "data", value)
        if end is not None:
            self.id = stored_id
            yield StreamEvent(stored_id, "end", end.decode(errors="replace"))

    def _rewind(self, count: int) -> StreamEvent:
        self._count = count
        return StreamEvent(self.id, "rewind", count)


def events_of(follower: Follower, stored_id: str, fields: Mapping[bytes, bytes]) -> list[StreamEvent]:
    """Return the events of a batch; none if another program has written it."""
    try:
        return list(follower.read(stored_id, fields))
    except (ValueError, KeyError, TypeError):
        return []
