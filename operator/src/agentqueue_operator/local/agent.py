"""One agent's workers on this machine: what is seen of them, and how many there should be."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from agentqueue.spec.defaults import ScalingMode
from agentqueue_operator.autoscaling.decision import decide_replicas
from agentqueue_operator.autoscaling.estimates import Estimates, learn, learn_start
from agentqueue_operator.autoscaling.model import Decision, Load, Memory, Pods, Rates, ScaleTo, ScalingSnapshot
from agentqueue_operator.local.fleet import Member, Phase
from agentqueue_operator.local.ports import AgentRun, Row
from agentqueue_operator.local.restart_backoff import Restarts, after_death, after_ready
from agentqueue_operator.queues.ports import Look, Report

RATE_S: Final = 10.0
"""The completed jobs per second that are shown are a mean over so long."""
START_S: Final = 1.5
"""How long a worker process takes to start, until it was measured."""


SILENT_S: Final = 4.0
"""A worker that lives is heard again within so long after an outage; before that, heartbeats count for 8 s."""
HUNG_S: Final = 30.0
"""A worker whose heartbeats have ceased for so long is killed, if jobs wait and no other may be started."""


@dataclass(slots=True)
class Worker:
    """A worker process, by what is known of it. Times are monotonic seconds."""

    name: str
    run: AgentRun
    """What it was started as."""
    version: int
    """Of the code it was started with."""
    started: float
    ready: float | None = None
    """When its first heartbeat was seen."""
    idle_since: float = 0.0
    heard: float = 0.0
    """When there was a live heartbeat last."""
    report: Report | None = None
    marked: bool = False
    drained: bool = False
    """By the last look: it is marked, and it has confirmed that, or has not begun; nothing runs."""
    ended: float | None = None
    """When it was told to stop."""

    @property
    def phase(self) -> Phase:
        """Where it is in its life."""
        if self.ended is not None:
            return Phase.ENDING
        if self.marked or (self.report and self.report.draining):
            return Phase.DRAINING
        return Phase.STARTING if self.ready is None else Phase.READY


@dataclass(slots=True)
class Agent:
    """An agent and its workers. Nothing here reads a clock or does anything: `app.up` does."""

    run: AgentRun
    version: int = 0
    wanted: int = 0
    workers: dict[str, Worker] = field(default_factory=dict)
    restarts: Restarts = field(default_factory=Restarts)
    memory: Memory = field(default_factory=Memory)
    estimates: Estimates = field(default_factory=lambda: Estimates(startup_s=START_S))
    look: Look | None = None
    note: str = ""
    done_before: int | None = None
    """Completed jobs when this `up` began."""
    done_marks: list[tuple[float, int]] = field(default_factory=list)
    looked_from: float | None = None
    """The first of the looks that have succeeded without a break."""

    def see(self, look: Look | None, *, at: float) -> list[Worker]:
        """Take in what one look shows (None: the queue could not be read). Returns the workers that got ready."""
        self.look = look
        if look is None:
            self.looked_from = None
            return []
        self.looked_from = at if self.looked_from is None else self.looked_from
        self._count(look.done, at)
        self.estimates = learn(self.estimates, look.seen(at))
        fresh = [self.workers[name] for name in look.reports if name in self.workers]
        news = [worker for worker in fresh if worker.ready is None and worker.ended is None]
        for worker in news:
            worker.ready = worker.idle_since = worker.heard = at
            self.estimates = learn_start(self.estimates, timedelta(seconds=at - worker.started))
            self.restarts = after_ready(self.restarts)
        for worker in self.workers.values():
            _hear(worker, look, at)
        return news

    @property
    def rates(self) -> Rates:
        """What has been learnt of arrivals, service and start times."""
        return self.estimates.rates()

    def decide(self, *, at: float) -> Decision:
        """How many workers from now on. Nothing on this machine sets the number from outside: External is Auto here."""
        policy = self.run.policy
        policy = replace(policy, mode=ScalingMode.AUTO) if policy.mode is ScalingMode.EXTERNAL else policy
        load: Load | None = self.look.load if self.look else None
        snapshot = ScalingSnapshot(at=at, load=load, pods=self._pods(at), rates=self.rates)
        decision = decide_replicas(snapshot, current=self.wanted, policy=policy, memory=self.memory)
        self.memory = decision.memory
        if isinstance(decision, ScaleTo):
            self.wanted = decision.replicas
        return decision

    def members(self, *, at: float) -> list[Member]:
        """The workers as `domain.fleet.plan` takes them."""
        return [self._member(worker, at) for worker in self.workers.values()]

    def died(self, worker: Worker, *, at: float) -> None:
        """Record that a worker ended without having been stopped. One of older code proves nothing about the newest."""
        if worker.version != self.version:
            return
        was_ready = worker.ready is not None
        self.restarts = after_death(self.restarts, at=at, started=worker.started, was_ready=was_ready)

    def replace_code(self) -> None:
        """Have the workers replaced, since the code has changed: at once, whatever the old code's workers died of."""
        self.version += 1
        self.restarts = Restarts(on_trial=self.restarts.on_trial)

    def start_failed(self, *, at: float) -> None:
        """The system gave no process for a worker: as if one had died before it was ready."""
        self.restarts = after_death(self.restarts, at=at, started=at, was_ready=False)

    def next_start(self, *, at: float) -> str:
        """When the next worker is started, in words: what follows a death."""
        serving = [m.phase for m in self.members(at=at) if m.phase in (Phase.STARTING, Phase.READY) and not m.outdated]
        if len(serving) >= self.wanted:
            return "as many as are wanted are left"
        if self.restarts.on_trial and Phase.STARTING in serving:
            return "the next one starts once one is ready"
        pause = self.restarts.not_before - at
        return f"another one in {max(1, round(pause))} s" if pause > 0 else "another one starts now"

    def hung(self, *, at: float) -> list[Worker]:
        """Workers that are in the way: they are not heard any more, jobs wait, and no other may be started."""
        most = self.run.policy.max_replicas
        if self.look is None or self.look.load.paused or not self.look.load.backlog or len(self.workers) < most:
            return []
        return self._silent(at, for_s=HUNG_S)

    def _silent(self, at: float, *, for_s: float) -> list[Worker]:
        if self.look is None or self.looked_from is None or at - self.looked_from < for_s:
            return []
        ready = (worker for worker in self.workers.values() if worker.phase is Phase.READY)
        return [worker for worker in ready if at - worker.heard >= for_s]

    def is_idle(self) -> bool:
        """No worker, and as far as is known no job that could start: only a new job changes that."""
        return not self.workers and self.look is not None and not self.look.load.jobs and not self.look.load.paused

    def row(self) -> Row:
        """The agent's line in the summary."""
        phases = [worker.phase for worker in self.workers.values()]
        row = Row(
            agent=self.run.name,
            ready=phases.count(Phase.READY),
            starting=phases.count(Phase.STARTING),
            draining=phases.count(Phase.DRAINING) + phases.count(Phase.ENDING),
            wanted=self.wanted,
            note=self.note,
        )
        if self.look is None:
            return row
        load = self.look.load
        return replace(
            row,
            waiting=load.ready,
            delayed=self.look.delayed,
            active=load.active + load.stalled,
            done=self.look.done - (self.done_before or 0),
            dead=self.look.dead,
            rate_per_s=self._rate(),
            note="paused" if load.paused else self.note,
        )

    def _member(self, worker: Worker, at: float) -> Member:
        report = worker.report
        return Member(
            name=worker.name,
            phase=worker.phase,
            busy=report.busy if report else 0,
            idle_s=at - worker.idle_since,
            drained=worker.drained,
            outdated=worker.version != self.version or worker.run.environment != self.run.environment,
        )

    def _pods(self, at: float) -> Pods:
        """Workers that may not start, since others have just died, are as good as unschedulable: no more are wished."""
        phases = [worker.phase for worker in self.workers.values()]
        ready, starting = phases.count(Phase.READY), phases.count(Phase.STARTING)
        silent = len(self._silent(at, for_s=SILENT_S))
        held_back = at < self.restarts.not_before or self.restarts.on_trial
        missing = max(0, self.wanted - ready - starting) if held_back else 0
        return Pods(ready=ready - silent, starting=starting, silent=silent, unschedulable=missing)

    def _count(self, done: int, at: float) -> None:
        if self.done_before is None or done < self.done_before:  # the server forgot, or is another one
            self.done_before, self.done_marks = done, []
        kept = [mark for mark in self.done_marks if mark[0] > at - RATE_S]
        self.done_marks = [*kept, (at, done)]

    def _rate(self) -> float:
        (first, before), (last, now) = self.done_marks[0], self.done_marks[-1]
        return (now - before) / (last - first) if last > first else 0.0


def _hear(worker: Worker, look: Look, at: float) -> None:
    worker.report = look.reports.get(worker.name, worker.report)
    worker.heard = at if worker.name in look.reports else worker.heard
    worker.marked = worker.name in look.marked
    begun = worker.report is not None
    idle = worker.name not in look.reports or look.reports[worker.name].busy == 0
    worker.drained = worker.marked and idle and (look.confirms(worker.name) or not begun)
    if worker.report and worker.report.busy:
        worker.idle_since = at


def queues_of(agents: Iterable[Agent]) -> list[str]:
    """Their queues."""
    return [agent.run.queue for agent in agents]
