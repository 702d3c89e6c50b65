"""Tests of the estimates from observations."""

import math
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentqueue_operator.autoscaling.estimates import (
    Estimates,
    QueueCounters,
    Running,
    learn,
    learn_start,
    raise_by_age,
    raise_by_missing_ends,
    running_of,
)
from agentqueue_operator.autoscaling.model import Rates


def seen(
    at: float,
    *,
    arrived: int = 0,
    ended: int = 0,
    run_s: float = 0,
    active: int = 0,
    running_s: float = 0,
    failed: int = 0,
) -> QueueCounters:
    return QueueCounters(
        at=at,
        arrived=arrived,
        ended=ended,
        run=timedelta(seconds=run_s),
        active=active,
        running=(Running(active, running_s),),
        failed=failed,
    )


def after(*looks: QueueCounters) -> Estimates:
    known = Estimates()
    for look in looks:
        known = learn(known, look)
    return known


def test_nothing_known_gives_the_defaults() -> None:
    assert Estimates().rates() == Rates(service_known=timedelta())
    assert after(seen(0, arrived=500)).rates() == Rates(service_known=timedelta())


def test_who_has_just_started_knows_how_long_jobs_took_since_ever() -> None:
    first = seen(0, arrived=500, ended=100, run_s=900)
    assert after(first).rates() == Rates(service=timedelta(seconds=9))
    assert after(first, seen(5, arrived=501, ended=101, run_s=919)).rates().service == timedelta(seconds=10)


def test_a_steady_rate_is_learned_within_minutes() -> None:
    known = after(*(seen(5.0 * i, arrived=2 * i) for i in range(60)))
    assert known.rates().arrivals_per_s == pytest.approx(0.4, rel=0.02)


def test_the_first_jobs_ever_are_no_rate() -> None:
    assert after(seen(0), seen(0.1, arrived=1)).rates().arrivals_per_s == 0.0
    assert after(seen(0), seen(5, arrived=100)).rates().arrivals_per_s == 0.0


def test_a_burst_is_no_rate() -> None:
    burst = after(seen(0), seen(0.1, arrived=1), seen(5.1, arrived=101))
    assert burst.rates().arrivals_per_s == pytest.approx((1 - math.exp(-5 / 60)) * 1 / 5)


def test_a_rate_that_rises_is_followed() -> None:
    quiet = [seen(5.0 * i, arrived=i) for i in range(40)]
    busy = [seen(5.0 * i, arrived=39 + (i - 39) * 10) for i in range(40, 60)]
    assert after(*quiet, *busy).rates().arrivals_per_s > 1.4


def test_silence_bounds_the_rate() -> None:
    flowing = [seen(float(i), arrived=5 * i) for i in range(120)]
    silent = seen(150, arrived=5 * 119)
    assert after(*flowing).rates().arrivals_per_s > 4
    assert after(*flowing, silent).rates().arrivals_per_s == pytest.approx(3 / 31)


def test_busy_slots_are_averaged_over_a_minute() -> None:
    known = after(*(seen(5.0 * i, active=8) for i in range(13)))
    assert known.rates().busy == pytest.approx(8 * (1 - math.exp(-1)))


def test_ten_jobs_or_so_make_the_service_time() -> None:
    known = after(seen(0), seen(5, ended=1, run_s=20), seen(10, ended=11, run_s=20 + 10 * 40))
    assert known.rates().service.total_seconds() == pytest.approx(20 + 20 * (1 - 0.9**10))


def test_running_jobs_raise_the_service_time_by_their_age() -> None:
    ended = [seen(0), seen(5, ended=1, run_s=20)]
    one = seen(60, ended=1, run_s=20, active=1, running_s=50)
    many = seen(60, ended=1, run_s=20, active=5, running_s=250)
    assert after(*ended, one).rates().service == timedelta(seconds=40)
    assert after(*ended, many).rates().service == timedelta(seconds=100)


