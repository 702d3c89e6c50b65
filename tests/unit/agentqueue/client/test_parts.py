"""The clients' pure parts: chunks, cursors, answers; and that both clients are the same."""

import inspect
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from agentqueue.client import Client, Job, Page, SyncClient, SyncJob
from agentqueue.client.bulk import (
    CHUNK,
    CHUNK_BYTES,
    Chunk,
    chunks_of,
    chunks_of_each,
    prepare_each,
    send_in_order,
    sent_jobs,
)
from agentqueue.client.pagination import moment_in, split_cursor, states_from
from agentqueue.client.results import check_timeout, replayed_of
from agentqueue.errors import InvalidName, UsageError
from agentqueue.model.job import State
from agentqueue.model.new_job import NewJob, Prepared


def prepared(queue: str = "q", job_id: str = "a", *, id_is_random: bool = True, size: int = 10) -> Prepared:
    return Prepared(NewJob(queue, job_id, b"x" * size), id_is_random)


def shapes(chunks: Any) -> list[tuple[str, int]]:
    return [(chunk.queue, len(chunk.jobs)) for chunk in chunks]


class TestChunks:
    def test_each_queue_fills_its_own_and_the_rest_comes_last(self) -> None:
        jobs = [prepared("ab"[n % 2]) for n in range(2 * CHUNK + 6)]
        assert shapes(chunks_of(jobs)) == [("a", CHUNK), ("b", CHUNK), ("a", 3), ("b", 3)]

    def test_large_jobs_make_small_chunks(self) -> None:
        jobs = [prepared(size=CHUNK_BYTES // 3) for _ in range(5)]
        assert shapes(chunks_of(jobs)) == [("q", 4), ("q", 1)]

    def test_an_id_is_in_a_chunk_once(self) -> None:
        (chunk,) = chunks_of([prepared(job_id=job_id, id_is_random=False) for job_id in ("a", "b", "a")])
        assert [job.id for job in chunk.jobs] == ["a", "b"]
        assert not chunk.ids_are_random
        assert sent_jobs(chunk, {"b"}) == [(0, "a", False), (1, "b", True), (2, "a", True)]

    def test_one_given_id_makes_the_whole_chunk_looked_up(self) -> None:
        (chunk,) = chunks_of([prepared(job_id="a"), prepared(job_id="b", id_is_random=False)])
        assert not chunk.ids_are_random

    def test_endless_repetitions_are_sent_too(self) -> None:
        chunks = list(chunks_of(prepared(id_is_random=False) for _ in range(2 * CHUNK)))
        assert [(len(chunk.jobs), len(chunk.repeated)) for chunk in chunks] == [(1, CHUNK), (1, CHUNK - 2)]

    async def test_async_iterators_are_cut_the_same(self) -> None:
        async def jobs() -> AsyncIterator[Prepared]:
            for _ in range(CHUNK + 1):
                yield prepared()

        assert shapes([chunk async for chunk in chunks_of_each(jobs())]) == [("q", CHUNK), ("q", 1)]

    async def test_they_are_sent_one_after_the_other_while_the_next_fills(self) -> None:
        log: list[str] = []

        async def chunks() -> AsyncIterator[Chunk]:
            for name in "abc":
                log.append(f"fill {name}")
                yield Chunk(name)

        async def send(chunk: Chunk) -> None:
            log.append(f"send {chunk.queue}")

        await send_in_order(chunks(), send)
        assert log == ["fill a", "fill b", "send a", "fill c", "send b", "send c"]

    async def test_a_failed_send_stops_the_rest(self) -> None:
        sent: list[str] = []

        async def chunks() -> AsyncIterator[Chunk]:
            for name in "abcd":
                yield Chunk(name)

        async def send(chunk: Chunk) -> None:
            sent.append(chunk.queue)
            if chunk.queue == "b":
                raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await send_in_order(chunks(), send)
        assert sent == ["a", "b"]

    def test_errors_keep_their_kind_and_name_the_position(self) -> None:
        def refuse(_: Any, __: Any) -> Prepared:
            raise InvalidName("bad")

        with pytest.raises(InvalidName, match=r"^jobs\[7\]: bad$"):
            list(prepare_each([{}], refuse, first=7))


class TestCursors:
    def test_split(self) -> None:
        assert split_cursor(None) == ("", 0)
        assert split_cursor("waiting:20") == ("waiting", 20)

    @pytest.mark.parametrize("cursor", ["", "5", ":5", "a:", "a:-1", "a:²", "a:" + "9" * 16, "a:" + "9" * 5_000])
    def test_strange_ones_are_refused(self, cursor: str) -> None:
        with pytest.raises(UsageError, match="invalid cursor"):
            split_cursor(cursor)

    def test_a_moment_is_a_number_that_redis_takes(self) -> None:
        assert moment_in("1800000000000") == 1_800_000_000_000
        for place in ("waiting", "", "²", "-1", "9" * 16, "9" * 5_000):
            with pytest.raises(UsageError, match="invalid cursor"):
                moment_in(place)

    def test_states_go_on_where_the_cursor_stands(self) -> None:
        assert states_from(None, "") == (State.ACTIVE, State.WAITING, State.DELAYED, State.SUSPENDED)
        assert states_from(None, "waiting") == (State.WAITING, State.DELAYED, State.SUSPENDED)
        assert states_from("dead", "dead") == (State.DEAD,)

    def test_a_page_is_a_list_that_knows_what_follows(self) -> None:
        assert Page([1, 2]) == [1, 2]
        assert Page([1], "x:1").cursor == "x:1"


def test_timeouts() -> None:
    assert check_timeout(None) == float("inf")
    assert check_timeout(timedelta(seconds=2)) == 2.0
    assert check_timeout(0) == 0


def test_replays_add_up() -> None:
    total = replayed_of(["a", "b"], ["replayed", "live"]) + replayed_of(["c", "d"], ["bare", "unknown"])
    assert (total.count, total.already_queued, total.no_record, total.not_found, total.left) == (
        1,
        ["b"],
        ["c"],
        ["d"],
        3,
    )


def public(cls: type) -> dict[str, Any]:
    return {name: value for name, value in vars(cls).items() if not name.startswith("_") and callable(value)}


INTERNAL = {"prepare", "send", "send_chunk", "may_send", "check_name", "check_names"}
"""Methods of `Client` for its own package and the command line."""


@pytest.mark.parametrize(("asynchronous", "sync"), [(Client, SyncClient), (Job, SyncJob)])
def test_both_clients_have_the_same_methods_with_the_same_parameters(asynchronous: type, sync: type) -> None:
    ours, theirs = public(asynchronous), public(sync)
    assert ours.keys() - INTERNAL - {"arq_job"} == theirs.keys()
    for name, method in theirs.items():
        mine, other = inspect.signature(ours[name]), inspect.signature(method)
        for parameter in mine.parameters.values():
            there = other.parameters[parameter.name]
            assert (there.kind, there.default) == (parameter.kind, parameter.default), f"{name}({parameter.name})"
        assert list(mine.parameters) == list(other.parameters)


def test_both_clients_are_made_the_same_way() -> None:
    assert inspect.signature(Client.__init__) == inspect.signature(SyncClient.__init__)
