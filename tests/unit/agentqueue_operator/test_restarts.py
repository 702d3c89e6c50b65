"""When an agent whose workers died may start new ones."""

import pytest

from agentqueue_operator.domain.restarts import CALM_S, LONGEST_S, Restarts, after_death, after_ready, may_start


def die(times: int, *, was_ready: bool, apart: float = 1.0) -> Restarts:
    restarts = Restarts()
    for number in range(times):
        restarts = after_death(restarts, at=100.0 + number * apart, was_ready=was_ready)
    return restarts


@pytest.mark.parametrize(
    ("times", "was_ready", "pause"),
    [
        pytest.param(1, True, 0.0, id="the-first-death-of-a-ready-one-restarts-at-once"),
        pytest.param(2, True, 1.0, id="then-after-a-second"),
        pytest.param(4, True, 4.0, id="then-doubled"),
        pytest.param(1, False, 1.0, id="one-that-never-got-ready-waits-at-once"),
        pytest.param(12, True, LONGEST_S, id="at-most-the-longest"),
    ],
)
def test_the_pause_after_deaths_in_a_row(times: int, was_ready: bool, pause: float) -> None:
    restarts = die(times, was_ready=was_ready)
    assert restarts.not_before - restarts.last == pytest.approx(pause)


def test_a_death_after_a_calm_time_counts_as_the_first() -> None:
    assert die(3, was_ready=True, apart=CALM_S + 1).deaths == 1


def test_while_on_trial_one_at_a_time_is_started_and_all_once_it_is_ready() -> None:
    tried = die(1, was_ready=False)
    assert may_start(tried, at=100.5, starting=0, most=4) == 0, "it pauses"
    assert may_start(tried, at=101.0, starting=0, most=4) == 1
    assert may_start(tried, at=101.0, starting=1, most=4) == 0
    assert may_start(after_ready(tried), at=101.0, starting=1, most=4) == 4
