"""Cursors: `state:offset` for jobs, `until:offset` for dead letters. Pure."""

from collections.abc import Collection, Sequence
from typing import Final

from agentqueue.errors import UsageError
from agentqueue.model.job import State
from agentqueue.store import Snapshot, Unreadable

LIVE_STATES: Final = (State.ACTIVE, State.WAITING, State.DELAYED, State.SUSPENDED)
"""States of jobs that have not ended, in the order in which they are listed."""
LISTED_STATES: Final = (*LIVE_STATES, State.COMPLETED, State.DEAD)
"""States whose jobs can be listed."""
MAX_PAGE: Final = 1_000
"""Maximum number of items of a page."""
MAX_DIGITS: Final = 15
"""Maximum number of digits of an offset or a time in a cursor. Every cursor of a page has fewer."""


def check_state(value: str) -> State:
    """Return the state with a name, if its jobs can be listed.

    Raises:
        UsageError: There is no such state, or it is cancelled, whose jobs are known by ID only.
    """
    if value not in LISTED_STATES:
        names = ", ".join(LISTED_STATES)
        raise UsageError(f"state {value!r} can't be listed; it may be one of {names} (cancelled jobs are known by id)")
    return State(value)


def split_cursor(cursor: str | None) -> tuple[str, int]:
    """Return the text before the colon, and the offset. Without a cursor they are empty and 0.

    Raises:
        UsageError: The cursor is not valid.
    """
    if cursor is None:
        return "", 0
    place, _, offset = cursor.rpartition(":")
    if not place:
        raise _not_a_cursor(cursor)
    return place, _number(offset, cursor)


def moment_in(place: str) -> int:
    """Return the time at which the first page of dead letters was read, in ms.

    Raises:
        UsageError: The text is not from a valid cursor.
    """
    return _number(place, place)


def _number(text: str, cursor: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS:
        return int(text)
    raise _not_a_cursor(cursor)


def _not_a_cursor(cursor: str) -> UsageError:
    return UsageError(
        f"invalid cursor {cursor!r:.80}: pass the `cursor` of the previous page, or omit it to start from the beginning"
    )


def states_from(state: str | None, place: str) -> Sequence[State]:
    """Return the states that are still to be listed, in order, from the cursor's `place` on."""
    wanted = LIVE_STATES if state is None else (check_state(state),)
    if not place:
        return wanted
    if place not in wanted:
        raise UsageError(
            f"the cursor is in state {place!r:.80}, which is not requested; omit it to start from the beginning"
        )
    return wanted[wanted.index(State(place)) :]


def check_limit(limit: int) -> int:
    """Return the size of a page.

    Raises:
        UsageError: It is not an integer from 1 to 1,000.
    """
    if type(limit) is not int or not 1 <= limit <= MAX_PAGE:
        raise UsageError(f"limit {limit!r} must be a whole number from 1 to {MAX_PAGE:,}")
    return limit


def check_fields(wanted: Collection[str], known: Collection[str]) -> None:
    """Refuse payload fields that do not exist.

    Raises:
        UsageError: A field is not known.
    """
    strange = sorted(set(wanted) - set(known))
    if isinstance(wanted, str) or strange:
        raise UsageError(
            f"fields {wanted!r:.80} may name {' and '.join(known)} only; every other field is always included"
        )


def size_of(found: Snapshot | Unreadable) -> int:
    """Return the size of a job's large records, in bytes."""
    if isinstance(found, Unreadable):
        return 0
    return len(found.record or b"") + len(found.result or b"") + sum(map(len, found.dead.values()))
