"""A record of what plans have done, outside of Redis: a file to which every process appends lines.

One line is one write of a file that is opened for appending, so the order of the lines is the order of the events.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import orjson

Kind = Literal["start", "enter", "leave", "fail", "cut", "saw", "end"]
"""`start` and `end` of a handler; `enter` and `leave`, `fail` or `cut` (it was cancelled) of
the function of a step; `saw`: a durable call has
given this value to its handler."""


@dataclass(frozen=True, slots=True)
class Event:
    """A line of the record."""

    kind: Kind
    key: str
    """Name of the step or wait, or path of the plan."""
    value: Any = None
    job_id: str = ""
    delivery: int = 0


class Recorder:
    """Appends events to a file in a folder, and counts in further files how often something has happened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "events"
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._read = 0

    def note(self, kind: Kind, key: str, value: Any = None, *, job_id: str = "", delivery: int = 0) -> None:
        """Append an event."""
        os.write(self._file, orjson.dumps([kind, key, value, job_id, delivery]) + b"\n")

    def events(self) -> list[Event]:
        """Return all events."""
        return [Event(*orjson.loads(line)) for line in self.path.read_bytes().splitlines()]

    def news(self) -> Iterator[Event]:
        """Yield the events since the last call."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                yield Event(*orjson.loads(line))

    def times(self, key: str) -> int:
        """Return how often this was called with the key, by all processes, including this call."""
        file = os.open(self.folder / f"times-{key}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, b".")
            return os.fstat(file).st_size
        finally:
            os.close(file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


@dataclass
class Findings:
    """What a record proves."""

    events: Sequence[Event]
    once: frozenset[str] = frozenset()
    """Steps with `once=True`."""
    signals: frozenset[str] = frozenset()
    """Data of the signals that were sent."""

    @cached_property
    def repeated(self) -> list[str]:
        """Steps that were entered again after their handler had got a value, which is never right."""
        seen: set[str] = set()
        found = []
        for event in self.events:
            if event.kind == "saw":
                seen.add(event.key)
            elif event.kind == "enter" and event.key in seen:
                found.append(event.key)
        return found

    @cached_property
    def interrupted(self) -> int:
        """Number of times that a step was entered again although it had not failed: its worker had ended."""
        entered, failed, cut = self._numbers("enter"), self._numbers("fail"), self._numbers("cut")
        return sum(max(number - failed[key] - cut[key] - 1, 0) for key, number in entered.items())

    @cached_property
    def rerun(self) -> list[str]:
        """Steps that were entered again after their function had returned: nobody had kept the value."""
        left: set[str] = set()
        found = []
        for event in self.events:
            if event.kind == "leave":
                left.add(event.key)
            elif event.kind == "enter" and event.key in left:
                found.append(event.key)
        return found

    @cached_property
    def once_twice(self) -> list[str]:
        """Steps with `once=True` whose function was entered more than once."""
        entered = self._numbers("enter")
        return [key for key in sorted(self.once) if entered[key] > 1]

    @cached_property
    def changed(self) -> dict[str, list[Any]]:
        """Calls that have given different values to different runs of their handler."""
        values: dict[str, list[Any]] = defaultdict(list)
        for event in self.events:
            if event.kind == "saw" and event.value not in values[event.key]:
                values[event.key].append(event.value)
        return {key: found for key, found in values.items() if len(found) > 1}

    @cached_property
    def invented(self) -> list[str]:
        """Values of steps that no function has returned."""
        returned: dict[str, set[str]] = defaultdict(set)
        for event in self.events:
            if event.kind == "leave":
                returned[event.key].add(event.value)
        return [
            event.key
            for event in self.events
            if event.kind == "saw"
            and event.key in returned
            and event.value not in returned[event.key]
            and event.value != "unknown"
        ]

    @cached_property
    def consumed(self) -> dict[str, set[str]]:
        """Waits that have taken each signal, by its data."""
        taken: dict[str, set[str]] = defaultdict(set)
        for event in self.events:
            if event.kind == "saw" and isinstance(event.value, dict) and "signal" in event.value:
                taken[event.value["signal"]].add(event.key)
        return taken

    @cached_property
    def consumed_twice(self) -> list[str]:
        """Signals that two waits have taken."""
        return [data for data, waits in self.consumed.items() if len(waits) > 1]

    def _numbers(self, kind: Kind) -> Counter[str]:
        return Counter(event.key for event in self.events if event.kind == kind)
