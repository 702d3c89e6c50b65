"""Tests of the scale-in against a model of all its parts, in random orders of events."""

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentqueue_operator.autoscaling.removal import Stage
from agentqueue_operator.controller.scaling import drain_handshake, scaler
from agentqueue_operator.controller.scaling import scale_in as drain
from agentqueue_operator.controller.scaling.scale_in import CancelRemoval, ScaleDown, SetDeletionCost, WorkerPod
from tests.support.scale_in import BusyPodRemoved, World


async def schedule(rng: random.Random, size: int, wanted: int, eager: float, reconciles: int = 25) -> World:
    """Run one random schedule, followed by a time without faults."""
    world = World(rng, size, wanted, eager=eager)
    for _ in range(reconciles):
        world.bustle()
        await world.a_pass()
    await world.settle()
    return world


def check_ended(world: World) -> None:
    assert (world.replicas, len(world.pods)) == (world.wanted, world.wanted)
    assert world.left_behind() == (set(), set())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(0, 4), st.sampled_from((0.1, 0.3, 0.6, 0.8)))
async def test_no_order_of_events_removes_a_busy_pod_and_each_scale_in_ends(
    seed: int, size: int, wanted: int, eager: float
) -> None:
    check_ended(await schedule(random.Random(seed), size, wanted, eager))


@pytest.mark.parametrize("seed", range(3))
async def test_a_long_time_in_one_cluster(seed: int) -> None:
    world = await schedule(random.Random(seed), 4, 2, 0.6, reconciles=100)
    assert len(world.removed) > 3
    check_ended(world)


# The model finds the mistakes that it is there for


def cost_before_confirmation(pods: Iterable[WorkerPod], **asked: Any) -> tuple[drain.Action, ...]:
    """Plan as before the handshake: idle victims get the deletion cost before they have confirmed their mark."""
    seen = list(pods)
    plan = drain.plan_scale_in(seen, **asked)
    victims = drain.victims_of(seen, leaving=len(seen) - asked["wanted"])
    early = [SetDeletionCost(pod.name) for pod in victims if not (pod.works or pod.removable)]
    kept = [
        a
        for a in plan
        if not (isinstance(a, ScaleDown | SetDeletionCost) or (isinstance(a, CancelRemoval) and a.keep_mark))
    ]
    going = sum(pod.drained and pod.removable for pod in victims)
    ready = all(pod.stage is Stage.READY for pod in seen) and len(seen) == asked["current"]
    lowered = [ScaleDown(max(asked["wanted"], len(seen) - going))] if ready and going else []
    return (*kept, *early, *lowered)


def marks_first(pods: Iterable[WorkerPod], **asked: Any) -> tuple[drain.Action, ...]:
    """Plan with each marked idle worker as confirmed, even if it has confirmed an earlier mark."""
    return drain.plan_scale_in([replace(pod, confirmed=pod.confirmed or pod.busy == 0) for pod in pods], **asked)


def always(*_: object, **__: object) -> bool:
    return True


MISTAKES: dict[str, list[tuple[object, str, object]]] = {
    "cost-before-confirmation": [
        (scaler, "plan_scale_in", cost_before_confirmation),
        (drain_handshake, "has_seen", always),
        (drain_handshake, "has_seen_costs", always),
    ],
    "marked-and-idle-counts-as-confirmed": [(scaler, "plan_scale_in", marks_first)],
    "what-the-replicaset-has-seen-does-not-matter": [
        (drain_handshake, "has_seen", always),
        (drain_handshake, "has_seen_costs", always),
    ],
}
"""Replacements in modules that make the scaler wrong: module, name and replacement."""


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_the_model_finds(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, name, wrong in MISTAKES[mistake]:
        monkeypatch.setattr(place, name, wrong)

    async def search() -> None:
        for seed in range(400):
            rng = random.Random(seed)
            await schedule(rng, rng.randint(2, 4), rng.randint(0, 3), rng.choice((0.1, 0.3, 0.6, 0.8)))

    with pytest.raises(BusyPodRemoved):
        await search()
