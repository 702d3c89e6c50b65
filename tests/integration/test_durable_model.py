"""Steps, signals, timers, children, cancels and replays against a small model, whatever is lost, cut or killed.

Rules 13 to 15, on the scripts: here a Hypothesis state machine plays the workers. Each call may be sent twice, or its
reply be lost with the worker. Workers that lost their leases go on as if they had not. In the end what is left runs to
its end. MODEL_RUNS in the environment is the number of runs.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeVar, assert_never

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
from agentqueue.model.child_return import ChildEnd, ChildError, decode_return, encode_error, encode_value
from agentqueue.model.job import JobRecord, State, encode_job
from agentqueue.model.journal import EntryState, decode_entry, encode_body
from agentqueue.model.new_job import NewJob
from agentqueue.model.outcomes import (
    Cancelled,
    Claimed,
    Completed,
    DeadLettered,
    Outcome,
    ParentReturn,
    Released,
    Rescheduled,
    Suspended,
)
from agentqueue.model.suspension import Answer, decode_wait
from agentqueue.store import Engine, EngineSettings, Server, ServerOptions, Store
from agentqueue.store.children import Children, GatherRule, NewChild, SendStatus
from agentqueue.store.engine import run_housekeeping
from agentqueue.store.jobs import Snapshot
from agentqueue.store.journal import Journals
from agentqueue.store.signals import Wait as AskedWait
from agentqueue.store.signals import ask_waits, send_signal
from agentqueue.store.time_travel import advance_time
from tests.support.durable_model import HOUR_MS, PROGRAMS, First, Gather, JobModel, Place, Program, Sleep, Step, Wait
from tests.support.model_size import model_settings
from tests.support.replies import plain
from tests.support.servers import RunningServer

QUEUES: Final = ("plans", "deep:work")
WORKERS: Final = {"ann": "plans", "bob": "plans", "cyd": "deep:work"}
KEEP_MS: Final = 1_000_000 * HOUR_MS
"""Retention of results, longer than any run of the model."""
SETTINGS: Final = EngineSettings(lease_ms=600_000, history_count=10_000)
CHOICES: Final = st.sampled_from((*["go"] * 15, "hold", "fail", "die", "die", "release"))
ACTS: Final = ("record", "once", "wait", "child", "gather", "suspend", "end", "note")
"""What a worker without the lease tries to do."""
T = TypeVar("T")


class WorkerDied(Exception):
    """The worker died before or after a call."""


@dataclass(eq=False)
class Run:
    """One delivery of a job, in a worker."""

    job: JobModel
    worker: str
    owner: str
    claimed: Claimed
    has_journal: bool
    lease: bytes = b""
    entries: dict[str, bytes] = field(default_factory=dict)
    position: int = 0
    token: int | None = None
    """Value that the step returns which runs now."""


class DurableMachine(RuleBasedStateMachine):
    """Three workers over two queues."""

    server_: RunningServer
    counts: ClassVar[Counter[str]] = Counter()
    """What has happened in all runs."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.jobs: dict[str, JobModel] = {}
        self.incarnation = dict.fromkeys(WORKERS, 0)
        self.runs: list[Run] = []
        self.lost: list[Run] = []
        """Runs of workers that lost their leases."""
        self.seq = self.serial = self.hour = 0
        self.fault: str | None = None
        """What happens to the next call: the worker dies `before` or `after` it, or it is sent `twice`."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize(program=PROGRAMS, queue=st.sampled_from(QUEUES))
    def connect(self, program: Program, queue: str) -> None:
        self.redis = self.server_.client()
        self.redis.flushall()
        self.server = Server(ServerOptions(self.server_.url))
        self.store = Store(self.server)
        self.engines = {queue: Engine(self.server, queue, SETTINGS) for queue in QUEUES}
        self.counts["runs"] += 1
        self.enqueue(program=program, queue=queue)

    def teardown(self) -> None:
        if hasattr(self, "server"):
            try:
                self.run(self.settle())
            finally:
                self.run(self.server.close())
                self.redis.close()
        self.loop.close()

    async def send(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call of a worker. `died` says afterwards whether the worker has got the reply."""
        if self.fault == "before":
            raise WorkerDied
        reply = await call()
        return await call() if self.fault == "twice" else reply

    def died(self) -> None:
        """End the worker if it was to die after its call. The model knows of the call by now."""
        fault, self.fault = self.fault, None
        if fault == "after":
            raise WorkerDied

    # --- what a worker does with a job

    def journals(self, run: Run) -> Journals:
        return Journals(self.server, run.job.queue)

    async def advance(self, run: Run, choice: str) -> Outcome | None:
        """Make the next call of a job's program. Return the outcome with which the run ends, if it does."""
        job = run.job
        if not run.lease:
            opened = await self.send(lambda: self.journals(run).open(owner=run.owner, job_id=job.id))
            assert opened is not None
            run.lease, run.entries = opened.lease, dict(opened.entries)
            self.check_journal(job, run.entries)
            self.died()
            return None
        if run.claimed.cancel or self.redis.zscore(keys.ABORT, job.id) is not None:
            return self.end(run, "cancelled")
        if choice in ("fail", "die", "release"):
            return await self.interrupt(run, choice)
        if run.position == len(job.places):
            return self.end(run, "completed")
        place = job.places[run.position]
        match place.call:
            case Step():
                return await self.advance_step(run, place)
            case Wait() | Sleep() | First():
                return await self.advance_wait(run, place, choice)
            case Gather():
                return await self.advance_gather(run, place, choice)
            case _ as other:
                assert_never(other)

    async def interrupt(self, run: Run, choice: str) -> Outcome:
        """End the run by a failure, a dead letter or a drain. A step that runs fails, or is cut off."""
        if run.token is not None and choice == "fail":
            place = run.job.places[run.position]
            assert isinstance(place.call, Step)
            if not place.call.once:
                await self.record(run, place, EntryState.FAILED, None)
            self.died()
        return self.end(run, choice)

    def answered(self, run: Run, place: Place, value: Any) -> None:
        run.job.see(place.field, value)
        run.position += 1
        run.token = None

    async def advance_step(self, run: Run, place: Place) -> Outcome | None:
        job, call = run.job, place.call
        assert isinstance(call, Step)
        if run.token is None:
            raw = run.entries.get(place.field)
            entry = None if raw is None else decode_entry(raw)
            if entry is not None and entry.has_ended:
                self.answered(run, place, value_of(raw))
                return None
            if call.once and entry is not None and entry.state is EntryState.INTENT:
                job.unknown = place.field
                return self.end(run, "die")
            if call.once:
                earlier = await self.record(run, place, EntryState.INTENT, None)
                self.died()
                assert earlier is None
            self.serial += 1
            run.token = self.serial
            job.enter(place)
            self.counts["steps"] += 1
            return None
        value = "raised" if call.raises else run.token
        state = EntryState.RAISED if call.raises else EntryState.DONE
        earlier = await self.record(run, place, state, value)
        assert earlier in (None, value)
        job.recorded[place.field] = value
        self.died()
        self.answered(run, place, value)
        return None

    async def record(self, run: Run, place: Place, state: EntryState, value: Any) -> Any:
        """Write an entry. Return the value of the earlier one that stands instead; None if there is none."""
        raw = orjson.dumps(value) if state is EntryState.DONE else None
        error = None if state is EntryState.DONE else {"type": "E", "message": ""}
        body = encode_body(delivery=run.claimed.delivery, value=raw, error=error)
        recorded = await self.send(
            lambda: self.journals(run).record(
                lease=run.lease, job_id=run.job.id, field=place.field, state=state, body=body, meta={"journal": 1}
            )
        )
        assert recorded is not None
        run.has_journal = True
        return None if recorded.earlier is None else value_of(recorded.earlier)

    async def advance_wait(self, run: Run, place: Place, choice: str) -> Outcome | None:
        job, call = run.job, place.call
        if place.field in job.seen:
            entry = decode_wait(run.entries[place.field])
            assert isinstance(entry, Answer)
            run.position += 1
            return None
        waits = asked_waits(place)
        chosen = place.field if isinstance(call, First) else ""
        reply = await self.send(
            lambda: ask_waits(
                self.engines[job.queue], lease=run.lease, job_id=job.id, waits=waits, choice=chosen, progress={}
            )
        )
        assert reply is not None
        run.has_journal = True
        begun = job.begun.setdefault(place.field, self.hour)
        if chosen:
            answer = self.answer_of_race(place, reply.choice, reply.texts)
        else:
            answer = answer_of(decode_wait(reply.texts[0]), is_sleep=isinstance(call, Sleep))
        if place.field in job.recorded:  # the reply of an earlier call was lost
            assert answer == job.recorded[place.field]
        else:
            assert answer == self.expect(job, call, begun)
            if answer is not None:
                job.recorded[place.field] = answer
                if answer[0] == "signal":
                    assert isinstance(call, Wait | First)
                    job.taken[call.name] += 1
                    self.counts["signals taken"] += 1
        self.died()
        if answer is not None:
            self.answered(run, place, answer)
            run.entries |= dict(zip((wait.field for wait in waits), reply.texts, strict=True))
            return None
        return None if choice == "hold" else self.suspend(run, [wait.field for wait in waits])

    def expect(self, job: JobModel, call: Wait | Sleep | First | Any, begun: int) -> tuple[str, Any] | None:
        match call:
            case Wait(name, ends):
                return job.expect_wait(name, ends=ends, begun=begun, hour=self.hour)
            case First(name):
                return job.expect_wait(name, ends=True, begun=begun, hour=self.hour)
            case _:
                return ("slept", None) if self.hour > begun else None

    def answer_of_race(self, place: Place, choice: bytes | None, texts: Any) -> tuple[str, Any] | None:
        if choice is None:
            return None
        chosen = decode_wait(choice)
        assert isinstance(chosen, Answer)
        position = place.waits.index(chosen.value)
        assert not texts[1 - position], "the wait that lost the race is forgotten"
        answer = answer_of(decode_wait(texts[position]), is_sleep=False)
        return ("late", None) if position == 1 else answer

    async def advance_gather(self, run: Run, place: Place, choice: str) -> Outcome | None:
        job, call = run.job, place.call
        assert isinstance(call, Gather)
        room = Children(self.server, job.queue)
        asked = []
        for number, program in enumerate(call.programs):
            queue = QUEUES[(number + run.position) % 2]
            record = JobRecord("job", ([],), queue=queue, parent=job.id, parent_queue=job.queue, depth=1)
            asked.append(NewChild(f"{place.field}/{number}", str(program), NewJob(queue, "", encode_job(record))))
        stands = b'"settled":true' in run.entries.get(place.field, b"")
        before = await self.send(
            lambda: room.send(lease=run.lease, parent=job.id, enqueueing="1:", children=asked, may_run_again=not stands)
        )
        assert before is not None
        run.has_journal = True
        for child, program, new in zip(before, call.programs, asked, strict=True):
            self.note_child(job, child.id, child.status, program, new.job.queue)
        ids = [child.id for child in before]
        limit = 0 if call.collect else 1
        fault, self.fault = self.fault, None if self.fault == "before" else self.fault
        reply = await self.send(
            lambda: room.gather(
                lease=run.lease,
                parent=job.id,
                field=place.field,
                what=b'"all"',
                rule=GatherRule(len(ids), limit),
                delivery=run.claimed.delivery,
                ids=ids,
            )
        )
        self.fault = fault
        assert reply is not None
        run.entries[place.field] = reply.entry
        self.died()
        if reply.entry.startswith(b'{"wait":'):
            return None if choice == "hold" else self.suspend(run, [place.field])
        answer = orjson.loads(reply.entry)["v"]
        returns = [None if raw is None else decode_return(raw) for raw in await room.returns(job.id, ids)]
        if "failed" in answer:
            failed = returns[answer["failed"]]
            assert failed is not None
            assert failed.error is not None
            return self.end(run, "die")
        assert answer == {"all": True}
        values = []
        for child_id, found in zip(ids, returns, strict=True):
            assert found is not None
            assert call.collect or found.error is None
            assert found.error is not None or found.value == child_id
            values.append(found.error is None)
        self.answered(run, place, values)
        return None

    def note_child(self, job: JobModel, child_id: str, status: SendStatus, program: Any, queue: str) -> None:
        assert status in (SendStatus.SENT, SendStatus.KNOWN)
        if child_id not in self.jobs:
            self.jobs[child_id] = JobModel(child_id, queue, program, job.id, job.queue)
            self.counts["children"] += 1
        elif status is SendStatus.SENT and self.fault != "twice":
            self.jobs[child_id].start_anew()

    def suspend(self, run: Run, fields: list[str]) -> Outcome:
        self.counts["suspensions"] += 1
        return Suspended(run.job.id, run.claimed.level, 5, fields)

    def end(self, run: Run, kind: str) -> Outcome:
        job, level, has_journal = run.job, run.claimed.level, run.has_journal

        def to_parent(value: bytes) -> ParentReturn | None:
            return ParentReturn(job.parent, job.parent_queue, value) if job.parent and job.parent_queue else None

        match kind:
            case "completed":
                returns = to_parent(encode_value(job.id))
                return Completed(job.id, level, b"{}", KEEP_MS, 5, has_journal=has_journal, returns=returns)
            case "die":
                error = to_parent(encode_error(ChildError(ChildEnd.DEAD, "ValueError", "")))
                kept: dict[str, bytes | str | int] = {"journal": 1} if has_journal else {}
                return DeadLettered(job.id, level, b"{}", KEEP_MS, "f00", b"{}", kept=kept, returns=error)
            case "cancelled":
                error = to_parent(encode_error(ChildError(ChildEnd.CANCELLED, "Cancelled", "")))
                return Cancelled(job.id, level, b"{}", KEEP_MS, has_journal=has_journal, returns=error)
            case "fail":
                return Rescheduled(job.id, level, 0)
            case _:
                return Released(job.id, level)

    # --- rules: workers

    @rule(program=PROGRAMS, queue=st.sampled_from(QUEUES))
    @precondition(lambda self: sum(job.parent is None for job in self.jobs.values()) < 4)
    def enqueue(self, program: Program, queue: str) -> None:
        self.serial += 1
        job_id = f"job-{self.serial}"
        self.run(self.store.enqueue([NewJob(queue, job_id, encode_job(JobRecord("job", ([],), queue=queue)))]))
        self.jobs[job_id] = JobModel(job_id, queue, program)

    @rule(
        rounds=st.lists(st.tuples(st.sampled_from(sorted(WORKERS)), st.lists(CHOICES, min_size=2)), min_size=2),
        fault=st.sampled_from((None, None, None, "before", "after", "twice")),
        fault_at=st.integers(0, 12),
        data=st.data(),
    )
    def work(
        self, *, rounds: list[tuple[str, list[str]]], fault: str | None, fault_at: int, data: st.DataObject
    ) -> None:
        """Let workers claim jobs, make some calls of these, and record how their runs end. One call goes wrong."""
        call = 0
        for worker, choices in rounds:
            outcomes: dict[str, Outcome] = {}
            try:
                for choice in choices:
                    going = [run for run in self.runs if run.worker == worker and run.job.id not in outcomes]
                    if not going:
                        break
                    call += 1
                    self.fault = fault if call == fault_at else None
                    run = going[call % len(going)]
                    outcome = self.run(self.advance(run, choice))
                    if outcome is not None:
                        outcomes[run.job.id] = outcome
                call += 1
                self.fault = fault if call == fault_at else None
                found = data.draw(st.permutations(list(outcomes.values()))) if outcomes else []
                self.run(self.trip(worker, found, data.draw(st.sampled_from((1, 3, 0)))))
            except WorkerDied:
                self.kill(worker)
            self.fault = None

    async def trip(self, worker: str, outcomes: list[Outcome], want: int) -> None:
        self.seq += 1
        note(f"{worker}: {outcomes}, wants {want}")
        queue, owner, seq = WORKERS[worker], self.owner(worker), self.seq
        reply = await self.send(
            lambda: self.engines[queue].finish_and_claim(seq=seq, owner=owner, want=want, free=want, outcomes=outcomes)
        )
        assert reply.lost == []
        ended = {outcome.id for outcome in outcomes}
        self.runs = [run for run in self.runs if run.job.id not in ended]
        for claimed in reply.claimed:
            assert claimed.id in self.jobs, f"{claimed.id} is unknown"
            assert not any(run.job.id == claimed.id for run in self.runs), f"{claimed.id} runs twice"
            self.runs.append(Run(self.jobs[claimed.id], worker, owner, claimed, "journal" in claimed.meta))
            self.counts["deliveries"] += 1
        self.died()

    def owner(self, worker: str) -> str:
        return f"{worker}/{self.incarnation[worker]}"

    @rule(data=st.data())
    @precondition(lambda self: self.runs)
    def a_worker_is_killed(self, data: st.DataObject) -> None:
        self.kill(data.draw(st.sampled_from(sorted({run.worker for run in self.runs}))))
        if self.lost:
            self.a_worker_without_the_lease_goes_on(data=data, act=data.draw(st.sampled_from(ACTS)))

    def kill(self, worker: str) -> None:
        """End a worker, or take it for ended although it goes on. What it held is released."""
        self.run(self.engines[WORKERS[worker]].release_owner_leases(owner=self.owner(worker), reason="killed"))
        self.incarnation[worker] += 1
        self.lost = [*self.lost, *(run for run in self.runs if run.worker == worker and run.lease)][-6:]
        self.runs = [run for run in self.runs if run.worker != worker]
        self.counts["kills"] += 1

    # --- rule 15

    @rule(data=st.data(), act=st.sampled_from(ACTS))
    @precondition(lambda self: self.lost)
    def a_worker_without_the_lease_goes_on(self, data: st.DataObject, act: str) -> None:
        run = data.draw(st.sampled_from(self.lost))
        before = self.everything()
        self.run(self.act_without_lease(run, act))
        assert self.everything() == before, f"{act} of a worker without the lease has changed something"
        self.counts["calls without the lease"] += 1

    async def act_without_lease(self, run: Run, act: str) -> None:
        job, lease, room = run.job, run.lease, Children(self.server, run.job.queue)
        match act:
            case "record" | "once":
                state = EntryState.DONE if act == "record" else EntryState.INTENT
                body = encode_body(delivery=1, value=b"0" if act == "record" else None)
                field_ = (job.places or [Place(Sleep(), "step:a#1")])[-1].field
                record = self.journals(run).record
                written = record(lease=lease, job_id=job.id, field=field_, state=state, body=body, meta={"journal": 1})
                assert await written is None
                assert await self.journals(run).open(owner=run.owner, job_id=job.id) is None
            case "wait":
                wait = AskedWait("wait:a#1", "signal", "a", 0)
                engine = self.engines[job.queue]
                assert await ask_waits(engine, lease=lease, job_id=job.id, waits=[wait], progress={"x": 1}) is None
            case "child":
                child = NewChild("late/0", "f", NewJob(QUEUES[0], "", encode_job(JobRecord("job", queue=QUEUES[0]))))
                assert await room.send(lease=lease, parent=job.id, enqueueing="1:", children=[child]) is None
                assert not await room.cancel(lease=lease, parent=job.id, ids=["x"])
            case "gather":
                gather = GatherRule(1, 1)
                asked = room.gather(
                    lease=lease, parent=job.id, field="children:x", what=b'""', rule=gather, delivery=1, ids=["x"]
                )
                assert await asked is None
            case "note":
                notes = {"progress": "x"}
                assert not await self.engines[job.queue].annotate(owner=run.owner, job_id=job.id, notes=notes)
            case _:
                outcome = self.suspend(run, ["wait:a#1"]) if act == "suspend" else self.end(run, "completed")
                self.seq += 1
                reply = await self.engines[job.queue].finish_and_claim(
                    seq=self.seq, owner=run.owner, want=0, outcomes=[outcome]
                )
                assert reply.lost == [job.id]

    def everything(self) -> dict[bytes, Any]:
        """Return all that Redis keeps of jobs: all but counters and notes of workers."""
        names = [name for name in plain(self.redis.keys("*")) if b":stats" not in name and b"aq:last:" not in name]
        return {name: plain(self.redis.dump(name)) for name in names}

    # --- rules: people and time

    @rule(data=st.data(), name=st.sampled_from(("a", "b")), twice=st.booleans())
    @precondition(lambda self: self.jobs)
    def signal(self, data: st.DataObject, name: str, twice: bool) -> None:
        job = self.pick(data)
        self.run(self.send_signal(job, name, times=1 + twice))

    async def send_signal(self, job: JobModel, name: str, *, times: int = 1) -> None:
        self.serial += 1
        number = self.serial
        is_final = (await self.store.inspect(job.queue, job.id)).state in (*FINAL, None)
        said = [
            await send_signal(self.store, job.queue, job.id, name, b"%d" % number, signal_id=str(number))
            for _ in range(times)
        ]
        if is_final:
            assert set(said) <= {"final", "unknown"}
        else:
            assert said == ["sent", "known"][:times]
            job.send(name, number, self.hour)
            self.counts["signals"] += 1

    def pick(self, data: st.DataObject) -> JobModel:
        return self.jobs[data.draw(st.sampled_from(sorted(self.jobs)))]

    @rule(data=st.data(), cascade=st.booleans(), really=st.sampled_from((False, False, True)))
    @precondition(lambda self: self.jobs)
    def cancel(self, data: st.DataObject, *, cascade: bool, really: bool) -> None:
        if not really:  # too many cancels would leave little else to happen
            return
        job = self.pick(data)
        self.run(self.store.cancel(job.queue, job.id, result=b"{}", keep_ms=KEEP_MS, cascade=cascade))
        self.counts["cancels"] += 1

    def dead(self) -> list[JobModel]:
        found = [id_.decode() for queue in QUEUES for id_ in plain(self.redis.zrange(f"{queue}:dead", 0, -1))]
        return [self.jobs[job_id] for job_id in sorted(found)]

    @rule(data=st.data(), place=st.sampled_from(("", "", "start", "step")))
    @precondition(lambda self: self.dead())
    def replay(self, data: st.DataObject, place: str) -> None:
        job = data.draw(st.sampled_from(self.dead()))
        steps = [number for number, it in enumerate(job.places) if isinstance(it.call, Step) and it.field in job.seen]
        if place == "step" and not steps:
            return
        position = data.draw(st.sampled_from(steps)) if place == "step" else 0
        start_from = job.places[position].field if place == "step" else place
        (status,) = self.run(self.store.replay(job.queue, [job.id], start_from=start_from)).statuses
        assert status == "replayed"
        if place == "start":
            job.start_anew()
        elif place == "step":
            job.forget_from(position)
        self.counts["replays"] += 1

    @rule(data=st.data(), with_value=st.booleans())
    @precondition(lambda self: any(job.unknown for job in self.dead()))
    def resolve(self, data: st.DataObject, with_value: bool) -> None:
        job = data.draw(st.sampled_from([job for job in self.dead() if job.unknown]))
        self.run(self.resolve_unknown(job, with_value=with_value))

    async def resolve_unknown(self, job: JobModel, *, with_value: bool) -> None:
        assert job.unknown is not None
        value = b'"resolved"' if with_value else b""
        assert await self.store.resolve(job.queue, job.id, job.unknown, value) == "replayed"
        if with_value:
            job.recorded[job.unknown] = "resolved"
        else:
            job.allowed[job.unknown] += 1
        job.unknown = None
        self.counts["resolved"] += 1

    @rule()
    def time_passes(self) -> None:
        self.run(self.pass_time())

    async def pass_time(self) -> None:
        await advance_time(self.store, 2 * HOUR_MS)
        self.hour += 1

    @rule()
    def keep_house(self) -> None:
        self.run(run_housekeeping(self.server, dict.fromkeys(QUEUES, SETTINGS), recent_ms=0))

    # --- what holds after every rule

    def check_journal(self, job: JobModel, entries: dict[str, bytes]) -> None:
        """Check that what has been recorded is still there."""
        for name, value in job.recorded.items():
            assert name in entries, f"{name} of {job.id} is lost"
            if name.startswith("step:"):
                assert value_of(entries[name]) == value, f"{name} of {job.id} has changed"

    @invariant()
    def what_is_recorded_stays(self) -> None:
        for job in self.jobs.values():
            if self.redis.exists(f"{keys.JOB}{job.id}", f"{keys.DEAD}{job.id}"):
                found = plain(self.redis.hgetall(f"{keys.JOURNAL}{job.id}"))
                self.check_journal(job, {name.decode(): raw for name, raw in found.items()})

    @invariant()
    def a_suspended_job_has_something_that_wakes_it(self) -> None:
        states: Counter[State | None] = Counter()
        for job, found in self.run(self.inspect_all()):
            states[found.state] += 1
            if found.state is not State.SUSPENDED:
                continue
            assert found.suspension is not None
            assert self.redis.zscore(keys.ABORT, job.id) is None, f"{job.id} does not hear that it is cancelled"
            place = next(place for place in job.places if place.field not in job.seen)
            if isinstance(place.call, Gather):
                assert self.has_pending_child(job), f"{job.id} waits for children that have ended"
            else:
                assert place.field not in job.recorded, f"{job.id} waits for what it has"
                is_timed = not (isinstance(place.call, Wait) and not place.call.ends)
                assert (found.suspension.until_ms is not None) == is_timed
                if self.expect(job, place.call, job.begun[place.field]) is not None:
                    assert is_timed, f"{job.id} waits for what is there"
        if hasattr(self, "store"):
            counted = [self.run(self.store.snapshot(queue)).suspended for queue in QUEUES]
            assert sum(sum(each.values()) for each in counted) == states[State.SUSPENDED]

    async def inspect_all(self) -> list[tuple[JobModel, Snapshot]]:
        found: list[tuple[JobModel, Snapshot]] = []
        for queue in QUEUES:
            jobs = [job for job in self.jobs.values() if job.queue == queue]
            for start in range(0, len(jobs), 50):
                some = jobs[start : start + 50]
                seen = await self.store.inspect_many(
                    queue, [job.id for job in some], max_value_bytes=0, max_reply_bytes=1_000_000
                )
                found += [(job, each) for job, each in zip(some, seen, strict=True) if isinstance(each, Snapshot)]
        return found

    def has_pending_child(self, job: JobModel) -> bool:
        listed = plain(self.redis.hgetall(f"{keys.CHILDREN}{job.id}"))
        return any(raw.startswith(b"pending") for name, raw in listed.items() if not name.startswith(b"#"))

    # --- the end

    def live(self) -> Iterator[JobModel]:
        ids = {id_.decode() for queue in QUEUES for id_ in plain(self.redis.zrange(queue, 0, -1))}
        return (self.jobs[job_id] for job_id in sorted(ids))

    async def settle(self) -> None:
        """Give every job what it waits for, and run all to the end: nothing is stuck, and nothing is left behind."""
        self.fault = None
        for _ in range(40):
            for job in self.dead():
                if job.unknown:
                    await self.resolve_unknown(job, with_value=True)
                else:
                    await self.store.replay(job.queue, [job.id])
            await self.run_all()
            for job in self.live():
                suspension = (await self.store.inspect(job.queue, job.id)).suspension
                for what in () if suspension is None else suspension.waits_for:
                    if what.startswith("signal "):
                        await self.send_signal(job, what.removeprefix("signal "))
            await self.pass_time()
            await run_housekeeping(self.server, dict.fromkeys(QUEUES, SETTINGS), recent_ms=0)
            if not (list(self.live()) or self.dead() or self.redis.exists(keys.CASCADES)):
                break
        assert [job.id for job in self.live()] == [], "these jobs are stuck"
        self.counts["completed"] += sum(found.state is State.COMPLETED for _, found in await self.inspect_all())
        kept = {key.decode() for key in plain(self.redis.keys("aq:*")) if key != b"aq:queues"}
        assert {key for key in kept if not key.startswith("aq:last:")} == set()

    async def run_all(self) -> None:
        """Run every job that is ready until it ends, waits, or needs a person."""
        for worker in WORKERS:
            await self.trip(worker, [], 50)
        for run in list(self.runs):
            outcome = None
            for _ in range(30):
                outcome = outcome or await self.advance(run, "go")
            assert outcome is not None
            await self.trip(run.worker, [outcome], 0)


