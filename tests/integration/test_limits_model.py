"""Limits against a plain model: never over the limit, exact after crashes, and nobody waits for ever."""

import asyncio
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from agentqueue.keys import Level
from agentqueue.model.job import JobRecord, encode_job
from agentqueue.model.limits import Limit
from agentqueue.model.new_job import NewJob
from agentqueue.store import Engine, Server, ServerOptions, Store
from agentqueue.store.limits import Granted, LimitCall, Limits, Waits
from agentqueue.store.time_travel import advance_time
from tests.support.limits import LimitModel, ModelCall
from tests.support.replies import awaited
from tests.support.servers import RunningServer

T = TypeVar("T")
EXAMPLES = int(os.environ.get("AGENTQUEUE_MODEL_EXAMPLES", "20"))
JOBS, WORKERS = 6, 2
LIMITS = st.builds(
    Limit,
    requests_per_minute=st.none() | st.integers(1, 6),
    units_per_minute=st.integers(40, 100),
    concurrent=st.none() | st.integers(1, 3),
    refund=st.booleans(),
)


class LimitMachine(RuleBasedStateMachine):
    """Jobs of two workers make calls under one limit. Every step happens at one time of the server."""

    server_: RunningServer

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.travelled_ms = self.number = self.seq = 0
        self.lives = [1] * WORKERS
        self.holder: dict[str, str] = {}
        self.waiting: dict[str, LimitCall] = {}
        """The call of each job that waits."""
        self.running: dict[str, tuple[LimitCall, Granted, ModelCall]] = {}
        """The call of each job that was granted."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize(limit=LIMITS)
    def connect(self, limit: Limit) -> None:
        with self.server_.client() as redis:
            redis.flushall()
        self.link = Server(ServerOptions(self.server_.url))
        self.store, self.engine, self.limits = Store(self.link), Engine(self.link, "q"), Limits(self.link)
        self.model = LimitModel(limit)
        self.run(self.limits.define("q", "test", {"gpt": limit}))
        for number in range(JOBS):
            job = NewJob("q", f"job-{number}", encode_job(JobRecord("noop", queue="q")))
            self.run(self.store.enqueue([job]))
        self.claim()

    def teardown(self) -> None:
        try:
            if hasattr(self, "link"):
                self.let_all_through()
        finally:
            if hasattr(self, "link"):
                self.run(self.link.close())
            self.loop.close()

    def claim(self) -> None:
        """Let the workers hold all jobs, in turn."""
        for worker in range(WORKERS):
            self.seq += 1
            owner = self.owner(worker)
            want = JOBS if worker else JOBS // 2
            reply = self.run(self.engine.finish_and_claim(seq=self.seq, owner=owner, want=want))
            self.holder |= dict.fromkeys((job.id for job in reply.claimed), owner)

    def owner(self, worker: int) -> str:
        return f"w{worker}/{self.lives[worker]}"

    def at(self, now_ms: int) -> int:
        return now_ms + self.travelled_ms

    def ask(self, name: str, *, twice: bool = False) -> None:
        call, alone = self.waiting[name], len(self.waiting) == 1
        reply = self.run(self.limits.reserve("q", call))
        now_ms, model, units = self.at(reply.now_ms), self.model, call.units or 0  # type: ignore[union-attr]
        if isinstance(reply, Granted):
            assert now_ms >= model.rest_ms
            assert model.has_room(now_ms, units)
            assert reply.epochs == {"gpt": model.epoch}
            self.running[name] = (self.waiting.pop(name), reply, model.grant(now_ms, units))
            if twice:
                again = self.run(self.limits.reserve("q", call))
                assert isinstance(again, Granted)
                assert (again.units, again.epochs) == (reply.units, reply.epochs)
        else:
            assert isinstance(reply, Waits)
            if alone and reply.why in ("window", "concurrent"):
                assert not model.has_room(now_ms, units)

    @rule(data=st.data(), units=st.integers(1, 40), level=st.sampled_from(Level), tenant=st.sampled_from("abc"))
    @precondition(lambda self: len(self.waiting) + len(self.running) < JOBS)
    def call(self, data: st.DataObject, units: int, level: Level, tenant: str) -> None:
        free = sorted(set(self.holder) - set(self.waiting) - set(self.running))
        name = data.draw(st.sampled_from(free))
        self.number += 1
        self.waiting[name] = LimitCall(self.holder[name], self.number, name, ["gpt"], level, tenant=tenant, units=units)
        self.ask(name, twice=data.draw(st.booleans()))

    @rule(data=st.data(), twice=st.booleans())
    @precondition(lambda self: self.waiting)
    def ask_again(self, data: st.DataObject, twice: bool) -> None:
        self.ask(data.draw(st.sampled_from(sorted(self.waiting))), twice=twice)

    @rule(data=st.data())
    @precondition(lambda self: self.waiting)
    def leave(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.waiting)))
        self.run(self.limits.leave("q", self.waiting.pop(name)))

    @rule(data=st.data(), units=st.none() | st.integers(0, 80), twice=st.booleans())
    @precondition(lambda self: self.running)
    def settle(self, data: st.DataObject, units: int | None, twice: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.running)))
        call, granted, made = self.running.pop(name)
        for _ in range(1 + twice):
            self.run(self.limits.settle("q", call, granted, units=units))
        self.model.settle(made, self.now(), units)

    def now(self) -> int:
        seconds, micros = self.run(awaited(self.link.redis.time()))
        return self.at(int(seconds) * 1000 + int(micros) // 1000)

    @rule(data=st.data(), rest_ms=st.sampled_from([1_000, 30_000]))
    @precondition(lambda self: self.running)
    def refuse(self, data: st.DataObject, rest_ms: int) -> None:
        """A 429. Only that of a call which began after the last rest begins another one."""
        name = data.draw(st.sampled_from(sorted(self.running)))
        call, granted, made = self.running.pop(name)
        self.run(self.limits.settle("q", call, granted, refused="429", rest_ms=rest_ms, resting="gpt"))
        made.settled = True
        if made.epoch == self.model.epoch:
            self.model.epoch += 1
            self.model.rest_ms = self.now() + rest_ms - 200  # less the time that the call has taken

    @rule(seconds=st.sampled_from([1, 4, 20, 61]))
    def pass_time(self, seconds: int) -> None:
        self.run(advance_time(self.store, 1_000 * seconds))
        self.travelled_ms += 1_000 * seconds

    @rule(worker=st.integers(0, WORKERS - 1))
    def crash(self, worker: int) -> None:
        """A worker dies. Its calls may have been made: they count, and only their places come back."""
        owner = self.owner(worker)
        self.lives[worker] += 1
        dead = [name for name, holder in self.holder.items() if holder == owner]
        self.run(self.engine.release_owner_leases(owner=owner, reason="killed"))
        for name in dead:
            del self.holder[name]
            self.waiting.pop(name, None)
            if name in self.running:
                self.running.pop(name)[2].held = False
        other = self.owner((worker + 1) % WORKERS)
        while dead:  # those that were in a crash come one by one
            self.seq += 1
            reply = self.run(self.engine.finish_and_claim(seq=self.seq, owner=other, want=JOBS, is_idle=True))
            assert reply.claimed
            for job in reply.claimed:
                dead.remove(job.id)
                self.holder[job.id] = other

    def let_all_through(self) -> None:
        """All who wait get their turn, in a bounded time and in whatever order they ask."""
        for name in sorted(self.running):
            call, granted, made = self.running.pop(name)
            self.run(self.limits.settle("q", call, granted))
            made.settled = True
        rounds = 0
        while self.waiting:
            rounds += 1
            assert rounds < 40, f"{sorted(self.waiting)} wait for ever"
            for name in sorted(self.waiting, reverse=bool(rounds % 2)):
                self.ask(name)
            for name in sorted(self.running):
                call, granted, made = self.running.pop(name)
                self.run(self.limits.settle("q", call, granted))
                self.model.settle(made, self.now(), None)
            self.pass_time(20)
        assert self.run(self.limits.count_waiting("q", ["gpt"])) == [0]


def test_no_sequence_goes_over_a_limit_or_leaves_a_call_waiting(shared_server: RunningServer) -> None:
    machine = type("Machine", (LimitMachine,), {"server_": shared_server})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
