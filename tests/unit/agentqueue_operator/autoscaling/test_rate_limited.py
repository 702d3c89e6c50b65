"""Tests of a rate-limited queue in virtual time: the estimates limit its pods."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import pytest

from agentqueue.spec.defaults import RateLimit
from agentqueue_operator.autoscaling.decision import decide_replicas
from agentqueue_operator.autoscaling.estimates import Estimates, QueueCounters, Running, learn, learn_start
from agentqueue_operator.autoscaling.model import (
    Load,
    Memory,
    Pods,
    ScaleTo,
    ScalingPolicy,
    ScalingReason,
    ScalingSnapshot,
)

LOOK_S: Final = 5
STARTUP_S: Final = 8
LIMIT: Final = RateLimit(max=2, duration_seconds=1)


@dataclass
class World:
    """Jobs that all wait from the beginning, on pods with a slot each. Time goes in steps of a second.

    `fails`: attempts end in a retry, which counts as no ended job.
    """

    waiting: int
    takes_s: float
    fails: bool = False
    ready_at: list[int] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    """Start times of the running jobs."""
    ended: int = 0
    failed: int = 0
    estimates: Estimates = field(default_factory=Estimates)
    memory: Memory = field(default_factory=Memory)
    reasons: set[ScalingReason] = field(default_factory=set)

    def until(self, end: int) -> list[int]:
        """Return the number of pods after each observation."""
        return [self._look(at) for at in range(end) if self._step(at) and at % LOOK_S == 0]

    def _step(self, at: int) -> bool:
        for _ in range(self.ready_at.count(at)):
            self.estimates = learn_start(self.estimates, timedelta(seconds=STARTUP_S))
        living = [started for started in self.running if at - started < self.takes_s]
        gone, self.running = len(self.running) - len(living), living
        if self.fails:
            self.failed, self.waiting = self.failed + gone, self.waiting + gone
        else:
            self.ended += gone
        slots = sum(ready <= at for ready in self.ready_at) - len(self.running)
        fresh = min(LIMIT.max, self.waiting, slots)
        self.waiting, self.running = self.waiting - fresh, [*self.running, *[at] * fresh]
        return True

    def _look(self, at: int) -> int:
        active, current = len(self.running), len(self.ready_at)
        seen = QueueCounters(
            at=at,
            arrived=self.waiting + active + self.ended + self.failed,
            ended=self.ended,
            run=timedelta(seconds=self.ended * self.takes_s),
            active=active,
            running=tuple(Running(1, at - started) for started in self.running),
            failed=self.failed,
        )
        self.estimates = learn(self.estimates, seen)
        ready = sum(ready <= at for ready in self.ready_at)
        snapshot = ScalingSnapshot(
            at=at,
            load=Load(ready=self.waiting, active=active, oldest_ready=timedelta(seconds=at)),
            pods=Pods(ready=ready, starting=current - ready),
            rates=self.estimates.rates(),
        )
        policy = ScalingPolicy(concurrency=1, max_replicas=500, rate_limit=LIMIT)
        decision = decide_replicas(snapshot, current=current, policy=policy, memory=self.memory)
        self.memory = decision.memory
        self.reasons.add(decision.reason)
        if isinstance(decision, ScaleTo):
            self.ready_at = [*self.ready_at[: decision.replicas], *[at + STARTUP_S] * (decision.replicas - current)]
        return len(self.ready_at)


def test_short_jobs_get_what_their_limit_feeds_and_no_pods_for_a_guess() -> None:
    world = World(waiting=100, takes_s=0.3)
    assert max(world.until(60)) == 2
    assert ScalingReason.RATE_LIMITED in world.reasons


def test_long_jobs_get_their_slots_as_fast_as_the_limit_fills_them() -> None:
    pods = World(waiting=1000, takes_s=60).until(120)
    assert pods[0] == 1
    for number, at in enumerate(range(0, 60, LOOK_S)):
        started = LIMIT.per_second * max(0, at - 2 * STARTUP_S)
        assert started <= pods[number] <= 2 * LIMIT.per_second * at / 0.85 + 1
    assert 120 <= pods[60 // LOOK_S + 2] <= 145
    assert max(pods) <= 145


@pytest.mark.parametrize(("takes_s", "most"), [(3, 8), (10, 23), (60, 140)])
def test_jobs_that_only_fail_get_what_their_limit_feeds(takes_s: float, most: int) -> None:
    world = World(waiting=4000, takes_s=takes_s, fails=True)
    assert max(world.until(200)) <= most
    assert len(world.running) == takes_s * LIMIT.per_second