FINAL: Final = (State.COMPLETED, State.CANCELLED, State.DEAD)


def value_of(raw: bytes | None) -> Any:
    """Return what a step has come to."""
    assert raw is not None
    entry = decode_entry(raw)
    return "raised" if entry.state is EntryState.RAISED else orjson.loads(entry.value)


def asked_waits(place: Place) -> list[AskedWait]:
    """Return the waits of a call."""
    match place.call:
        case Wait(name, ends):
            return [AskedWait(place.field, "signal", name, HOUR_MS if ends else None)]
        case First(name):
            signal, late = place.waits
            return [AskedWait(signal, "signal", name), AskedWait(late, "sleep", "", HOUR_MS)]
        case _:
            return [AskedWait(place.field, "sleep", "", HOUR_MS)]


def answer_of(found: Any, *, is_sleep: bool) -> tuple[str, Any] | None:
    """Return the answer of a wait; None if it has none."""
    if not isinstance(found, Answer):
        return None
    if is_sleep:
        return "slept", None
    return ("late", None) if found.is_late else ("signal", found.value)


@pytest.mark.timeout(7_200)
def test_durable_jobs_do_what_the_model_does(shared_server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    class Machine(DurableMachine):
        server_ = shared_server

    DurableMachine.counts.clear()
    run_state_machine_as_test(Machine, settings=model_settings(25, steps=30))
    with capsys.disabled():
        counts = ", ".join(f"{number} {name}" for name, number in sorted(Machine.counts.items()))
        print(f"\ndurable model on {shared_server.kind}: {counts}")
