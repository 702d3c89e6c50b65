"""Decides how many jobs to claim while calls wait for the limits that an agent declares."""

from collections.abc import Sequence
from typing import Final

from agentqueue.model.limits import WAITERS_AT_GATE

SETTLING_S: Final = 1.0
"""Seconds for which a job that has started and has not called yet counts as one that waits: it is on its way there."""
RECHECK_S: Final = 0.1
"""Seconds until an agent looks again at a line that is full."""


def admit_claims(wanted: int, waiting: Sequence[int], starting: int) -> int:
    """Return how many jobs to claim, 0 while a line is full.

    Without the gate the whole queue would move into the line: 10,000 jobs in slots or suspended, among which priorities
    do not count. With it, urgent jobs overtake in the queue.

    Args:
        wanted: number of jobs that the slots have room for.
        waiting: number of calls that wait for each of the agent's limits.
        starting: number of jobs that this worker has started just now and that have not called yet.
    """
    return max(min(wanted, WAITERS_AT_GATE - max(waiting, default=0) - starting), 0)
