"""What is learned from looks."""

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentqueue_operator.domain.estimates import Estimates, Seen, learn, learn_start
from agentqueue_operator.domain.scaling import Rates


def seen(
    at: float,
    *,
    arrived: int = 0,
    ended: int = 0,
    run_s: float = 0,
    active: int = 0,
    running_s: float = 0,
    failed: int = 0,
) -> Seen:
    return Seen(
        at=at,
        arrived=arrived,
        ended=ended,
        run=timedelta(seconds=run_s),
        active=active,
        running=timedelta(seconds=running_s),
        failed=failed,
    )


def after(*looks: Seen) -> Estimates:
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


def test_many_running_jobs_raise_the_service_time_by_their_age() -> None:
    ended = [seen(0), seen(5, ended=1, run_s=20)]
    few, many = (
        seen(60, ended=1, run_s=20, active=4, running_s=200),
        seen(60, ended=1, run_s=20, active=5, running_s=250),
    )
    assert after(*ended, few).rates().service == timedelta(seconds=20)
    assert after(*ended, many).rates().service == timedelta(seconds=50)


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
def test_until_a_job_has_ended_it_is_known_for_how_long_one_has_run(then: Seen, known_s: float | None) -> None:
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
def test_whatever_is_seen_rates_are_finite_and_not_negative(looks: list[Seen]) -> None:
    rates = after(*looks).rates()
    spans = (rates.service, rates.startup, rates.service_known or timedelta())
    numbers = [rates.arrivals_per_s, rates.busy, *(span.total_seconds() for span in spans)]
    assert all(math.isfinite(number) and number >= 0 for number in numbers)
