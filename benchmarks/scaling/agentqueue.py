"""AgentQueue's controller in the simulated world: the operator's own decision function and estimates, every 5 s."""

from dataclasses import dataclass, field, replace
from datetime import timedelta

from benchmarks.scaling.world import Pod, World

from agentqueue_operator.autoscaling.decision import decide_replicas
from agentqueue_operator.autoscaling.estimates import Estimates, QueueCounters, Running, learn, learn_start, running_of
from agentqueue_operator.autoscaling.model import Load, Memory, Pods, Rates, ScaleTo, ScalingPolicy, ScalingSnapshot
from agentqueue_operator.autoscaling.removal import Stage
from agentqueue_operator.controller.scaling.scale_in import WorkerPod, victims_of


@dataclass(slots=True)
class AgentQueue:
    """The controller. `wrong_by`: factor by which the estimate of the service time is wrong."""

    policy: ScalingPolicy
    wrong_by: float = 1.0
    look_every_s: float = 5.0
    wakes_at_zero: bool = True
    _estimates: Estimates = field(default_factory=Estimates)
    _memory: Memory = field(default_factory=Memory)
    _starts_seen: int = 0

    def look(self, world: World) -> float:
        self._learn(world)
        live = world.live
        snapshot = ScalingSnapshot(at=world.now, load=_load(world), pods=_pods(world), rates=self._rates())
        decision = decide_replicas(snapshot, current=len(live), policy=self.policy, memory=self._memory)
        self._memory = decision.memory
        _act(world, live, decision.replicas if isinstance(decision, ScaleTo) else len(live))
        return world.now + self.look_every_s

    def _learn(self, world: World) -> None:
        now = world.now
        seen = QueueCounters(
            at=now,
            arrived=world.arrived,
            ended=world.completed,
            run=timedelta(seconds=world.run_s),
            active=world.active,
            running=tuple(some for pod in world.pods for some in _running(pod, now)),
        )
        self._estimates = learn(self._estimates, seen)
        for took_s in world.started_pods[self._starts_seen :]:
            self._estimates = learn_start(self._estimates, timedelta(seconds=took_s))
        self._starts_seen = len(world.started_pods)

    def _rates(self) -> Rates:
        rates = self._estimates.rates()
        return replace(rates, service=rates.service * self.wrong_by)


def _running(pod: Pod, now: float) -> tuple[Running, ...]:
    """Return the running jobs as the pod's heartbeat reports them."""
    ages = [now - started for started in pod.running.values()]
    return running_of(len(ages), total_s=sum(ages), oldest_s=max(ages, default=0.0))


def _load(world: World) -> Load:
    oldest_s = world.now - world.waiting[0].arrived if world.waiting else 0.0
    return Load(ready=len(world.waiting), active=world.active, oldest_ready=timedelta(seconds=oldest_s))


def _pods(world: World) -> Pods:
    ready = sum(world.is_ready(pod) for pod in world.live)
    return Pods(ready=ready, starting=len(world.live) - ready)


def _act(world: World, live: list[Pod], wanted: int) -> None:
    """Add pods, mark those that the operator's own planner would choose, or remove marks."""
    seen = {str(pod.number): pod for pod in live}
    victims = {victim.name for victim in victims_of(_seen(world, seen), leaving=len(live) - wanted)}
    world.unmark([pod for name, pod in seen.items() if pod.marked_at is not None and name not in victims])
    world.mark([pod for name, pod in seen.items() if pod.marked_at is None and name in victims])
    if wanted > len(live):
        world.add(wanted - len(live))


def _seen(world: World, pods: dict[str, Pod]) -> list[WorkerPod]:
    return [
        WorkerPod(
            name=name,
            stage=Stage.READY if world.is_ready(pod) else Stage.PENDING,
            busy=len(pod.running),
            idle_s=world.now - pod.idle_since,
            marked_s=None if pod.marked_at is None else world.now - pod.marked_at,
        )
        for name, pod in pods.items()
    ]
