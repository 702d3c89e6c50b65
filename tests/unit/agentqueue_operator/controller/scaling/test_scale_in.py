"""Tests of the scale-in plan step by step. test_scale_in_model.py tests the order of events."""

from dataclasses import replace
from typing import Any

import pytest

from agentqueue_operator.autoscaling.removal import RequestDrain, Stage
from agentqueue_operator.controller.scaling.scale_in import (
    CancelRemoval,
    ScaleDown,
    SetDeletionCost,
    WorkerPod,
    plan_scale_in,
    victims_of,
)


def pod(name: str, **given: Any) -> WorkerPod:
    return replace(WorkerPod(name=name, stage=Stage.READY, busy=0), **given)


def starting(name: str, **given: Any) -> WorkerPod:
    return pod(name, **({"stage": Stage.PENDING, "busy": None} | given))


def drained(name: str, **given: Any) -> WorkerPod:
    """Return a pod that has confirmed its mark."""
    return pod(name, **({"confirmed": True, "heard": True, "marked_s": 5.0} | given))


def leaves(name: str, **given: Any) -> WorkerPod:
    """Return a pod that has confirmed its mark and has our deletion cost."""
    return drained(name, **({"removable": True} | given))


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        pytest.param([pod("a"), starting("b")], ["b", "a"], id="those-that-start-before-the-idle"),
        pytest.param(
            [starting("a"), starting("b", stage=Stage.UNSCHEDULED), starting("c", stage=Stage.NOT_READY)],
            ["b", "a", "c"],
            id="in-the-replicasets-order",
        ),
        pytest.param([pod("a", idle_s=3), pod("b", idle_s=9)], ["b", "a"], id="idle-longest-first"),
        pytest.param([pod("a", busy=1), pod("b", idle_s=0)], ["b", "a"], id="idle-before-busy"),
        pytest.param([pod("a", busy=4), pod("b", busy=2)], ["b", "a"], id="least-busy-first"),
        pytest.param([pod("a", busy=1), pod("b", busy=3, marked_s=9.0)], ["b", "a"], id="one-that-drains-goes-on"),
        pytest.param(
            [pod("a", busy=None), pod("b", busy=None, silent_s=30)], ["b", "a"], id="the-long-silent-are-idle"
        ),
        pytest.param([starting("a", busy=2), pod("b")], ["b", "a"], id="a-busy-one-that-is-not-ready-is-busy"),
    ],
)
def test_victims(pods: list[WorkerPod], expected: list[str]) -> None:
    assert [victim.name for victim in victims_of(pods, leaving=3)] == expected


