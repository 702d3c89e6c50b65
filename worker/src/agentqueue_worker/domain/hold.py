"""Decides how long a job that only waits keeps its slot before it is suspended."""

from typing import Final

HOLD_S: Final = 2.0
"""Seconds while slots are free. A shorter wait costs no second delivery."""
SHORT_HOLD_S: Final = 0.02
"""Seconds while no other job can start: no slot is free, a job runs alone, or the worker drains. What is on its way may
still come.

With 2 s in that case too, 20 waiting jobs on 5 slots keep a short job away for 8 s instead of 0.3 s.
"""


def hold_seconds(
    *, free_slots: int, has_suspect: bool, draining: bool, burst: bool, only_time_from: float | None
) -> float:
    """Return the seconds from the job's last sign of life until it is suspended.

    Args:
        free_slots: number of free slots of the worker.
        has_suspect: True if a job that was in a crash runs alone, or waits to. No other job starts in a free slot.
        draining: True if the worker drains, or is asked to.
        burst: True if the worker ends once its queue is empty.
        only_time_from: if nothing but time can end the waits, the seconds until the first of them ends; None if a
            signal or a child may end one at any moment.
    """
    if burst:
        return 0.0
    no_slot = free_slots <= 0 or has_suspect or draining
    if no_slot or (only_time_from is not None and only_time_from > HOLD_S):
        return SHORT_HOLD_S
    return HOLD_S
