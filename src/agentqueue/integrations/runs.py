"""Names of the steps that a framework's agents make in a job.

A framework calls models and tools in tasks of its own, so each of its steps has a key: the number of the agent's run
within the job, and the call's place in this run. Both are the same in every run of the handler.
"""

import re
from collections import Counter
from typing import Final
from weakref import WeakKeyDictionary

from agentqueue.agent.context import Context

_runs: Final["WeakKeyDictionary[Context, Counter[str]]"] = WeakKeyDictionary()
"""How many runs each agent has begun in a delivery of a job."""
MAX_NAME: Final = 100
"""Maximum length of a step's name, in characters."""


def next_run(ctx: Context, agent: str) -> int:
    """Return the number of a run that an agent begins now, from 1, in this delivery of the job.

    Args:
        ctx: The job's context.
        agent: The agent's name.
    """
    runs = _runs.setdefault(ctx, Counter())
    runs[agent] += 1
    return runs[agent]


def step_name(*parts: str) -> str:
    """Return a step's name that is made of parts, which may have any characters.

    >>> step_name("trip planner", "tool", "search")
    'trip_planner.tool.search'
    """
    name = re.sub(r"[^A-Za-z0-9_.:-]", "_", ".".join(parts))
    return name.lstrip(".:-")[:MAX_NAME] or "agent"
