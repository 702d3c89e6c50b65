"""State of one agent's workers on this machine, and the decision on their number."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from agentqueue.spec.defaults import ScalingMode
from agentqueue_operator.autoscaling.estimates import Estimates
from agentqueue_operator.autoscaling.model import Decision, Pods, ScaleTo
from agentqueue_operator.autoscaling.observer import AgentObserver
from agentqueue_operator.autoscaling.queue_metrics import QueueMetrics, WorkerHeartbeat
from agentqueue_operator.local.fleet import Member, Phase
from agentqueue_operator.local.ports import AgentRun, Row
from agentqueue_operator.local.restart_backoff import Restarts, after_death, after_ready

RATE_WINDOW_S: Final = 10.0
"""Time in seconds over which the displayed rate of completed jobs is a mean: short enough to follow changes."""
DEFAULT_START_S: Final = 1.5
"""Start time of a worker process in seconds, before one has been measured."""
SILENT_S: Final = 4.0
"""Time in seconds without a live heartbeat after which a worker is no capacity. A heartbeat is live for 8 s, and within
this time after an outage each live worker sends the next one."""
HUNG_S: Final = 30.0
"""Time in seconds without a heartbeat after which a worker is killed, if jobs wait and no other worker may start."""


@dataclass(slots=True)
class WorkerProcess:
    """A worker process as last observed. Times are in monotonic seconds."""

    name: str
    run: AgentRun
    """Settings that it was started with."""
    version: int
    """Version of the code that it was started with."""
    started: float
    ready: float | None = None
    """Time of its first heartbeat."""
    idle_since: float = 0.0
    heard: float = 0.0
    """Last time with a live heartbeat."""
    heartbeat: WorkerHeartbeat | None = None
    marked: bool = False
    drained: bool = False
    """No job runs there, and it has confirmed its drain mark or was marked before its first heartbeat."""
    ended: float | None = None
    """Time at which it was asked to stop."""

    @property
    def phase(self) -> Phase:
        """Phase in the life of the process."""
        if self.ended is not None:
            return Phase.STOPPING
        if self.marked or (self.heartbeat and self.heartbeat.draining):
            return Phase.DRAINING
        return Phase.STARTING if self.ready is None else Phase.READY

    def observe(self, metrics: QueueMetrics, *, at: float) -> None:
        """Record the worker's part of one read. `at`: monotonic seconds."""
        live = metrics.heartbeats.get(self.name)
        if live is not None:
            self.heartbeat, self.heard = live, at
        self.marked = self.name in metrics.marked
        is_idle = live is None or live.busy == 0
        self.drained = self.marked and is_idle and (metrics.confirms(self.name) or self.heartbeat is None)
        if self.heartbeat and self.heartbeat.busy:
            self.idle_since = at


