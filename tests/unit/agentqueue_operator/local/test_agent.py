"""Tests of the state of an agent's workers in `agentqueue up`, and of the lines printed when they die."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agentqueue.errors import QueueUnavailable
from agentqueue.model.schedule import Schedule
from agentqueue.model.template import KeptTemplate, TemplateState
from agentqueue_operator.autoscaling.model import Load, ScalingPolicy
from agentqueue_operator.autoscaling.queue_metrics import QueueMetrics, WorkerHeartbeat
from agentqueue_operator.local.agent import LocalAgent, WorkerProcess
from agentqueue_operator.local.ports import AgentRun, Exit, Row
from agentqueue_operator.local.supervisor import SCHEDULES_S, LocalSupervisor
from agentqueue_operator.queues.ports import HousekeepingResult, Retention, WorkerCrash

RUN = AgentRun(name="work", queue="work", policy=ScalingPolicy(min_replicas=3, max_replicas=3))
METRICS: dict[str, Any] = {"marked": {}, "delayed": 0, "done": 0, "dead": 0, "arrived": 0, "run_ms": 0}


def agent(*, ready: int = 0, starting: int = 0, wanted: int = 3) -> LocalAgent:
    """Return an agent whose workers were started at 90 and became ready at 92."""
    names = [f"work-{number}" for number in range(ready + starting)]
    workers = {
        name: WorkerProcess(name, RUN, 0, 90.0, ready=92.0 if number < ready else None)
        for number, name in enumerate(names)
    }
    return LocalAgent(RUN, wanted=wanted, workers=workers)


def lose(agent: LocalAgent, *names: str, at: float = 100.0) -> str:
    for name in names:
        agent.worker_died(agent.workers.pop(name), at=at)
    return agent.next_start(at=at)


@pytest.mark.parametrize(
    ("before", "lost", "printed"),
    [
        pytest.param(agent(ready=3), ["work-0"], "another one starts now", id="one"),
        pytest.param(agent(ready=3), ["work-0", "work-1", "work-2"], "another one starts now", id="all-at-once"),
        pytest.param(agent(starting=3), ["work-0", "work-1", "work-2"], "another one in 1 s", id="none-got-ready"),
        pytest.param(agent(starting=3), ["work-0"], "the next one starts once one is ready", id="others-still-start"),
        pytest.param(agent(ready=3, wanted=2), ["work-0"], "no replacement is needed", id="not-missed"),
    ],
)
def test_a_death_is_reported_with_the_time_when_the_next_worker_starts(
    before: LocalAgent, lost: Sequence[str], printed: str
) -> None:
    assert lose(before, *lost) == printed


def test_a_pause_is_printed_in_whole_seconds_and_never_as_zero() -> None:
    shop = agent(starting=3)
    lose(shop, *shop.workers)
    assert shop.next_start(at=100.7) == "another one in 1 s"
    assert shop.next_start(at=101.0) == "another one starts now"


class FakeMachine:
    """Fake queues, processes and screen, with a clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.running: list[str] = []
        self.gone: list[Exit] = []
        self.printed: list[str] = []
        self.rows: list[Row] = []
        self.started = 0
        self.refuses: OSError | None = None
        self.silent = False
        self.load = Load()
        self.done = 0
        self.schedules: dict[str, Sequence[Schedule]] = {}
        self.marks: dict[str, int] = {}

    async def read(self, horizons_s: Mapping[str, float]) -> dict[str, QueueMetrics]:
        heard = () if self.silent else self.running
        heartbeats = {
            name: WorkerHeartbeat(busy=0, slots=5, draining=name in self.marks, mark=self.marks.get(name, 0))
            for name in heard
        }
        seen = METRICS | {"done": self.done, "marked": dict(self.marks)}
        return {queue: QueueMetrics(load=self.load, heartbeats=heartbeats, **seen) for queue in horizons_s}

    async def mark(self, queue: str, worker: str, *, drain: bool, keep_s: float | None = None) -> None:
        self.marks = {name: at for name, at in self.marks.items() if name != worker} | ({worker: 1} if drain else {})

    async def keep_marks(self, queue: str, keep_s: float | None) -> None: ...

    async def release_leases_of_worker(self, queue: str, worker: str, why: str) -> int:
        return 0

    async def release_leases_of_container(self, queue: str, crash: WorkerCrash) -> int:
        return 0

    async def publish(self, decisions: Mapping[str, bytes]) -> Mapping[str, bytes | None]:
        return dict.fromkeys(decisions)

    async def run_housekeeping(self, retentions: Mapping[str, Retention]) -> HousekeepingResult:
        return HousekeepingResult()

    async def read_templates(self, templates: Mapping[str, str]) -> Mapping[str, TemplateState]:
        raise NotImplementedError

    async def keep_template(self, queue: str, template: str, fingerprint: str) -> KeptTemplate | None:
        raise NotImplementedError

    async def restore_registration(self, queue: str, fingerprint: str) -> bool:
        raise NotImplementedError

    async def put_schedules(self, queue: str, schedules: Sequence[Schedule]) -> None:
        self.schedules[queue] = schedules

    async def wait_for_jobs(self, queues: Sequence[str], timeout_s: float) -> bool:
        return False

    async def start(self, run: AgentRun) -> str:
        if self.refuses is not None:
            raise self.refuses
        self.now += 0.01
        self.started += 1
        self.running.append(name := f"{run.name}-{self.started}")
        return name

    def stop(self, worker: str) -> None:
        self.done += 1  # what it still ran
        self.kill(worker, 0)

    def kill(self, worker: str, code: int = -9) -> None:
        self.running.remove(worker)
        self.gone.append(Exit(worker, code, ("worker_started",)))

    def exits(self) -> list[Exit]:
        gone, self.gone = self.gone, []
        return gone

    def print_line(self, source: str, text: str, *, error: bool = False) -> None:
        del source, error
        self.printed.append(text)

    def show(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)


