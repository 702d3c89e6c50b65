"""Parents and children in two queues: whatever is cut, cancelled, replayed or lost, no parent waits for ever.

A Hypothesis state machine over a real server. Every call may be sent twice, and a worker may die before or after each.
In the end what is left runs to its end: then nothing waits, and nothing is kept but for dead letters.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar

import orjson
import pytest
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from agentqueue.keys import DEAD, JOB
from agentqueue.model.child_return import ChildEnd, ChildError, decode_return, encode_error, encode_value
from agentqueue.model.job import JobRecord, decode_job, encode_job
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
from agentqueue.store import Engine, EngineSettings, Server, ServerOptions, Store
from agentqueue.store.children import Children, GatherRule, NewChild, SentChild
from agentqueue.store.engine import run_housekeeping
from tests.support.model_size import model_settings
from tests.support.replies import plain
from tests.support.servers import RunningServer

QUEUES: Final = ("plans", "deep:work")
HOUR_MS: Final = 3_600_000
FIELD: Final = "children:all#1"
T = TypeVar("T")


class WorkerDied(Exception):
    """The worker died before or after a call."""


def payloads_of_children(payload: Sequence[int]) -> list[list[int]]:
    """Return the payloads of a job's children: a root has three, and their second one has two of its own."""
    depth, number, rule_number = payload
    count = {0: 3, 1: 2 if number == 1 else 0}.get(depth, 0)
    return [[depth + 1, child, rule_number] for child in range(count)]


def rule_of(payload: Sequence[int], count: int) -> GatherRule:
    return (GatherRule(count, 1), GatherRule(count, 0), GatherRule(1, count), GatherRule(1, 0))[payload[2]]