@pytest.mark.parametrize(
    ("ages", "raised_s"),
    [
        pytest.param([], 5, id="none-runs"),
        pytest.param([(1, 0)], 5, id="ages-are-not-reported"),
        pytest.param([(0, 7)], 5, id="ages-of-no-job"),
        pytest.param([(1, 9)], 5, id="one-is-hardly-older"),
        pytest.param([(1, 11)], 10, id="one-is-older"),
        pytest.param([(1, 10_800)], 10, id="one-hangs"),
        pytest.param([(4, 2.5 * 4), (1, 10_800)], 5, id="one-of-five-hangs"),
        pytest.param([(1, 2.5)] * 39 + [(1, 10_800)], 5, id="one-of-forty-hangs"),
        pytest.param([(1, 2.5)] * 4 + [(1, 0)], 5, id="one-worker-reports-none"),
        pytest.param([(1, 6)] * 5, 6, id="many-are-hardly-older"),
        pytest.param([(1, 8)] * 5, 16, id="many-are-older"),
        pytest.param([(1, 200)] * 40, 400, id="all-are-much-older"),
        pytest.param([(1, 200)] * 39 + [(1, 10_800)], 2 * (39 * 200 + 600) / 40, id="all-are-much-older-and-one-hangs"),
    ],
)
def test_a_service_time_of_5_s_is_raised_by_what_runs(ages: list[tuple[int, float]], raised_s: float) -> None:
    assert raise_by_age(5, [Running(jobs, total_s) for jobs, total_s in ages]) == pytest.approx(raised_s)


@pytest.mark.parametrize(
    ("jobs", "total_s", "oldest_s", "running"),
    [
        pytest.param(0, 0, 0, [Running(0, 0)], id="none-runs"),
        pytest.param(1, 7, 7, [Running(1, 7)], id="one"),
        pytest.param(5, 110, 100, [Running(1, 100), Running(4, 10)], id="the-oldest-apart"),
        pytest.param(5, 110, 0, [Running(5, 110)], id="the-oldest-is-not-reported"),
        pytest.param(2, 6, 7, [Running(1, 7), Running(1, 0)], id="less-than-the-oldest"),
    ],
)
def test_a_workers_oldest_job_stands_apart(jobs: int, total_s: float, oldest_s: float, running: list[Running]) -> None:
    assert running_of(jobs, total_s=total_s, oldest_s=oldest_s) == tuple(running)


def test_one_of_a_workers_jobs_that_hangs_raises_nothing() -> None:
    assert raise_by_age(5, running_of(5, total_s=10_810, oldest_s=10_800)) == 5


services = st.floats(0, 1e4)
groups = st.lists(st.builds(Running, st.integers(0, 50), st.floats(0, 1e6)), max_size=12)


@given(services, groups)
def test_running_jobs_never_lower_the_service_time(service_s: float, running: list[Running]) -> None:
    raised_s = raise_by_age(service_s, running)
    assert service_s <= raised_s < math.inf


@given(services, st.lists(st.floats(0.001, 1e6), min_size=1, max_size=12), st.data())
def test_the_service_time_does_not_fall_as_jobs_get_older(
    service_s: float, ages: list[float], data: st.DataObject
) -> None:
    older = [age + data.draw(st.floats(0, 1e4)) for age in ages]
    before, then = (raise_by_age(service_s, [Running(1, age) for age in some]) for some in (ages, older))
    assert then >= before * (1 - 1e-9)


