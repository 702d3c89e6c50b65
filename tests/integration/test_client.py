"""The clients against real servers: what producers rely on."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from agentqueue.agent.context import Context
from agentqueue.agent.definition import Agent
from agentqueue.client import Cancellation, Client, Job, Replayed, SyncClient
from agentqueue.clock import now_ms
from agentqueue.errors import (
    AgentQueueError,
    InvalidName,
    InvalidPayload,
    JobCancelled,
    JobFailed,
    JobNotFound,
    NotFound,
    QueueFull,
    QueueUnavailable,
    ResultTimeout,
    UnsupportedServer,
    UsageError,
)
from agentqueue.local.state import write_up_state
from agentqueue.model.job import State
from agentqueue.model.times import from_ms
from agentqueue.service.environment import REDIS_INSECURE_SKIP_VERIFY, REDIS_URL
from agentqueue.store import Tls
from agentqueue.store.jobs import ReplayReply
from tests.support.raw_queue import RawQueue
from tests.support.servers import RunningServer

agent = Agent("flights")


@dataclass
class Request:
    origin: str
    passengers: int


@agent.job
async def search_flights(ctx: Context, request: Request) -> None:
    """Never called here: only its definition is used."""


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


@pytest.fixture
def sync_client(server_url: str) -> Iterator[SyncClient]:
    with SyncClient(server_url) as connected:
        yield connected


def raw_queue(client: Client, queue: str = "flights") -> RawQueue:
    return RawQueue(client.server, queue)


class TestEnqueue:
    async def test_a_job_waits_as_it_was_sent(self, client: Client) -> None:
        before = now_ms()
        job = await client.enqueue("flights", "search", {"from": "BER"}, priority="urgent", id="trip-17", tags=["acme"])
        status = await job.status()
        assert (job.id, job.queue, job.deduplicated) == ("trip-17", "flights", False)
        assert (status.queue, status.name, status.state) == ("flights", "search", State.WAITING)
        assert (status.priority, status.data, status.attempts, status.deliveries) == ("urgent", {"from": "BER"}, 0, 0)
        assert status.enqueued_at is not None
        assert before <= status.enqueued_at.timestamp() * 1000 <= now_ms()
        assert status.started_at is status.finished_at is status.result is status.error is status.worker is None

    async def test_without_an_id_each_job_is_its_own(self, client: Client) -> None:
        jobs = [await client.enqueue("flights", "search", {"from": "BER"}) for _ in range(3)]
        assert len({job.id for job in jobs}) == 3
        assert (await client.stats("flights")).waiting == 3

    async def test_the_same_id_gives_back_the_first_job(self, client: Client) -> None:
        await client.enqueue("flights", "search", {"n": 1}, id="trip")
        again = await client.enqueue("hotels", "book", {"n": 2}, id="trip")
        assert again.deduplicated
        status = await again.status()
        assert (status.queue, status.name, status.data) == ("flights", "search", {"n": 1})
        assert (await client.stats("hotels")).waiting == 0

    async def test_the_same_id_is_known_while_its_result_is(self, client: Client) -> None:
        await client.enqueue("flights", "search", 1, id="trip")
        worker = raw_queue(client)
        await worker.complete(await worker.claim_one(), "done")
        again = await client.enqueue("flights", "search", 2, id="trip")
        assert again.deduplicated
        assert await again.result(timeout=1) == "done"

    async def test_a_delayed_job_is_delayed(self, client: Client) -> None:
        soon = await client.enqueue("flights", "search", delay=timedelta(hours=1))
        later = await client.enqueue("flights", "search", at=from_ms(now_ms()) + timedelta(days=2))
        past = await client.enqueue("flights", "search", at=datetime(2001, 1, 1, tzinfo=UTC))
        found = [await job.status() for job in (soon, later, past)]
        assert [status.state for status in found] == [State.DELAYED, State.DELAYED, State.WAITING]
        waits = [status.due_at and status.enqueued_at and status.due_at - status.enqueued_at for status in found]
        assert [wait and round(wait / timedelta(hours=1), 2) for wait in waits] == [1, 48, None]
        due = (await client.stats("flights")).next_due_seconds
        assert due is not None
        assert 3_590 < due <= 3_600

    async def test_a_typed_enqueue_is_checked_by_the_handlers_annotation(self, client: Client) -> None:
        job = await client.enqueue(search_flights, Request("BER", 6), priority="high")
        status = await job.status()
        assert (status.queue, status.name) == ("flights", "search-flights")
        assert status.data == {"origin": "BER", "passengers": 6}
        with pytest.raises(InvalidPayload, match="passengers"):
            await client.enqueue(agent.jobs["search-flights"], {"origin": "BER", "passengers": "many"})

    async def test_what_is_refused_is_not_sent(self, client: Client) -> None:
        for data in ({"x": float("nan")}, {"x": object()}, {1: 2}, "x" * 2_000_000, _nested(200)):
            with pytest.raises(InvalidPayload):
                await client.enqueue("flights", "search", data)
        with pytest.raises(InvalidName):
            await client.enqueue("flights:dead", "search")
        assert await client.queues() == []

    async def test_jobs_of_many_tasks_at_once_all_arrive(self, client: Client) -> None:
        await asyncio.gather(*(client.enqueue("flights", "search", n) for n in range(300)))
        assert (await client.stats("flights")).waiting == 300


def _nested(depth: int) -> list[Any]:
    out: list[Any] = []
    for _ in range(depth):
        out = [out]
    return out


class TestEnqueueMany:
    async def test_handles_come_in_the_callers_order_over_several_queues(self, client: Client) -> None:
        items = [{"queue": f"q{n % 3}", "name": "search", "data": n} for n in range(2_500)]
        jobs = await client.enqueue_many(items)
        assert [job.queue for job in jobs] == [item["queue"] for item in items]
        for n in (0, 1, 1_234, 2_499):
            assert (await jobs[n].status()).data == n
        assert {stats.name: stats.waiting for stats in await client.stats()} == {"q0": 834, "q1": 833, "q2": 833}

    async def test_the_order_within_a_queue_is_kept(self, client: Client) -> None:
        await client.enqueue_many([{"queue": "flights", "name": "search", "data": n} for n in range(1_800)])
        worker, order = raw_queue(client), []
        while claimed := await worker.claim(400):
            order += [(await client.status(job.id)).data for job in claimed[:: len(claimed) - 1]]
        assert order == sorted(order)

    async def test_known_ids_are_distinguished_within_one_bulk(self, client: Client) -> None:
        await client.enqueue("flights", "search", id="old")
        ids = ["new", "old", "new", "other"]
        jobs = await client.enqueue_many([{"queue": "flights", "name": "search", "id": i} for i in ids])
        assert [(job.id, job.deduplicated) for job in jobs] == [
            ("new", False),
            ("old", True),
            ("new", True),
            ("other", False),
        ]
        assert (await client.stats("flights")).waiting == 3

    async def test_of_a_list_all_are_checked_before_one_is_sent(self, client: Client) -> None:
        items = [{"queue": "flights", "name": "search", "data": n} for n in range(1_000)]
        with pytest.raises(InvalidPayload, match=r"jobs\[700\]: .*\.x is nan"):
            await client.enqueue_many(
                [*items[:700], {"queue": "flights", "name": "search", "data": {"x": float("nan")}}]
            )
        assert await client.queues() == []

    async def test_a_generator_is_sent_as_it_goes(self, client: Client) -> None:
        seen: list[int] = []

        def endless() -> Iterator[dict[str, Any]]:
            n = 0
            while not (seen and seen[-1] >= 1_000):
                yield {"queue": "flights", "name": "search", "data": n}
                n += 1

        jobs = await client.enqueue_many(endless(), progress=seen.append)
        assert seen[0] == 500
        assert seen[-1] == len(jobs) == (await client.stats("flights")).waiting

    async def test_an_async_generator_is_sent_too(self, client: Client) -> None:
        async def items() -> AsyncIterator[dict[str, Any]]:
            for n in range(600):
                yield {"function": search_flights, "payload": {"origin": "BER", "passengers": n}}

        assert len(await client.enqueue_many(items())) == 600
        assert (await client.stats("flights")).waiting == 600

    async def test_an_error_in_an_async_generator_names_the_job(self, client: Client) -> None:
        async def items() -> AsyncIterator[dict[str, Any]]:
            yield {"queue": "flights", "name": "search"}
            yield {"queue": "flights", "name": "search", "priorty": 1}

        with pytest.raises(UsageError, match=r"jobs\[1\]: enqueue has no option 'priorty'; did you mean 'priority'"):
            await client.enqueue_many(items())

    async def test_nothing_at_all_is_fine(self, client: Client) -> None:
        assert await client.enqueue_many([]) == []


class TestResult:
    async def test_it_waits_for_what_the_handler_returned(self, client: Client) -> None:
        job = await client.enqueue("flights", "search")
        waiting = asyncio.create_task(job.result(timeout=20))
        worker = raw_queue(client)
        claimed = await worker.claim_one()
        await worker.note_progress(claimed, 40, "looking")
        status = await job.status()
        assert (status.state, status.deliveries, status.worker) == (State.ACTIVE, 1, "hand")
        assert status.progress is not None
        assert (status.progress.percent, status.progress.message) == (40, "looking")
        await worker.complete(claimed, {"offers": [1, 2]})
        assert await waiting == {"offers": [1, 2]}
        assert (await job.status()).result == {"offers": [1, 2]}

    async def test_a_dead_job_raises_its_last_error(self, client: Client) -> None:
        job = await client.enqueue("flights", "search", id="trip")
        worker = raw_queue(client)
        await worker.add_dead_letter(await worker.claim_one(), "no airport 'XYZ'")
        with pytest.raises(JobFailed, match=r"Fatal: no airport 'XYZ'.*agentqueue dead show flights trip"):
            await job.result(timeout=5)
        assert (await job.status()).error == "Fatal: no airport 'XYZ'"

    async def test_a_job_between_attempts_shows_its_error_and_is_waited_for(self, client: Client) -> None:
        job = await client.enqueue("flights", "search")
        worker = raw_queue(client)
        await worker.fail(await worker.claim_one())
        status = await job.status()
        assert (status.state, status.attempts, status.error) == (State.DELAYED, 1, "ValueError: nope")
        with pytest.raises(ResultTimeout, match="still delayed"):
            await job.result(timeout=0.05)

    async def test_an_unknown_job_is_not_waited_for(self, client: Client) -> None:
        with pytest.raises(JobNotFound, match="no job nobody is known"):
            await client.job("nobody").result(timeout=60)

    async def test_a_pickled_result_is_named_as_such(self, client: Client, server_url: str) -> None:
        await client.enqueue("flights", "search", id="trip")
        worker = raw_queue(client)
        await worker.complete(await worker.claim_one())
        with redis.Redis.from_url(server_url) as raw:
            raw.set("arq:result:trip", b"\x80\x05}q\x00.")
        with pytest.raises(InvalidPayload, match="pickle"):
            await client.result("trip", 1)

    @pytest.mark.parametrize("bad", [-1, float("nan"), "5"])
    async def test_a_bad_timeout_is_refused(self, client: Client, bad: Any) -> None:
        with pytest.raises(UsageError, match="timeout"):
            await client.job("trip").result(bad)


class TestCancel:
    async def test_a_waiting_job_is_cancelled_at_once(self, client: Client) -> None:
        job = await client.enqueue("flights", "search", {"from": "BER"}, priority="low")
        assert await job.cancel() is Cancellation.CANCELLED
        status = await job.status()
        assert (status.state, status.name, status.data, status.priority) == (
            "cancelled",
            "search",
            {"from": "BER"},
            "low",
        )
        with pytest.raises(JobCancelled, match=job.id):
            await job.result(timeout=1)
        assert (await client.stats("flights")).waiting == 0

    async def test_a_running_jobs_worker_is_asked(self, client: Client) -> None:
        job = await client.enqueue("flights", "search")
        worker = raw_queue(client)
        await worker.claim_one()
        assert await job.cancel() is Cancellation.REQUESTED
        reply = await worker.engine.finish_and_claim(seq=99, owner=worker.owner, want=0, watch=[job.id])
        assert reply.cancel == [job.id]

    async def test_an_ended_job_can_not_be_cancelled(self, client: Client) -> None:
        job = await client.enqueue("flights", "search")
        worker = raw_queue(client)
        await worker.complete(await worker.claim_one(), 5)
        assert await job.cancel() is Cancellation.TOO_LATE
        assert await job.result() == 5

    async def test_an_unknown_job_is_not_found(self, client: Client) -> None:
        with pytest.raises(JobNotFound):
            await client.cancel("nobody")


class TestFinding:
    async def test_a_job_is_found_by_its_id_alone_in_every_state(self, client: Client) -> None:
        for state in ("waiting", "active", "completed", "dead"):
            await client.enqueue("flights", "search", id=state)
        worker = raw_queue(client)
        claimed = {job.id: job for job in await worker.claim(4)}
        await worker.engine.release_worker_leases(worker="nobody", reason="")
        await worker.complete(claimed["completed"])
        await worker.add_dead_letter(claimed["dead"])
        await worker.fail(claimed["waiting"], delay_ms=0)
        for state in ("waiting", "active", "completed", "dead"):
            status = await client.job(state).status()
            assert (status.queue, status.state) == ("flights", state)

    async def test_a_plain_arq_record_is_found_in_the_known_queues(self, client: Client, server_url: str) -> None:
        for number in range(230):
            await client.enqueue(f"q{number:03}", "search")
        record = b'{"t":null,"f":"search","a":[1,2],"k":{"x":3},"et":1700000000000}'
        with redis.Redis.from_url(server_url) as raw:
            raw.set("arq:job:plain", record)
            raw.zadd("q229", {"plain": now_ms()})
            raw.set("arq:job:default", b"\x80\x05}q\x00.")
            raw.zadd("arq:queue", {"default": now_ms()})
        status = await client.job("plain").status()
        assert (status.queue, status.data) == ("q229", {"args": [1, 2], "kwargs": {"x": 3}})
        status = await client.job("default").status()
        assert (status.queue, status.name, status.error) == (
            "arq:queue",
            "",
            "its record is a pickle, which is not read here",
        )

    async def test_a_wrong_queue_does_not_mislead(self, client: Client) -> None:
        await client.enqueue("flights", "search", id="trip")
        assert (await client.status("trip", queue="hotels")).queue == "flights"

    async def test_a_job_that_only_the_history_remembers_is_completed(self, client: Client, server_url: str) -> None:
        await client.enqueue("flights", "search", id="trip")
        worker = raw_queue(client)
        await worker.complete(await worker.claim_one())
        with redis.Redis.from_url(server_url) as raw:
            raw.delete("arq:result:trip")
        status = await client.status("trip")
        assert (status.state, status.name, status.queue) == (State.COMPLETED, "", "flights")
        assert status.finished_at is not None

    async def test_arqs_own_job_is_bound_to_the_right_zset(self, client: Client) -> None:
        await client.enqueue("flights", "search", {"a": 1}, priority="urgent", id="trip")
        job = await client.arq_job("trip")
        assert (await job.status()).value == "queued"
        info = await job.info()
        assert info is not None
        assert (info.function, info.args) == ("search", ({"a": 1},))


class TestListing:
    async def test_pages_lead_through_all_live_jobs(self, client: Client) -> None:
        await client.enqueue_many([{"queue": "flights", "name": "search", "data": n} for n in range(25)])
        await client.enqueue("flights", "search", "later", delay=100)
        worker = raw_queue(client)
        await worker.claim(3)
        states, cursor, pages = [], None, 0
        while True:
            page = await client.jobs("flights", cursor=cursor, limit=10)
            states += [status.state for status in page]
            pages, cursor = pages + 1, page.cursor
            if cursor is None:
                break
        assert states == [State.ACTIVE] * 3 + [State.WAITING] * 22 + [State.DELAYED]
        assert pages == 3

    async def test_one_state_at_a_time(self, client: Client) -> None:
        await client.enqueue("flights", "search", id="a", priority="low")
        await client.enqueue("flights", "search", id="b", priority="urgent")
        worker = raw_queue(client)
        await worker.complete(await worker.claim_one(), 1)
        assert [s.id for s in await client.jobs("flights", "completed")] == ["b"]
        assert [s.id for s in await client.jobs("flights", State.WAITING)] == ["a"]
        assert await client.jobs("flights", "dead") == []

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            pytest.param({"state": "cancelled"}, "can't be listed", id="cancelled"),
            pytest.param({"state": "lost"}, "can't be listed", id="no-such-state"),
            pytest.param({"cursor": "12"}, "invalid cursor", id="no-cursor"),
            pytest.param({"cursor": "dead:5"}, "not requested", id="cursor-of-another-state"),
            pytest.param({"limit": 0}, "from 1 to 1,000", id="limit-low"),
            pytest.param({"limit": 1_001}, "from 1 to 1,000", id="limit-high"),
        ],
    )
    async def test_bad_questions_are_refused(self, client: Client, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            await client.jobs("flights", **arguments)


class TestQueues:
    async def test_stats_count_jobs_and_name_the_workers(self, client: Client) -> None:
        await client.enqueue("flights", "search", priority="urgent")
        await client.enqueue("flights", "search", priority=7)
        worker = raw_queue(client)
        await worker.heartbeat(b'{"busy":1,"slots":5,"draining":false,"jobs":["search","book"]}')
        await worker.complete(await worker.claim_one())
        stats = await client.stats("flights")
        assert (stats.waiting, stats.active, stats.completed, stats.dead) == (1, 0, 1, 0)
        assert stats.by_priority == {"urgent": 0, "high": 1, "normal": 0, "low": 0}
        assert (stats.busy, stats.slots) == (1, 5)
        assert stats.workers[0].jobs == ("search", "book")
        assert stats.enqueued_per_minute >= 1
        assert stats.to_json()["byPriority"]["urgent"] == 0

    async def test_pause_and_resume(self, client: Client) -> None:
        await client.enqueue("flights", "search")
        assert await client.pause("flights", "by ops")
        assert not await client.pause("flights")
        stats = await client.stats("flights")
        assert (stats.paused, stats.paused_note) == (True, "by ops")
        assert await raw_queue(client).claim() == []
        assert await client.resume("flights")
        assert not await client.resume("flights")
        assert len(await raw_queue(client).claim()) == 1

    async def test_text_that_utf_8_cannot_encode_is_no_error(self, client: Client) -> None:
        """Half of a character, as JSON and cut text may hold it."""
        await client.enqueue("flights", "search")
        assert await client.pause("flights", "half a smile: \ud83d")
        assert (await client.stats("flights")).paused_note == r"half a smile: \ud83d"
        assert await client.discard("flights", fingerprint="\ud83d") == 0
        assert list(await client.dead_letters("flights", fingerprint="\ud83d")) == []


class TestDeadLetters:
    async def add_dead_letter(self, client: Client, number: int, message: str = "no airport 'A{}'") -> str:
        worker = raw_queue(client)
        kind = ""
        for n in range(number):
            await client.enqueue("flights", "search", {"n": n}, id=f"{message[:2].strip()}-{n}")
            kind = await worker.add_dead_letter(await worker.claim_one(), message.format(n))
        return kind

    async def test_they_are_grouped_by_kind(self, client: Client) -> None:
        airports = await self.add_dead_letter(client, 3)
        other = await self.add_dead_letter(client, 1, "timed out after {} s")
        groups = await client.dead_groups("flights")
        assert [(group.fingerprint, group.count) for group in groups] == [(airports, 3), (other, 1)]
        assert groups[0].newest.id == "no-2"
        assert groups[1].newest.error == "Fatal: timed out after 0 s"

    async def test_pages_go_from_the_newest_and_may_be_of_one_kind(self, client: Client) -> None:
        kind = await self.add_dead_letter(client, 5)
        await self.add_dead_letter(client, 1, "timed out after {} s")
        first = await client.dead_letters("flights", fingerprint=kind, limit=3)
        second = await client.dead_letters("flights", fingerprint=kind, limit=3, cursor=first.cursor)
        assert [letter.id for letter in [*first, *second]] == ["no-4", "no-3", "no-2", "no-1", "no-0"]
        assert second.cursor is None
        assert len(await client.dead_letters("flights")) == 6
        assert (await client.dead_letter("no-1")).data == {"n": 1}
        with pytest.raises(JobNotFound, match="no dead letter"):
            await client.dead_letter("nobody")

    async def test_replay_by_id_returns_the_ids_that_were_not_sent(self, client: Client, server_url: str) -> None:
        await self.add_dead_letter(client, 3)
        with redis.Redis.from_url(server_url) as raw:
            raw.hdel("aq:dead:no-2", "record")
        report = await client.replay("flights", ["no-0", "nobody", "no-2"])
        assert (report.count, report.not_found, report.no_record, report.left) == (1, ["nobody"], ["no-2"], 2)
        assert (await client.status("no-0")).state is State.WAITING
        assert await client.replay("flights", "no-0") == Replayed(0, ["no-0"], [], [])

    async def test_replay_of_a_kind_leaves_the_others(self, client: Client) -> None:
        kind = await self.add_dead_letter(client, 3)
        await self.add_dead_letter(client, 2, "timed out after {} s")
        seen: list[int] = []
        assert (await client.replay("flights", fingerprint=kind, progress=seen.append)).count == 3
        assert seen == [3]
        assert {letter.id for letter in await client.dead_letters("flights")} == {"ti-0", "ti-1"}

    async def test_bulk_replay_takes_what_was_dead_when_it_began_also_past_what_can_not_run(
        self, client: Client, server_url: str
    ) -> None:
        worker = raw_queue(client)
        await client.enqueue_many([{"queue": "flights", "name": "search", "id": f"j{n}"} for n in range(1_100)])
        for job in [job for _ in range(3) for job in await worker.claim(400)]:
            await worker.add_dead_letter(job)
        bare = [f"j{n}" for n in range(0, 1_100, 2)]
        with redis.Redis.from_url(server_url) as raw, raw.pipeline(transaction=False) as pipe:
            for job_id in bare:
                pipe.hdel(f"aq:dead:{job_id}", "record")
            pipe.execute()
        calls = 0

        def kill_some(_: int) -> None:
            nonlocal calls
            calls += 1

        report = await client.replay("flights", all=True, progress=kill_some)
        assert (report.count, len(report.no_record), calls) == (550, 550, 3)
        stats = await client.stats("flights")
        assert (stats.waiting, stats.dead) == (550, 550)
        assert await client.discard("flights", all=True) == 550
        assert (await client.stats("flights")).dead == 0

    @pytest.mark.parametrize("at_once", [False, True])
    async def test_a_job_that_dies_again_during_a_bulk_is_sent_once(self, client: Client, *, at_once: bool) -> None:
        """`at_once`: it dies at a time that the bulk covers, such as in the millisecond in which the bulk began."""
        await self.add_dead_letter(client, 3)
        worker, index = raw_queue(client), client.server.redis
        _, began = (await index.zrange("flights:dead", -1, -1, withscores=True))[0]
        original = client.store.replay
        sent: list[str] = []

        async def replay(queue: str, ids: Any, *, start_from: str = "") -> ReplayReply:
            sent.extend(ids)
            reply = await original(queue, ids, start_from=start_from)
            for job in await worker.claim(10):
                await worker.add_dead_letter(job)
                if at_once:
                    await index.zadd("flights:dead", {job.id: began})
            return replace(reply, now_ms=int(began)) if at_once else reply

        client.store.replay = replay  # type: ignore[method-assign]
        assert (await client.replay("flights", all=True)).count == 3
        assert sorted(sent) == ["no-0", "no-1", "no-2"]

    async def test_discard_by_id(self, client: Client) -> None:
        await self.add_dead_letter(client, 2)
        assert await client.discard("flights", ["no-0", "nobody"]) == 1
        assert [letter.id for letter in await client.dead_letters("flights")] == ["no-1"]

    async def test_a_discarded_id_is_forgotten_and_may_be_enqueued_again(self, client: Client) -> None:
        await self.add_dead_letter(client, 1)
        known = await client.enqueue("flights", "search", id="no-0")
        status = await known.known_status()
        assert status is not None
        assert (known.deduplicated, status.state) == (True, State.DEAD)
        await client.discard("flights", "no-0")
        with pytest.raises(JobNotFound):
            await client.status("no-0")
        assert await known.known_status() is None
        again = await client.enqueue("flights", "search", id="no-0")
        assert (again.deduplicated, await again.known_status()) == (False, None)
        assert (await again.status()).state is State.WAITING

    @pytest.mark.parametrize("choice", [{}, {"ids": ["a"], "all": True}, {"all": True, "fingerprint": "abc"}])
    async def test_the_choice_must_be_one(self, client: Client, choice: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match="exactly one"):
            await client.replay("flights", **choice)


class TestTrouble:
    async def test_a_lost_answer_is_sent_again_and_enqueued_once(self, client: Client) -> None:
        await client.enqueue("flights", "search", "another payload", id="theirs")
        original = client.store.enqueue
        lost: list[set[str]] = []

        async def enqueue(jobs: Any, *, ids_are_random: bool = False) -> set[str]:
            answer = await original(jobs, ids_are_random=ids_are_random)
            if not lost:
                lost.append(answer)
                raise QueueUnavailable("the answer was lost")
            return answer

        for items, known in (
            ([{"id": "ours"}, {"id": "theirs"}], [False, True]),
            ([{}, {}], [False, False]),
        ):
            lost.clear()
            client.store.enqueue = enqueue  # type: ignore[method-assign]
            jobs = await client.enqueue_many([{"queue": "flights", "name": "search", **item} for item in items])
            assert [job.deduplicated for job in jobs] == known
            client.store.enqueue = original  # type: ignore[method-assign]
        assert (await client.stats("flights")).waiting == 4

    async def test_a_job_that_ran_before_the_second_try_is_ours(self, client: Client) -> None:
        original, worker = client.store.enqueue, raw_queue(client)

        async def enqueue(jobs: Any, *, ids_are_random: bool = False) -> set[str]:
            client.store.enqueue = original  # type: ignore[method-assign]
            await original(jobs, ids_are_random=ids_are_random)
            await worker.complete(await worker.claim_one(), "quick")
            raise QueueUnavailable("the answer was lost")

        client.store.enqueue = enqueue  # type: ignore[method-assign]
        job = await client.enqueue("flights", "search", id="ours")
        assert not job.deduplicated
        assert await job.result() == "quick"

    async def test_a_full_server_raises_queue_full(self, start_server: Callable[..., RunningServer]) -> None:
        server = start_server(maxmemory="24mb")
        async with Client(server.url) as client:
            with pytest.raises(QueueFull, match="maxmemory"):
                await client.enqueue_many(
                    {"queue": "flights", "name": "search", "data": "x" * 10_000} for _ in range(4_000)
                )
            assert (await client.stats("flights")).waiting > 0

    async def test_a_server_that_is_away_raises_within_the_timeout(
        self, start_server: Callable[..., RunningServer]
    ) -> None:
        server = start_server()
        async with Client(server.url, connect_timeout=1) as client:
            server.kill()
            with pytest.raises(QueueUnavailable, match=f"127.0.0.1:{server.port} does not answer"):
                await client.enqueue("flights", "search")

    async def test_a_server_that_hangs_is_given_up_within_the_timeout(
        self, start_server: Callable[..., RunningServer]
    ) -> None:
        server = start_server()
        async with Client(server.url, timeout=0.2) as client:
            server.freeze()
            with pytest.raises(QueueUnavailable, match=r"nothing within 0\.2 s"):
                await client.stats("flights")
            server.thaw()
            assert await client.queues() == []

    async def test_connections_that_the_server_closed_are_opened_again(self, client: Client, server_url: str) -> None:
        await asyncio.gather(*(client.queues() for _ in range(5)))
        with redis.Redis.from_url(server_url) as raw:
            await asyncio.to_thread(raw.client_kill_filter, _type="normal", skipme=True)
            await asyncio.to_thread(raw.ping)
        for _ in range(10):
            assert await client.queues() == []

    async def test_a_cancelled_call_ends_and_leaves_the_client_usable(self, client: Client) -> None:
        for number in range(300):  # at each point of a call: sending, waiting for the answer
            call = asyncio.create_task(_endless(client))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(call, 5)
        assert await client.queues() == []

    async def test_a_wait_outlives_a_restart_of_the_server(self, start_server: Callable[..., RunningServer]) -> None:
        server = start_server(appendonly="yes", appendfsync="always")
        async with Client(server.url) as client:
            job = await client.enqueue("flights", "search")
            worker = raw_queue(client)
            claimed = await worker.claim_one()
            waiting = asyncio.create_task(job.result(timeout=30))
            await job.status()
            server.kill()
            with pytest.raises(QueueUnavailable):
                await job.status()
            await asyncio.to_thread(server.start)
            await worker.complete(claimed, "late")
            assert await waiting == "late"

    async def test_a_wrong_password_and_a_wrong_program_are_distinguished(
        self, start_server: Callable[..., RunningServer]
    ) -> None:
        server = start_server(requirepass="secret")
        with pytest.raises(QueueUnavailable, match="password"):
            async with Client(server.url.replace("secret", "wrong")):
                raise AssertionError("connected")
        http = await asyncio.start_server(_answer_http, "127.0.0.1", 0)
        async with http:
            port = http.sockets[0].getsockname()[1]
            with pytest.raises((UnsupportedServer, QueueUnavailable), match=str(port)):
                async with Client(f"redis://127.0.0.1:{port}", timeout=2):
                    raise AssertionError("connected")

    async def test_a_bad_url_is_a_usage_error(self) -> None:
        with pytest.raises(UsageError, match="starts with none of redis://"):
            Client("http://localhost")

    async def test_without_a_url_the_environment_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AGENTQUEUE_REDIS_URL", raising=False)
        monkeypatch.delenv("REDIS_URL", raising=False)
        with pytest.raises(UsageError, match="AGENTQUEUE_REDIS_URL or REDIS_URL"):
            Client()
        monkeypatch.setenv("REDIS_URL", "redis://somewhere:1")
        assert Client().server.name == "redis://somewhere:1"


class TestLocal:
    async def test_it_connects_to_the_up_of_the_folder_or_of_one_above(self, server_url: str, tmp_path: Path) -> None:
        write_up_state(tmp_path, {REDIS_URL: server_url}, pid=os.getpid())
        below = tmp_path / "src"
        below.mkdir()
        async with Client.local(below) as client:
            await client.enqueue("flights", "search", id="trip")
        with SyncClient.local(str(tmp_path)) as same:
            assert same.status("trip").queue == "flights"

    def test_it_takes_all_of_the_connection_from_the_up(self, tmp_path: Path) -> None:
        connection = {REDIS_URL: "rediss://:pw@10.0.0.1:6380/2", REDIS_INSECURE_SKIP_VERIFY: "true"}
        write_up_state(tmp_path, connection, pid=os.getpid())
        options = Client.local(tmp_path).server.options
        assert (options.url, options.tls) == (connection[REDIS_URL], Tls(skip_verify=True))

    @pytest.mark.parametrize("local", [Client.local, SyncClient.local])
    def test_without_one_the_error_names_the_next_step(
        self, local: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server_url: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv(REDIS_URL, server_url)
        with pytest.raises(UsageError, match=rf"no `agentqueue up` runs for {tmp_path} .* `agentqueue up FILE`"):
            local()


async def _endless(client: Client) -> None:
    while True:
        await client.queues()


async def _answer_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()
    writer.close()


class TestSyncClient:
    def test_the_whole_way(self, sync_client: SyncClient) -> None:
        job = sync_client.enqueue("flights", "search", {"a": 1}, id="trip", priority="high")
        assert job.status().state is State.WAITING
        assert sync_client.job("trip").status().data == {"a": 1}
        assert sync_client.stats("flights").waiting == 1
        assert [stats.name for stats in sync_client.stats()] == sync_client.queues() == ["flights"]
        assert [status.id for status in sync_client.jobs("flights")] == ["trip"]
        assert sync_client.pause("flights", "x")
        assert sync_client.resume("flights")
        known = sync_client.enqueue("flights", "search", id="trip")
        status = known.known_status()
        assert status is not None
        assert (known.deduplicated, status.id) == (True, "trip")
        assert sync_client.enqueue("flights", "search").known_status() is None
        assert job.cancel() is Cancellation.CANCELLED
        with pytest.raises(JobCancelled):
            job.result(timeout=1)
        assert (sync_client.dead_groups("flights"), list(sync_client.dead_letters("flights"))) == ([], [])
        assert sync_client.replay("flights", all=True).count == sync_client.discard("flights", all=True) == 0
        with pytest.raises(JobNotFound):
            sync_client.dead_letter("trip")

    def test_a_bulks_generator_runs_in_the_callers_thread(self, sync_client: SyncClient) -> None:
        threads: set[int] = set()
        seen: list[int] = []

        def items() -> Iterator[dict[str, Any]]:
            for n in range(1_200):
                threads.add(threading.get_ident())
                yield {"queue": "flights", "name": "search", "data": n}

        jobs = sync_client.enqueue_many(items(), progress=seen.append)
        assert threads == {threading.get_ident()}
        assert seen == [500, 1_000, 1_200]
        assert jobs[1_199].status().data == 1_199

    def test_a_bad_job_in_a_bulk_is_named(self, sync_client: SyncClient) -> None:
        with pytest.raises(UsageError, match=r"jobs\[1\] must be a mapping"):
            sync_client.enqueue_many([{"queue": "flights", "name": "search"}, 5])  # type: ignore[list-item]
        assert sync_client.queues() == []

    def test_threads_may_share_one(self, sync_client: SyncClient) -> None:
        def send() -> None:
            for _ in range(20):
                sync_client.enqueue("flights", "search")
            sync_client.enqueue_many({"queue": "flights", "name": "search"} for _ in range(50))

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sync_client.stats("flights").waiting == 280

    def test_closing_leaves_no_thread_and_ends_waits(self, server_url: str) -> None:
        client = SyncClient(server_url)
        job = client.enqueue("flights", "search")
        outcome: list[BaseException] = []

        def wait() -> None:
            try:
                job.result()
            except BaseException as exc:  # noqa: BLE001  # whatever ended it
                outcome.append(exc)

        thread = threading.Thread(target=wait)
        thread.start()
        job.status()
        client.close()
        thread.join(10)
        assert not thread.is_alive()
        (error,) = outcome
        assert isinstance(error, AgentQueueError)
        assert "the client was closed" in str(error)
        assert "agentqueue-client" not in {thread.name for thread in threading.enumerate()}

    def test_a_server_that_is_away_leaves_no_thread(self) -> None:
        with pytest.raises(QueueUnavailable), SyncClient("redis://127.0.0.1:1", connect_timeout=1):
            raise AssertionError("connected")
        assert "agentqueue-client" not in {thread.name for thread in threading.enumerate()}


FORKING = """
import asyncio, os, signal, sys
from agentqueue.client import Client, SyncClient
from agentqueue.errors import UsageError