async def test_all_workers_killed_at_once_are_replaced_in_the_next_turn() -> None:
    machine = FakeMachine()
    up = LocalSupervisor([LocalAgent(RUN)], machine, machine, machine, clock=lambda: machine.now, wake=asyncio.Event())
    await up._run_once()
    machine.now += 2.0
    await up._run_once()
    assert machine.rows[0].ready == 3
    for name in list(machine.running):
        machine.kill(name)
    machine.now += 1.0
    await up._run_once()
    assert len(machine.running) == 3
    assert [text for text in machine.printed if "killed" in text] == [
        "was killed by signal 9 (another one starts now); its last line: worker_started"
    ] * 3


async def test_a_worker_that_ends_by_itself_is_reported_with_its_exit_code() -> None:
    machine = FakeMachine()
    up = LocalSupervisor([LocalAgent(RUN)], machine, machine, machine, clock=lambda: machine.now, wake=asyncio.Event())
    await up._run_once()
    for name in list(machine.running):
        machine.kill(name, code=7)
    machine.now += 1.0
    await up._run_once()
    assert machine.printed[-3:] == ["ended with 7 (another one in 1 s); its last line: worker_started"] * 3
    assert machine.running == []


async def test_a_system_that_gives_no_process_is_reported_and_retried_with_backoff() -> None:
    machine = FakeMachine()
    up = LocalSupervisor([LocalAgent(RUN)], machine, machine, machine, clock=lambda: machine.now, wake=asyncio.Event())
    machine.refuses = FileNotFoundError(2, "No such file or directory", "/code")
    tries = []
    for _ in range(40):
        printed = len(machine.printed)
        await up._run_once()
        tries += [machine.now - 100.0] * any("cannot start a worker" in text for text in machine.printed[printed:])
        machine.now += 0.5
    assert tries == [0, 1, 3, 7, 15]
    assert "cannot start a worker (No such file or directory: /code): another one in 1 s" in machine.printed
    machine.refuses = None
    machine.now += 30.0
    await up._run_once()
    assert len(machine.running) == 1, "on trial"
    await up._run_once()
    await up._run_once()
    assert machine.rows[0].ready == len(machine.running) == 3


