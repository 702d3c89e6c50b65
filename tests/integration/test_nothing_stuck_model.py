"""Whatever dies, pauses, fails over or spoils notes: no job stands still, and none is taken from a worker that lives.

A Hypothesis state machine over a real server. Seconds pass by making all that is stored older, so that what must be
done "within 10 s" is judged exactly, on a loaded machine too.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import orjson
import pytest
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agentqueue import keys
from agentqueue.clock import monotonic
from agentqueue.keys import KeySpace, Level
from agentqueue.model.job import JobRecord, encode_job
from agentqueue.model.new_job import NewJob
from agentqueue.model.outcomes import Released, Rescheduled
from agentqueue.store import Engine, Server, ServerOptions, Store
from agentqueue.store.engine import HOUSEKEEPING_INTERVAL_S
from agentqueue_operator.controller.scaling.scaler import QueueScaler
from agentqueue_operator.controller.scaling.worker_pods import template_of
from agentqueue_operator.queues.ports import Retention
from agentqueue_operator.queues.reader import QueueReader
from tests.support.model_size import model_settings
from tests.support.replies import plain
from tests.support.scaling import FakeCluster, queue_of
from tests.support.servers import RunningServer
from tests.support.travel import grow_old

QUEUE = "work"
BOUND = 10.0
"""Seconds from the end of a lease, or of an outage, until its job is ready again."""
LEASE = 8.0
T = TypeVar("T")


class NothingStuckMachine(RuleBasedStateMachine):
    """Jobs, workers that live or die, one or two housekeepers, and what others spoil."""

    server_: RunningServer

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.serial = 0
        self.seq = 0
        self.open: set[str] = set()
        """Jobs that have not ended."""
        self.living: dict[str, list[tuple[str, Level]]] = {}
        """Owners that renew, and what they hold."""
        self.visited = 0.0
        """For how long somebody has looked after the queue without a break."""
        self.run_out: dict[str, float] = {}
        """Active jobs -> for how long their lease has been over, while somebody looked after the queue."""
        self.paused = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize()
    def connect(self) -> None:
        self.redis = self.server_.client()
        self.redis.flushall()
        self.link = Server(ServerOptions(self.server_.url))
        self.store, self.engine, self.reader = Store(self.link), Engine(self.link, QUEUE), QueueReader(self.link)

    def teardown(self) -> None:
        try:
            if hasattr(self, "link"):
                self.everything_ends()
        finally:
            if hasattr(self, "link"):
                self.run(self.link.close())
                self.redis.close()
            self.loop.close()

    # Jobs

    @rule(level=st.sampled_from(Level), delay=st.sampled_from((0, 0, 0, 5, 40)))
    def enqueue(self, level: Level, delay: int) -> None:
        self.serial += 1
        job_id = f"job-{self.serial}"
        self.run(
            self.store.enqueue([NewJob(QUEUE, job_id, encode_job(JobRecord("j", queue=QUEUE)), level, delay * 1000)])
        )
        self.open.add(job_id)

    @rule()
    def pause_or_resume(self) -> None:
        self.run(self.store.resume(QUEUE) if self.paused else self.store.pause(QUEUE, "by the model"))
        self.paused = not self.paused

    @rule(data=st.data(), by_arq=st.booleans())
    @precondition(lambda self: self.open)
    def cancel(self, data: st.DataObject, by_arq: bool) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.open)))
        if by_arq:
            self.redis.zadd(keys.ABORT, {job_id: 1})
        elif self.run(self.store.cancel(QUEUE, job_id, result=b"{}", keep_ms=60_000)) == "cancelled":
            self.open.discard(job_id)

    # Workers

    @rule(want=st.integers(1, 3), dies=st.booleans(), heard=st.booleans(), marked=st.booleans())
    def worker_claims(self, want: int, dies: bool, heard: bool, marked: bool) -> None:
        owner, jobs = self.claim(want)
        if heard or not dies:
            self.renew(owner, jobs)
        if marked:
            self.run(self.store.request_drain(QUEUE, owner.partition("/")[0], at_ms=1))
        if not dies:
            self.living[owner] = jobs

    @rule(data=st.data())
    @precondition(lambda self: self.living)
    def worker_dies(self, data: st.DataObject) -> None:
        del self.living[data.draw(st.sampled_from(sorted(self.living)))]

    @rule(data=st.data(), delay=st.sampled_from((None, 0, 30_000)), fails=st.booleans())
    @precondition(lambda self: any(self.living.values()))
    def worker_gives_up_its_jobs_and_goes(self, data: st.DataObject, delay: int | None, fails: bool) -> None:
        """Attempts fail, or are handed back; then it dies, and nobody is there when they come due."""
        owner = data.draw(st.sampled_from(sorted(owner for owner, jobs in self.living.items() if jobs)))
        ends = [
            Rescheduled(job_id, level, delay or 0, {"errors": b"[]"}) if fails else Released(job_id, level, delay)
            for job_id, level in self.living.pop(owner)
        ]
        self.seq += 1
        assert not self.run(self.engine.finish_and_claim(seq=self.seq, owner=owner, want=0, outcomes=ends)).lost

    def claim(self, want: int) -> tuple[str, list[tuple[str, Level]]]:
        self.serial += 1
        self.seq += 1
        owner = f"w{self.serial}/1"
        reply = self.run(self.engine.finish_and_claim(seq=self.seq, owner=owner, want=want))
        return owner, [(job.id, job.level) for job in reply.claimed]

    def renew(self, owner: str, jobs: list[tuple[str, Level]]) -> None:
        beat = orjson.dumps({"busy": len(jobs), "slots": 3, "draining": False})
        reply = self.run(self.engine.renew(owner=owner, worker=owner.partition("/")[0], heartbeat=beat, held=jobs))
        assert list(reply.lost) == [], "a job was taken from a worker that lives"

    # What others do

    @rule(
        key=st.sampled_from(("reaped", "sweep")), value=st.sampled_from(("garbage", "1|", "9|0", "1|garbage", "-5|x"))
    )
    def notes_are_spoilt(self, key: str, value: str) -> None:
        self.redis.set(f"{QUEUE}:{key}", value)
        self.visited = 0.0 if key == "reaped" else self.visited  # as after an outage

    @rule(row=st.sampled_from((b"garbage", b"\xff", b"99999999999999999|{}", b"1|garbage")))
    def a_heartbeat_is_spoilt(self, row: bytes) -> None:
        self.redis.hset(f"{QUEUE}:workers", mapping={"theirs": row})

    @rule(data=st.data())
    @precondition(lambda self: self.active())
    def who_holds_a_job_is_spoilt(self, data: st.DataObject) -> None:
        job_id = (
            data.draw(st.sampled_from(sorted(self.active() - self.held()))) if self.active() - self.held() else None
        )
        if job_id is not None:
            self.redis.set(keys.IN_PROGRESS + job_id, "garbage")

    # Time

    @rule(seconds=st.sampled_from((2, 4, 12, 30)), housekeepers=st.sampled_from((1, 1, 2)))
    def time_passes(self, seconds: int, housekeepers: int) -> None:
        """Housekeepers come every 2 s, living workers renew as often."""
        for _ in range(seconds // int(HOUSEKEEPING_INTERVAL_S)):
            grow_old(self.redis, QUEUE, HOUSEKEEPING_INTERVAL_S)
            for owner, jobs in self.living.items():
                self.renew(owner, jobs)
            for _ in range(housekeepers):
                self.run(self.reader.run_housekeeping({QUEUE: Retention()}))
            self.visited += HOUSEKEEPING_INTERVAL_S
            self.note_run_out(HOUSEKEEPING_INTERVAL_S)

    @rule(seconds=st.sampled_from((3, 5, 9, 60)), workers_first=st.booleans())
    def nobody_reaches_the_server(self, seconds: int, workers_first: bool) -> None:
        """An outage, or a failover: the housekeeper may be the first that is back."""
        grow_old(self.redis, QUEUE, seconds)
        if not workers_first:
            self.run(self.reader.run_housekeeping({QUEUE: Retention()}))
        for owner, jobs in self.living.items():
            self.renew(owner, jobs)
        self.visited = 0.0
        self.run_out = {}

    # What must hold

    def active(self) -> set[str]:
        rows = (plain(self.redis.zrangebyscore(key, "-inf", "(0")) for key in KeySpace(QUEUE).levels)
        return {job_id.decode() for found in rows for job_id in found}

    def held(self) -> set[str]:
        return {job_id for jobs in self.living.values() for job_id, _ in jobs}

    def note_run_out(self, seconds: float) -> None:
        self.run_out = {job_id: self.run_out.get(job_id, 0.0) + seconds for job_id in self.active() - self.held()}

    @invariant()
    def whose_worker_is_gone_is_ready_again_within_the_bound(self) -> None:
        for job_id, seconds in self.run_out.items():
            note(f"{job_id}: nobody's for {seconds} s, looked after for {self.visited} s")
            assert seconds <= LEASE + BOUND

    @invariant()
    def the_scaler_sees_each_job_once(self) -> None:
        if not hasattr(self, "store"):
            return
        look = self.run(self.reader.read({QUEUE: 0.0}))[QUEUE]
        assert look.load.ready + look.load.active + look.load.stalled + look.delayed == len(self.open)

    def everything_ends(self) -> None:
        """All workers die, the queue is resumed, time passes: a scaler at zero wants pods, and workers get all."""
        self.living, self.run_out = {}, {}
        self.run(self.store.resume(QUEUE))
        for _ in range(3):
            self.time_passes(30, 1)
        assert not self.active()
        cluster = FakeCluster(0)
        self.run(self.reader.keep_template(QUEUE, template_of(cluster.deployment), ""))  # it registers nothing
        scaler = QueueScaler(cluster)
        scaling = scaler.scale(queue_of(), cluster.agents, queues=self.reader, at=monotonic())
        assert bool(self.run(scaling)["work"].replicas) == bool(self.open)
        started = set[str]()
        while len(started) < len(self.open):  # a job that was in a crash comes alone
            _, jobs = self.claim(1_000)
            assert jobs
            assert started.isdisjoint(job_id for job_id, _ in jobs)
            started |= {job_id for job_id, _ in jobs}
        assert started == self.open


@pytest.mark.timeout(7_200)
def test_nothing_is_stuck_whatever_happens(shared_server: RunningServer) -> None:
    class Machine(NothingStuckMachine):
        server_ = shared_server

    run_state_machine_as_test(
        Machine,
        settings=model_settings(40, steps=30),
    )
