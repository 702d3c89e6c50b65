"""The engine against a plain Python model, by a Hypothesis state machine (rules 1, 2, 3 and 6 of the design)."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

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
from agentqueue.keys import Level
from agentqueue.model.job import JobRecord, State, encode_job
from agentqueue.model.new_job import NewJob
from agentqueue.model.outcomes import (
    ENDED_ALONE,
    RUNS_ALONE,
    SUSPECT_FIELD,
    Cancelled,
    Completed,
    DeadLettered,
    Outcome,
    Released,
    Rescheduled,
    Unstarted,
)
from agentqueue.store import Engine, EngineSettings, Server, ServerOptions, Store
from tests.support.model_size import model_settings
from tests.support.replies import plain
from tests.support.servers import RunningServer
from tests.support.travel import attend, travel

QUEUE = "q"
UNIT = 1000
"""Seconds of every delay and journey: far more than a run takes, so real time does not count."""
SETTINGS = EngineSettings(lease_ms=UNIT * 1000 // 2, history_count=10_000)
WORKERS = ("alpha", "beta")
T = TypeVar("T")


@dataclass
class Job:
    """What the model knows of a job."""

    level: Level
    state: State
    due: int
    """In units from the start, for delayed jobs."""
    owner: str | None = None
    lease: int = 0
    """The unit in which the lease runs out."""
    attempts: int = 0
    crashes: int = 0
    handbacks: int = 0
    suspect: bool = False
    """A worker that held it has crashed, and it has not ended since."""
    started: bool = False
    """While it is held: it was claimed for a free slot, or as the suspect that runs alone."""


@dataclass
class Held:
    """A claim that a worker believes it has."""

    id: str
    owner: str
    level: Level
    suspect: bool = False
    replaced: bool = field(default=False)


class EngineMachine(RuleBasedStateMachine):
    """Rules do the same to the server and to the model; invariants compare the two."""

    server_: RunningServer

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.jobs: dict[str, Job] = {}
        self.claims: list[Held] = []
        self.now = 0
        self.order: dict[str, float] = {}
        self.serial = 0
        self.seq = 0
        self.paused = False
        self.last_call: tuple[dict[str, Any], list[str], list[str]] | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize()
    def connect(self) -> None:
        self.redis = self.server_.client()
        self.redis.flushall()
        self.link = Server(ServerOptions(self.server_.url))
        self.store, self.engine = Store(self.link), Engine(self.link, QUEUE, SETTINGS)

    def teardown(self) -> None:
        if hasattr(self, "link"):
            self.run(self.link.close())
            self.redis.close()
        self.loop.close()

    # What producers do

    @rule(level=st.sampled_from(Level), delay=st.sampled_from((0, 0, 1, 2)), known=st.booleans(), data=st.data())
    def enqueue(self, level: Level, delay: int, known: bool, data: st.DataObject) -> None:
        if known and self.jobs:
            job_id = data.draw(st.sampled_from(sorted(self.jobs)))
        else:
            self.serial += 1
            job_id = f"job-{self.serial}"
        job = NewJob(QUEUE, job_id, encode_job(JobRecord("noop", queue=QUEUE)), level, delay * UNIT * 1000)
        duplicates = self.run(self.store.enqueue([job]))
        # A result is kept an hour here, of every final state: so every known id is a duplicate.
        assert duplicates == ({job_id} if job_id in self.jobs else set())
        if not duplicates:
            self.jobs[job_id] = Job(level, State.DELAYED if delay else State.WAITING, self.now + delay)

    @rule(data=st.data())
    @precondition(lambda self: self.jobs)
    def cancel(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.jobs)))
        job = self.jobs[job_id]
        answer = self.run(self.store.cancel(QUEUE, job_id, result=b"{}", keep_ms=3_600_000))
        if job.state in (State.WAITING, State.DELAYED):
            assert answer == "cancelled"
            job.state = State.CANCELLED
        else:
            assert answer == ("asked" if job.state is State.ACTIVE else "final")
            # The request itself is covered elsewhere; here it would only make every later claim a cancellation.
            self.redis.delete(keys.ABORT)

    @rule()
    def pause_or_resume(self) -> None:
        changed = self.run(self.store.resume(QUEUE) if self.paused else self.store.pause(QUEUE, "by the model"))
        assert changed
        self.paused = not self.paused

    @rule(data=st.data())
    @precondition(lambda self: self.jobs)
    def replay(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.jobs)))
        job = self.jobs[job_id]
        (answer,) = self.run(self.store.replay(QUEUE, [job_id])).statuses
        assert answer == ("replayed" if job.state is State.DEAD else "unknown")
        if job.state is State.DEAD:
            self.jobs[job_id] = Job(job.level, State.WAITING, self.now)

    # What workers do

    @rule(
        worker=st.sampled_from(WORKERS),
        want=st.integers(0, 4),
        free=st.integers(0, 4),
        kinds=st.lists(st.sampled_from("DABCHU"), max_size=4),
        data=st.data(),
    )
    def round_trip(self, worker: str, want: int, free: int, kinds: list[str], data: st.DataObject) -> None:
        owner = f"{worker}/1"
        mine = [held for held in self.claims if held.owner == owner]
        ended = data.draw(st.lists(st.sampled_from(mine), unique_by=id, max_size=len(kinds))) if mine else []
        # A worker ends each of its jobs once; what it believes to hold may be lost by now.
        ended = list({held.id: held for held in ended}.values())
        outcomes = [make_outcome(kind, held) for kind, held in zip(kinds, ended, strict=False)]
        for held in ended[: len(outcomes)]:
            self.claims.remove(held)
        self.learn_order()
        self.seq += 1
        is_idle = free > 0 and not mine and data.draw(st.booleans())
        call: dict[str, Any] = {"seq": self.seq, "owner": owner, "want": want, "outcomes": outcomes}
        call |= {"free": free, "is_idle": is_idle}
        self.redis.delete(f"{QUEUE}:reaped")  # else an idle claim reaps too; `renew` shows reaping
        reply = self.run(self.engine.finish_and_claim(**call))
        lost = [outcome.id for outcome in outcomes if self.jobs[outcome.id].owner != owner]
        assert list(reply.lost) == lost
        for outcome in outcomes:
            if outcome.id not in lost:
                self.end(outcome)
        expected = [] if self.paused else self.expect_claim(self.ready()[:want], is_idle=is_idle)
        assert [claimed.id for claimed in reply.claimed] == expected
        for place, claimed in enumerate(reply.claimed):
            job = self.jobs[claimed.id]
            job.started = is_idle if job.suspect else place < free
            assert (claimed.level, claimed.attempts, claimed.is_suspect) == (job.level, job.attempts, job.suspect)
            assert claimed.delivery == job.attempts + job.crashes + job.handbacks + 1
            job.state, job.owner, job.lease = State.ACTIVE, owner, self.now + 1
            self.claims.append(Held(claimed.id, owner, claimed.level, claimed.is_suspect))
        # A round trip that did nothing is not remembered: sent again it may do something.
        self.last_call = (call, lost, expected) if outcomes or expected else None

    @rule()
    @precondition(lambda self: self.last_call is not None)
    def send_the_last_call_again(self) -> None:
        assert self.last_call is not None
        call, lost, claimed = self.last_call
        self.redis.delete(f"{QUEUE}:reaped")
        reply = self.run(self.engine.finish_and_claim(**call))
        assert list(reply.lost) == lost
        still_held = [job_id for job_id in claimed if self.jobs[job_id].owner == call["owner"]]
        assert [again.id for again in reply.claimed] == still_held

    @rule(data=st.data())
    @precondition(lambda self: any(held.suspect for held in self.claims))
    def a_suspect_that_waited_starts(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from([held for held in self.claims if held.suspect]))
        job, notes = self.jobs[held.id], {SUSPECT_FIELD: RUNS_ALONE}
        is_held = self.run(self.engine.annotate(owner=held.owner, job_id=held.id, notes=notes))
        assert is_held is (job.owner == held.owner)
        job.started = job.started or is_held

    @rule(worker=st.sampled_from(WORKERS))
    def renew(self, worker: str) -> None:
        owner = f"{worker}/1"
        mine = [held for held in self.claims if held.owner == owner]
        attend(self.redis, QUEUE)
        self.last_call = None
        reply = self.run(
            self.engine.renew(
                owner=owner, worker=worker, heartbeat=b"{}", held=[(held.id, held.level) for held in mine]
            )
        )
        assert list(reply.lost) == [held.id for held in mine if self.jobs[held.id].owner != owner]
        for held in mine:
            if self.jobs[held.id].owner == owner:
                self.jobs[held.id].lease = self.now + 1
        self.claims = [held for held in self.claims if held.id not in reply.lost or held.owner != owner]
        assert reply.reaped == self.reap()

    @rule(worker=st.sampled_from(WORKERS))
    def worker_dies(self, worker: str) -> None:
        given = self.run(self.engine.release_worker_leases(worker=worker, reason="OOMKilled"))
        held = [job for job in self.jobs.values() if job.owner == f"{worker}/1"]
        assert given == len(held)
        for job in held:
            crash(job)
        self.claims = [claim for claim in self.claims if claim.owner != f"{worker}/1"]
        self.last_call = None

    @rule()
    def time_passes(self) -> None:
        travel(self.redis, QUEUE, UNIT)
        self.now += 1
        self.last_call = None  # its answer would come late by 1,000 s

    @rule()
    def nobody_reaps_right_after_an_outage(self) -> None:
        self.redis.delete(f"{QUEUE}:reaped")
        reply = self.run(self.engine.renew(owner="gamma/1", worker="gamma", heartbeat=b"{}", held=[]))
        assert reply.reaped == 0

    # The model

    def learn_order(self) -> None:
        """Where each job that does not run stands, in a time that journeys leave alone; kept while it runs."""
        for level in Level:
            for job_id, score in plain(self.redis.zrange(keys.KeySpace(QUEUE).level(level), 0, -1, withscores=True)):
                if score >= 0:
                    self.order[job_id.decode()] = score + self.now * UNIT * 1000

    def ready(self) -> list[str]:
        for job in self.jobs.values():
            if job.state is State.DELAYED and job.due <= self.now:
                job.state = State.WAITING
        waiting = [job_id for job_id, job in self.jobs.items() if job.state is State.WAITING]
        return sorted(waiting, key=lambda job_id: (self.jobs[job_id].level, self.order[job_id]))

    def expect_claim(self, ready: list[str], *, is_idle: bool) -> list[str]:
        """Of the jobs that a claim finds, the one suspect that it takes, and those that it takes beside it."""
        suspects = [job_id for job_id in ready if self.jobs[job_id].suspect]
        others = [] if suspects and is_idle else [job_id for job_id in ready if not self.jobs[job_id].suspect]
        return others + suspects[:1]

    def end(self, outcome: Outcome) -> None:
        job = self.jobs[outcome.id]
        job.owner = None
        match outcome:
            case Completed():
                job.state = State.COMPLETED
            case Cancelled():
                job.state = State.CANCELLED
            case DeadLettered():
                job.state = State.DEAD
            case Rescheduled():
                job.state, job.due, job.attempts = State.DELAYED, self.now + 1, job.attempts + 1
                job.suspect = False
            case Unstarted():
                job.state = State.WAITING
            case Released(delay_ms=delay):
                job.handbacks += 1
                job.state = State.WAITING if delay is None else State.DELAYED
                job.due = job.due if delay is None else self.now + 1

    def reap(self) -> int:
        gone = [job for job in self.jobs.values() if job.state is State.ACTIVE and job.lease <= self.now]
        for job in gone:
            crash(job)
        return len(gone)

    @invariant()
    def every_job_is_in_exactly_one_state(self) -> None:
        if not hasattr(self, "store"):
            return
        self.learn_order()
        self.ready()
        for job_id, job in self.jobs.items():
            seen = self.run(self.store.inspect(QUEUE, job_id))
            note(f"{job_id}: {job} / {seen}")
            expected = State.COMPLETED if job.state is State.CANCELLED else job.state
            assert seen.state is expected
            assert (seen.record is not None) == (job.state in (State.WAITING, State.DELAYED, State.ACTIVE))
            assert (seen.held is not None) == (job.state is State.ACTIVE)

    @invariant()
    def only_crashes_of_started_jobs_are_counted(self) -> None:
        if hasattr(self, "store"):
            counted = [self.redis.hget(f"{keys.META}{job_id}", "crashes") for job_id in self.jobs]
            final = (State.COMPLETED, State.CANCELLED, State.DEAD)
            expected = [0 if job.state in final else job.crashes for job in self.jobs.values()]
            assert [int(plain(number) or 0) for number in counted] == expected

    @invariant()
    def final_jobs_leave_nothing_behind(self) -> None:
        if not hasattr(self, "store"):
            return
        final = [id_ for id_, job in self.jobs.items() if job.state in (State.COMPLETED, State.CANCELLED, State.DEAD)]
        names = [prefix + id_ for id_ in final for prefix in (keys.JOB, keys.IN_PROGRESS, keys.RETRY, keys.META)]
        assert not names or self.redis.exists(*names) == 0


def crash(job: Job) -> None:
    job.state, job.owner, job.suspect = State.WAITING, None, True
    job.crashes += job.started


def make_outcome(kind: str, held: Held) -> Outcome:
    hour = 3_600_000
    match kind:
        case "D":
            return Completed(held.id, held.level, b'{"s":true}', hour, 5)
        case "A":
            notes: dict[str, bytes | str | int] = {SUSPECT_FIELD: ENDED_ALONE} if held.suspect else {}
            return Rescheduled(held.id, held.level, UNIT * 1000, {"errors": b"[]", **notes})
        case "B":
            return DeadLettered(held.id, held.level, b'{"s":false}', hour, "f00", b'{"reason":"failed"}')
        case "C":
            return Cancelled(held.id, held.level, b'{"s":false}', hour)
        case "U":
            return Unstarted(held.id, held.level)
        case _:
            return Released(held.id, held.level, UNIT * 1000 if len(held.id) % 2 else None)


@pytest.mark.timeout(7_200)
def test_the_engine_does_what_the_model_does(shared_server: RunningServer) -> None:
    class Machine(EngineMachine):
        server_ = shared_server

    run_state_machine_as_test(
        Machine,
        settings=model_settings(60, steps=40),
    )
