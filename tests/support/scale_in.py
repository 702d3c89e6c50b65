"""A model of all that takes part in a scale-in, around the real scaler: Redis, workers, and Kubernetes' controllers.

Each part acts in steps that can come in any order, and sees the others' changes late: the operator's cache and the
controllers' informers lag by as much as the schedule wants. The ReplicaSet chooses as `ActivePodsWithRanks.Less` does
(kubernetes 1.35, pkg/controller/controller_utils.go), with `getPodsToDelete`, `manageReplicas` and `calculateStatus` of
pkg/controller/replicaset; the Deployment's controller scales as `DeploymentController.sync`.

Two things are taken for granted, since nothing in Kubernetes' API could rule them out. A container takes longer to
start than watches lag, and than the controllers take to carry out a change of replicas. And no working pod turns not
Ready between the last look and the removal.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from agentqueue_operator.autoscaling.model import Load
from agentqueue_operator.autoscaling.queue_metrics import QueueMetrics, WorkerHeartbeat
from agentqueue_operator.autoscaling.removal import Stage
from agentqueue_operator.controller.ports import AgentPods, ApiRefused, Scaled
from agentqueue_operator.controller.scaling.scaler import QueueScaler
from agentqueue_operator.controller.scaling.worker_pods import COST, has_low_cost, is_leaving, stage_of
from agentqueue_operator.resources.kinds import DEPLOYMENT, POD, Kind, Object
from agentqueue_operator.resources.render.names import NOT_REMOVABLE, REMOVABLE_LABEL
from tests.support.scaling import FakeCluster, FakeQueues, patched, pod, queue_of

LEASE_S = 8.0
NOW = datetime(2026, 11, 25, 3, tzinfo=UTC)


Event = tuple[str, Callable[[], object]]
"""Description of an event, and the function that makes it happen."""


class BusyPodRemoved(AssertionError):
    """A scale-in removed a pod that ran or had claimed a job."""


@dataclass
class Worker:
    """A worker process that behaves like the claim loop and the lease renewer of agentqueue_worker."""

    begun_after: tuple[int, int]
    """Generation of the Deployment at its start, and length of the log at that time."""
    mark: int = 0
    renewed_at: float = float("-inf")
    claiming: bool = False
    taken: int = 0
    """Jobs that were claimed in Redis, with a reply in flight."""
    running: int = 0
    ending: bool = False
    beat: tuple[int, int] | None = None
    """Heartbeat in flight: busy slots and the confirmed mark."""
    answer: tuple[int, float] | None = None
    """Reply to a renewal in flight: the mark, and the time of the reply."""

    @property
    def works(self) -> bool:
        return self.taken + self.running > 0


@dataclass
class World:
    """All parts of a scale-in. `rng` draws the schedule."""

    rng: random.Random
    size: int
    wanted: int
    now: float = 1000.0
    version: int = 100
    pods: dict[str, Object] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    log: list[tuple[str, Object | None]] = field(default_factory=list)
    """Changes of pods, in the order in which all watches show them."""
    waiting: int = 0
    marks: dict[str, int] = field(default_factory=dict)
    beats: dict[str, tuple[float, int, int]] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    serial: int = 0
    eager: float = 0.5
    """Probability of an event at each moment in which the operator waits."""

    def __post_init__(self) -> None:
        self.replicas, self.generation, self.deployment_version = self.size, 1, 1
        self.deployment_status: Object = {"observedGeneration": 1, "replicas": self.size, "updatedReplicas": self.size}
        self.set_replicas, self.set_generation = self.size, 1
        self.set_status: Object = {}
        self.dc_view = (self.size, 1)  # the Deployment's controller's view of the Deployment
        self.rs_view = (self.size, 1)  # the ReplicaSet's controller's view of the ReplicaSet
        self.rs_pods: dict[str, Object] = {}
        self.rs_at = self.op_at = 0
        self.rs_expects = 0
        self.op_pods: dict[str, Object] = {}
        self.op_deployment: Object = {}
        for _ in range(self.size):
            name = self._create()
            for _ in range(3):
                self.advance(name)
            self.workers[name].renewed_at = self.now
            self.beats[name] = (self.now, 0, 0)
        self._catch_up()
        self._write_set_status()
        self.op_deployment = self.deployment()
        self.restart()

    # --- Kubernetes' objects

    def deployment(self) -> Object:
        return {
            "metadata": {
                "name": "demo-work-12345",
                "namespace": "ns",
                "generation": self.generation,
                "resourceVersion": str(self.deployment_version),
            },
            "spec": {"replicas": self.replicas},
            "status": dict(self.deployment_status),
        }

    def replica_set(self) -> Object:
        return {
            "metadata": {"name": "demo-work-12345-t1", "namespace": "ns", "generation": self.set_generation},
            "spec": {
                "replicas": self.set_replicas,
                "template": {"metadata": {"labels": {REMOVABLE_LABEL: NOT_REMOVABLE}}},
            },
            "status": dict(self.set_status),
        }

    def _store(self, name: str, live: Object) -> None:
        self.version += 1
        live = {**live, "metadata": {**live["metadata"], "resourceVersion": str(self.version)}}
        self.pods[name] = live
        self.log.append((name, live))

    def _create(self) -> str:
        self.serial += 1
        name = f"demo-work-12345-t1-{self.serial}"
        live = pod(name, ready=False, phase="Pending")
        self._store(name, {**live, "spec": {}})
        return name

    def advance(self, name: str) -> None:
        """Move a pod one step towards Ready."""
        live, stage = self.pods[name], stage_of(self.pods[name])
        if stage is Stage.UNSCHEDULED:
            self._store(name, {**live, "spec": {"nodeName": "n1"}})
        elif stage is Stage.PENDING:
            self._store(name, {**live, "status": pod(name, ready=False)["status"]})
            self.workers[name] = Worker(begun_after=(self.generation, len(self.log)))
        elif stage is Stage.NOT_READY:
            self._store(name, {**live, "status": pod(name)["status"]})

    def crash(self, name: str) -> None:
        """Restart the container of a pod. The jobs that it ran return to the queue."""
        self._store(name, {**self.pods[name], "status": pod(name, ready=False)["status"]})
        self.workers[name] = Worker(begun_after=(self.generation, len(self.log)))

    # --- the controllers

    def _catch_up(self) -> None:
        self.rs_catches_up()
        self.op_catches_up()

    def rs_watch(self) -> None:
        self.rs_at = _apply(self.rs_pods, self.log, self.rs_at)

    def op_watch(self) -> None:
        self.op_at = _apply(self.op_pods, self.log, self.op_at)

    def dc_watch(self) -> None:
        self.dc_view = (self.replicas, self.generation)

    def dc_sync(self) -> None:
        replicas, generation = self.dc_view
        if replicas != self.set_replicas:
            self.set_replicas, self.set_generation = replicas, self.set_generation + 1
        count = self.set_status.get("replicas", 0)
        status = {"observedGeneration": generation, "replicas": count, "updatedReplicas": count}
        if status != self.deployment_status:
            self.deployment_status, self.deployment_version = status, self.deployment_version + 1

    def rs_watch_set(self) -> None:
        self.rs_view = (self.set_replicas, self.set_generation)

    def rs_sync(self) -> None:
        """Run `syncReplicaSet`: it waits until it has seen its own last change; the status is from before this run."""
        active = {name: live for name, live in self.rs_pods.items() if not is_leaving(live)}
        if self.rs_at >= self.rs_expects:
            extra = len(active) - self.rs_view[0]
            for name in sorted(active, key=lambda one: self._less(active, one))[: max(0, extra)]:
                self._delete(name)
            for _ in range(-extra):
                self._create()
            if extra:
                self.rs_expects = len(self.log)
        self._write_set_status(active)

    def _less(self, active: Mapping[str, Object], name: str) -> tuple[Any, ...]:
        """Return the order of `ActivePodsWithRanks.Less` on one node, where all ranks are equal. Ties are random."""
        live = active[name]
        cost = int((live["metadata"].get("annotations") or {}).get(COST, 0))
        unassigned = not live["spec"].get("nodeName")
        running = live["status"]["phase"] == "Running"
        return (not unassigned, running, stage_of(live) is Stage.READY, cost, self.rng.random())

    def _write_set_status(self, active: Mapping[str, Object] | None = None) -> None:
        active = self.rs_pods if active is None else active
        self.set_status = {
            "observedGeneration": self.rs_view[1],
            "replicas": len(active),
            "readyReplicas": sum(stage_of(live) is Stage.READY for live in active.values()),
            "fullyLabeledReplicas": sum(
                live["metadata"]["labels"][REMOVABLE_LABEL] == NOT_REMOVABLE for live in active.values()
            ),
        }

    def _delete(self, name: str) -> None:
        live, worker = self.pods.get(name), self.workers.get(name)
        if live is None or is_leaving(live):
            return
        self.note(f"the ReplicaSet removes {name}")
        self.removed.append(name)
        if worker is not None and worker.works:
            raise BusyPodRemoved("\n".join(self.trace))
        self.leave(name)

    def leave(self, name: str) -> None:
        """Begin the termination of a pod."""
        live = self.pods[name]
        self._store(name, {**live, "metadata": {**live["metadata"], "deletionTimestamp": "2026-11-25T03:00:00Z"}})
        if name in self.workers:
            self.workers[name].ending = True

    def vanish(self, name: str) -> None:
        del self.pods[name]
        self.log.append((name, None))
        self.workers.pop(name, None)
        self.beats.pop(name, None)
        self.marks.pop(name, None)

    @property
    def is_lowering(self) -> bool:
        """Return whether the controllers have yet to carry out the last change of replicas."""
        living = sum(not is_leaving(live) for live in self.pods.values())
        return (
            self.rs_view != (self.set_replicas, self.set_generation)
            or self.set_replicas != self.replicas
            or (living > self.replicas)
        )

    # --- workers

    def beat(self, name: str) -> None:
        """Prepare a heartbeat in the lease renewer, which reads the confirmed mark first."""
        worker = self.workers[name]
        worker.beat = (worker.running, 0 if worker.claiming else worker.mark)

    def renew(self, name: str) -> None:
        worker = self.workers[name]
        assert worker.beat is not None
        self.beats[name] = (self.now, *worker.beat)
        worker.beat, worker.answer = None, (self.marks.get(name, 0), self.now)

    def learn(self, name: str) -> None:
        worker = self.workers[name]
        assert worker.answer is not None
        worker.mark, worker.renewed_at = worker.answer
        worker.answer = None

    def may_claim(self, worker: Worker) -> bool:
        admitted = self.now - worker.renewed_at < LEASE_S
        return admitted and not (worker.claiming or worker.running or worker.mark or worker.ending)

    def serve(self, name: str) -> None:
        """Carry out a claim in Redis."""
        if self.waiting and not self.workers[name].taken:
            self.waiting -= 1
            self.workers[name].taken = 1

    def reply(self, name: str) -> None:
        worker = self.workers[name]
        worker.running, worker.taken, worker.claiming = worker.running + worker.taken, 0, False

    def later(self, seconds: float) -> None:
        """Advance the time. Workers that have not renewed within a lease lose their jobs."""
        self.now += seconds
        for name, worker in self.workers.items():
            if worker.works and self.now - self.beats.get(name, (0.0,))[0] > LEASE_S:
                self.waiting += worker.taken + worker.running
                worker.taken = worker.running = 0

    # --- schedules

    def events(self) -> list[Event]:
        """Return the events that may happen now."""
        found: list[Event] = [
            ("Deployment controller sees", self.dc_watch),
            ("Deployment controller syncs", self.dc_sync),
            ("ReplicaSet controller sees its ReplicaSet", self.rs_watch_set),
            ("ReplicaSet controller syncs", self.rs_sync),
            ("a job comes", lambda: setattr(self, "waiting", self.waiting + 1)),
            ("time passes", lambda: self.later(self.rng.choice((0.1, 1.0, 3.0)))),
        ]
        if self.rs_at < len(self.log):
            found.append(("ReplicaSet controller sees a pod", self.rs_watch))
        if self.op_at < len(self.log):
            found.append(("the operator's cache sees a pod", self.op_watch))
        found.append(("the operator's cache sees the Deployment", self._see_deployment))
        for name, live in self.pods.items():
            found += self._pods_events(name, live)
        return found

    def _has_begun(self, worker: Worker) -> bool:
        generation, seen = worker.begun_after
        is_known = min(self.rs_at, self.op_at) >= seen and not (self.is_lowering and generation >= self.generation)
        return is_known or worker.renewed_at > float("-inf")

    def _see_deployment(self) -> None:
        self.op_deployment = self.deployment()

    def _pods_events(self, name: str, live: Object) -> list[Event]:
        worker = self.workers.get(name)
        if is_leaving(live):
            lives: list[Event] = [(f"{name} is gone", lambda: self.vanish(name))]
        else:
            may_advance = stage_of(live) < Stage.NOT_READY or (worker is not None and self._has_begun(worker))
            lives = [(f"{name} advances", lambda: self.advance(name))] if may_advance else []
        return lives if worker is None else [*lives, *self._renewals(name, worker), *self._claims(name, worker)]

    def _renewals(self, name: str, worker: Worker) -> list[Event]:
        if worker.beat is not None:
            return [(f"{name} renews", lambda: self.renew(name))]
        if worker.answer is not None:
            return [(f"{name} learns", lambda: self.learn(name))]
        return [(f"{name} makes a heartbeat", lambda: self.beat(name))] if self._has_begun(worker) else []

    def _claims(self, name: str, worker: Worker) -> list[Event]:
        found: list[Event] = []
        if self.may_claim(worker):
            found.append((f"{name} claims", lambda: setattr(worker, "claiming", True)))
        if worker.claiming:
            found.append((f"{name}'s claim is carried out", lambda: self.serve(name)))
            found.append((f"{name} hears", lambda: self.reply(name)))
        if worker.running:
            found.append((f"{name} ends its job", lambda: setattr(worker, "running", 0)))
        return found

    def rare_events(self) -> list[Event]:
        """Return the rare events that may happen now."""
        found: list[Event] = [
            ("the operator restarts", self.restart),
            ("another number is wanted", lambda: setattr(self, "wanted", self.rng.randint(0, self.size + 1))),
        ]
        if not self.is_lowering:
            for name, live in self.pods.items():
                if name in self.workers and not is_leaving(live):
                    found.append((f"{name} crashes", partial(self.crash, name)))
                found.append((f"somebody deletes {name}", partial(self.leave, name)))
        return found

    def note(self, what: str) -> None:
        self.trace.append(f"{self.now:.1f} {what}")

    def happen(self) -> None:
        """Make one random event happen."""
        rare = self.rng.random() < 0.01
        what, act = self.rng.choice(self.rare_events() if rare else self.events())
        self.note(what)
        act()

    def bustle(self) -> None:
        """Simulate the time between two reconciles, in which most parts act and each may lag."""
        chance = self.rng.random
        if chance() < 0.03 and not self.is_lowering:
            self.note("the marks run out, since no operator kept them for a minute")
            self.marks.clear()
        self.wanted = self.rng.randint(0, self.size + 1) if chance() < 0.2 else self.wanted
        self.waiting = max(self.waiting, round(chance()))
        for act in (self.dc_watch, self.dc_sync, self.rs_watch_set, self.rs_sync):
            act() if chance() < 0.8 else None
        for name in [*self.pods]:
            self._bustle_of(name)
        self.rs_catches_up(0.9)
        self.op_catches_up(0.9)
        self.op_deployment = self.deployment() if chance() < 0.8 else self.op_deployment
        self.later(self.rng.choice((0.3, 1.0, 2.0)))

    def _bustle_of(self, name: str) -> None:
        for _ in range(6):
            possible = self._pods_events(name, self.pods[name]) if name in self.pods else []
            if possible and self.rng.random() < 0.7:
                what, act = self.rng.choice(possible)
                self.note(what)
                act()

    def rs_catches_up(self, chance: float = 2.0) -> None:
        while self.rs_at < len(self.log) and self.rng.random() < chance:
            self.rs_watch()

    def op_catches_up(self, chance: float = 2.0) -> None:
        while self.op_at < len(self.log) and self.rng.random() < chance:
            self.op_watch()

    def interleave(self) -> None:
        """Let other parts act while the operator waits for a reply."""
        while self.rng.random() < self.eager:
            self.happen()

    # --- the operator

    def restart(self) -> None:
        self.scaler = QueueScaler(_Api(self), now=lambda: NOW)

    async def a_pass(self) -> None:
        """Run one reconcile of the real scaler, and write the result."""
        self.note(f"reconcile: wanted {self.wanted}")
        queue = queue_of(mode="Fixed", replicas=self.wanted)
        agents = {"work": AgentPods(deployment=self.op_deployment, pods=list(self.op_pods.values()))}
        scaled = (await self.scaler.scale(queue, agents, queues=_Redis(self), at=self.now))["work"]
        self.interleave()
        self.write(scaled)

    def write(self, scaled: Scaled) -> None:
        """Apply the Deployment. The cache keeps the object that the API server returned."""
        lowered = scaled.lowered_on
        if lowered is not None and lowered["metadata"]["resourceVersion"] != str(self.deployment_version):
            self.note("the write is refused: the Deployment has changed")
            return
        if scaled.replicas is not None and scaled.replicas != self.replicas:
            self.note(f"replicas {self.replicas} -> {scaled.replicas}")
            self.replicas, self.generation = scaled.replicas, self.generation + 1
            self.deployment_version += 1
            self.op_deployment = self.deployment()

    async def settle(self, reconciles: int = 40) -> None:
        """Run to the end without faults: no jobs arrive, running ones end, and every watch catches up."""
        self.eager, self.waiting = 0.0, 0
        for _ in range(reconciles):
            for name in list(self.pods):
                if is_leaving(self.pods[name]):
                    self.vanish(name)
                elif name in self.workers:
                    self.finish(name)
                self.advance(name) if name in self.pods else None
            for act in (self.dc_watch, self.dc_sync, self.rs_watch_set, self._catch_up, self.rs_sync):
                act()
            self._catch_up()
            self._write_set_status({n: live for n, live in self.rs_pods.items() if not is_leaving(live)})
            self.dc_sync()
            self.op_deployment = self.deployment()
            self.later(1.0)
            await self.a_pass()

    def finish(self, name: str) -> None:
        """Let a worker finish its jobs and renew its leases."""
        self.reply(name)
        worker = self.workers[name]
        worker.running = 0
        if worker.answer is not None:
            self.learn(name)
        self.beat(name)
        self.renew(name)
        self.learn(name)

    def left_behind(self) -> tuple[set[str], set[str]]:
        """Return the remaining marks, and the pods that still have our deletion cost."""
        return set(self.marks), {name for name, live in self.pods.items() if has_low_cost(live)}


def _apply(view: dict[str, Object], log: list[tuple[str, Object | None]], at: int) -> int:
    name, live = log[at]
    if live is None:
        view.pop(name, None)
    else:
        view[name] = live
    return at + 1


class _Api(FakeCluster):
    """The API server, and the operator's cache of it."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        self.world.interleave()
        if kind is POD:
            return self.world.pods.get(name)
        return self.world.deployment() if kind is DEPLOYMENT else self.world.replica_set()

    async def patch(self, kind: Kind, namespace: str, name: str, changes: Object) -> Object:
        assert kind is POD
        self.world.interleave()
        live = self.world.pods.get(name)
        if live is None:
            raise ApiRefused(404, "NotFound", name)
        after = patched(live, changes)
        if after["metadata"] != live["metadata"]:
            self.world.note(f"{name} is annotated: {changes['metadata'].get('annotations')}")
            self.world._store(name, after)
        self.world.interleave()
        return self.world.pods.get(name, after)


