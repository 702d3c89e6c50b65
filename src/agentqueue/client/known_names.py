"""Known job names. A mistyped name is refused once a worker has registered the queue's jobs."""

import difflib
from collections.abc import Iterable
from typing import Final

from agentqueue.clock import monotonic

QUIET_S: Final = 10.0
"""Pause before a queue without a registration is asked again, in seconds. Without one no name can be checked."""
FORCE: Final = "If a version of the code that has it is being rolled out, send it with force=True."


class KnownNames:
    """A cache of the job names that are registered. A known name is never looked up again."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str]] = set()
        self._quiet_until: dict[str, float] = {}

    def may_send(self, queue: str, name: str) -> bool:
        """Return whether the name is known, or the queue had no registration in the last QUIET_S seconds."""
        if (queue, name) in self._known:
            return True
        return bool(self._quiet_until) and monotonic() < self._quiet_until.get(queue, 0.0)

    def note(self, queue: str, names: Iterable[str]) -> None:
        """Remember the names that are registered for a queue. Without names nothing is registered."""
        pairs = {(queue, name) for name in names}
        if pairs:
            self._known |= pairs
            self._quiet_until.pop(queue, None)
        else:
            self._quiet_until[queue] = monotonic() + QUIET_S


def unknown_job(queue: str, name: str, known: Iterable[str], *, next_step: str = "") -> str:
    """Return the error message for a job that the code of the queue does not have. It has the nearest known name."""
    return (
        f"the code that serves queue {queue!r} has no job {name!r}; {with_next_step(nearest(name, known), next_step)}"
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `did you mean …?` with the nearest known name, or else up to ten known names."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"there is {', '.join(names[:10])}{more}"


def with_next_step(hint: str, next_step: str) -> str:
    """Return the hint, followed by a sentence on how to proceed anyway."""
    if not next_step:
        return hint
    return f"{hint} {next_step}" if hint.endswith("?") else f"{hint}. {next_step}"