def in_a_child(act):
    "What `act` said in a forked process; a hang there ends by SIGALRM."
    mine, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        try:
            said = act()
        except UsageError as exc:
            said = f"UsageError: {exc}"
        os.write(theirs, str(said).encode())
        os._exit(0)
    os.close(theirs)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "it hung"
    return os.read(mine, 10_000).decode()

"""


class TestEventLoops:
    """A client belongs to the event loop that it was first used in."""

    def test_the_error_in_a_second_asyncio_run_names_the_next_step(self, server_url: str) -> None:
        program = """
import asyncio
from agentqueue import Client; url = sys.argv[1]
import redis
if redis.__version__.startswith("5.2."):
    sys.unraisablehook = lambda _: None  # it closes connections of a closed event loop when they are collected
client = Client(url)
async def second(work):
    try:
        await work()
    except Exception as exc:
        print(type(exc).__name__, exc)
asyncio.run(client.enqueue("a", "b", id="one"))
for work in client.stats, client.__aenter__, lambda: client.enqueue("a", "b"), lambda: client.job("one").result():
    asyncio.run(second(work))
asyncio.run(client.close())
print("closed")
"""
        *refused, closed = forking(server_url, program)
        assert len(refused) == 4
        for line in refused:
            assert line.startswith("UsageError this client was used in another event loop")
            assert "in one asyncio.run()" in line
        assert closed == "closed"

    def test_a_client_that_was_closed_may_be_used_in_another(self, server_url: str) -> None:
        client = Client(server_url)

        async def work(job_id: str) -> str:
            async with client:
                return (await client.enqueue("a", "b", id=job_id)).id

        assert [asyncio.run(work(it)) for it in ("one", "two")] == ["one", "two"]

    async def test_a_client_that_was_only_made_belongs_to_none(self, server_url: str) -> None:
        client = await asyncio.to_thread(Client, server_url)
        async with client:
            assert await client.stats() == []


def forking(server_url: str, program: str) -> list[str]:
    """The lines that a program says that forks: a process of its own, for this one has threads and event loops."""
    found = subprocess.run(
        [sys.executable, "-c", FORKING + program, server_url], capture_output=True, text=True, timeout=60, check=False
    )
    assert (found.returncode, found.stderr) == (0, "")
    return found.stdout.splitlines()


class TestAfterAFork:
    def test_a_used_sync_client_is_refused_in_the_child_and_goes_on_in_the_parent(self, server_url: str) -> None:
        program = """
