"""Tests of the decision by example: a situation, the decision and its reason."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agentqueue.spec.defaults import Fallback, FallbackBehavior, RateLimit, ScalingMode
from agentqueue_operator.autoscaling.decision import decide_replicas
from agentqueue_operator.autoscaling.demand import compute_demand
from agentqueue_operator.autoscaling.model import (
    Hold,
    Load,
    Memory,
    Pods,
    Rates,
    ScaleTo,
    ScalingPolicy,
    ScalingReason,
    ScalingSnapshot,
)

LONG_KNOWN = Memory(since=0.0, busy_at=995.0, current=None)
"""Memory after the learning time, with the last job 5 s ago."""


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def policy(**given: Any) -> ScalingPolicy:
    return ScalingPolicy(**({"concurrency": 1, "max_replicas": 50} | given))


def decide(
    load: Load | None,
    *,
    current: int = 0,
    pods: Pods | None = None,
    rates: Rates | None = None,
    memory: Memory = LONG_KNOWN,
    at: float = 1000.0,
    registering: bool = False,
    **given: Any,
) -> ScaleTo | Hold:
    pods = Pods(ready=current) if pods is None else pods
    rates = Rates(service=seconds(20), startup=seconds(10)) if rates is None else rates
    snapshot = ScalingSnapshot(at=at, load=load, pods=pods, rates=rates, registering=registering)
    return decide_replicas(snapshot, current=current, policy=policy(**given), memory=memory)


def answer(decision: ScaleTo | Hold) -> tuple[int | None, ScalingReason]:
    return decision.replicas if isinstance(decision, ScaleTo) else None, decision.reason


BUSY_5 = Load(active=5)
STEADY_4 = Rates(arrivals_per_s=0.2, busy=4.0, service=seconds(20), startup=seconds(10))


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        pytest.param({"load": Load(ready=50), "concurrency": 5}, (10, ScalingReason.BACKLOG), id="burst-in-one-step"),
        pytest.param({"load": Load(ready=1)}, (1, ScalingReason.BACKLOG), id="first-job"),
        pytest.param({"load": Load(due_soon=7)}, (7, ScalingReason.BACKLOG), id="jobs-due-within-a-start"),
        pytest.param({"load": Load()}, (None, ScalingReason.IDLE), id="idle-at-zero"),
        pytest.param({"load": Load(ready=9), "max_replicas": 4}, (4, ScalingReason.MAX), id="no-more-than-max"),
        pytest.param({"load": Load(ready=9), "max_replicas": 4, "current": 4}, (None, ScalingReason.MAX), id="at-max"),
        pytest.param({"load": Load(), "min_replicas": 2}, (2, ScalingReason.MIN), id="no-fewer-than-min"),
        pytest.param({"load": Load(), "min_replicas": 2, "current": 2}, (None, ScalingReason.MIN), id="at-min"),
        pytest.param({"load": BUSY_5, "current": 5}, (None, ScalingReason.BUSY_FLOOR), id="all-busy"),
        pytest.param({"load": BUSY_5, "current": 3}, (5, ScalingReason.BUSY_FLOOR), id="never-below-busy"),
        pytest.param({"load": BUSY_5, "current": 8}, (5, ScalingReason.LESS_WORK), id="idle-ones-go"),
        pytest.param(
            {"load": BUSY_5, "current": 5, "min_idle_slots": 2}, (7, ScalingReason.MIN_IDLE_SLOTS), id="idle-slots"
        ),
        pytest.param(
            {"load": BUSY_5, "current": 7, "min_idle_slots": 2},
            (None, ScalingReason.MIN_IDLE_SLOTS),
            id="idle-slots-stay",
        ),
        pytest.param({"load": Load(), "registering": True}, (1, ScalingReason.REGISTERING), id="one-pod-registers"),
        pytest.param(
            {"load": Load(), "registering": True, "current": 1, "pods": Pods(failing=1)},
            (None, ScalingReason.REGISTERING),
            id="a-pod-that-fails-to-register-stays-alone",
        ),
        pytest.param(
            {"load": Load(paused=True), "registering": True, "current": 1},
            (None, ScalingReason.REGISTERING),
            id="a-paused-queue-registers-too",
        ),
        pytest.param(
            {"load": Load(), "registering": True, "current": 4},
            (1, ScalingReason.LESS_WORK),
            id="all-but-one-go-while-it-registers",
        ),
        pytest.param(
            {"load": Load(ready=9), "registering": True}, (9, ScalingReason.BACKLOG), id="jobs-need-more-than-one"
        ),
        pytest.param(
            {"load": Load(), "registering": True, "min_replicas": 2}, (2, ScalingReason.MIN), id="min-registers-anyway"
        ),
        pytest.param({"load": Load(), "min_idle_slots": 2}, (2, ScalingReason.MIN_IDLE_SLOTS), id="idle-slots-at-zero"),
        pytest.param(
            {"load": Load(active=1), "rates": STEADY_4, "current": 1},
            (3, ScalingReason.ARRIVALS),
            id="pods-for-arrivals-to-come",
        ),
        pytest.param(
            {"load": Load(active=3), "rates": STEADY_4, "current": 5},
            (None, ScalingReason.ENOUGH),
            id="between-start-and-keep",
        ),
        pytest.param(
            {"load": Load(ready=1, active=4), "current": 8, "pods": Pods(ready=4, starting=4)},
            (5, ScalingReason.LESS_WORK),
            id="pods-that-a-known-job-could-use-stay",
        ),
        pytest.param(
            {"load": Load(ready=3, active=20), "current": 22, "pods": Pods(ready=20, starting=2)},
            (None, ScalingReason.PODS_STARTING),
            id="pods-on-their-way-will-do",
        ),
        pytest.param(
            {"load": Load(ready=30), "rate_limit": RateLimit(max=1, duration_seconds=10)},
            (4, ScalingReason.RATE_LIMITED),
            id="no-pods-that-a-rate-limit-starves",
        ),
        pytest.param(
            {
                "load": Load(ready=30),
                "rate_limit": RateLimit(max=1, duration_seconds=10),
                "rates": Rates(service_known=timedelta()),
            },
            (1, ScalingReason.RATE_LIMITED),
            id="no-pods-on-a-guess-of-what-a-rate-limit-feeds",
        ),
        pytest.param(
            {"load": Load(ready=30), "current": 2, "max_pods_per_minute": 3},
            (5, ScalingReason.MAX_PODS_PER_MINUTE),
            id="no-faster-than-max-pods-per-minute",
        ),
        pytest.param(
            {"load": Load(ready=30), "current": 4, "pods": Pods(ready=3, unschedulable=1)},
            (None, ScalingReason.UNSCHEDULABLE),
            id="no-more-while-the-scheduler-refuses",
        ),
        pytest.param(
            {"load": Load(ready=30), "current": 2, "pods": Pods(failing=2)},
            (None, ScalingReason.PODS_FAILING),
            id="no-more-of-those-that-fail",
        ),
        pytest.param(
            {"load": Load(ready=30), "current": 5, "pods": Pods(ready=4, failing=1)},
            (28, ScalingReason.BACKLOG),
            id="one-that-fails-among-others-holds-nothing-up",
        ),
        pytest.param(
            {"load": BUSY_5, "current": 8, "pods": Pods(ready=8, rolling_out=True)},
            (None, ScalingReason.ROLLOUT),
            id="nothing-goes-in-a-rollout",
        ),
        pytest.param(
            {"load": Load(ready=30), "current": 8, "pods": Pods(ready=8, rolling_out=True)},
            (26, ScalingReason.BACKLOG),
            id="a-rollout-may-grow",
        ),
        pytest.param(
            {"load": Load(active=9), "current": 9, "max_replicas": 7},
            (7, ScalingReason.MAX),
            id="a-lowered-max-goes-at-once",
        ),
        pytest.param({"load": Load(ready=9, paused=True)}, (None, ScalingReason.PAUSED), id="a-paused-queue-gets-none"),
        pytest.param(
            {"load": Load(ready=9, active=2, paused=True), "current": 5},
            (2, ScalingReason.LESS_WORK),
            id="a-paused-queue-keeps-what-runs",
        ),
    ],
)
def test_auto(situation: dict[str, Any], expected: tuple[int | None, ScalingReason]) -> None:
    assert answer(decide(**situation)) == expected


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        pytest.param({"load": Load(), "mode": ScalingMode.FIXED, "replicas": 3}, (3, ScalingReason.FIXED), id="up"),
        pytest.param(
            {"load": Load(), "mode": ScalingMode.FIXED, "replicas": 3, "current": 5},
            (3, ScalingReason.FIXED),
            id="down",
        ),
        pytest.param(
            {"load": Load(), "mode": ScalingMode.FIXED, "replicas": 3, "current": 3},
            (None, ScalingReason.FIXED),
            id="there",
        ),
        pytest.param(
            {"load": None, "mode": ScalingMode.FIXED, "replicas": 3}, (3, ScalingReason.FIXED), id="up-without-metrics"
        ),
        pytest.param(
            {"load": None, "mode": ScalingMode.FIXED, "replicas": 3, "current": 5, "memory": Memory(failures=9)},
            (None, ScalingReason.METRICS_MISSING),
            id="not-down-without-metrics",
        ),
        pytest.param(
            {"load": Load(), "mode": ScalingMode.FIXED, "replicas": 3, "suspended": True, "current": 3},
            (0, ScalingReason.SUSPENDED),
            id="suspended",
        ),
    ],
)
def test_fixed(situation: dict[str, Any], expected: tuple[int | None, ScalingReason]) -> None:
    assert answer(decide(**situation)) == expected


def test_external_is_left_alone() -> None:
    assert answer(decide(Load(ready=50), mode=ScalingMode.EXTERNAL, current=3)) == (None, ScalingReason.EXTERNAL)


def test_suspend_takes_all_pods_once_the_queue_can_be_read() -> None:
    assert answer(decide(BUSY_5, suspended=True, current=5)) == (0, ScalingReason.SUSPENDED)
    assert answer(decide(Load(), suspended=True)) == (None, ScalingReason.SUSPENDED)
    assert answer(decide(None, suspended=True, current=5, memory=Memory(failures=9))) == (
        None,
        ScalingReason.METRICS_MISSING,
    )


@pytest.mark.parametrize(
    ("fallback", "current", "expected"),
    [
        pytest.param(Fallback(), 5, (None, ScalingReason.FALLBACK_HOLD), id="hold"),
        pytest.param(
            Fallback(behavior=FallbackBehavior.STATIC, replicas=8), 5, (8, ScalingReason.FALLBACK_STATIC), id="static"
        ),
        pytest.param(
            Fallback(behavior=FallbackBehavior.STATIC, replicas=2),
            5,
            (None, ScalingReason.FALLBACK_STATIC),
            id="never-down",
        ),
        pytest.param(
            Fallback(behavior=FallbackBehavior.STATIC, replicas=99),
            5,
            (50, ScalingReason.FALLBACK_STATIC),
            id="static-in-max",
        ),
        pytest.param(Fallback(behavior=FallbackBehavior.MAX), 5, (50, ScalingReason.FALLBACK_MAX), id="max"),
    ],
)
def test_fallback_after_the_threshold(
    fallback: Fallback, current: int, expected: tuple[int | None, ScalingReason]
) -> None:
    memory = LONG_KNOWN
    for _ in range(fallback.failure_threshold - 1):
        decision = decide(None, current=current, fallback=fallback, memory=memory)
        assert answer(decision) == (None, ScalingReason.METRICS_MISSING)
        memory = decision.memory
    assert answer(decide(None, current=current, fallback=fallback, memory=memory)) == expected


def test_when_metrics_return_nothing_goes_before_rates_are_learned() -> None:
    lost = decide(None, current=5)
    back = decide(Load(active=1), current=5, memory=lost.memory, at=1010.0)
    assert answer(back) == (None, ScalingReason.LEARNING)
    assert back.memory.failures == 0
    assert answer(decide(Load(active=1), current=5, memory=back.memory, at=1071.0)) == (1, ScalingReason.LESS_WORK)


def test_the_last_pod_goes_after_four_starts_without_a_job() -> None:
    busy = decide(Load(active=1), current=1)
    early = decide(Load(), current=1, memory=busy.memory, at=1039.0)
    assert answer(early) == (None, ScalingReason.COOLING_DOWN)
    assert early.terms.quiet_s == 39.0
    assert answer(decide(Load(), current=1, memory=early.memory, at=1040.0)) == (0, ScalingReason.SCALE_TO_ZERO)


def test_a_pod_that_has_registered_goes_as_an_idle_one_does() -> None:
    began = decide(Load(), registering=True, memory=Memory())
    assert answer(began) == (1, ScalingReason.REGISTERING)
    done = decide(Load(), current=1, memory=began.memory, at=1010.0)
    assert answer(done) == (None, ScalingReason.COOLING_DOWN)
    assert answer(decide(Load(), current=1, memory=done.memory, at=1061.0)) == (0, ScalingReason.SCALE_TO_ZERO)


def test_the_policy_may_say_when_the_last_pod_goes() -> None:
    busy = decide(Load(active=1), current=1)
    later: dict[str, Any] = {"current": 1, "memory": busy.memory, "scale_to_zero_after": seconds(3)}
    assert answer(decide(Load(), at=1002.0, **later)) == (None, ScalingReason.COOLING_DOWN)
    assert answer(decide(Load(), at=1003.0, **later)) == (0, ScalingReason.SCALE_TO_ZERO)


def test_the_scale_down_window_keeps_the_greatest_number_in_it() -> None:
    window: dict[str, Any] = {"scale_down_window": seconds(60), "current": 8}
    eight = decide(Load(active=8), **window)
    six = decide(Load(active=6), memory=eight.memory, at=1030.0, **window)
    assert answer(six) == (None, ScalingReason.COOLING_DOWN)
    five = decide(BUSY_5, memory=six.memory, at=1061.0, **window)
    assert answer(five) == (6, ScalingReason.LESS_WORK)
    assert five.terms.keep_peak == 6


def test_a_lowered_max_does_not_wait_for_the_window() -> None:
    window: dict[str, Any] = {"scale_down_window": seconds(60), "current": 8}
    before = decide(Load(active=8), **window)
    assert answer(decide(Load(active=1), memory=before.memory, at=1005.0, max_replicas=6, **window)) == (
        6,
        ScalingReason.MAX,
    )


def test_below_a_lowered_max_pods_go_for_lack_of_work_once_rates_are_learned() -> None:
    four = Load(active=4)
    lowered: dict[str, Any] = {"current": 12, "max_replicas": 6}
    assert answer(decide(four, **lowered)) == (4, ScalingReason.LESS_WORK)
    learning = decide(four, memory=Memory(), **lowered)
    assert answer(learning) == (6, ScalingReason.MAX)
    held = decide(four, memory=learning.memory, at=1005.0, current=6, max_replicas=6)
    assert answer(held) == (None, ScalingReason.LEARNING)
    assert answer(decide(four, memory=held.memory, at=1060.0, current=6, max_replicas=6)) == (
        4,
        ScalingReason.LESS_WORK,
    )


def test_pods_added_by_anyone_count_for_a_minute() -> None:
    limit: dict[str, Any] = {"max_pods_per_minute": 4}
    first = decide(Load(ready=30), **limit)
    assert answer(first) == (4, ScalingReason.MAX_PODS_PER_MINUTE)
    grown = decide(Load(ready=30), current=4, memory=first.memory, at=1005.0, **limit)
    assert answer(grown) == (None, ScalingReason.MAX_PODS_PER_MINUTE)
    assert grown.terms.added_last_minute == 4
    assert answer(decide(Load(ready=30), current=4, memory=grown.memory, at=1066.0, **limit)) == (
        8,
        ScalingReason.MAX_PODS_PER_MINUTE,
    )


def test_who_has_just_started_counts_the_pods_made_in_the_last_minute() -> None:
    limit: dict[str, Any] = {"max_pods_per_minute": 2, "current": 2}
    first = decide(Load(ready=30), memory=Memory(), pods=Pods(starting=2, young=2), **limit)
    assert answer(first) == (None, ScalingReason.MAX_PODS_PER_MINUTE)
    again = decide(Load(ready=30), memory=first.memory, at=1030.0, pods=Pods(starting=2, young=2), **limit)
    assert again.terms.added_last_minute == 2
    later = decide(Load(ready=30), memory=again.memory, at=1060.0, pods=Pods(ready=2), **limit)
    assert answer(later) == (4, ScalingReason.MAX_PODS_PER_MINUTE)


def demand(load: Load, rates: Rates, **given: Any) -> Any:
    snapshot = ScalingSnapshot(at=0.0, load=load, pods=given.pop("pods", Pods()), rates=rates)
    return compute_demand(snapshot, load, policy=policy(**given))


class TestExpectedJobs:
    RATES = Rates(service=seconds(20), startup=seconds(10))

    def test_stay_where_no_slot_is_ready(self) -> None:
        assert demand(Load(ready=40), self.RATES).expected == 40

    def test_fall_by_what_the_slots_do_while_more_wait(self) -> None:
        assert demand(Load(ready=30, active=10), self.RATES, pods=Pods(ready=10)).expected == pytest.approx(
            40 - 10 / 20 * 10
        )

    def test_grow_by_what_arrives(self) -> None:
        rates = replace(self.RATES, arrivals_per_s=1.5)
        assert demand(Load(ready=30, active=10), rates, pods=Pods(ready=10)).expected == pytest.approx(40 + 1.0 * 10)

    def test_come_near_the_steady_number(self) -> None:
        rates = replace(self.RATES, arrivals_per_s=0.4, busy=8.0)
        assert demand(Load(active=8), rates).expected == pytest.approx(8.0)
        assert 8 < demand(Load(active=12), rates).expected < 12

    def test_first_fall_then_come_near(self) -> None:
        expected = demand(Load(ready=1, active=10), self.RATES, pods=Pods(ready=10)).expected
        assert 10 * 2.718 ** (-10 / 20) < expected < 10

    def test_of_no_time_at_all_are_the_steady_ones(self) -> None:
        rates = Rates(arrivals_per_s=5.0, busy=0.0, service=timedelta(), startup=seconds(10))
        assert demand(Load(active=3), rates).expected == pytest.approx(0.0, abs=1e-9)


def test_short_jobs_get_what_clears_them_in_time_not_a_slot_each() -> None:
    quick = Rates(service=seconds(1), startup=seconds(10))
    shown = demand(Load(ready=600), quick)
    assert shown.time_left_s == 20
    assert shown.slots_to_clear == 30
    assert shown.start_below == 30


def test_the_backlogs_time_shrinks_with_its_age_unless_pods_start() -> None:
    old = Load(ready=600, oldest_ready=seconds(15))
    quick = Rates(service=seconds(1), startup=seconds(10))
    assert demand(old, quick).time_left_s == 5
    assert demand(old, quick, pods=Pods(starting=1)).time_left_s == 30
    assert demand(old, quick, target_wait=seconds(120)).time_left_s == 95


def test_a_trickle_of_single_jobs_starts_one_pod() -> None:
    rates = Rates(arrivals_per_s=0.016, busy=0.0, service=seconds(60), startup=seconds(12))
    assert answer(decide(Load(ready=1), rates=rates)) == (1, ScalingReason.BACKLOG)


def test_reasons_are_a_declared_set_of_words_for_conditions() -> None:
    assert all(reason.value.isalpha() and reason.value[0].isupper() for reason in ScalingReason)


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        pytest.param({"load": Load(stalled=2)}, (2, ScalingReason.BACKLOG), id="at-zero"),
        pytest.param({"load": Load(stalled=2, paused=True)}, (None, ScalingReason.PAUSED), id="of-a-paused-queue"),
        pytest.param(
            {"load": Load(stalled=2, active=3), "current": 5}, (None, ScalingReason.ENOUGH), id="beside-idle-slots"
        ),
        pytest.param(
            {"load": Load(stalled=1), "current": 1, "pods": Pods(silent=1)},
            (2, ScalingReason.BACKLOG),
            id="of-a-silent-pod",
        ),
        pytest.param(
            {"load": Load(stalled=1), "current": 2, "pods": Pods(silent=1, starting=1)},
            (None, ScalingReason.BACKLOG),
            id="its-pod-starts",
        ),
        pytest.param(
            {"load": Load(), "current": 1, "pods": Pods(silent=1), "min_replicas": 1},
            (2, ScalingReason.MIN),
            id="silent-pods-are-not-the-least",
        ),
        pytest.param(
            {"load": Load(stalled=9), "current": 2, "pods": Pods(silent=2), "max_replicas": 3},
            (3, ScalingReason.MAX),
            id="up-to-the-most",
        ),
        pytest.param(
            {"load": Load(active=1), "current": 2, "pods": Pods(ready=1, silent=1)},
            (None, ScalingReason.BUSY_FLOOR),
            id="stays-while-one-works",
        ),
        pytest.param(
            {"load": Load(), "current": 1, "pods": Pods(silent=1), "memory": Memory(since=0.0, busy_at=0.0)},
            (0, ScalingReason.SCALE_TO_ZERO),
            id="goes-with-the-last-job",
        ),
    ],
)
def test_jobs_and_pods_of_workers_that_are_gone(
    situation: dict[str, Any], expected: tuple[int | None, ScalingReason]
) -> None:
    assert answer(decide(**situation)) == expected
