"""Tests of the backoff after deaths of workers."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentqueue_operator.local.restart_backoff import (
    MAX_PAUSE_S,
    RESET_AFTER_S,
    Restarts,
    after_death,
    after_ready,
    may_start,
)

PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0)
"""Pauses after consecutive deaths of a worker that had been ready. Without readiness they are one step ahead."""


def die(times: int, *, was_ready: bool, apart: float = 1.0) -> Restarts:
    """Return the pauses of one worker that is restarted after each death."""
    restarts = Restarts()
    for number in range(times):
        at = 100.0 + number * apart
        restarts = after_death(restarts, at=at, started=at - apart / 2, was_ready=was_ready)
    return restarts


@pytest.mark.parametrize(
    ("times", "was_ready", "pause"),
    [
        pytest.param(1, True, 0.0, id="the-first-death-of-a-ready-one-restarts-at-once"),
        pytest.param(2, True, 1.0, id="then-after-a-second"),
        pytest.param(4, True, 4.0, id="then-doubled"),
        pytest.param(1, False, 1.0, id="one-that-never-got-ready-waits-at-once"),
        pytest.param(12, True, MAX_PAUSE_S, id="at-most-the-longest"),
    ],
)
def test_the_pause_after_deaths_in_a_row(times: int, was_ready: bool, pause: float) -> None:
    restarts = die(times, was_ready=was_ready)
    assert restarts.not_before - restarts.last == pytest.approx(pause)


def test_a_death_after_a_calm_time_counts_as_the_first() -> None:
    assert die(3, was_ready=True, apart=RESET_AFTER_S + 1).deaths == 1


def test_so_does_that_of_one_which_has_outlived_the_others() -> None:
    tired = die(6, was_ready=True)
    assert after_death(tired, at=tired.last + RESET_AFTER_S + 1, started=0.0, was_ready=True).deaths == 1


def test_while_on_trial_one_at_a_time_is_started_and_all_once_it_is_ready() -> None:
    tried = die(1, was_ready=False)
    assert may_start(tried, at=100.5, starting=0, most=4) == 0, "it pauses"
    assert may_start(tried, at=101.0, starting=0, most=4) == 1
    assert may_start(tried, at=101.0, starting=1, most=4) == 0
    assert may_start(after_ready(tried), at=101.0, starting=1, most=4) == 4


def test_workers_that_are_all_killed_at_once_are_all_back_at_once() -> None:
    restarts = Restarts()
    for number in range(5):  # each is noticed a little later than the one before
        restarts = after_death(restarts, at=100.0 + number / 10, started=50.0 + number, was_ready=True)
        assert may_start(restarts, at=100.0 + number / 10, starting=0, most=5) == 5


def test_one_that_dies_beside_them_before_it_was_ready_is_on_trial_whatever_the_order() -> None:
    deaths = [(100.0, True), (100.0, False), (100.0, True)]
    for order in permutations(deaths):
        restarts = Restarts()
        for at, was_ready in order:
            restarts = after_death(restarts, at=at, started=90.0, was_ready=was_ready)
        assert (restarts.deaths, restarts.not_before, restarts.on_trial) == (1, 101.0, True)


def test_replacements_of_a_loss_that_die_too_are_the_next_in_the_row() -> None:
    """Two workers of one loss are noticed one after the other, while the replacement of the first one runs."""
    restarts = after_death(Restarts(), at=100.0, started=50.0, was_ready=True)
    restarts = after_death(restarts, at=100.4, started=50.0, was_ready=True)
    restarts = after_death(restarts, at=101.0, started=100.1, was_ready=True)
    assert (restarts.deaths, restarts.not_before) == (2, 102.0)
    restarts = after_death(restarts, at=101.5, started=100.5, was_ready=True)
    assert (restarts.deaths, restarts.not_before) == (2, 102.0), "the second's replacement: the same loss"


@given(lives=st.lists(st.tuples(st.floats(0.001, 20), st.booleans()), min_size=1, max_size=12))
def test_a_worker_that_crashes_on_and_on_is_started_no_sooner_than_the_pauses_allow(
    lives: list[tuple[float, bool]],
) -> None:
    restarts, started = Restarts(), 100.0
    for number, (life, was_ready) in enumerate(lives):
        died = started + life
        if was_ready:
            restarts = after_ready(restarts)
        restarts = after_death(restarts, at=died, started=started, was_ready=was_ready)
        pause = PAUSES[min(number + (not was_ready), len(PAUSES) - 1)]
        assert restarts.not_before == pytest.approx(died + pause)
        assert not pause or may_start(restarts, at=died + 0.99 * pause, starting=0, most=1) == 0
        started = restarts.not_before
        assert may_start(restarts, at=started, starting=0, most=1) == 1


@given(
    row=st.integers(0, 8),
    ages=st.lists(st.floats(0.001, 1_000), min_size=1, max_size=10),
    was_ready=st.booleans(),
)
def test_any_number_of_deaths_at_once_gives_the_pause_of_one(row: int, ages: list[float], was_ready: bool) -> None:
    before = die(row, was_ready=True)
    at = before.last + 40 if row else 100.0
    one = after_death(before, at=at, started=at - 0.001, was_ready=was_ready)
    all_ = before
    for age in (0.001, *ages):
        all_ = after_death(all_, at=at, started=at - age, was_ready=was_ready)
    assert (all_.not_before, all_.on_trial) == (one.not_before, one.on_trial)


@given(
    size=st.integers(1, 6),
    lives=st.lists(st.floats(0.01, 25), min_size=40, max_size=40),
    was_ready=st.booleans(),
)
def test_however_the_deaths_of_several_fall_no_more_are_started_in_a_pause_than_one_fleet(
    size: int, lives: list[float], was_ready: bool
) -> None:
    """In each step of the backoff a worker is restarted at most once, in every order of deaths."""
    restarts, starts, rest = Restarts(), 0, iter(lives)
    ends = sorted((100.0 + next(rest), 100.0) for _ in range(size))
    for life in rest:
        died, started = ends.pop(0)
        step = restarts.last
        restarts = after_death(restarts, at=died, started=started, was_ready=was_ready)
        starts = 1 if restarts.last != step else starts + 1
        assert starts <= size
        again = max(died, restarts.not_before)
        ends = sorted([*ends, (again + life, again)])
