"""Decides in which order claimed jobs start that wait for a slot."""

from collections import deque
from collections.abc import Sequence
from typing import Final

from agentqueue.model.outcomes import Claimed

MAX_OVERTAKEN: Final = 3
"""Number of jobs of a higher priority that may pass the job that is next. So three of four starts follow priorities, as
in the queue (`priority_ageing`), and no job waits forever for a slot."""


def merge_claimed(waiting: deque[Claimed], claimed: Sequence[Claimed]) -> deque[Claimed]:
    """Return the jobs that wait for a slot, the next one first, with those of a new claim.

    An urgent job does not wait for jobs that were claimed ahead before it came. Jobs of one claim keep their order.

    Args:
        waiting: jobs of earlier claims, in their order.
        claimed: jobs of the new claim, in their order.
    """
    lowest = max(waiting[0].level, waiting[-1].level) if waiting else 0
    if not any(job.level < lowest for job in claimed):  # nearly always
        waiting.extend(claimed)
        return waiting
    merged, position = deque[Claimed](), 0
    while waiting and position < len(claimed):
        first = waiting[0]
        if claimed[position].level < first.level and first.overtaken < MAX_OVERTAKEN:
            first.overtaken += 1
            merged.append(claimed[position])
            position += 1
        else:
            merged.append(waiting.popleft())
    merged.extend(waiting)
    merged.extend(claimed[position:])
    return merged
