"""The text of a job's stream that earlier runs have left, compared with what the job emits when it runs again. Pure.

Each step's events are compared for themselves, and so are those of the handler outside of steps: steps that run at the
same time may emit in another order. An event that is there already stands, and is not written again. At the first event
that differs, the text is rewound.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence

Emitted = tuple[str, bytes]
"""The step that has emitted an event, such as `plan#1`, empty for the handler itself; and the event as JSON."""


class EmittedText:
    """A job's text, and which of its events this run has emitted too.

    Args:
        batches: the step and the events of each batch, in the order of the text.
        first: position of the first of these events.
    """

    def __init__(self, batches: Iterable[tuple[str, Sequence[bytes]]], *, first: int = 0) -> None:
        self._first = first
        self._events: list[Emitted] = []
        self._starts: list[int] = []
        self._stands: list[bool] = []
        self._open: defaultdict[str, deque[int]] = defaultdict(deque)
        for step, events in batches:
            self._starts.append(len(self._events))
            for event in events:
                self._open[step].append(len(self._events))
                self._events.append((step, event))
                self._stands.append(False)

    def __len__(self) -> int:
        """Return the number of events of the whole text."""
        return self._first + len(self._events)

    @property
    def is_settled(self) -> bool:
        """Return whether this run has emitted all of the text."""
        return not any(self._open.values())

    def emit(self, step: str, event: bytes) -> bool | None:
        """Compare an event that this run emits.

        Returns:
            True if it is in the text already. False if it comes behind the text. None if the text has another event in
            its place: call `settle`.
        """
        expected = self._open[step]
        if not expected:
            self._starts.append(len(self._events))
            self._events.append((step, event))
            self._stands.append(True)
            return False
        if self._events[expected[0]][1] != event:
            return None
        self._stands[expected.popleft()] = True
        return True

    def claim_all(self) -> None:
        """Let all of the text count as emitted by this run."""
        self._stands = [True] * len(self._events)
        self._open.clear()

    def take_back(self, step: str) -> None:
        """Take back the events of a step that is called again in this run."""
        self._open[step] = deque(index for index, (name, _) in enumerate(self._events) if name == step)
        for index in self._open[step]:
            self._stands[index] = False

    def settle(self) -> tuple[int, list[Emitted]]:
        """Drop what this run has not emitted.

        Returns:
            How many events stand where they are, and the events that this run has emitted and that follow them now.
        """
        first_dropped = self._stands.index(False)
        keep = max(start for start in self._starts if start <= first_dropped)  # a batch is replaced as a whole
        again = [event for event, stands in zip(self._events[keep:], self._stands[keep:], strict=True) if stands]
        return self._first + keep, again