@given(services, st.lists(st.floats(0.001, 1e3), min_size=5, max_size=40))
def test_one_job_that_hangs_has_a_bounded_say(service_s: float, ages: list[float]) -> None:
    hangs = [*ages, 1e6]
    ordered = sorted(hangs)
    bound_s = 2 * 3 * max(service_s, ordered[len(hangs) // 2])
    assert raise_by_age(service_s, [Running(1, age) for age in hangs]) <= max(service_s, bound_s)


@pytest.mark.parametrize(
    ("slot_s", "ages", "raised_s"),
    [
        pytest.param(8, [8], 5, id="an-end-may-be-missing-by-chance"),
        pytest.param(9, [9], 14, id="one-slot"),
        pytest.param(14, [9, 4, 1], 5, id="among-three-slots-such-a-time-is-more-likely"),
        pytest.param(15, [10, 4, 1], 20, id="three-slots"),
        pytest.param(100, [5] * 20, 5, id="all-may-take-5-s"),
        pytest.param(100, [6] * 16, 12, id="the-oldest-has-half-its-time-behind-it"),
        pytest.param(600, [600], 50, id="one-job-hangs"),
        pytest.param(9, [], 5, id="none-runs"),
    ],
)
def test_a_service_time_of_5_s_is_raised_while_no_job_ends(slot_s: float, ages: list[float], raised_s: float) -> None:
    assert raise_by_missing_ends(5, slot_s, [Running(1, age) for age in ages]) == raised_s


@given(services, st.floats(0, 1e6), st.floats(0, 1e4), groups)
def test_missing_ends_never_lower_the_service_time(
    service_s: float, slot_s: float, more_s: float, running: list[Running]
) -> None:
    raised_s = raise_by_missing_ends(service_s, slot_s, running)
    assert service_s <= raised_s <= 10 * service_s
    assert raise_by_missing_ends(service_s, slot_s + more_s, running) >= raised_s


SHORT = (seen(0), seen(5, arrived=11, ended=10, run_s=50, active=1, running_s=1))
"""Ten jobs of 5 s have ended, and one runs."""


def test_jobs_that_get_longer_show_while_others_wait() -> None:
    then = seen(17, arrived=15, ended=10, run_s=50, active=1, running_s=13)
    assert after(*SHORT, then).rates().service == timedelta(seconds=5 + 12)


def test_jobs_that_have_just_started_hide_no_longer_ones() -> None:
    running = (Running(1, 16), Running(2, 2))
    more = replace(seen(20, arrived=15, ended=10, run_s=50, active=3), running=running)
    raised = after(*SHORT, seen(15, arrived=15, ended=10, run_s=50, active=1, running_s=11), more).rates().service
    assert raised == timedelta(seconds=5 + 10 + 10)
    assert raise_by_age(5, running) == 5


def test_where_no_job_waits_missing_ends_raise_nothing() -> None:
    then = seen(25, arrived=11, ended=10, run_s=50, active=1, running_s=9)
    assert after(*SHORT, then).rates().service == timedelta(seconds=5)


@pytest.mark.parametrize("how", ["ended", "failed"])
def test_the_end_of_an_attempt_begins_the_count_again(how: str) -> None:
    ends = {"ended": 10, "run_s": 50} | ({"ended": 11, "run_s": 55} if how == "ended" else {"failed": 1})
    known = after(*SHORT, seen(15, arrived=15, active=1, running_s=0, **ends))
    assert known.slot_s_without_end == 0.0
    assert known.rates().service == timedelta(seconds=5)


def test_before_any_job_has_ended_running_ones_tell() -> None:
    assert after(seen(0, active=1, running_s=45)).rates().service == timedelta(seconds=45)
    assert after(seen(0, active=1, running_s=5)).rates().service == Rates().service


@pytest.mark.parametrize(
    ("then", "known_s"),
    [
        pytest.param(seen(15, active=2, running_s=13), 13, id="the-first-runs-on"),
        pytest.param(seen(15, active=2, running_s=40), 20, id="older-than-was-known"),
        pytest.param(seen(15, active=1, running_s=2, failed=1), 4, id="another-has-followed-one-that-failed"),
        pytest.param(seen(15, active=0), 0, id="none-runs"),
        pytest.param(seen(15, active=1, running_s=6, ended=1, run_s=9), None, id="one-has-ended"),
    ],
)
def test_until_a_job_has_ended_it_is_known_for_how_long_one_has_run(then: QueueCounters, known_s: float | None) -> None:
    known = after(seen(5), seen(10, active=1, running_s=8), then)
    assert known.rates().service_known == (None if known_s is None else timedelta(seconds=known_s))


def test_a_pods_start_is_averaged() -> None:
    once = learn_start(Estimates(), timedelta(seconds=4))
    assert once.rates().startup == timedelta(seconds=4)
    assert learn_start(once, timedelta(seconds=9)).rates().startup == timedelta(seconds=5)


def test_counters_that_go_back_are_a_new_beginning() -> None:
    known = after(seen(0), seen(5, arrived=10, ended=5, run_s=50), seen(10, arrived=1, ended=1, run_s=3))
    assert known.service_s == 10
    assert learn(known, seen(15, arrived=2, ended=2, run_s=4)).service_s == pytest.approx(10 - 9 * 0.1)


def test_two_looks_at_one_instant_teach_nothing() -> None:
    known = after(seen(0), seen(5, arrived=3))
    assert learn(known, seen(5, arrived=9)).arrivals_per_s == known.arrivals_per_s


@given(
    st.lists(
        st.builds(
            seen,
            st.floats(0, 1e4),
            arrived=st.integers(0, 10**6),
            ended=st.integers(0, 10**6),
            run_s=st.floats(0, 1e6),
            active=st.integers(0, 500),
            running_s=st.floats(0, 1e6),
            failed=st.integers(0, 10**6),
        ),
        max_size=12,
    )
)
def test_whatever_is_seen_rates_are_finite_and_not_negative(looks: list[QueueCounters]) -> None:
    rates = after(*looks).rates()
    spans = (rates.service, rates.startup, rates.service_known or timedelta())
    numbers = [rates.arrivals_per_s, rates.busy, *(span.total_seconds() for span in spans)]
    assert all(math.isfinite(number) and number >= 0 for number in numbers)