client = SyncClient(sys.argv[1])
job = client.enqueue("flights", "search", 1)
print(in_a_child(lambda: client.enqueue("flights", "search", 2)))
print(in_a_child(lambda: client.enqueue_many([{"queue": "flights", "name": "search"}])))
print(in_a_child(client.__enter__))
print(in_a_child(client.close), in_a_child(lambda: client.__exit__(None, None, None)))
print(in_a_child(lambda: SyncClient(sys.argv[1]).status(job.id).data))
print(job.status().data, client.stats("flights").waiting)
client.close()
"""
        *refused, closed, anew, parent = forking(server_url, program)
        assert len(refused) == 3
        for line in refused:
            assert line.startswith("UsageError: ")
            assert "open a new client in the child process" in line
        assert (closed, anew, parent) == ("None None", "1", "1 1")

    def test_a_client_that_was_only_made_may_be_used_in_each_process(self, server_url: str) -> None:
        program = """
client = SyncClient(sys.argv[1])
print(in_a_child(lambda: client.enqueue("flights", "search", id="theirs").id))
print(client.enqueue("flights", "search", id="ours").id, client.stats("flights").waiting)
client.close()
"""
        assert forking(server_url, program) == ["theirs", "ours 2"]

    def test_a_used_client_is_refused_in_the_child_too(self, server_url: str) -> None:
        program = """
