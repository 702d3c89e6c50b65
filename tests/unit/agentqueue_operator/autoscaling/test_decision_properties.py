"""Properties of every decision."""

import math
from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from agentqueue.spec.defaults import Fallback, FallbackBehavior, RateLimit, ScalingMode
from agentqueue_operator.autoscaling.decision import decide_replicas
from agentqueue_operator.autoscaling.explanation import explain
from agentqueue_operator.autoscaling.model import (
    CHANGE_REASONS,
    Decision,
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

spans = st.floats(0, 900).map(lambda seconds: timedelta(seconds=seconds))
counts = st.integers(0, 60)
loads = st.builds(
    Load,
    ready=counts,
    due_soon=counts,
    active=counts,
    stalled=st.sampled_from([0, 0, 0, 1, 30]),
    oldest_ready=spans,
    paused=st.sampled_from([False, False, False, True]),
)
pods = st.builds(
    Pods,
    ready=counts,
    starting=counts,
    unschedulable=st.sampled_from([0, 0, 0, 2]),
    silent=st.sampled_from([0, 0, 0, 1, 5]),
    young=st.integers(0, 20),
    rolling_out=st.booleans(),
)
rates = st.builds(
    Rates,
    arrivals_per_s=st.floats(0, 20),
    busy=st.floats(0, 60),
    service=spans,
    service_known=st.none() | spans,
    startup=spans,
)


@st.composite
def policies(draw: st.DrawFn, mode: ScalingMode = ScalingMode.AUTO) -> ScalingPolicy:
    least = draw(st.integers(0, 10))
    return ScalingPolicy(
        mode=mode,
        replicas=draw(st.integers(0, 20)),
        min_replicas=least,
        max_replicas=draw(st.integers(max(1, least), 40)),
        target_wait=draw(st.integers(1, 600).map(lambda s: timedelta(seconds=s))),
        min_idle_slots=draw(st.integers(0, 10)),
        scale_down_window=draw(st.none() | spans),
        scale_to_zero_after=draw(st.none() | spans),
        max_pods_per_minute=draw(st.none() | st.integers(1, 20)),
        fallback=Fallback(
            behavior=draw(st.sampled_from(FallbackBehavior)),
            replicas=draw(st.integers(0, 60)),
            failure_threshold=draw(st.integers(1, 5)),
        ),
        concurrency=draw(st.integers(1, 20)),
        rate_limit=draw(st.none() | st.builds(RateLimit, max=st.integers(1, 100), duration_seconds=st.just(10))),
    )


@st.composite
def pasts(draw: st.DrawFn, policy: ScalingPolicy) -> Memory:
    """Draw a memory after some observations."""
    memory = Memory()
    for at in range(0, draw(st.integers(0, 3)) * 10, 10):
        snapshot = ScalingSnapshot(at=float(at), load=draw(st.none() | loads), pods=draw(pods), rates=draw(rates))
        memory = decide_replicas(snapshot, current=draw(st.integers(0, 40)), policy=policy, memory=memory).memory
    return memory


@st.composite
def situations(draw: st.DrawFn) -> tuple[ScalingSnapshot, int, ScalingPolicy, Memory]:
    policy = draw(policies())
    snapshot = ScalingSnapshot(
        at=draw(st.floats(30, 400)),
        load=draw(loads),
        pods=draw(pods),
        rates=draw(rates),
        registering=draw(st.booleans()),
    )
    return snapshot, draw(st.integers(0, 50)), policy, draw(pasts(policy))


def target(decision: Decision) -> int:
    return decision.replicas if isinstance(decision, ScaleTo) else decision.terms.current


def decide(snapshot: ScalingSnapshot, current: int, policy: ScalingPolicy, memory: Memory) -> Decision:
    return decide_replicas(snapshot, current=current, policy=policy, memory=memory)


@given(situations())
def test_a_change_stays_within_min_and_max(situation: tuple[ScalingSnapshot, int, ScalingPolicy, Memory]) -> None:
    decision, policy = decide(*situation), situation[2]
    if isinstance(decision, ScaleTo) and decision.reason is not ScalingReason.MAX_PODS_PER_MINUTE:
        assert policy.min_replicas <= decision.replicas <= policy.max_replicas
    if isinstance(decision, ScaleTo):
        assert decision.replicas <= policy.max_replicas


@given(situations())
def test_a_change_s_reason_is_one_whose_counter_is_shown_from_the_start(
    situation: tuple[ScalingSnapshot, int, ScalingPolicy, Memory],
) -> None:
    decision = decide(*situation)
    assert isinstance(decision, Hold) or decision.reason in CHANGE_REASONS


@given(situations())
def test_nothing_goes_that_the_busy_slots_need(situation: tuple[ScalingSnapshot, int, ScalingPolicy, Memory]) -> None:
    snapshot, current, policy, _ = situation
    assert snapshot.load is not None
    busy = min(math.ceil(snapshot.load.active / policy.concurrency), policy.max_replicas)
    assert target(decide(*situation)) >= min(current, busy)


@given(situations())
def test_the_same_again_is_the_same(situation: tuple[ScalingSnapshot, int, ScalingPolicy, Memory]) -> None:
    snapshot, current, policy, _ = situation
    first = decide(*situation)
    again = decide(snapshot, current, policy, first.memory)
    assert (target(again), again.reason) == (target(first), first.reason)
    assert again.memory == first.memory


@given(situations())
def test_once_done_nothing_more_is_to_do(situation: tuple[ScalingSnapshot, int, ScalingPolicy, Memory]) -> None:
    snapshot, _, policy, _ = situation
    first = decide(*situation)
    after = decide(snapshot, target(first), policy, first.memory)
    assert target(after) == target(first)


@given(situations(), st.lists(st.floats(0.1, 60), min_size=1, max_size=12))
def test_on_constant_input_it_never_turns_back(
    situation: tuple[ScalingSnapshot, int, ScalingPolicy, Memory], gaps: list[float]
) -> None:
    snapshot, current, policy, memory = situation
    path = [current]
    for gap in [0.0, *gaps]:
        snapshot = replace(snapshot, at=snapshot.at + gap)
        decision = decide(snapshot, path[-1], policy, memory)
        memory = decision.memory
        path.append(target(decision))
    assert path == sorted(path) or path == sorted(path, reverse=True)


@given(situations(), st.integers(1, 100))
def test_more_waiting_never_means_fewer_pods(
    situation: tuple[ScalingSnapshot, int, ScalingPolicy, Memory], more: int
) -> None:
    snapshot, current, policy, memory = situation
    assert snapshot.load is not None
    longer = replace(snapshot, load=replace(snapshot.load, ready=snapshot.load.ready + more))
    assert target(decide(longer, current, policy, memory)) >= target(decide(snapshot, current, policy, memory))


@given(situations())
def test_nothing_goes_without_metrics_and_in_a_rollout_all_or_nothing(
    situation: tuple[ScalingSnapshot, int, ScalingPolicy, Memory],
) -> None:
    snapshot, current, policy, memory = situation
    rolling = replace(snapshot, pods=replace(snapshot.pods, rolling_out=True))
    in_rollout = target(decide(rolling, current, policy, memory))
    assert in_rollout >= current or in_rollout == 0
    assert target(decide(replace(snapshot, load=None), current, policy, memory)) >= current


@given(situations())
def test_nothing_comes_while_the_scheduler_refuses(
    situation: tuple[ScalingSnapshot, int, ScalingPolicy, Memory],
) -> None:
    snapshot, current, policy, memory = situation
    refused = replace(snapshot, pods=replace(snapshot.pods, unschedulable=1))
    assert target(decide(refused, current, policy, memory)) <= current


@given(situations(), st.sampled_from(ScalingMode), st.booleans(), st.booleans())
def test_every_decision_has_a_reason_in_words(
    situation: tuple[ScalingSnapshot, int, ScalingPolicy, Memory], mode: ScalingMode, suspended: bool, readable: bool
) -> None:
    snapshot, current, policy, memory = situation
    snapshot = snapshot if readable else replace(snapshot, load=None)
    decision = decide(snapshot, current, replace(policy, mode=mode, suspended=suspended), memory)
    assert decision.reason in ScalingReason
    assert decision.terms.snapshot == snapshot
    assert explain(decision).headline.endswith(".")


@given(situations())
def test_a_version_that_has_not_registered_gets_one_pod_and_never_more_for_that(
    situation: tuple[ScalingSnapshot, int, ScalingPolicy, Memory],
) -> None:
    snapshot, current, policy, memory = situation
    registering = decide(replace(snapshot, registering=True), current, policy, memory)
    otherwise = target(decide(replace(snapshot, registering=False), current, policy, memory))
    one = min(1 + snapshot.pods.silent, policy.max_replicas)
    assert otherwise <= target(registering)
    if otherwise != target(registering):
        assert target(registering) == (current if isinstance(registering, Hold) else one)
    if registering.reason is ScalingReason.REGISTERING:
        assert target(registering) == one


@given(situations(), st.sampled_from([ScalingMode.FIXED, ScalingMode.EXTERNAL, None]))
def test_registering_changes_nothing_while_others_set_the_number_or_nothing_may_run(
    situation: tuple[ScalingSnapshot, int, ScalingPolicy, Memory], mode: ScalingMode | None
) -> None:
    snapshot, current, policy, memory = situation
    policy = replace(policy, suspended=True) if mode is None else replace(policy, mode=mode)
    first, second = (decide(replace(snapshot, registering=it), current, policy, memory) for it in (True, False))
    assert (target(first), first.reason) == (target(second), second.reason)


@given(situations())
def test_a_change_is_a_change(situation: tuple[ScalingSnapshot, int, ScalingPolicy, Memory]) -> None:
    decision = decide(*situation)
    assert isinstance(decision, Hold) or decision.replicas != situation[1]


@given(situations(), st.integers(1, 40))
def test_memory_stays_small(situation: tuple[ScalingSnapshot, int, ScalingPolicy, Memory], looks: int) -> None:
    snapshot, current, policy, memory = situation
    for _ in range(looks):
        snapshot = replace(snapshot, at=snapshot.at + 5)
        memory = decide(snapshot, current, policy, memory).memory
    assert len(memory.keep_history) <= policy.max_replicas + 1
    assert len(memory.recent_scale_ups) <= 13


@given(policy=policies(), load=loads, known=rates, silent=st.integers(0, 3))
def test_no_job_stands_still_for_want_of_a_pod(policy: ScalingPolicy, load: Load, known: Rates, silent: int) -> None:
    """If no pod serves or starts, and no rule holds back, one job is enough to start a pod."""
    snapshot = ScalingSnapshot(at=100.0, load=load, pods=Pods(silent=silent), rates=known)
    decision = decide(snapshot, silent, policy, Memory(since=0.0, current=silent))
    if policy.max_replicas > silent and (load.active or (load.backlog and not load.paused)):
        assert target(decision) > silent
