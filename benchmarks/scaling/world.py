"""A queue, its worker pods and a controller, event by event. Deterministic per load and seed.

Time is in seconds from the start. Arrivals and service times are drawn before the run and a pod's start time depends on
its number only, so that every controller meets the same jobs and the same pods (paired seeds).
"""

import heapq
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

HANDOVER_S = 1.0
"""Time in seconds from a mark on an idle pod to its removal: the worker's answer, the watch, and 0.3 s more."""
WAKE_S = 0.1
"""Time in seconds from the first job of a queue at zero until the controller acts on it, without waiting for a poll."""


@dataclass(slots=True, eq=False)
class Job:
    """A job's `arrived` and `service` are given; `started` is its first start."""

    arrived: float
    service: float
    started: float | None = None


@dataclass(slots=True, eq=False)
class Pod:
    """A worker pod. `running` maps each job to the start of this delivery."""

    number: int
    born: float
    ready_at: float
    running: dict[Job, float] = field(default_factory=dict)
    idle_since: float = 0.0
    marked_at: float | None = None
    terminated_at: float | None = None
    gone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Settings of the simulated cluster."""

    slots: int = 1
    start: tuple[float, float] = (8.0, 15.0)
    grace: float = 30.0
    max_pods: int = 50
    horizon: float = 7200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Result of a run, in seconds, jobs and pods."""

    mean_wait: float
    p95_wait: float
    within_30s: float
    waste: float
    """Idle pod-seconds, including those of starting pods, and the lost work of killed jobs."""
    pod_seconds: float
    killed: int
    scalings: int
    peak: int
    completed: int
    unstarted: int


class Controller(Protocol):
    """Observes the world when due and acts on it. `look` returns the time of the next observation."""

    wakes_at_zero: bool

    def look(self, world: "World") -> float: ...