@pytest.mark.parametrize(
    ("pods", "wanted", "expected"),
    [
        pytest.param([pod("a"), pod("b", busy=1)], 1, (RequestDrain("a"),), id="an-idle-one-is-marked-and-no-more"),
        pytest.param([pod("a", busy=2), pod("b", busy=1)], 1, (RequestDrain("b"),), id="a-busy-one-too"),
        pytest.param(
            [pod("a"), pod("b", marked_s=9.0, busy=1)],
            1,
            (RequestDrain("a"), CancelRemoval("b")),
            id="an-idle-one-in-its-place",
        ),
        pytest.param([pod("a"), pod("b", marked_s=2.0)], 1, (), id="waits-for-the-answer"),
        pytest.param([pod("a"), drained("b")], 1, (SetDeletionCost("b"),), id="the-cost-comes-after-the-answer"),
        pytest.param([pod("a", busy=1), drained("b", busy=1)], 1, (), id="a-job-claimed-before-the-mark-ends-first"),
        pytest.param([pod("a"), leaves("b")], 1, (ScaleDown(1),), id="lowers"),
        pytest.param(
            [pod("a", busy=1), leaves("b"), leaves("c", confirmed=False)],
            1,
            (CancelRemoval("c", keep_mark=True),),
            id="not-while-one-that-has-not-confirmed-bears-the-cost",
        ),
        pytest.param(
            [pod("a"), leaves("b"), pod("c", marked_s=0.1)], 1, (ScaleDown(2),), id="by-no-more-than-bear-the-cost"
        ),
        pytest.param(
            [pod("a"), leaves("b"), pod("c", removable=True)], 2, (CancelRemoval("c"),), id="a-cost-without-a-mark"
        ),
        pytest.param([leaves("a"), leaves("b", idle_s=9)], 1, (CancelRemoval("a"), ScaleDown(1)), id="one-too-many"),
        pytest.param(
            [pod("a"), leaves("b", busy=1)],
            1,
            (RequestDrain("a"), CancelRemoval("b")),
            id="looks-again-whether-it-is-idle",
        ),
        pytest.param([starting("a", busy=1), leaves("b")], 1, (), id="those-that-stay-must-be-ready"),
        pytest.param(
            [starting("a"), leaves("b")], 1, (RequestDrain("a"), CancelRemoval("b")), id="or-they-go-in-its-place"
        ),
        pytest.param(
            [starting("a"), starting("b"), leaves("c"), pod("d")],
            2,
            (RequestDrain("a"), RequestDrain("b"), CancelRemoval("c")),
            id="pods-that-start-go-first",
        ),
        pytest.param(
            [starting("a", marked_s=1.0), starting("b", stage=Stage.NOT_READY)],
            1,
            (RequestDrain("b"), SetDeletionCost("a")),
            id="one-that-starts-is-held-while-another-goes",
        ),
        pytest.param(
            [starting("a", marked_s=1.0, removable=True), starting("b", stage=Stage.NOT_READY, marked_s=1.0)],
            1,
            (ScaleDown(1),),
            id="held",
        ),
        pytest.param([pod("a", busy=1), pod("b", marked_s=40.0)], 1, (), id="one-that-does-not-answer-stays"),
        pytest.param(
            [pod("a"), pod("b", marked_s=40.0)], 1, (RequestDrain("a"), CancelRemoval("b")), id="and-another-goes"
        ),
        pytest.param(
            [pod("a"), leaves("b", busy=None, silent_s=30.0)], 1, (ScaleDown(1),), id="one-long-silent-holds-no-lease"
        ),
        pytest.param(
            [pod("a"), leaves("b", busy=None, silent_s=29.0)],
            1,
            (RequestDrain("a"), CancelRemoval("b")),
            id="not-before",
        ),
        pytest.param(
            [pod("a"), starting("b", marked_s=0.0, heard=True)],
            1,
            (RequestDrain("a"), CancelRemoval("b")),
            id="nor-while-it-restarts",
        ),
        pytest.param([pod("a"), leaves("b")], 2, (CancelRemoval("b"),), id="a-burst-takes-it-back"),
        pytest.param([pod("a"), pod("b", marked_s=1.0)], 2, (CancelRemoval("b"),), id="marks-not-due-are-taken-back"),
        pytest.param(
            [drained("a"), drained("b")],
            0,
            (SetDeletionCost("a"), SetDeletionCost("b"), ScaleDown(0)),
            id="all-at-once",
        ),
        pytest.param([drained("a"), drained("b", busy=1)], 0, (SetDeletionCost("a"),), id="but-not-one-that-works"),
    ],
)
def test_steps(pods: list[WorkerPod], wanted: int, expected: tuple[Any, ...]) -> None:
    assert plan_scale_in(pods, wanted=wanted, current=len(pods)) == expected


def test_nothing_goes_in_a_rollout() -> None:
    pods = [pod("a"), leaves("b")]
    assert plan_scale_in(pods, wanted=1, current=2, rolling_out=True) == (CancelRemoval("b"),)


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        pytest.param([leaves("a"), leaves("b"), leaves("new")], (ScaleDown(0),), id="all-together-once-all-may"),
        pytest.param(
            [leaves("a"), leaves("b", busy=1)], (CancelRemoval("b", keep_mark=True),), id="none-while-one-works"
        ),
        pytest.param([leaves("a"), starting("new")], (RequestDrain("new"),), id="those-of-the-new-template-too"),
    ],
)
def test_in_a_rollout_all_may_go(pods: list[WorkerPod], expected: tuple[Any, ...]) -> None:
    assert plan_scale_in(pods, wanted=0, current=2, rolling_out=True) == expected


def test_replicas_without_a_pod_go_first() -> None:
    assert plan_scale_in([pod("a"), pod("b")], wanted=2, current=5) == (ScaleDown(2),)
    assert plan_scale_in([pod("a"), pod("b")], wanted=1, current=5) == (RequestDrain("a"), ScaleDown(2))


def test_the_last_scale_in_ends_before_the_next_begins() -> None:
    assert plan_scale_in([leaves("a"), leaves("b"), pod("c")], wanted=1, current=2) == ()
