"""KEDA's ScaledObject over the HorizontalPodAutoscaler, by their documented rules.

HPA (kubernetes.io, "Horizontal Pod Autoscaling"): a sync every 15 s; desired = ceil(metric / target), unless the ratio
to the present number is within 10 % of 1; up by at most max(100 %, 4 pods) in 15 s; down to the greatest desired number
of the stabilisation window (300 s); off at zero replicas.
KEDA (keda.sh, "Scaling Deployments"): a poll every 30 s takes 0 to 1 when the trigger is active, and to 0 once it has
been inactive for the cooldown (300 s); the metric is read again at each HPA sync.
A ReplicaSet removes pods that are not Ready first, then the newest, blind to what they run.
"""

import math
import random
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.scaling.world import Pod, World

SYNC_S = 15.0
TOLERANCE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class KedaConfig:
    """A ScaledObject's settings, by their documented defaults; durations in seconds."""

    list_length: float = 5
    metric: Literal["waiting", "waiting+active"] = "waiting"
    polling: float = 30
    cooldown: float = 300
    stabilisation: float = 300
    limit_up: bool = True


@dataclass(slots=True)
class Keda:
    """KEDA and the HPA. Poll and sync start at a phase that depends on the seed."""

    config: KedaConfig
    wakes_at_zero: bool = False
    _next_poll: float = -1.0
    _next_sync: float = -1.0
    _active_at: float = -math.inf
    _desired: list[tuple[float, int]] = field(default_factory=list)
    _added: list[tuple[float, int]] = field(default_factory=list)

    def look(self, world: World) -> float:
        if self._next_poll < 0:
            rng = random.Random(f"phase {world.seed}")
            self._next_poll, self._next_sync = rng.uniform(0, self.config.polling), rng.uniform(0, SYNC_S)
            return min(self._next_poll, self._next_sync)
        if world.now >= self._next_poll:
            self._next_poll += self.config.polling
            self._poll(world)
        if world.now >= self._next_sync:
            self._next_sync += SYNC_S
            self._sync(world)
        return min(self._next_poll, self._next_sync)

    def _metric(self, world: World) -> int:
        return len(world.waiting) + (world.active if self.config.metric == "waiting+active" else 0)

    def _poll(self, world: World) -> None:
        pods = len(world.live)
        if self._metric(world) > 0:
            self._active_at = world.now
            if pods == 0:
                world.add(1)
        elif pods > 0 and world.now - self._active_at >= self.config.cooldown:
            world.terminate(world.live)
            self._desired.clear()

    def _sync(self, world: World) -> None:
        current = len(world.live)
        if current == 0:
            return
        desired = desired_replicas(self._metric(world), target=self.config.list_length, current=current)
        desired = self._stabilised(world.now, min(max(desired, 1), world.setting.max_pods), current)
        desired = self._limited(world.now, desired, current)
        if desired > current:
            self._added.append((world.now, desired - current))
            world.add(desired - current)
        elif desired < current:
            world.terminate(newest_first(world)[: current - desired])

    def _stabilised(self, now: float, desired: int, current: int) -> int:
        self._desired = [(at, n) for at, n in self._desired if at >= now - self.config.stabilisation]
        self._desired.append((now, desired))
        if desired >= current:
            return desired
        return min(current, max(n for _, n in self._desired))

    def _limited(self, now: float, desired: int, current: int) -> int:
        if not self.config.limit_up:
            return desired
        before = current - sum(n for at, n in self._added if at > now - SYNC_S)
        return min(desired, max(current, before * 2, before + 4))


def desired_replicas(metric: float, *, target: float, current: int) -> int:
    """Return the desired replicas by the HPA's ratio rule for an AverageValue metric."""
    if 1 - TOLERANCE <= metric / (target * current) <= 1 + TOLERANCE:
        return current
    return math.ceil(metric / target)


def newest_first(world: World) -> list[Pod]:
    """Return the pods in the order in which a ReplicaSet removes them."""
    return sorted(world.live, key=lambda pod: (world.is_ready(pod), -pod.born, -pod.number))
