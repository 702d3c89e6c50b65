"""The model of KEDA and the HPA holds to their documented rules."""

from dataclasses import replace
from typing import Any

import pytest
from benchmarks.scaling.keda import Keda, KedaConfig, desired_replicas, newest_first
from benchmarks.scaling.world import Job, Setting, World

START_AT_ONCE = Setting(start=(1.0, 1.0), horizon=2000.0)
EVEN = KedaConfig(list_length=1.0, metric="waiting+active")


class Recorded(Keda):
    """Keda with a fixed phase (polls at 0, syncs at 7 s), writing down (when, pods) after each look."""

    def __init__(self, config: KedaConfig) -> None:
        super().__init__(config)
        self._next_poll, self._next_sync = 0.0, 7.0
        self.seen: list[tuple[float, int]] = []

    def look(self, world: World) -> float:
        due = super().look(world)
        self.seen.append((world.now, len(world.live)))
        return due

    def pods_at(self, at: float) -> int:
        return [pods for when, pods in self.seen if when <= at][-1]


def play(jobs: list[Job], setting: Setting = START_AT_ONCE, **given: Any) -> Recorded:
    keda = Recorded(replace(EVEN, **given))
    World(jobs, setting, seed=1).run(keda)
    return keda


@pytest.mark.parametrize(
    ("metric", "target", "current", "desired"),
    [
        pytest.param(10, 1, 10, 10, id="right"),
        pytest.param(11, 1, 10, 10, id="within-10-percent-above"),
        pytest.param(9, 1, 10, 10, id="within-10-percent-below"),
        pytest.param(12, 1, 10, 12, id="above"),
        pytest.param(8, 1, 10, 8, id="below"),
        pytest.param(11, 5, 1, 3, id="rounded-up"),
        pytest.param(0, 5, 3, 0, id="nothing"),
    ],
)
def test_the_ratio_rule(metric: float, target: float, current: int, desired: int) -> None:
    assert desired_replicas(metric, target=target, current=current) == desired


def test_a_poll_every_30_s_takes_zero_to_one() -> None:
    keda = play([Job(1.0, 500.0)])
    assert keda.pods_at(29.9) == 0
    assert keda.pods_at(30.0) == 1


def test_a_sync_every_15_s() -> None:
    keda = play([Job(1.0, 500.0)])
    syncs = [at for at, _ in keda.seen if at % 30]
    assert syncs[:4] == [7.0, 22.0, 37.0, 52.0]


def test_up_by_at_most_100_percent_or_4_pods_in_15_s() -> None:
    keda = play([Job(1.0, 900.0) for _ in range(45)])
    assert [keda.pods_at(at) for at in (30.0, 37.0, 52.0, 67.0, 82.0, 97.0)] == [1, 5, 10, 20, 40, 45]


def test_the_limit_upwards_can_be_lifted() -> None:
    keda = play([Job(1.0, 900.0) for _ in range(45)], limit_up=False)
    assert keda.pods_at(37.0) == 45


def test_never_more_than_the_greatest_number_of_pods() -> None:
    keda = play([Job(1.0, 900.0) for _ in range(60)], limit_up=False)
    assert keda.pods_at(500.0) == 50


def test_down_only_after_the_stabilisation_of_300_s() -> None:
    jobs = [Job(1.0, 100.0) for _ in range(9)] + [Job(1.0, 1500.0)]
    keda = play(jobs, limit_up=False)
    assert keda.pods_at(37.0) == 10
    assert keda.pods_at(430.0) == 10  # the last sync that saw ten jobs was at 127 s
    assert keda.pods_at(445.0) == 1


def test_to_zero_only_after_the_cooldown_of_300_s() -> None:
    keda = play([Job(1.0, 100.0)])
    # the job runs from 31 to 131 s; the last poll that saw it was at 120 s
    assert keda.pods_at(419.0) == 1
    assert keda.pods_at(420.0) == 0


def test_by_waiting_jobs_alone_what_runs_does_not_count() -> None:
    keda = play([Job(1.0, 1900.0)], metric="waiting")
    # the last poll that saw it wait was at 30 s
    assert keda.pods_at(330.0) == 0


def test_pods_that_are_not_ready_go_first_then_the_newest_blind_to_what_they_run() -> None:
    class Grows(Recorded):
        def look(self, world: World) -> float:
            match world.now:
                case 0.0:
                    world.add(1)
                case 10.0:
                    world.add(1)
                case 20.0:
                    world.add(1)
                    self.order = [(pod.number, len(pod.running)) for pod in newest_first(world)]
            return world.now + 10.0

    keda = Grows(EVEN)
    World([Job(1.0, 900.0), Job(12.0, 900.0)], Setting(start=(1.0, 1.0), horizon=25.0), seed=1).run(keda)
    assert keda.order == [(2, 0), (1, 1), (0, 1)]
