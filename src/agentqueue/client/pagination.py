"""Cursors: `state:offset` for jobs, `until:offset` for dead letters. Pure."""

from collections.abc import Collection, Sequence
from typing import Final

from agentqueue.errors import UsageError
from agentqueue.model.job import State
from agentqueue.store import Snapshot, Unreadable

LIVE_STATES: Final = (State.ACTIVE, State.WAITING, State.DELAYED)
LISTED_STATES: Final = (*LIVE_STATES, State.COMPLETED, State.DEAD)
MAX_PAGE: Final = 1_000
MAX_DIGITS: Final = 15
"""Of an offset or a time in a cursor: all that a page had are below, and Redis takes them."""


def check_state(value: str) -> State:
    """The state of that name, if jobs of it can be listed.

    Raises:
        UsageError: no such state; or cancelled, whose jobs are known by id only.
    """
    if value not in LISTED_STATES:
        names = ", ".join(LISTED_STATES)
        raise UsageError(f"state {value!r} can't be listed; it may be one of {names} (cancelled jobs are known by id)")
    return State(value)


def split_cursor(cursor: str | None) -> tuple[str, int]:
    """What stands before the colon, and the offset; empty and 0 at the start.

    Raises:
        UsageError: not a cursor that a page had.
    """
    if cursor is None:
        return "", 0
    place, _, offset = cursor.rpartition(":")
    if not place:
        raise _not_a_cursor(cursor)
    return place, _number(offset, cursor)


def moment_in(place: str) -> int:
    """The time, in ms, at which the first page of dead letters was read.

    Raises:
        UsageError: not of a cursor that a page had.
    """
    return _number(place, place)


def _number(text: str, cursor: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS:
        return int(text)
    raise _not_a_cursor(cursor)


def _not_a_cursor(cursor: str) -> UsageError:
    return UsageError(f"cursor {cursor!r:.80} is not one that a page had; start without one")


def states_from(state: str | None, place: str) -> Sequence[State]:
    """The states still to be listed, in order, when the cursor stands in `place`."""
    wanted = LIVE_STATES if state is None else (check_state(state),)
    if not place:
        return wanted
    if place not in wanted:
        raise UsageError(f"the cursor is of state {place!r:.80}, which is not asked for; start without one")
    return wanted[wanted.index(State(place)) :]


def check_limit(limit: int) -> int:
    """The page's size itself.

    Raises:
        UsageError: not from 1 to 1,000.
    """
    if type(limit) is not int or not 1 <= limit <= MAX_PAGE:
        raise UsageError(f"limit {limit!r} must be a whole number from 1 to {MAX_PAGE:,}")
    return limit


def check_fields(wanted: Collection[str], known: Collection[str]) -> None:
    """Check which payloads a list is asked for.

    Raises:
        UsageError: one that there is not.
    """
    strange = sorted(set(wanted) - set(known))
    if isinstance(wanted, str) or strange:
        raise UsageError(
            f"fields {wanted!r:.80} may name {' and '.join(known)} only; every other field is there anyway"
        )


def size_of(found: Snapshot | Unreadable) -> int:
    """The bytes of what may be large of a job."""
    if isinstance(found, Unreadable):
        return 0
    return len(found.record or b"") + len(found.result or b"") + sum(map(len, found.dead.values()))