async def enter(client):
    async with client:
        pass

async def main():
    client = Client(sys.argv[1])
    await client.enqueue("flights", "search")
    return client

with asyncio.Runner() as runner:
    client = runner.run(main())
    print(in_a_child(lambda: asyncio.run(client.queues())))
    print(in_a_child(lambda: asyncio.run(enter(client))))
    print(in_a_child(lambda: asyncio.run(client.close())))
    print(runner.run(client.queues()))
    runner.run(client.close())
"""
        *refused, closed, parent = forking(server_url, program)
        assert len(refused) == 2
        assert all("open a new client in the child process" in line for line in refused)
        assert (closed, parent) == ("None", "['flights']")


def test_a_handle_has_a_readable_repr(server_url: str) -> None:
    assert repr(Job(Client(server_url), "trip", "flights", True)) == "Job('trip', queue='flights', deduplicated=True)"


class TestMistypedNames:
    """A job by name is refused for every sender where a worker has registered other names, also without any worker."""

    @pytest.fixture
    async def known(self, client: Client) -> None:
        await raw_queue(client).register("search", "tick")

    async def test_one_is_refused_with_the_nearest_and_may_be_forced(self, client: Client, known: None) -> None:
        with pytest.raises(NotFound, match=r"has no job 'serch'; did you mean 'search'\? If a version .* force=True"):
            await client.enqueue("flights", "serch")
        assert (await client.stats("flights")).waiting == 0
        await client.enqueue("flights", "search")
        await client.enqueue("flights", "serch", force=True)
        assert (await client.stats("flights")).waiting == 2

    async def test_a_bulk_is_refused_before_its_first_job(self, client: Client, known: None) -> None:
        bulk = [{"queue": "flights", "name": name} for name in ("search", "tick", "serch")]
        with pytest.raises(NotFound, match=r"^jobs\[2\]: the code that serves queue 'flights' has no job 'serch'"):
            await client.enqueue_many(bulk)
        assert (await client.stats("flights")).waiting == 0
        await client.enqueue_many([job | {"force": True} for job in bulk])
        assert (await client.stats("flights")).waiting == 3

    async def test_generators_are_looked_at_as_they_go(self, client: Client, known: None) -> None:
        async def each() -> AsyncIterator[dict[str, Any]]:
            yield {"queue": "flights", "name": "serch"}

        for bulk in (each(), iter([{"queue": "flights", "name": "serch"}])):
            with pytest.raises(NotFound, match=r"^jobs\[0\]: "):
                await client.enqueue_many(bulk)

    async def test_the_sync_client_gives_the_same_answer(self, client: Client, known: None, server_url: str) -> None:
        def send() -> None:
            bulk = [{"queue": "flights", "name": "search"}, {"queue": "flights", "name": "serch"}]
            with SyncClient(server_url) as sync:
                for call in (
                    lambda: sync.enqueue("flights", "serch"),
                    lambda: sync.enqueue_many(bulk),
                    lambda: sync.enqueue_many(iter(bulk)),
                ):
                    with pytest.raises(NotFound, match="did you mean 'search'"):
                        call()
                sync.enqueue("flights", "serch", force=True)

        await asyncio.to_thread(send)
        assert (await client.stats("flights")).waiting == 1

    async def test_without_a_registration_every_name_is_accepted(self, client: Client) -> None:
        await client.enqueue("flights", "serch")
        assert (await client.stats("flights")).waiting == 1

    async def test_a_name_is_asked_for_once(self, client: Client, known: None) -> None:
        await client.enqueue("flights", "search")
        await client.enqueue("hotels", "book")
        await client.server.redis.config_resetstat()
        for name in ("search", "tick", "search"):
            await client.enqueue("flights", name)
        await client.enqueue("hotels", "book")
        await client.enqueue_many([{"queue": "flights", "name": "tick"}] * 10)
        calls = await client.server.redis.info("commandstats")
        assert sum(found["calls"] for name, found in calls.items() if name.startswith("cmdstat_eval")) == 5
