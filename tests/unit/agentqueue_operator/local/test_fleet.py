"""Tests of the plan for the workers of one agent."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentqueue_operator.autoscaling.removal import RequestDrain
from agentqueue_operator.local.fleet import (
    Action,
    CancelDrain,
    Member,
    Phase,
    StartWorkers,
    StopWorker,
    in_removal_order,
    plan,
)

READY, STARTING, DRAINING, STOPPING = Phase.READY, Phase.STARTING, Phase.DRAINING, Phase.STOPPING


def member(name: str, phase: Phase = READY, busy: int = 0, **more: Any) -> Member:
    return Member(name=name, phase=phase, busy=busy, **more)


@pytest.mark.parametrize(
    ("members", "wanted", "may_start", "actions"),
    [
        pytest.param([], 3, 9, [StartWorkers(3)], id="from-none"),
        pytest.param([member("a"), member("b", STARTING)], 3, 9, [StartWorkers(1)], id="those-that-start-count"),
        pytest.param([], 3, 1, [StartWorkers(1)], id="starts-are-held-back-while-workers-crash"),
        pytest.param([], 3, 0, [], id="all-of-them"),
        pytest.param([member("a")], 1, 9, [], id="enough"),
        pytest.param([member("a", STOPPING)], 1, 9, [StartWorkers(1)], id="one-that-is-stopping-is-no-worker"),
        pytest.param([member("a", DRAINING)], 1, 9, [CancelDrain("a")], id="one-that-drains-is-wanted-again"),
        pytest.param(
            [member("a", DRAINING, drained=True)],
            1,
            9,
            [StartWorkers(1), StopWorker("a")],
            id="one-that-has-drained-has-given-up",
        ),
        pytest.param([member("a"), member("b", busy=2)], 1, 9, [RequestDrain("a")], id="the-idle-one-goes"),
        pytest.param(
            [member("a", STARTING), member("b")], 1, 9, [RequestDrain("a")], id="before-it-one-that-only-starts"
        ),
        pytest.param([member("a", busy=2)], 0, 9, [RequestDrain("a")], id="a-busy-one-is-marked-never-ended"),
        pytest.param([member("a", DRAINING, busy=2)], 0, 9, [], id="and-left-alone-until-it-is-drained"),
        pytest.param(
            [member("a", outdated=True)], 1, 9, [StartWorkers(1)], id="an-outdated-one-serves-until-its-heir-is-ready"
        ),
        pytest.param(
            [member("a", outdated=True), member("b", STARTING)], 1, 9, [], id="which-is-not-so-while-the-heir-starts"
        ),
        pytest.param([member("a", outdated=True), member("b")], 1, 9, [RequestDrain("a")], id="then-it-goes"),
        pytest.param(
            [member("a", STARTING, outdated=True)],
            1,
            9,
            [StartWorkers(1), RequestDrain("a")],
            id="an-outdated-one-that-starts-goes-at-once",
        ),
        pytest.param(
            [member("a", DRAINING, outdated=True)],
            1,
            9,
            [StartWorkers(1)],
            id="an-outdated-one-that-drains-does-not-come-back",
        ),
    ],
)
def test_the_plan(members: Sequence[Member], wanted: int, may_start: int, actions: Sequence[Action]) -> None:
    assert list(plan(members, wanted=wanted, may_start=may_start)) == actions


def test_the_order_to_leave_is_starting_then_idle_longest_then_least_busy() -> None:
    members = [
        member("busy", busy=3),
        member("less-busy", busy=1),
        member("just-idle", idle_s=1.0),
        member("long-idle", idle_s=9.0),
        member("starting", STARTING),
    ]
    assert [one.name for one in in_removal_order(members)] == [
        "starting",
        "long-idle",
        "just-idle",
        "less-busy",
        "busy",
    ]


MEMBERS = st.lists(
    st.builds(
        Member,
        name=st.integers(0, 99).map(str),
        phase=st.sampled_from(Phase),
        busy=st.integers(0, 5),
        idle_s=st.floats(0, 100),
        outdated=st.booleans(),
    ),
    unique_by=lambda one: one.name,
    max_size=12,
)


@given(MEMBERS, st.integers(0, 12), st.integers(0, 12))
def test_no_busy_worker_is_ended_and_no_more_serve_than_wanted(
    members: list[Member], wanted: int, may_start: int
) -> None:
    actions = plan(members, wanted=wanted, may_start=may_start)
    by_name = {one.name: one for one in members}
    ended = [by_name[action.worker] for action in actions if isinstance(action, StopWorker)]
    assert all(one.phase is STARTING or one.drained for one in ended)
    started = sum(action.count for action in actions if isinstance(action, StartWorkers))
    gone = {action.worker for action in actions if isinstance(action, StopWorker | RequestDrain)}
    back = sum(isinstance(action, CancelDrain) for action in actions)
    staying = sum(one.phase in (READY, STARTING) and not one.outdated and one.name not in gone for one in members)
    assert started <= may_start
    assert staying + back + started <= wanted
    assert staying + back + started == wanted or started == may_start
