"""How long a job that only waits keeps its slot."""

import pytest

from agentqueue_worker.domain.hold import HOLD_S, SHORT_HOLD_S, hold_seconds


@pytest.mark.parametrize(
    ("free", "draining", "burst", "only_time_from", "expected"),
    [
        pytest.param(1, False, False, None, HOLD_S, id="slots are free"),
        pytest.param(0, False, False, None, SHORT_HOLD_S, id="no slot is free"),
        pytest.param(-1, False, False, None, SHORT_HOLD_S, id="threads run on"),
        pytest.param(1, True, False, None, SHORT_HOLD_S, id="the worker drains"),
        pytest.param(1, False, True, None, 0.0, id="the worker ends when its queue is empty"),
        pytest.param(1, False, False, HOLD_S, HOLD_S, id="a short sleep"),
        pytest.param(1, False, False, HOLD_S + 0.1, SHORT_HOLD_S, id="a sleep that lasts longer than the hold"),
    ],
)
def test_the_hold(free: int, draining: bool, burst: bool, only_time_from: float | None, expected: float) -> None:
    held = hold_seconds(free_slots=free, draining=draining, burst=burst, only_time_from=only_time_from)
    assert held == expected
