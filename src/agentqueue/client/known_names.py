"""Known job names: a mistyped one is refused where live workers serve the queue and none of them knows it."""

import difflib
from collections.abc import Iterable
from typing import Final

from agentqueue.clock import monotonic

QUIET_S: Final = 10.0
"""Seconds for which a queue without live workers is not asked again: there is nobody to check a name with."""
FORCE: Final = "If workers that know it are being rolled out, send it with force=True."


class KnownNames:
    """What a client has learnt of the names that workers know. A name that was known once is never asked for again."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str]] = set()
        self._quiet_until: dict[str, float] = {}

    def may_send(self, queue: str, name: str) -> bool:
        """Return whether the name is known, or the queue had no live workers in the last QUIET_S seconds."""
        if (queue, name) in self._known:
            return True
        return bool(self._quiet_until) and monotonic() < self._quiet_until.get(queue, 0.0)

    def note(self, queue: str, names: Iterable[str]) -> None:
        """Take in what the live workers of a queue know; nothing: there are none."""
        pairs = {(queue, name) for name in names}
        if pairs:
            self._known |= pairs
            self._quiet_until.pop(queue, None)
        else:
            self._quiet_until[queue] = monotonic() + QUIET_S


def unknown_job(queue: str, name: str, known: Iterable[str], *, way_out: str = "") -> str:
    """Return what to say of a job that no worker of the queue knows, with the nearest name that one does."""
    return f"no live worker of queue {queue!r} knows a job {name!r}; {with_way_out(nearest(name, known), way_out)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `did you mean …?`, or what there is (at most ten)."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"there is {', '.join(names[:10])}{more}"


def with_way_out(hint: str, way_out: str) -> str:
    """Return the hint with a sentence behind it that says how to go on all the same."""
    if not way_out:
        return hint
    return f"{hint} {way_out}" if hint.endswith("?") else f"{hint}. {way_out}"