async def test_the_last_table_has_what_was_done_in_the_drain() -> None:
    machine = FakeMachine()
    up = LocalSupervisor(
        [LocalAgent(RUN)], machine, machine, machine, clock=lambda: machine.now, wake=(wake := asyncio.Event())
    )
    await up._run_once()
    wake.set()
    await up._drain(asyncio.Event())
    assert (machine.running, up.agents[0].row().done) == ([], 3)


async def test_a_server_that_dies_in_the_drain_is_brought_back_for_what_still_runs() -> None:
    machine, revived = FakeMachine(), []
    up = LocalSupervisor(
        [LocalAgent(RUN)],
        machine,
        machine,
        machine,
        clock=lambda: machine.now,
        wake=(wake := asyncio.Event()),
        revive=lambda: revived.append(len(machine.running) + len(machine.gone)),
    )
    await up._run_once()
    revived.clear()
    wake.set()
    await up._drain(asyncio.Event())
    assert revived == [3]


async def test_mended_code_starts_at_once_whatever_the_old_code_died_of() -> None:
    machine, changed = FakeMachine(), [False]
    up = LocalSupervisor(
        [LocalAgent(RUN)],
        machine,
        machine,
        machine,
        clock=lambda: machine.now,
        wake=asyncio.Event(),
        code_has_changed=lambda: changed[0],
    )
    for _ in range(20):  # each worker dies before it is ready, as of a SyntaxError
        await up._run_once()
        for name in list(machine.running):
            machine.kill(name, 1)
        machine.now += 0.5
    await up._run_once()
    assert up.agents[0].restarts.not_before > machine.now + 2
    before, changed[0] = machine.started, True
    await up._run_once()
    assert machine.started > before
    changed[0] = False


def test_a_death_of_older_code_does_not_delay_the_present_one() -> None:
    shop = agent(starting=3)
    shop.replace_code()
    assert lose(shop, *shop.workers) == "another one starts now"


def seen(*names: str, **load: Any) -> QueueMetrics:
    """Return metrics with live heartbeats of these workers."""
    heartbeats = {name: WorkerHeartbeat(busy=1, slots=1, draining=False) for name in names}
    return QueueMetrics(load=Load(**load), heartbeats=heartbeats, **METRICS)


def hanging(*, most: int) -> LocalAgent:
    """Return an agent whose only worker sent its last heartbeat at 100 and holds a job."""
    run = AgentRun(name="work", queue="work", policy=ScalingPolicy(max_replicas=most, concurrency=1))
    found = LocalAgent(run, workers={"work-0": WorkerProcess("work-0", run, 0, 90.0)}, wanted=1)
    found.observe(seen("work-0", active=1), at=100.0)
    found.decide(at=100.0)
    return found


def test_beside_a_worker_that_is_not_heard_any_more_another_is_started() -> None:
    shop = hanging(most=2)
    shop.observe(seen(stalled=1), at=108.0)
    shop.decide(at=108.0)
    assert shop.wanted == 2
    shop.observe(seen(ready=1), at=200.0)
    shop.workers["work-1"] = WorkerProcess("work-1", shop.run, 0, 108.0)
    assert shop.hung(at=200.0) != []
    shop.observe(seen("work-0", "work-1", ready=1), at=200.5)
    assert shop.hung(at=200.5) == []


def test_after_an_outage_workers_have_time_to_be_heard_again() -> None:
    shop = hanging(most=2)
    shop.observe(None, at=130.0)
    assert shop.hung(at=130.0) == []
    shop.observe(seen(stalled=1), at=131.0)
    shop.decide(at=131.0)
    assert shop.wanted == 1
    shop.observe(seen(stalled=1), at=135.0)
    shop.decide(at=135.0)
    assert shop.wanted == 2


