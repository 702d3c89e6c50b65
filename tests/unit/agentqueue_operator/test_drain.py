"""Scale-in, step by step and against a ReplicaSet."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentqueue_operator.domain.drain import (
    ClearCost,
    Lower,
    Mark,
    SetCost,
    Stage,
    Unmark,
    WorkerPod,
    plan_scale_in,
    victims_of,
)


def pod(name: str, **given: Any) -> WorkerPod:
    return WorkerPod(**({"name": name, "stage": Stage.READY, "busy": 0} | given))


def starting(name: str, **given: Any) -> WorkerPod:
    return pod(name, **({"stage": Stage.PENDING, "busy": None} | given))


def gone_idle(name: str, **given: Any) -> WorkerPod:
    """Marked, has answered, and the annotation has settled."""
    return pod(name, **({"draining": True, "marked_s": 5.0, "cost_seen_s": 1.0} | given))


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
        pytest.param(
            [pod("a"), pod("b", busy=1)], 1, (Mark("a"), SetCost("a")), id="an-idle-one-is-marked-and-annotated"
        ),
        pytest.param([pod("a", busy=2), pod("b", busy=1)], 1, (Mark("b"),), id="a-busy-one-is-only-marked"),
        pytest.param(
            [pod("a"), pod("b", marked_s=9.0, busy=1, draining=True)],
            1,
            (Mark("a"), SetCost("a"), Unmark("b")),
            id="an-idle-one-takes-a-busy-ones-place",
        ),
        pytest.param([pod("a"), pod("b", marked_s=2.0, cost_seen_s=9.0)], 1, (), id="waits-for-the-answer"),
        pytest.param([pod("a"), gone_idle("b", cost_seen_s=None)], 1, (SetCost("b"),), id="annotates-again"),
        pytest.param([pod("a"), gone_idle("b", cost_seen_s=0.2)], 1, (), id="waits-for-the-annotation-to-settle"),
        pytest.param([pod("a", busy=1), gone_idle("b", busy=1)], 1, (), id="a-job-claimed-before-the-mark-ends-first"),
        pytest.param(
            [gone_idle("a", idle_s=3), gone_idle("b", idle_s=9)],
            1,
            (Unmark("a"), ClearCost("a")),
            id="not-in-the-moment-that-marks-are-taken-back",
        ),
        pytest.param([pod("a"), gone_idle("b")], 1, (Lower(1),), id="lowers"),
        pytest.param(
            [pod("a"), gone_idle("b", busy=1)],
            1,
            (Mark("a"), SetCost("a"), Unmark("b"), ClearCost("b")),
            id="looks-again-whether-it-is-idle",
        ),
        pytest.param(
            [pod("a", busy=1), gone_idle("b"), gone_idle("c", draining=False)], 1, (Lower(2),), id="by-those-that-may"
        ),
        pytest.param([starting("a", busy=1), gone_idle("b")], 1, (), id="survivors-must-be-ready"),
        pytest.param(
            [pod("a"), gone_idle("b", draining=False, marked_s=30.0)], 1, (Lower(1),), id="mute-left-to-sigterm"
        ),
        pytest.param([pod("a"), gone_idle("b", busy=None, silent_s=30.0)], 1, (Lower(1),), id="silent-left-to-sigterm"),
        pytest.param([pod("a"), starting("b")], 1, (Mark("b"), SetCost("b")), id="a-starting-one-is-marked-too"),
        pytest.param(
            [pod("a"), starting("b", marked_s=0.0, cost_seen_s=0.5)], 1, (Lower(1),), id="a-starting-one-goes"
        ),
        pytest.param([pod("a"), gone_idle("b")], 2, (Unmark("b"), ClearCost("b")), id="a-burst-takes-marks-back"),
        pytest.param([pod("a"), pod("b", marked_s=1.0)], 2, (Unmark("b"),), id="marks-not-due-are-taken-back"),
    ],
)
def test_steps(pods: list[WorkerPod], wanted: int, expected: tuple[Any, ...]) -> None:
    assert plan_scale_in(pods, wanted=wanted, current=len(pods)) == expected


def test_nothing_goes_in_a_rollout() -> None:
    pods = [pod("a"), gone_idle("b")]
    assert plan_scale_in(pods, wanted=1, current=2, rolling_out=True) == (Unmark("b"), ClearCost("b"))


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        pytest.param([gone_idle("a"), gone_idle("b"), gone_idle("new")], (Lower(0),), id="all-together-once-all-may"),
        pytest.param([gone_idle("a"), gone_idle("b", busy=1)], (), id="none-while-one-works"),
        pytest.param(
            [gone_idle("a"), starting("new")], (Mark("new"), SetCost("new")), id="those-of-the-new-template-too"
        ),
    ],
)
def test_in_a_rollout_all_may_go(pods: list[WorkerPod], expected: tuple[Any, ...]) -> None:
    assert plan_scale_in(pods, wanted=0, current=2, rolling_out=True) == expected


def test_replicas_without_a_pod_go_first() -> None:
    assert plan_scale_in([pod("a"), pod("b")], wanted=2, current=5) == (Lower(2),)
    assert plan_scale_in([pod("a"), pod("b")], wanted=1, current=5) == (Mark("a"), SetCost("a"), Lower(2))


def test_the_last_scale_in_ends_before_the_next_begins() -> None:
    assert plan_scale_in([gone_idle("a"), gone_idle("b"), pod("c")], wanted=1, current=2) == ()


@dataclass
class Cluster:
    """Worker pods under a ReplicaSet that removes as Kubernetes does; a look at a time."""

    pods: dict[str, WorkerPod]
    replicas: int
    killed: list[str] = field(default_factory=list)

    def act(self, actions: tuple[Any, ...]) -> None:
        for action in actions:
            match action:
                case Mark(name):
                    self.change(name, marked_s=0.0)
                case Unmark(name):
                    self.change(name, marked_s=None, draining=False)
                case SetCost(name):
                    self.change(name, cost_seen_s=0.0)
                case ClearCost(name):
                    self.change(name, cost_seen_s=None)
                case Lower(replicas):
                    self.lower(replicas)

    def change(self, name: str, **values: Any) -> None:
        self.pods[name] = replace(self.pods[name], **values)

    def lower(self, replicas: int) -> None:
        self.replicas = replicas
        order = sorted(self.pods.values(), key=lambda p: (p.stage, p.cost_seen_s is None))
        for victim in order[: max(0, len(order) - replicas)]:
            if victim.busy:
                self.killed.append(victim.name)
            del self.pods[victim.name]

    def pass_time(self, draw: st.DataObject) -> None:
        """Five seconds: marked workers answer; those that had only end jobs, others claim; pods become Ready."""
        for name, seen in list(self.pods.items()):
            marked = seen.marked_s is not None
            if seen.stage is not Stage.READY:
                up = draw.draw(st.booleans())
                self.change(name, stage=Stage.READY, busy=0, draining=marked) if up else None
            else:
                busy = draw.draw(st.integers(0, (seen.busy or 0) if seen.draining else 3))
                self.change(name, busy=busy, draining=marked, idle_s=0.0 if busy else seen.idle_s + 5)
            later = self.pods[name]
            self.change(
                name,
                marked_s=None if later.marked_s is None else later.marked_s + 5,
                cost_seen_s=None if later.cost_seen_s is None else later.cost_seen_s + 5,
            )


@given(st.data(), st.integers(1, 8), st.integers(0, 8))
def test_no_busy_worker_goes_and_in_the_end_as_many_stay_as_wanted(draw: st.DataObject, size: int, wanted: int) -> None:
    wanted = min(wanted, size)
    kinds = st.builds(
        lambda stage, busy: {"stage": stage, "busy": busy if stage is Stage.READY else None},
        st.sampled_from(Stage),
        st.integers(0, 3),
    )
    cluster = Cluster({f"p{i}": pod(f"p{i}", **draw.draw(kinds)) for i in range(size)}, replicas=size)
    for _ in range(6):
        cluster.act(plan_scale_in(cluster.pods.values(), wanted=wanted, current=cluster.replicas))
        cluster.pass_time(draw)
        assert cluster.killed == []
        assert cluster.replicas >= wanted
    for _ in range(8):  # the marked ones end their jobs, the others keep theirs
        cluster.act(plan_scale_in(cluster.pods.values(), wanted=wanted, current=cluster.replicas))
        for name, seen in list(cluster.pods.items()):
            marked = seen.marked_s is not None
            busy = 0 if marked else max(1, seen.busy or 0)
            cost_seen_s = None if seen.cost_seen_s is None else 1.0
            cluster.change(name, stage=Stage.READY, busy=busy, draining=marked, cost_seen_s=cost_seen_s)
    assert cluster.killed == []
    assert len(cluster.pods) == cluster.replicas == wanted
