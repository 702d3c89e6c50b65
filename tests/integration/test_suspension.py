"""Suspended jobs and signals, as the scripts keep them."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import orjson
import pytest

from agentqueue.keys import Level
from agentqueue.model.job import JobRecord, State, encode_job
from agentqueue.model.new_job import NewJob
from agentqueue.model.outcomes import Completed, DeadLettered, Outcome, Released, Suspended
from agentqueue.model.suspension import Answer, Pending, decode_wait
from agentqueue.store import Engine, Server, Store
from agentqueue.store.signals import Wait, ask_waits, send_signal
from agentqueue.store.time_travel import advance_time
from tests.support.servers import RunningServer

OWNER = "w/1"
HOUR_MS = 3_600_000


class Bench:
    """A queue with one worker, whose calls the test makes by hand."""

    def __init__(self, server: Server, redis: Any) -> None:
        self.store, self.engine, self.redis = Store(server), Engine(server, "q"), redis
        self.seq = 0
        self.chosen = ""

    async def enqueue(self, *ids: str, level: Level = Level.NORMAL) -> None:
        record = encode_job(JobRecord("noop", queue="q"))
        await self.store.enqueue([NewJob("q", job_id, record, level) for job_id in ids])

    async def round_trip(self, *outcomes: Outcome, want: int = 0) -> list[str]:
        """Record outcomes and claim jobs, and return the IDs of those."""
        self.seq += 1
        reply = await self.engine.finish_and_claim(seq=self.seq, owner=OWNER, want=want, outcomes=outcomes)
        assert reply.lost == []
        self.claimed = {job.id: job for job in reply.claimed}
        self.next_due_ms = reply.next_due_ms
        return list(self.claimed)

    async def ask(self, job_id: str, *waits: Wait, choice: str = "") -> list[Pending | Answer | None]:
        """Begin waits of a job that the worker holds, or ask for their answers."""
        lease = self.redis.get(f"arq:in-progress:{job_id}")
        reply = await ask_waits(self.engine, lease=lease, job_id=job_id, waits=waits, choice=choice)
        assert reply is not None
        self.chosen = orjson.loads(reply.choice)["v"] if reply.choice else ""
        return [decode_wait(text) if text else None for text in reply.texts]

    async def signal(self, job_id: str, name: str, data: Any = None, **more: Any) -> str:
        return await send_signal(self.store, "q", job_id, name, orjson.dumps(data), **more)

    async def state(self, job_id: str) -> State | None:
        return (await self.store.inspect("q", job_id)).state

    async def suspended(self) -> dict[str, int]:
        found = await self.store.snapshot("q")
        return {kind: count for kind, count in found.suspended.items() if count}


@pytest.fixture
async def bench(server: Server, shared_server: RunningServer) -> AsyncIterator[Bench]:
    with shared_server.client() as redis:
        yield Bench(server, redis)


APPROVAL = Wait("wait:approval#1", "signal", "approval")


def value_of(answer: Pending | Answer | None) -> Any:
    """Return the value of an answer; fail for a wait that has none."""
    assert isinstance(answer, Answer)
    return answer.value


def suspend(job_id: str, *fields: str, level: Level = Level.NORMAL) -> Suspended:
    return Suspended(job_id, level, 5, fields or (APPROVAL.field,))


def complete(job_id: str) -> Completed:
    return Completed(job_id, Level.NORMAL, b"{}", HOUR_MS, 5)


async def suspended_for_approval(bench: Bench, *ids: str, ends_ms: int | None = None) -> None:
    await bench.enqueue(*ids)
    assert set(await bench.round_trip(want=len(ids))) == set(ids)
    for job_id in ids:
        await bench.ask(job_id, Wait(APPROVAL.field, "signal", "approval", ends_ms))
    await bench.round_trip(*[suspend(job_id) for job_id in ids])


async def test_a_suspended_job_is_held_by_nobody_and_is_a_delayed_job_for_arq(bench: Bench) -> None:
    await suspended_for_approval(bench, "a")
    assert await bench.round_trip(want=5) == []
    assert bench.next_due_ms is None  # a timer for the year 9999 is none
    found = await bench.store.inspect("q", "a")
    assert (found.state, found.held) == (State.SUSPENDED, None)
    assert found.score is not None
    assert found.score > found.now_ms
    assert found.suspension is not None
    assert (found.suspension.kind, found.suspension.waits_for) == ("signal", ["signal approval"])
    assert found.suspension.until_ms is None
    assert 0 <= found.now_ms - found.suspension.since_ms < 60_000
    stats = await bench.store.snapshot("q")
    assert (stats.waiting, sum(stats.active), sum(stats.delayed), stats.next_due_ms) == (0, 0, 1, None)
    assert stats.suspended == {"signal": 1, "sleep": 0, "children": 0, "several": 0}
    assert stats.counters["suspended"] == 1
    assert stats.counters["run_ms"] == 5


async def test_a_signal_wakes_a_suspended_job_which_takes_it(bench: Bench) -> None:
    await suspended_for_approval(bench, "a")
    assert await bench.signal("a", "approval", {"approved": True}, sender="ana") == "sent"
    assert (await bench.state("a"), await bench.suspended()) == (State.WAITING, {})
    assert await bench.round_trip(want=5) == ["a"]
    assert (bench.claimed["a"].attempts, bench.claimed["a"].delivery) == (0, 2)
    (answer,) = await bench.ask("a", APPROVAL)
    assert isinstance(answer, Answer)
    assert (answer.value, answer.sender, answer.is_late) == ({"approved": True}, "ana", False)
    assert await bench.ask("a", APPROVAL) == [answer]  # the answer stays
    (second,) = await bench.ask("a", Wait("wait:approval#2", "signal", "approval"))
    assert second == Pending(None)


async def test_a_signal_for_another_name_wakes_nobody_and_is_kept(bench: Bench) -> None:
    await suspended_for_approval(bench, "a")
    assert await bench.signal("a", "other", 1) == "sent"
    assert await bench.state("a") is State.SUSPENDED
    await bench.signal("a", "approval", 2)
    assert await bench.round_trip(want=1) == ["a"]
    answers = await bench.ask("a", APPROVAL, Wait("wait:other#1", "signal", "other"))
    assert [answer.value for answer in answers if isinstance(answer, Answer)] == [2, 1]


async def test_signals_are_taken_in_their_order_also_those_sent_before_the_job_ran(bench: Bench) -> None:
    await bench.enqueue("a")
    for number in range(3):
        await bench.signal("a", "approval", number)
    await bench.round_trip(want=1)
    waits = [Wait(f"wait:approval#{number}", "signal", "approval") for number in (1, 2, 3, 4)]
    answers = await bench.ask("a", *waits)
    assert [answer.value if isinstance(answer, Answer) else "-" for answer in answers] == [0, 1, 2, "-"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_no_order_of_outcomes_in_one_call_loses_a_wake_up(bench: Bench, order: Sequence[int]) -> None:
    await bench.enqueue("a", "b", "c")
    await bench.round_trip(want=3)
    for job_id in "ab":
        await bench.ask(job_id, APPROVAL)
    await bench.signal("a", "approval", "early")
    outcomes: list[Outcome] = [suspend("a"), suspend("b"), complete("c")]
    assert await bench.round_trip(*(outcomes[place] for place in order), want=3) == ["a"]
    assert await bench.suspended() == {"signal": 1}


async def test_a_job_that_suspends_after_its_answer_was_written_is_delivered_again(bench: Bench) -> None:
    """The answer of the call that took the signal was lost, so that the worker did not see it."""
    await bench.enqueue("a")
    await bench.round_trip(want=1)
    await bench.ask("a", APPROVAL)
    await bench.signal("a", "approval", 7)
    await bench.ask("a", APPROVAL)
    assert await bench.round_trip(suspend("a"), want=1) == ["a"]
    (answer,) = await bench.ask("a", APPROVAL)
    assert value_of(answer) == 7


async def test_a_suspension_that_is_sent_twice_takes_effect_once(bench: Bench) -> None:
    await suspended_for_approval(bench, "a")
    await bench.signal("a", "approval")
    bench.seq -= 1
    await bench.round_trip(suspend("a"))
    assert await bench.state("a") is State.WAITING
    assert (await bench.store.snapshot("q")).counters["suspended"] == 1


async def test_a_job_that_was_in_a_crash_is_no_suspect_once_it_is_suspended(bench: Bench) -> None:
    await bench.enqueue("a")
    await bench.round_trip(want=1)
    await bench.engine.release_owner_leases(owner=OWNER, reason="OOMKilled")
    await bench.round_trip(want=1)
    assert bench.claimed["a"].is_suspect
    await bench.ask("a", APPROVAL)
    await bench.round_trip(suspend("a"))
    await bench.signal("a", "approval")
    await bench.round_trip(want=1)
    assert (bench.claimed["a"].is_suspect, bench.claimed["a"].count("crashes")) == (False, 1)


async def test_only_the_holder_of_the_delivery_can_wait_or_suspend(bench: Bench) -> None:
    await bench.enqueue("a")
    await bench.round_trip(want=1)
    await bench.ask("a", APPROVAL)
    lease = bench.redis.get("arq:in-progress:a")
    await bench.round_trip(Released("a", Level.NORMAL), want=1)
    other = lease[:-3] + b"999"  # the same process, another delivery
    assert await ask_waits(bench.engine, lease=other, job_id="a", waits=[APPROVAL]) is None
    reply = await bench.engine.finish_and_claim(seq=9, owner="w/2", want=0, outcomes=[suspend("a")])
    assert reply.lost == ["a"]
    assert await bench.state("a") is State.ACTIVE


async def test_a_sleep_ends_by_the_servers_clock_and_a_rerun_does_not_start_it_anew(bench: Bench) -> None:
    sleep = Wait("sleep:#1", "sleep", "", HOUR_MS)
    await bench.enqueue("a")
    await bench.round_trip(want=1)
    (pending,) = await bench.ask("a", sleep)
    assert isinstance(pending, Pending)
    await bench.round_trip(suspend("a", sleep.field))
    assert await bench.suspended() == {"sleep": 1}
    assert (await bench.store.snapshot("q")).next_due_ms == pending.until_ms
    await advance_time(bench.store, HOUR_MS - 60_000)
    assert await bench.round_trip(want=1) == []
    await advance_time(bench.store, 60_000)
    assert (await bench.state("a"), await bench.suspended()) == (State.WAITING, {})
    assert await bench.round_trip(want=1) == ["a"]
    assert await bench.ask("a", sleep) == [Answer(None)]
    assert bench.redis.keys("q:suspended:*") == []


async def test_a_wait_that_timed_out_takes_no_signal_and_a_late_signal_does_not_change_it(bench: Bench) -> None:
    await suspended_for_approval(bench, "a", ends_ms=HOUR_MS)
    await advance_time(bench.store, HOUR_MS + 1)
    await bench.signal("a", "approval", "late")
    assert await bench.round_trip(want=1) == ["a"]
    again, following = await bench.ask(
        "a", Wait(APPROVAL.field, "signal", "approval", HOUR_MS), Wait("wait:approval#2", "signal", "approval")
    )
    assert again == Answer(None, is_late=True)
    assert value_of(following) == "late"


async def test_a_signal_that_came_before_the_end_counts_although_the_job_runs_later(bench: Bench) -> None:
    await suspended_for_approval(bench, "a", ends_ms=HOUR_MS)
    await bench.store.pause("q", "test")
    await bench.signal("a", "approval", "in time")
    await advance_time(bench.store, 2 * HOUR_MS)
    await bench.store.resume("q")
    await bench.round_trip(want=1)
    (answer,) = await bench.ask("a", Wait(APPROVAL.field, "signal", "approval", HOUR_MS))
    assert value_of(answer) == "in time"


async def test_the_earliest_answer_decides_a_choice_and_the_others_take_nothing(bench: Bench) -> None:
    await bench.enqueue("a")
    await bench.round_trip(want=1)
    waits = APPROVAL, Wait("sleep:#1", "sleep", "", HOUR_MS)
    assert [type(it) for it in await bench.ask("a", *waits, choice="first:#1")] == [Pending, Pending]
    assert bench.chosen == ""
    await bench.round_trip(suspend("a", *(wait.field for wait in waits)))
    assert await bench.suspended() == {"several": 1}
    await advance_time(bench.store, HOUR_MS)
    await bench.signal("a", "approval", "after")  # both could answer now; the sleep ended earlier
    await bench.round_trip(want=1)
    assert await bench.ask("a", *waits, choice="first:#1") == [None, Answer(None)]
    assert bench.chosen == "sleep:#1"
    (answer,) = await bench.ask("a", Wait("wait:approval#2", "signal", "approval"))
    assert value_of(answer) == "after"


async def test_a_woken_job_comes_to_the_head_of_its_level_and_does_not_age_it(bench: Bench) -> None:
    await suspended_for_approval(bench, "a")
    await advance_time(bench.store, 48 * HOUR_MS)
    await bench.enqueue("b", "c")
    await bench.signal("a", "approval")
    found = await bench.store.snapshot("q")
    assert found.oldest_ms is not None
    assert found.now_ms - found.oldest_ms < 60_000
    claimed = await bench.round_trip(want=2)
    assert "a" in claimed


async def test_a_job_returns_to_the_place_that_it_had_first_after_every_suspension(bench: Bench) -> None:
    await suspended_for_approval(bench, "a", ends_ms=HOUR_MS)
    stood = bench.redis.hget("aq:meta:a", "stood")
    await advance_time(bench.store, HOUR_MS)
    await bench.round_trip(want=1)  # by the timer: its score is that of the timer
    await bench.ask("a", Wait("wait:more#1", "signal", "more"))
    await bench.round_trip(suspend("a", "wait:more#1"))
    assert float(bench.redis.hget("aq:meta:a", "stood")) == float(stood) - HOUR_MS


@pytest.mark.parametrize("damage", ["outdated", "lost", "unreadable"])
async def test_a_damaged_note_neither_loses_a_wake_up_nor_pulls_a_job_out_of_its_backoff(
    bench: Bench, damage: str
) -> None:
    await suspended_for_approval(bench, "a")
    if damage == "outdated":  # an older worker claimed the job and let it wait for its next attempt
        bench.redis.zadd("q", {"a": 4e12})
    elif damage == "lost":
        bench.redis.delete("aq:meta:a")
    else:
        bench.redis.hset("aq:meta:a", "suspended", "{")
    await bench.signal("a", "approval")
    assert await bench.state("a") is (State.DELAYED if damage == "outdated" else State.WAITING)


async def test_housekeeping_removes_what_is_not_suspended_from_the_index(bench: Bench) -> None:
    await suspended_for_approval(bench, "a", "b")
    bench.redis.zadd("q", {"a": 1})  # arq's abort()

    async def swept() -> bool:
        await bench.engine.renew(owner=OWNER, worker="w", heartbeat=b"{}", held=[])
        return await bench.suspended() == {"signal": 1}

    await until(swept)
    assert await bench.state("b") is State.SUSPENDED


async def test_housekeeping_reads_no_record_of_a_job_that_only_an_event_wakes(bench: Bench) -> None:
    await suspended_for_approval(bench, *(f"s{number}" for number in range(50)))
    bench.redis.config_resetstat()
    await bench.engine.renew(owner=OWNER, worker="w", heartbeat=b"{}", held=[])
    commands = bench.redis.info("commandstats")
    assert "cmdstat_zscan" in commands  # it looked at the jobs
    assert "cmdstat_pttl" not in commands


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(10_000):
        if await condition():
            return
    raise AssertionError("it does not become true")


async def test_a_signal_with_an_id_counts_once_also_after_it_was_taken(bench: Bench) -> None:
    await suspended_for_approval(bench, "a")
    assert await bench.signal("a", "approval", 1, signal_id="x") == "sent"
    assert await bench.signal("a", "approval", 2, signal_id="x") == "known"
    await bench.round_trip(want=1)
    await bench.ask("a", APPROVAL)
    assert await bench.signal("a", "approval", 3, signal_id="x") == "known"
    assert await bench.ask("a", Wait("wait:approval#2", "signal", "approval")) == [Pending(None)]


async def test_signals_to_unknown_and_final_jobs_are_refused(bench: Bench) -> None:
    assert await bench.signal("nobody", "approval") == "unknown"
    await bench.enqueue("a")
    await bench.round_trip(want=1)
    await bench.round_trip(complete("a"))
    assert await bench.signal("a", "approval") == "final"
    assert bench.redis.keys("aq:signals:*") == []


async def test_a_mailbox_has_room_for_a_thousand_signals_and_a_mebibyte(bench: Bench) -> None:
    await bench.enqueue("many", "large")
    sent = [await bench.signal("many", f"s{number % 7}") for number in range(1_001)]
    assert sent == ["sent"] * 1_000 + ["full"]
    half = "x" * 500_000
    assert [await bench.signal("large", "s", half) for _ in range(3)] == ["sent", "sent", "full"]


async def test_a_signal_to_a_running_job_is_told_to_the_worker_that_holds_it(bench: Bench) -> None:
    await bench.enqueue("a")
    await bench.round_trip(want=1)
    await bench.signal("a", "approval")
    assert bench.redis.lrange(f"q:wake:{OWNER}", 0, -1) == [b"a"]
    assert 0 < bench.redis.pttl(f"q:wake:{OWNER}") <= 60_000


async def test_the_mailbox_of_a_job_that_ended_without_its_workers_knowledge_is_deleted(bench: Bench) -> None:
    await bench.enqueue("a")
    await bench.round_trip(want=1)
    await bench.signal("a", "approval")
    await bench.round_trip(complete("a"))
    await bench.engine.renew(owner=OWNER, worker="w", heartbeat=b"{}", held=[])
    assert bench.redis.keys("aq:signals:*") == bench.redis.keys("q:mailboxes") == []


async def test_a_dead_letter_keeps_the_signals_that_its_worker_did_not_know_of(bench: Bench) -> None:
    await bench.enqueue("replayed", "discarded")
    await bench.round_trip(want=2)
    await bench.signal("replayed", "approval", "before it died")
    await bench.signal("discarded", "approval")
    await bench.round_trip(
        *(DeadLettered(name, Level.NORMAL, b"{}", HOUR_MS, "f00", b"{}") for name in ("replayed", "discarded"))
    )
    await bench.engine.renew(owner=OWNER, worker="w", heartbeat=b"{}", held=[])
    await bench.store.replay("q", ["replayed"])
    await bench.store.discard("q", ["discarded"])
    assert bench.redis.keys("aq:signals:*") == [b"aq:signals:replayed"]
    await bench.round_trip(want=1)
    (answer,) = await bench.ask("replayed", APPROVAL)
    assert value_of(answer) == "before it died"


async def test_a_mailbox_that_an_earlier_job_with_the_id_left_is_not_taken_over(bench: Bench) -> None:
    await bench.enqueue("a")
    await bench.round_trip(want=1)
    await bench.signal("a", "approval", "of the first")
    await bench.round_trip(complete("a"))
    bench.redis.delete("arq:result:a")
    await bench.enqueue("a")
    await bench.round_trip(want=1)
    assert await bench.ask("a", APPROVAL) == [Pending(None)]
    await bench.signal("a", "approval", "of the second")
    (answer,) = await bench.ask("a", APPROVAL)
    assert value_of(answer) == "of the second"


async def test_cancelling_a_suspended_job_delivers_it_once_more_with_the_request(bench: Bench) -> None:
    await suspended_for_approval(bench, "a")
    assert await bench.store.cancel("q", "a", result=b"{}", keep_ms=HOUR_MS) == "asked"
    assert await bench.suspended() == {}
    assert await bench.round_trip(want=1) == ["a"]
    assert bench.claimed["a"].cancel


async def test_cancelling_a_job_with_a_journal_in_its_backoff_delivers_it_once_more(bench: Bench) -> None:
    await bench.enqueue("a")
    await bench.round_trip(want=1)
    await bench.ask("a", APPROVAL)
    await bench.round_trip(Released("a", Level.NORMAL, HOUR_MS))
    assert await bench.store.cancel("q", "a", result=b"{}", keep_ms=HOUR_MS) == "asked"
    assert await bench.round_trip(want=1) == ["a"]
    assert bench.claimed["a"].cancel


async def test_cancelling_a_job_that_never_ran_deletes_its_mailbox(bench: Bench) -> None:
    await bench.enqueue("a")
    await bench.signal("a", "approval")
    assert await bench.store.cancel("q", "a", result=b"{}", keep_ms=HOUR_MS) == "cancelled"
    assert bench.redis.keys("aq:*:a") == []


async def test_a_job_that_was_asked_to_cancel_while_it_ran_is_not_suspended_for_long(bench: Bench) -> None:
    await bench.enqueue("a")
    await bench.round_trip(want=1)
    await bench.ask("a", APPROVAL)
    assert await bench.store.cancel("q", "a", result=b"{}", keep_ms=HOUR_MS) == "asked"
    assert await bench.round_trip(suspend("a"), want=1) == ["a"]
    assert bench.claimed["a"].cancel


async def test_arqs_abort_delivers_a_suspended_job_with_the_request(bench: Bench) -> None:
    await suspended_for_approval(bench, "a")
    bench.redis.zrem("q", "a")  # as arq's Job.abort() does
    bench.redis.zadd("q", {"a": 1})
    bench.redis.zadd("arq:abort", {"a": 1})
    assert await bench.round_trip(want=1) == ["a"]
    assert bench.claimed["a"].cancel
    assert await bench.suspended() == {}


async def test_a_job_that_has_started_does_not_expire_while_it_is_suspended(bench: Bench) -> None:
    await bench.enqueue("a")
    bench.redis.hset("aq:meta:a", "expires", 1)
    await bench.round_trip(want=1)
    await bench.ask("a", APPROVAL)
    await bench.round_trip(suspend("a"))
    await bench.signal("a", "approval")
    await bench.round_trip(want=1)
    assert "expires" not in bench.claimed["a"].meta


async def test_a_paused_queue_keeps_woken_jobs_waiting(bench: Bench) -> None:
    await suspended_for_approval(bench, "a")
    await bench.store.pause("q", "test")
    await bench.signal("a", "approval")
    assert await bench.round_trip(want=1) == []
    assert await bench.state("a") is State.WAITING
    await bench.store.resume("q")
    assert await bench.round_trip(want=1) == ["a"]


async def test_discarding_and_replaying_do_nothing_to_a_suspended_job(bench: Bench) -> None:
    await suspended_for_approval(bench, "a")
    assert (await bench.store.discard("q", ["a"])).count == 0
    assert list((await bench.store.replay("q", ["a"])).statuses) == ["unknown"]
    assert await bench.state("a") is State.SUSPENDED


async def test_a_plain_job_costs_no_command_more_beside_suspended_ones(bench: Bench) -> None:
    async def commands() -> dict[str, int]:
        bench.redis.delete("q:wake", "q:limit")
        bench.redis.config_resetstat()
        await bench.enqueue("p")
        await bench.round_trip(want=1)
        await bench.round_trip(complete("p"))
        bench.redis.delete("arq:result:p")
        return {name: entry["calls"] for name, entry in bench.redis.info("commandstats").items()}

    await commands()
    plain = await commands()
    await suspended_for_approval(bench, *(f"s{number}" for number in range(50)))
    await commands()
    assert await commands() == plain
