"""The simulated world keeps its books."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from benchmarks.scaling.controllers import EVERY, KEDA_BEST, OURS
from benchmarks.scaling.loads import LOADS, Load
from benchmarks.scaling.world import HANDOVER_S, WAKE_S, Job, Setting, World
from hypothesis import given
from hypothesis import strategies as st


class Script:
    """Does what the script says at each of its seconds."""

    wakes_at_zero = False

    def __init__(self, steps: dict[float, Callable[[World], object]]) -> None:
        self.steps = steps

    def look(self, world: World) -> float:
        if (step := self.steps.get(world.now)) is not None:
            step(world)
        return world.now + 1.0


SETTING = Setting(start=(10.0, 10.0), horizon=100.0, grace=30.0)


def test_a_job_waits_until_a_pod_is_ready() -> None:
    outcome = World([Job(2.0, 20.0)], SETTING, 1).run(Script({3.0: lambda world: world.add(1)}))
    assert outcome.mean_wait == 11.0
    assert outcome.pod_seconds == 97.0
    assert outcome.waste == 77.0
    assert outcome.completed == 1


def test_a_job_still_running_is_no_waste() -> None:
    outcome = World([Job(2.0, 500.0)], SETTING, 1).run(Script({0.0: lambda world: world.add(1)}))
    assert outcome.waste == 10.0
    assert outcome.completed == 0


def test_a_job_never_started_waits_to_the_end() -> None:
    outcome = World([Job(2.0, 20.0)], SETTING, 1).run(Script({}))
    assert (outcome.mean_wait, outcome.unstarted) == (98.0, 1)


def test_after_the_grace_a_job_is_killed_its_work_lost_and_it_runs_again() -> None:

    def exchange(world: World) -> None:
        world.terminate(world.live)
        world.add(1)

    script = Script({0.0: lambda world: world.add(1), 20.0: exchange})
    outcome = World([Job(0.0, 45.0)], SETTING, 1).run(script)
    assert (outcome.killed, outcome.completed) == (1, 1)
    assert outcome.mean_wait == 10.0
    # first pod: 10 s of start; second: 10 s of start, 20 s until the kill at 50 s, 5 s after the end at 95 s
    assert outcome.waste == pytest.approx(10 + 30 + 5 + 40)


def test_within_the_grace_it_ends() -> None:
    script = Script({0.0: lambda world: world.add(1), 20.0: lambda world: world.terminate(world.live)})
    outcome = World([Job(0.0, 35.0)], SETTING, 1).run(script)
    assert (outcome.killed, outcome.completed, outcome.pod_seconds) == (0, 1, 45.0)


def test_a_marked_pod_claims_nothing_ends_its_job_and_goes() -> None:
    script = Script({0.0: lambda world: world.add(1), 20.0: lambda world: world.mark(world.live)})
    outcome = World([Job(0.0, 80.0), Job(1.0, 5.0)], SETTING, 1).run(script)
    assert (outcome.killed, outcome.completed, outcome.unstarted, outcome.pod_seconds) == (0, 1, 1, 90.0)


def test_an_idle_marked_pod_goes_after_the_handover() -> None:
    script = Script({0.0: lambda world: world.add(1), 20.0: lambda world: world.mark(world.live)})
    assert World([], SETTING, 1).run(script).pod_seconds == 20.0 + HANDOVER_S


def test_a_mark_taken_back_in_time_keeps_the_pod() -> None:
    def remark(world: World) -> None:
        world.mark(world.live)
        world.unmark(world.live)

    script = Script({0.0: lambda world: world.add(1), 20.0: remark})
    outcome = World([Job(30.0, 5.0)], SETTING, 1).run(script)
    assert (outcome.pod_seconds, outcome.completed) == (100.0, 1)


def test_the_longest_idle_of_the_emptiest_pods_gets_the_job() -> None:
    seen: list[list[int]] = []
    script = Script(
        {
            0.0: lambda world: world.add(2),
            16.0: lambda world: seen.append([len(pod.running) for pod in world.live]),
            26.0: lambda world: seen.append([len(pod.running) for pod in world.live]),
        }
    )
    jobs = [Job(15.0, 5.0), Job(25.0, 5.0)]
    World(jobs, Setting(start=(10.0, 10.0), horizon=50.0, slots=2), 1).run(script)
    assert seen == [[1, 0], [0, 1]]


def test_a_queue_at_zero_wakes_its_controller() -> None:
    outcome = World([Job(2.0, 20.0)], SETTING, 1).run(EVERY[OURS](LOADS[0]))
    assert outcome.mean_wait == pytest.approx(WAKE_S + 10.0)


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_a_loads_jobs_depend_on_its_seed_only(load: Load) -> None:
    def first(seed: int) -> list[tuple[float, float]]:
        return [(job.arrived, job.service) for job in load.jobs(seed)[:50]]

    assert first(3) == first(3) != first(4)
    assert all(0 <= at < 7200 and service > 0 for at, service in first(3))


jobs = st.lists(st.builds(Job, st.floats(0, 250), st.floats(0.1, 90)), max_size=25)
settings_ = st.builds(
    Setting, slots=st.integers(1, 4), grace=st.floats(1, 60), max_pods=st.integers(1, 8), horizon=st.just(300.0)
)


@given(jobs, settings_, st.sampled_from([KEDA_BEST, OURS]))
def test_every_job_is_somewhere_and_time_adds_up(given_jobs: list[Job], setting: Setting, controller: str) -> None:
    world = World(given_jobs, setting, 7)
    outcome = world.run(EVERY[controller](replace(LOADS[0], setting=setting)))
    running = sum(len(pod.running) for pod in world.pods)
    assert outcome.completed + running + outcome.unstarted == len(given_jobs)
    assert -1e-6 <= outcome.waste <= outcome.pod_seconds + world.lost + 1e-6
    assert outcome.peak <= setting.max_pods
    assert controller != OURS or outcome.killed == 0