class World:
    """The simulated queue. Controllers read it, and act through `add`, `terminate`, `mark` and `unmark`."""

    def __init__(self, jobs: Sequence[Job], setting: Setting, seed: int) -> None:
        self.setting = setting
        self.seed = seed
        self.now = 0.0
        self.waiting: deque[Job] = deque()
        self.pods: list[Pod] = []
        self.jobs = jobs
        self.started_pods: list[float] = []
        """Start times of the pods that became ready."""
        self.run_s = 0.0
        """Sum of the run times of the completed jobs, in seconds."""
        self.arrived = self.completed = self.killed = self.scalings = self.peak = 0
        self.lost = self._pod_seconds = self._busy_seconds = 0.0
        self._events: list[tuple[float, int, str, object]] = []
        self._order = count()
        self._numbers = count()

    # What controllers read

    @property
    def live(self) -> list[Pod]:
        """Pods that count as replicas. Terminating pods do not."""
        return [pod for pod in self.pods if pod.terminated_at is None]

    def is_ready(self, pod: Pod) -> bool:
        return pod.ready_at <= self.now

    @property
    def active(self) -> int:
        return sum(len(pod.running) for pod in self.pods)

    # How controllers act

    def add(self, number: int) -> None:
        self.scalings += 1
        for _ in range(number):
            pod = Pod(next(self._numbers), self.now, 0.0)
            draw = random.Random(f"{self.seed}/{pod.number}").uniform(*self.setting.start)
            pod.ready_at = pod.idle_since = self.now + draw
            self.pods.append(pod)
            self._push(pod.ready_at, "ready", pod)

    def terminate(self, pods: Sequence[Pod]) -> None:
        """Terminate pods: they claim no more jobs. Jobs that run after the grace period return to the queue."""
        self.scalings += 1
        for pod in pods:
            pod.terminated_at = self.now
            if pod.running:
                self._push(self.now + self.setting.grace, "kill", pod)
            else:
                self._remove(pod)

    def mark(self, pods: Sequence[Pod]) -> None:
        """Mark pods for scale-in: they claim no more jobs, and go when idle and the handover time has passed."""
        for pod in pods:
            pod.marked_at = self.now
            self._push(self.now + HANDOVER_S, "handover", pod)

    def unmark(self, pods: Sequence[Pod]) -> None:
        for pod in pods:
            pod.marked_at = None
        self._dispatch()

    # The run

    def run(self, controller: Controller) -> Outcome:
        for job in self.jobs:
            self._push(job.arrived, "arrival", job)
        self._push(0.0, "look", controller)
        for at, kind, what in self._due():
            self._pass_time(at)
            self._handle(kind, what, controller)
        self._pass_time(self.setting.horizon)
        return self._outcome()

    def _due(self) -> Iterator[tuple[float, str, object]]:
        while self._events and self._events[0][0] < self.setting.horizon:
            at, _, kind, what = heapq.heappop(self._events)
            yield at, kind, what

    def _push(self, at: float, kind: str, what: object) -> None:
        heapq.heappush(self._events, (at, next(self._order), kind, what))

    def _pass_time(self, to: float) -> None:
        self._pod_seconds += len(self.pods) * (to - self.now)
        self.now = to

    def _handle(self, kind: str, what: object, controller: Controller) -> None:
        match kind, what:
            case "arrival", Job() as job:
                self._arrive(job, controller)
            case "finish", (Pod() as pod, Job() as job, float() as started):
                self._finish(pod, job, started)
            case "ready", Pod() as pod:
                self._ready(pod)
            case "kill", Pod() as pod:
                self._kill(pod)
            case "handover", Pod() as pod:
                self._hand_over(pod)
            case "look", _:
                self._push(controller.look(self), "look", controller)
            case _:
                controller.look(self)
        self.peak = max(self.peak, len(self.live))

    def _arrive(self, job: Job, controller: Controller) -> None:
        self.arrived += 1
        self.waiting.append(job)
        if controller.wakes_at_zero and not self.live and len(self.waiting) == 1:
            self._push(self.now + WAKE_S, "wake", controller)
        self._dispatch()

    def _ready(self, pod: Pod) -> None:
        if not pod.gone:
            self.started_pods.append(pod.ready_at - pod.born)
            self._dispatch()

    def _finish(self, pod: Pod, job: Job, started: float) -> None:
        if pod.running.get(job) != started:
            return
        del pod.running[job]
        self.completed += 1
        self.run_s += job.service
        self._busy_seconds += job.service / self.setting.slots
        pod.idle_since = self.now
        if not pod.running and pod.terminated_at is not None:
            self._remove(pod)
        if pod.marked_at is not None:
            self._hand_over(pod)
        self._dispatch()

    def _kill(self, pod: Pod) -> None:
        for job, started in reversed(pod.running.items()):
            self.killed += 1
            self.lost += (self.now - started) / self.setting.slots
            self._busy_seconds += (self.now - started) / self.setting.slots
            self.waiting.appendleft(job)
        pod.running.clear()
        self._remove(pod)
        self._dispatch()

    def _hand_over(self, pod: Pod) -> None:
        if pod.gone or pod.marked_at is None or pod.running:
            return
        if self.now - pod.marked_at >= HANDOVER_S - 1e-9:
            self.terminate([pod])

    def _remove(self, pod: Pod) -> None:
        if not pod.gone:
            pod.gone = True
            self.pods.remove(pod)

    def _dispatch(self) -> None:
        """Assign jobs to the emptiest pod, and among those to the one that waits longest (as Redis serves BLPOP)."""
        while self.waiting:
            free = [pod for pod in self.pods if self._claims(pod)]
            if not free:
                return
            pod = min(free, key=lambda pod: (len(pod.running), pod.idle_since))
            job = self.waiting.popleft()
            job.started = self.now if job.started is None else job.started
            pod.running[job] = self.now
            pod.idle_since = self.now
            self._push(self.now + job.service, "finish", (pod, job, self.now))

    def _claims(self, pod: Pod) -> bool:
        return (
            pod.terminated_at is None
            and pod.marked_at is None
            and self.is_ready(pod)
            and len(pod.running) < self.setting.slots
        )

    def _outcome(self) -> Outcome:
        end = self.setting.horizon
        waits = sorted((end if job.started is None else job.started) - job.arrived for job in self.jobs)
        running = sum(end - started for pod in self.pods for started in pod.running.values())
        busy = self._busy_seconds + running / self.setting.slots
        return Outcome(
            mean_wait=sum(waits) / max(1, len(waits)),
            p95_wait=waits[int(0.95 * (len(waits) - 1))] if waits else 0.0,
            within_30s=sum(wait <= 30 for wait in waits) / max(1, len(waits)),
            waste=self._pod_seconds - busy + self.lost,
            pod_seconds=self._pod_seconds,
            killed=self.killed,
            scalings=self.scalings,
            peak=self.peak,
            completed=self.completed,
            unstarted=len(self.waiting),
        )
