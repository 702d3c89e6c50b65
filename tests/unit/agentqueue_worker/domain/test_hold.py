"""How long a job that only waits keeps its slot."""

from typing import Any

import pytest

from agentqueue_worker.domain.hold import HOLD_S, SHORT_HOLD_S, hold_seconds

SITUATION = {"free_slots": 1, "has_suspect": False, "draining": False, "burst": False, "only_time_from": None}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({}, HOLD_S, id="slots are free"),
        pytest.param({"free_slots": 0}, SHORT_HOLD_S, id="no slot is free"),
        pytest.param({"free_slots": -1}, SHORT_HOLD_S, id="threads run on"),
        pytest.param({"has_suspect": True}, SHORT_HOLD_S, id="a suspect runs alone, so that no job starts beside it"),
        pytest.param({"draining": True}, SHORT_HOLD_S, id="the worker drains"),
        pytest.param({"burst": True}, 0.0, id="the worker ends when its queue is empty"),
        pytest.param({"only_time_from": HOLD_S}, HOLD_S, id="a short sleep"),
        pytest.param({"only_time_from": HOLD_S + 0.1}, SHORT_HOLD_S, id="a sleep that lasts longer than the hold"),
    ],
)
def test_the_hold(change: dict[str, Any], expected: float) -> None:
    assert hold_seconds(**SITUATION | change) == expected