@dataclass(slots=True)
class LocalAgent:
    """An agent and its workers. Nothing here reads a clock or does I/O; the supervisor does."""

    run: AgentRun
    version: int = 0
    wanted: int = 0
    workers: dict[str, WorkerProcess] = field(default_factory=dict)
    restarts: Restarts = field(default_factory=Restarts)
    observer: AgentObserver = field(
        default_factory=lambda: AgentObserver(estimates=Estimates(startup_s=DEFAULT_START_S))
    )
    note: str = ""
    registered: int | None = None
    """Version of the code of which a worker became ready last. A worker registers its jobs and crons before that."""
    done_before: int | None = None
    """Completed jobs of the queue when this `up` started."""
    done_samples: list[tuple[float, int]] = field(default_factory=list)
    """Completed jobs by time, within the rate window."""

    @property
    def metrics(self) -> QueueMetrics | None:
        """Metrics of the last read; None if the queue could not be read."""
        return self.observer.metrics

    def observe(self, metrics: QueueMetrics | None, *, at: float) -> list[WorkerProcess]:
        """Record the result of one read. Return the workers that became ready.

        Args:
            metrics: None if the queue could not be read.
            at: monotonic seconds.
        """
        self.observer.observe(metrics, at=at)
        if metrics is None:
            return []
        if self.done_before is None or metrics.done < self.done_before:  # The server was emptied, or is another one.
            self.done_before, self.done_samples = metrics.done, []
        recent = [sample for sample in self.done_samples if sample[0] > at - RATE_WINDOW_S]
        self.done_samples = [*recent, (at, metrics.done)]
        live = [self.workers[name] for name in metrics.heartbeats if name in self.workers]
        became_ready = [worker for worker in live if worker.ready is None and worker.ended is None]
        for worker in became_ready:
            self.registered = max(worker.version, self.registered or 0)
            worker.ready = worker.idle_since = worker.heard = at
            self.observer.observe_start(timedelta(seconds=at - worker.started))
            self.restarts = after_ready(self.restarts)
        for worker in self.workers.values():
            worker.observe(metrics, at=at)
        return became_ready

    def decide(self, *, at: float) -> Decision:
        """Decide on the number of workers. `at`: monotonic seconds.

        Mode External means Auto here, because nothing else sets the number of processes on this machine.
        """
        policy = self.run.policy
        policy = replace(policy, mode=ScalingMode.AUTO) if policy.mode is ScalingMode.EXTERNAL else policy
        phases = [worker.phase for worker in self.workers.values()]
        ready, starting = phases.count(Phase.READY), phases.count(Phase.STARTING)
        silent = len(self._silent(at, for_s=SILENT_S))
        # Workers that may not start after crashes count as unschedulable, so that no more are requested.
        held_back = at < self.restarts.not_before or self.restarts.on_trial
        missing = max(0, self.wanted - ready - starting) if held_back else 0
        pods = Pods(ready=ready - silent, starting=starting, silent=silent, unschedulable=missing)
        is_registered = self.registered == self.version
        decision = self.observer.decide(pods, current=self.wanted, policy=policy, at=at, registering=not is_registered)
        if isinstance(decision, ScaleTo):
            self.wanted = decision.replicas
        return decision

    def members(self, *, at: float) -> list[Member]:
        """Return the workers as `fleet.plan` takes them. `at`: monotonic seconds."""
        return [
            Member(
                name=worker.name,
                phase=worker.phase,
                busy=worker.heartbeat.busy if worker.heartbeat else 0,
                idle_s=at - worker.idle_since,
                drained=worker.drained,
                outdated=worker.version != self.version or worker.run.environment != self.run.environment,
            )
            for worker in self.workers.values()
        ]

    def worker_died(self, worker: WorkerProcess, *, at: float) -> None:
        """Record that a worker ended without being asked to. A worker with older code does not delay newer ones."""
        if worker.version != self.version:
            return
        was_ready = worker.ready is not None
        self.restarts = after_death(self.restarts, at=at, started=worker.started, was_ready=was_ready)

    def replace_code(self) -> None:
        """Mark all workers as outdated, because the code has changed. Crashes of the old code delay no start."""
        self.version += 1
        self.restarts = Restarts(on_trial=self.restarts.on_trial)

    def start_failed(self, *, at: float) -> None:
        """Record that a process could not be started. It counts like the death of a worker before it was ready."""
        self.restarts = after_death(self.restarts, at=at, started=at, was_ready=False)

    def next_start(self, *, at: float) -> str:
        """Return a text that states when the next worker starts after a death. `at`: monotonic seconds."""
        serving = [m.phase for m in self.members(at=at) if m.phase in (Phase.STARTING, Phase.READY) and not m.outdated]
        if len(serving) >= self.wanted:
            return "no replacement is needed"
        if self.restarts.on_trial and Phase.STARTING in serving:
            return "the next one starts once one is ready"
        pause = self.restarts.not_before - at
        return f"another one in {max(1, round(pause))} s" if pause > 0 else "another one starts now"

    def hung(self, *, at: float) -> list[WorkerProcess]:
        """Return the workers to kill: they send no heartbeats, jobs wait, and no other worker may be started."""
        metrics = self.metrics
        if metrics is None or metrics.load.paused or not metrics.load.backlog:
            return []
        if len(self.workers) < self.run.policy.max_replicas:
            return []
        return self._silent(at, for_s=HUNG_S)

    def is_idle(self) -> bool:
        """Return whether only a new job can start a worker: there is no worker, and no known job could start."""
        metrics = self.metrics
        return not self.workers and metrics is not None and not metrics.load.jobs and not metrics.load.paused

    def row(self) -> Row:
        """Return the agent's row in the summary."""
        phases = [worker.phase for worker in self.workers.values()]
        row = Row(
            agent=self.run.name,
            ready=phases.count(Phase.READY),
            starting=phases.count(Phase.STARTING),
            draining=phases.count(Phase.DRAINING) + phases.count(Phase.STOPPING),
            wanted=self.wanted,
            note=self.note,
        )
        metrics = self.metrics
        if metrics is None:
            return row
        (first, done_then), (last, done_now) = self.done_samples[0], self.done_samples[-1]
        load = metrics.load
        return replace(
            row,
            waiting=load.ready,
            delayed=metrics.delayed,
            suspended=sum(metrics.suspended.values()),
            active=load.active + load.stalled,
            done=metrics.done - (self.done_before or 0),
            dead=metrics.dead,
            rate_per_s=(done_now - done_then) / (last - first) if last > first else 0.0,
            note="paused" if load.paused else self.note,
        )

    def _silent(self, at: float, *, for_s: float) -> list[WorkerProcess]:
        if self.metrics is None or self.observer.readable_s(at) < for_s:
            return []
        ready = (worker for worker in self.workers.values() if worker.phase is Phase.READY)
        return [worker for worker in ready if at - worker.heard >= for_s]