class ChildrenMachine(RuleBasedStateMachine):
    """Both queues have one worker each, which may die and come back with another owner."""

    server_: RunningServer

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.serial = self.seq = 0
        self.owners = dict.fromkeys(QUEUES, 0)
        self.held: dict[str, tuple[str, Claimed]] = {}
        self.answers: dict[tuple[str, Any], Any] = {}
        """What gathers have come to: for good, by parent; with a failure, by parent and number of its replays."""
        self.death: str | None = None
        """Whether the worker dies `before` or `after` the next call."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize()
    def connect(self) -> None:
        self.redis = self.server_.client()
        self.redis.flushall()
        self.server = Server(ServerOptions(self.server_.url))
        self.store = Store(self.server)
        self.engines = {queue: Engine(self.server, queue) for queue in QUEUES}
        self.children = {queue: Children(self.server, queue) for queue in QUEUES}

    def teardown(self) -> None:
        if hasattr(self, "server"):
            try:
                self.run(self.settle())
            finally:
                self.run(self.server.close())
                self.redis.close()
        self.loop.close()

    def owner(self, queue: str) -> str:
        return f"{queue}/{self.owners[queue]}"

    def lease(self, job_id: str) -> bytes:
        value = self.redis.get(f"arq:in-progress:{job_id}")
        return value if isinstance(value, bytes) else b"none"

    async def cut(self, work: Coroutine[Any, Any, T]) -> T:
        """Make a call, unless the worker dies now."""
        death, self.death = self.death, None
        if death == "before":
            work.close()
            raise WorkerDied
        result = await work
        if death == "after":
            raise WorkerDied
        return result

    # --- what a job does

    def ask(self, queue: str, job: Claimed, record: JobRecord) -> list[NewChild]:
        children = []
        for payload in payloads_of_children(record.args[0]):
            target = QUEUES[payload[1] % 2]
            child = JobRecord(
                "job", (payload,), queue=target, parent=job.id, parent_queue=queue, depth=record.depth + 1
            )
            place = f"{target}/job#{payload[1]}"
            children.append(NewChild(place, str(payload), NewJob(target, "", encode_job(child))))
        return children

    async def advance(self, queue: str, job: Claimed, choice: str) -> Outcome | None:
        """Run a job, and return its outcome; None if it goes on running."""
        if job.record is None:
            return self.end(job, JobRecord("job"), "dead")
        record = decode_job(job.record)
        if job.cancel or self.redis.zscore("arq:abort", job.id) is not None:
            return self.end(job, record, "cancelled")
        if choice in ("later", "released", "dead", "cancelled"):
            return self.end(job, record, choice)
        asked = self.ask(queue, job, record)
        if not asked:
            return self.end(job, record, "completed")
        room, lease = self.children[queue], self.lease(job.id)
        sent = await self.cut(room.send(lease=lease, parent=job.id, enqueueing="1:", children=asked))
        if sent is None:
            return None
        ids = [child.id for child in sent]
        gather_rule = rule_of(record.args[0], len(ids))
        gather = room.gather(
            lease=lease, parent=job.id, field=FIELD, what=b'"all"', rule=gather_rule, delivery=1, ids=ids
        )
        reply = await self.cut(gather)
        if reply is None:
            return None
        if reply.entry.startswith(b'{"wait":'):
            return Suspended(job.id, job.level, 5, [FIELD]) if choice != "hold" else None
        answer = orjson.loads(reply.entry)["v"]
        await self.check(job, asked, sent, gather_rule, answer)
        return self.end(job, record, "dead" if "failed" in answer else "completed")

    async def check(
        self, job: Claimed, asked: Sequence[NewChild], sent: Sequence[SentChild], gather_rule: GatherRule, answer: Any
    ) -> None:
        """Check that a gather's answer is right, and the same as before."""
        round_ = plain(self.redis.hget(f"aq:children:{job.id}", "#round")) if "failed" in answer else None
        assert round_ is None or (job.id, None) not in self.answers
        queue = next(queue for queue in QUEUES if self.lease(job.id).startswith(f"{queue}/".encode()))
        values = await self.children[queue].returns(job.id, [child.id for child in sent])
        ended = range(len(sent)) if "all" in answer else answer.get("ended", [answer.get("failed")])
        settled = self.answers.setdefault((job.id, round_), (answer, [values[position] for position in ended]))
        assert settled == (answer, [values[position] for position in ended])
        done = failed = 0
        for position in ended:
            raw = values[position]
            assert raw is not None
            found = decode_return(raw)
            done, failed = done + (found.error is None), failed + (found.error is not None)
            assert found.error is not None or found.value == decode_job(asked[position].job.record).args[0]
        if "failed" in answer:
            assert failed == 1
            assert gather_rule.limit
        elif "all" not in answer:
            assert done >= gather_rule.need

    def end(self, job: Claimed, record: JobRecord, kind: str) -> Outcome:
        def to_parent(value: bytes) -> ParentReturn | None:
            if record.parent is None or record.parent_queue is None:
                return None
            return ParentReturn(record.parent, record.parent_queue, value)

        match kind:
            case "completed":
                returns = to_parent(encode_value(record.args[0]))
                return Completed(job.id, job.level, b'{"s":true}', 0, 5, has_journal=True, returns=returns)
            case "dead":
                error = to_parent(encode_error(ChildError(ChildEnd.DEAD, "ValueError", "", "failed")))
                kept: dict[str, bytes | str | int] = {"journal": 1}
                return DeadLettered(job.id, job.level, b"{}", HOUR_MS, "f00", b"{}", kept=kept, returns=error)
            case "cancelled":
                error = to_parent(encode_error(ChildError(ChildEnd.CANCELLED, "Cancelled", "")))
                return Cancelled(job.id, job.level, b"{}", 0, has_journal=True, returns=error)
            case "later":
                return Rescheduled(job.id, job.level, 0)
            case _:
                return Released(job.id, job.level)

    # --- rules

    @rule(queue=st.sampled_from(QUEUES), rule_number=st.integers(0, 3), again=st.booleans())
    def enqueue(self, queue: str, rule_number: int, again: bool) -> None:
        self.serial += not again
        job_id = f"root-{max(self.serial, 1)}"
        record = JobRecord("job", ([0, 0, rule_number],), queue=queue)
        if not self.run(self.store.enqueue([NewJob(queue, job_id, encode_job(record))])):
            self.answers = {key: value for key, value in self.answers.items() if key[0] != job_id}

    @rule(
        queue=st.sampled_from(QUEUES),
        want=st.integers(0, 4),
        choices=st.lists(st.sampled_from(("go", "go", "go", "later", "released", "dead", "cancelled", "hold"))),
        fault=st.sampled_from((None, None, None, "before", "after", "twice")),
        data=st.data(),
    )
    def work(self, queue: str, want: int, choices: list[str], fault: str | None, data: st.DataObject) -> None:
        mine = [job for of, job in self.held.values() if of == queue]
        self.death = None if fault == "twice" else fault
        try:
            found = [self.run(self.advance(queue, job, choice)) for job, choice in zip(mine, choices, strict=False)]
            outcomes = data.draw(st.permutations([outcome for outcome in found if outcome is not None]))
            self.run(self.cut(self.trip(queue, outcomes, want=want, twice=fault == "twice")))
        except WorkerDied:
            self.bury_worker(queue)
        self.death = None

    async def trip(self, queue: str, outcomes: Sequence[Outcome], *, want: int, twice: bool = False) -> None:
        self.seq += 1
        note(f"{queue}: {outcomes}")
        for _ in range(1 + twice):
            reply = await self.engines[queue].finish_and_claim(
                seq=self.seq, owner=self.owner(queue), want=want, outcomes=outcomes
            )
        for outcome in outcomes:
            self.held.pop(outcome.id, None)
        self.held |= {job.id: (queue, job) for job in reply.claimed}

    @rule(queue=st.sampled_from(QUEUES))
    def bury_worker(self, queue: str) -> None:
        self.run(self.engines[queue].release_owner_leases(owner=self.owner(queue), reason="killed"))
        self.owners[queue] += 1
        self.held = {job_id: held for job_id, held in self.held.items() if held[0] != queue}

    def live(self) -> list[tuple[str, str]]:
        """Return queue and ID of the jobs that are not final."""
        levels = [(queue, plain(self.redis.zrange(queue, 0, -1))) for queue in QUEUES]
        return sorted((queue, job_id.decode()) for queue, ids in levels for job_id in ids)

    @rule(data=st.data(), cascade=st.booleans())
    @precondition(lambda self: self.live())
    def cancel(self, data: st.DataObject, cascade: bool) -> None:
        queue, job_id = data.draw(st.sampled_from(self.live()))
        self.run(self.store.cancel(queue, job_id, result=b"{}", keep_ms=0, cascade=cascade))

    @rule(data=st.data())
    @precondition(lambda self: self.redis.zcard("plans:dead") + self.redis.zcard("deep:work:dead"))
    def replay(self, data: st.DataObject) -> None:
        dead = [(queue, id_.decode()) for queue in QUEUES for id_ in plain(self.redis.zrange(f"{queue}:dead", 0, -1))]
        queue, job_id = data.draw(st.sampled_from(sorted(dead)))
        assert self.run(self.store.replay(queue, [job_id])).statuses in (["replayed"], ["live"])

    @rule(data=st.data())
    @precondition(lambda self: self.live())
    def lose_a_record(self, data: st.DataObject) -> None:
        """Another program deletes the record of a job that waits, and its place in the queue."""
        queue, job_id = data.draw(st.sampled_from(self.live()))
        if not self.redis.exists(f"arq:in-progress:{job_id}", f"aq:meta:{job_id}"):
            self.redis.delete(JOB + job_id)
            self.redis.zrem(queue, job_id)

    @rule()
    def keep_house(self) -> None:
        self.run(run_housekeeping(self.server, dict.fromkeys(QUEUES, EngineSettings()), recent_ms=0))

    # --- the end

    async def settle(self) -> None:
        """Run what is left to its end, and check that nothing waits and nothing is kept."""
        self.death = None
        for _ in range(60):
            for queue in QUEUES:
                await self.trip(queue, [], want=50)
                mine = [job for of, job in self.held.values() if of == queue]
                found = [await self.advance(queue, job, "go") for job in mine]
                await self.trip(queue, [outcome for outcome in found if outcome is not None], want=0)
            await run_housekeeping(self.server, dict.fromkeys(QUEUES, EngineSettings()), recent_ms=0)
            if not self.live() and not self.redis.exists("aq:cascades"):
                break
        assert self.live() == []
        kept = {key.decode() for key in plain(self.redis.keys("aq:*")) if key != b"aq:queues"}
        dead = {key.removeprefix(DEAD) for key in kept if key.startswith(DEAD)}
        rest = {key for key in kept if not key.startswith((DEAD, "aq:last:")) and key.split(":", 2)[2] not in dead}
        assert rest == set()
        assert self.redis.keys("*:suspended:*") == []


@pytest.mark.timeout(7_200)
def test_no_parent_waits_for_ever(shared_server: RunningServer) -> None:
    class Machine(ChildrenMachine):
        server_ = shared_server

    run_state_machine_as_test(
        Machine,
        settings=model_settings(100, steps=30),
    )
