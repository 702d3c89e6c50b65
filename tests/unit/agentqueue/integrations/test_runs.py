"""Names of steps, and numbers of the runs of agents."""

import gc

import pytest

from agentqueue.integrations import runs
from agentqueue.integrations.runs import next_run, step_name
from agentqueue.testing import context


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (["planner", "model"], "planner.model"),
        (["Trip planner", "tool", "<search>"], "Trip_planner.tool._search_"),
        ([".hidden", "model"], "hidden.model"),
        (["ä", "model"], "_.model"),
        (["x" * 200], "x" * 100),
        (["", ""], "agent"),
    ],
)
def test_a_name_has_the_letters_of_steps(parts: list[str], name: str) -> None:
    assert step_name(*parts) == name


async def test_the_runs_of_each_agent_are_numbered_in_each_delivery() -> None:
    first, second = context(), context(delivery=2)
    assert [next_run(first, name) for name in ("a", "a", "b")] == [1, 2, 1]
    assert next_run(second, "a") == 1


async def test_a_context_that_is_gone_leaves_nothing() -> None:
    next_run(context(), "a")
    gc.collect()
    before = len(runs._runs)
    kept = context()
    next_run(kept, "a")
    assert len(runs._runs) == before + 1
    del kept
    gc.collect()
    assert len(runs._runs) == before