class _Redis(FakeQueues):
    """The operator's connection to Redis."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    async def read(self, horizons_s: Mapping[str, float]) -> dict[str, QueueMetrics]:
        world = self.world
        world.interleave()
        live = {name: beat for name, beat in world.beats.items() if world.now - beat[0] < LEASE_S}
        look = QueueMetrics(
            load=Load(ready=world.waiting),
            heartbeats={
                n: WorkerHeartbeat(busy=busy, slots=1, draining=mark > 0, mark=mark)
                for n, (_, busy, mark) in live.items()
            },
            marked=dict(world.marks),
            silent_s={n: world.now - beat[0] for n, beat in world.beats.items() if n not in live},
            delayed=0,
            done=0,
            dead=0,
            arrived=0,
            run_ms=0,
        )
        world.interleave()
        return {"work": look}

    async def mark(self, queue: str, worker: str, *, drain: bool, keep_s: float | None = None) -> None:
        self.world.interleave()
        self.world.note(f"{worker} is marked" if drain else f"{worker}'s mark is taken back")
        if drain:
            self.world.serial += 1
            self.world.marks[worker] = self.world.serial
        else:
            self.world.marks.pop(worker, None)

    async def keep_marks(self, queue: str, keep_s: float | None) -> None:
        self.world.interleave()

    async def publish(self, decisions: Mapping[str, bytes]) -> Mapping[str, bytes | None]:
        self.world.interleave()
        return dict.fromkeys(decisions)
