"""The batches that a stream has room for. Pure."""

from collections import deque
from typing import NamedTuple

from agentqueue.model.stream import MAX_EVENTS, MAX_STREAM_BYTES


class _Batch(NamedTuple):
    id: str
    first: int
    """Position of its first event."""
    size: int
    """Size of its events, in bytes."""


class StreamWindow:
    """The batches of a stream: where each begins and how large it is.

    The oldest go when those behind them have MAX_EVENTS events, or when all have more than MAX_STREAM_BYTES.
    """

    def __init__(self) -> None:
        self._batches: deque[_Batch] = deque()
        self._size = 0

    def add(self, id: str, *, first: int, size: int) -> None:  # noqa: A002  # the batch's
        """Add a batch at the end."""
        self._batches.append(_Batch(id, first, size))
        self._size += size

    def rewind(self, keep: int) -> None:
        """Forget the batches from that position on."""
        while self._batches and self._batches[-1].first >= keep:
            self._size -= self._batches.pop().size

    def trim(self, count: int) -> str:
        """Forget the oldest batches for which there is no room.

        Args:
            count: number of events of the whole text.

        Returns:
            The ID of the first batch that stays, or an empty text if all do.
        """
        was = len(self._batches)
        while len(self._batches) > 1 and (
            count - self._batches[1].first >= MAX_EVENTS or self._size > MAX_STREAM_BYTES
        ):
            self._size -= self._batches.popleft().size
        return self._batches[0].id if len(self._batches) < was else ""
