"""Signals, waits, timers, cancels and kills against a plain model: none is lost, and none is taken twice."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import orjson
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agentqueue.keys import Level
from agentqueue.model.job import JobRecord, State, encode_job
from agentqueue.model.new_job import NewJob
from agentqueue.model.outcomes import Cancelled, Completed, Outcome, Released, Suspended
from agentqueue.model.suspension import Answer, decode_wait
from agentqueue.store import Engine, Server, ServerOptions, Store
from agentqueue.store.signals import Wait, ask_waits, send_signal
from agentqueue.store.time_travel import advance_time
from tests.support.model_size import model_settings
from tests.support.replies import plain
from tests.support.servers import RunningServer

OWNER, HOUR_MS = "w/1", 3_600_000
KEEP_MS = 10_000 * HOUR_MS
"""Retention of results, longer than any run of the model."""
T = TypeVar("T")


class Plan:
    """What the model knows of one job, whose handler takes signals one after the other in every run."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        """Numbers of its signals in the order in which they were sent."""
        self.taken: list[int | None] = []
        """What its waits have returned, None for those that timed out."""
        self.held = False
        self.asked_to_cancel = False
        self.final = False


class SignalMachine(RuleBasedStateMachine):
    """Each wait has a timeout of an hour. Time passes by two hours, so real time does not count."""

    server_: RunningServer

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.jobs: dict[str, Plan] = {}
        self.seq = self.number = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize()
    def connect(self) -> None:
        self.redis = self.server_.client()
        self.redis.flushall()
        self.link = Server(ServerOptions(self.server_.url))
        self.store, self.engine = Store(self.link), Engine(self.link, "q")

    def teardown(self) -> None:
        if hasattr(self, "link"):
            self.run(self.link.close())
            self.redis.close()
        self.loop.close()

    def pick(self, data: st.DataObject, *, held: bool | None = None) -> str:
        names = [name for name, job in self.jobs.items() if held is None or job.held is held]
        return data.draw(st.sampled_from(sorted(names)))

    def trip(self, *outcomes: Outcome, want: int = 0, twice: bool = False) -> None:
        self.seq += 1
        for _ in range(1 + twice):
            reply = self.run(self.engine.finish_and_claim(seq=self.seq, owner=OWNER, want=want, outcomes=outcomes))
            assert reply.lost == []
        for claimed in reply.claimed:
            job = self.jobs[claimed.id]
            assert not job.held
            assert not job.final
            assert claimed.cancel == job.asked_to_cancel
            job.held = True

    @rule()
    @precondition(lambda self: len(self.jobs) < 3)
    def enqueue(self) -> None:
        name = f"job-{len(self.jobs)}"
        self.run(self.store.enqueue([NewJob("q", name, encode_job(JobRecord("noop", queue="q")))]))
        self.jobs[name] = Plan()

    @rule(want=st.integers(1, 3), twice=st.booleans())
    def claim(self, want: int, twice: bool) -> None:
        self.trip(want=want, twice=twice)

    @rule(data=st.data(), twice=st.booleans())
    @precondition(lambda self: self.jobs)
    def send(self, data: st.DataObject, twice: bool) -> None:
        name = self.pick(data)
        self.number += 1
        sent = [self.call_signal(name) for _ in range(1 + twice)]
        job = self.jobs[name]
        assert sent == (["final"] * len(sent) if job.final else ["sent", "known"][: len(sent)])
        if not job.final:
            job.sent.append(self.number)

    def call_signal(self, name: str) -> str:
        data, signal_id = orjson.dumps(self.number), f"id-{self.number}"
        return self.run(send_signal(self.store, "q", name, "go", data, signal_id=signal_id))

    def ask(self, name: str) -> Answer | None:
        """Ask for the answer of the job's next wait, and check it."""
        job = self.jobs[name]
        wait = Wait(f"wait:go#{len(job.taken) + 1}", "signal", "go", HOUR_MS)
        lease = plain(self.redis.get(f"arq:in-progress:{name}"))
        reply = self.run(ask_waits(self.engine, lease=lease, job_id=name, waits=[wait]))
        assert reply is not None
        answer = decode_wait(reply.texts[0])
        return answer if isinstance(answer, Answer) else None

    @rule(data=st.data(), lost=st.booleans())
    @precondition(lambda self: any(job.held for job in self.jobs.values()))
    def wait(self, data: st.DataObject, lost: bool) -> None:
        """Ask once. `lost`: the worker does not see the answer, and asks again."""
        name = self.pick(data, held=True)
        job = self.jobs[name]
        answer = self.ask(name)
        if lost:
            assert self.ask(name) == answer
        before = [number for number in job.taken if number is not None]
        if answer is None:
            assert job.sent == before  # no signal is left for it
        elif answer.is_late:
            job.taken.append(None)
        else:
            assert answer.value == job.sent[len(before)]
            job.taken.append(answer.value)

    @rule(data=st.data(), saw=st.booleans(), twice=st.booleans())
    @precondition(lambda self: any(job.held for job in self.jobs.values()))
    def suspend(self, data: st.DataObject, saw: bool, twice: bool) -> None:
        """Suspend a job for its next wait, in the same call as nothing or a release of another job."""
        name = self.pick(data, held=True)
        job = self.jobs[name]
        answer = self.ask(name)
        if answer is not None and saw:
            job.taken.append(None if answer.is_late else answer.value)
            return
        field = f"wait:go#{len(job.taken) + 1}"
        outcomes: list[Outcome] = [Suspended(name, Level.NORMAL, 1, [field])]
        others = [other for other, it in self.jobs.items() if it.held and other != name]
        if others:
            outcomes.insert(data.draw(st.integers(0, 1)), Released(others[0], Level.NORMAL))
            self.jobs[others[0]].held = False
        job.held = False
        self.trip(*outcomes, twice=twice)
        state = self.run(self.store.inspect("q", name)).state
        assert state is (State.WAITING if answer is not None or job.asked_to_cancel else State.SUSPENDED)

    @rule(data=st.data())
    @precondition(lambda self: any(job.held for job in self.jobs.values()))
    def end(self, data: st.DataObject) -> None:
        name = self.pick(data, held=True)
        job = self.jobs[name]
        end = Cancelled if job.asked_to_cancel else None
        outcome: Outcome = (
            end(name, Level.NORMAL, b"{}", KEEP_MS, has_journal=True)
            if end is not None
            else Completed(name, Level.NORMAL, b"{}", KEEP_MS, 1, has_journal=True)
        )
        job.held, job.final = False, True
        self.trip(outcome)

    @rule(data=st.data())
    @precondition(lambda self: self.jobs)
    def cancel(self, data: st.DataObject) -> None:
        name = self.pick(data)
        job = self.jobs[name]
        has_journal = bool(self.redis.exists(f"aq:journal:{name}"))
        said = self.run(self.store.cancel("q", name, result=b"{}", keep_ms=KEEP_MS))
        if job.final:
            assert said == "final"
        elif job.held or has_journal:
            assert said == "asked"
            job.asked_to_cancel = True
        else:
            assert said == "cancelled"
            job.final = True

    @rule()
    def worker_is_killed(self) -> None:
        self.run(self.engine.release_worker_leases(worker="w", reason="killed"))
        for job in self.jobs.values():
            job.held = False

    @rule()
    def time_passes(self) -> None:
        self.run(advance_time(self.store, HOUR_MS // 2))

    @invariant()
    def a_job_that_waits_has_something_that_wakes_it(self) -> None:
        for name, job in self.jobs.items():
            found = self.run(self.store.inspect("q", name))
            if job.final:
                assert self.redis.keys(f"aq:*:{name}") == []
            elif job.held:
                assert found.state is State.ACTIVE
            elif found.state is State.SUSPENDED:
                taken = [number for number in job.taken if number is not None]
                assert job.sent == taken
                assert not job.asked_to_cancel
                assert found.suspension is not None
                assert found.suspension.until_ms is not None
            else:
                assert found.state is State.WAITING

    @invariant()
    def the_index_has_the_suspended_jobs(self) -> None:
        if self.jobs:
            states = [self.run(self.store.inspect("q", name)).state for name in self.jobs]
            counted = self.run(self.store.snapshot("q")).suspended
            assert sum(counted.values()) == states.count(State.SUSPENDED)


@pytest.mark.timeout(7_200)
def test_signals_do_what_the_model_does(shared_server: RunningServer) -> None:
    class Machine(SignalMachine):
        server_ = shared_server

    run_state_machine_as_test(
        Machine,
        settings=model_settings(20, steps=25),
    )