async def test_a_worker_that_hangs_in_the_way_of_jobs_is_killed() -> None:
    machine = FakeMachine()
    run = AgentRun(name="work", queue="work", policy=ScalingPolicy(max_replicas=1, min_replicas=1))
    up = LocalSupervisor([LocalAgent(run)], machine, machine, machine, clock=lambda: machine.now, wake=asyncio.Event())
    await up._run_once()
    await up._run_once()
    machine.silent = True
    for _ in range(70):
        machine.now += 0.5
        await up._run_once()
        assert machine.printed[-1] != "has not renewed its leases for 30 s: killed, because jobs wait", "no job waits"
    machine.load = Load(ready=1)
    await up._run_once()
    assert "has not renewed its leases for 30 s: killed, because jobs wait" in machine.printed
    machine.silent = False
    await up._run_once()
    assert len(machine.running) == 1
    assert machine.running != ["work-1"]


IDLE_RUN = AgentRun(name="work", queue="work", policy=ScalingPolicy(scale_to_zero_after=timedelta(seconds=5)))


async def test_each_agent_starts_once_registers_and_ends_and_again_when_its_code_changes() -> None:
    machine, changes = FakeMachine(), [False]
    idle = LocalAgent(IDLE_RUN)
    up = LocalSupervisor(
        [idle],
        machine,
        machine,
        machine,
        clock=lambda: machine.now,
        wake=asyncio.Event(),
        code_has_changed=lambda: changes.pop() if changes else False,
    )
    machine.silent = True
    for _ in range(3):
        await up._run_once()
    assert (machine.started, idle.wanted) == (1, 1)
    assert "scaled to 1 (Registering)" in machine.printed
    machine.silent = False
    await until_zero(up, machine)
    assert machine.started == 1
    changes.append(True)
    await up._run_once()
    assert (machine.started, idle.wanted) == (2, 1)
    await until_zero(up, machine)
    assert machine.started == 2


async def until_zero(up: LocalSupervisor, machine: FakeMachine) -> None:
    """Let the time pass until no worker runs. A worker confirms its drain mark at once."""
    for _ in range(200):
        machine.now += 1.0
        await up._run_once()
        if not machine.running:
            return
    raise AssertionError("a worker still runs")


async def test_code_that_cannot_be_imported_is_tried_again_with_growing_pauses() -> None:
    machine = FakeMachine()
    machine.silent = True
    up = LocalSupervisor(
        [LocalAgent(IDLE_RUN)], machine, machine, machine, clock=lambda: machine.now, wake=asyncio.Event()
    )
    for _ in range(240):
        await up._run_once()
        for name in list(machine.running):
            machine.kill(name, code=1)
        machine.now += 0.5
    assert "ended with 1 (another one in 1 s); its last line: worker_started" in machine.printed
    assert 5 <= machine.started <= 9  # after 1, 2, 4, 8, 16, 30, 30 s


async def test_schedules_are_written_at_the_start_and_compared_every_few_seconds() -> None:
    machine = FakeMachine()
    nightly = Schedule("nightly", cron="0 3 * * *", job="report")
    runs = [replace(IDLE_RUN, schedules=(nightly,)), replace(IDLE_RUN, name="other", queue="other")]
    up = LocalSupervisor(
        [*map(LocalAgent, runs)],
        machine,
        machine,
        machine,
        clock=lambda: machine.now,
        wake=asyncio.Event(),
        left=["gone"],
    )
    await up._run_once()
    assert machine.schedules == {"gone": (), "work": (nightly,), "other": ()}
    machine.schedules.clear()
    await up._run_once()
    assert machine.schedules == {}
    machine.now += SCHEDULES_S
    await up._run_once()
    assert machine.schedules == {"work": (nightly,)}


async def test_schedules_that_redis_does_not_take_are_reported_once_and_written_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = FakeMachine()
    up = LocalSupervisor(
        [LocalAgent(IDLE_RUN)], machine, machine, machine, clock=lambda: machine.now, wake=asyncio.Event()
    )

    async def put(*_: Any) -> None:
        raise QueueUnavailable("Redis is full")

    monkeypatch.setattr(machine, "put_schedules", put)
    for _ in range(3):
        await up._run_once()
        machine.now += SCHEDULES_S
    assert machine.printed.count("the schedules of the file are not written: Redis is full") == 1
    monkeypatch.undo()
    await up._run_once()
    assert machine.schedules == {"work": ()}
