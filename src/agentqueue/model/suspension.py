"""Suspended jobs, and the texts of waits in a job's journal. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from agentqueue.model.journal import EntryState

NEVER_MS: Final = 253_370_764_800_000
"""Score of a suspended job that no time will wake, as the scripts write it: the year 9999."""
KINDS: Final = ("signal", "sleep", "children", "several")
"""What a suspended job may wait for: a metric has each as a label, and the queue has a list of jobs for each."""
PENDING: Final = b'{"wait":'
"""Beginning of the text of a wait that has no answer yet."""


@dataclass(frozen=True, slots=True)
class Suspension:
    """A job that waits without a slot."""

    kind: str
    """One of KINDS. `several` waits for whichever comes first."""
    waits_for: Sequence[str]
    """What it waits for, each as its kind and a name, such as `signal approval`."""
    since_ms: int
    until_ms: int | None
    """When it goes on at the latest, in ms since the epoch; None if no time wakes it."""
    children: tuple[int, int] = (0, 0)
    """Number of children that the job has asked for, and number of these that have ended."""

    @property
    def text(self) -> str:
        """What the job waits for, as people read it."""
        text = " or ".join(dict.fromkeys(map(_text_of, self.waits_for))) or "what is there already"
        sent, ended = self.children
        return f"{text} ({ended} of {sent} have ended)" if self.kind == "children" and sent else text


def _text_of(what: str) -> str:
    kind, _, name = what.partition(" ")
    match kind:
        case "signal":
            return f"the signal {name}"
        case "children":
            return name or "its children"
        case "sleep":
            return "a time"
        case _:
            return what


def decode_suspension(
    meta: Mapping[str, bytes], score: float | None, children: tuple[int, int] = (0, 0)
) -> Suspension | None:
    """Return the suspension of a job.

    Args:
        meta: the job's meta hash.
        score: the job's score in its level. The field of the hash is outdated if it names another one.
        children: number of its children, and number of these that have ended.

    Returns:
        None if the job is not suspended, or another program has written the field.
    """
    raw = meta.get("suspended")
    if raw is None:
        return None
    try:
        wire = orjson.loads(raw)
        kind, waits_for, since, until = wire["kind"], wire["for"], int(wire["since"]), int(wire["until"])
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
    if until != score or kind not in KINDS or not isinstance(waits_for, list):
        return None
    named = [what for what in waits_for if isinstance(what, str)]
    return Suspension(kind, named, since, None if until >= NEVER_MS else until, children)


@dataclass(frozen=True, slots=True)
class Pending:
    """A wait without an answer."""

    until_ms: int | None
    """When it ends by itself, in ms since the epoch; None if it waits for ever."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a wait."""

    value: Any
    """Data of the signal; None for a sleep. For a choice, the field of the wait that was first."""
    is_late: bool = False
    """The wait ended by itself before its signal came."""
    sender: str | None = None
    sent_ms: int | None = None
    """When the signal was sent, in ms since the epoch."""


def decode_wait(raw: bytes) -> Pending | Answer:
    """Return what the journal says of a wait.

    Raises:
        ValueError, KeyError, TypeError: another program has written the text.
    """
    wire = orjson.loads(raw)
    if raw.startswith(PENDING):
        until = wire.get("until")
        return Pending(None if until is None else int(until))
    is_late = wire["is"] == EntryState.RAISED
    return Answer(wire["v"], is_late=is_late, sender=wire.get("sender"), sent_ms=wire.get("sent"))
