"""How many jobs start while calls wait for the limits of their agent."""

import pytest

from agentqueue.model.limits import WAITERS_AT_GATE
from agentqueue_worker.domain.gate import admit_claims


@pytest.mark.parametrize(
    ("wanted", "waiting", "starting", "admitted"),
    [
        pytest.param(5, [], 0, 5, id="no limit"),
        pytest.param(5, [0, 3], 0, 5, id="short lines"),
        pytest.param(25, [0, 3], 0, WAITERS_AT_GATE - 3, id="no more than the longest line has room for"),
        pytest.param(25, [3], 7, WAITERS_AT_GATE - 10, id="jobs on their way to the line"),
        pytest.param(5, [0, WAITERS_AT_GATE], 0, 0, id="a full line"),
        pytest.param(5, [50], 0, 0, id="more than full"),
        pytest.param(0, [1], 0, 0, id="no slot"),
    ],
)
def test_jobs_start_while_the_lines_are_short(wanted: int, waiting: list[int], starting: int, admitted: int) -> None:
    assert admit_claims(wanted, waiting, starting) == admitted
