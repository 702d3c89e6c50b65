"""The events that a reader makes of the batches of a stream."""

import orjson
import pytest

from agentqueue.errors import UsageError
from agentqueue.model.stream import Follower, StreamEvent, events_of

Batch = tuple[str, dict[bytes, bytes]]


def batch(run: int, first: int, *events: object) -> Batch:
    return f"{run}-{first + len(events) - 1}", {b"v": orjson.dumps(events)}


def end(run: int, count: int, state: bytes = b"completed") -> Batch:
    return f"{run}-{count}", {b"end": state}


def read(follower: Follower, *batches: Batch) -> list[tuple[str, object]]:
    found: list[StreamEvent] = [event for one in batches for event in events_of(follower, *one)]
    return [(event.type, event.data) for event in found]


def test_a_reader_from_the_start_gets_every_event_and_the_end() -> None:
    follower = Follower()
    assert read(follower, batch(5, 0, "a", "b"), batch(5, 2, "c"), end(6, 3)) == [
        ("data", "a"),
        ("data", "b"),
        ("data", "c"),
        ("end", "completed"),
    ]


@pytest.mark.parametrize("seen", range(3))
def test_a_reader_goes_on_behind_any_event_also_within_a_batch(seen: int) -> None:
    batches = [batch(5, 0, "a", "b"), batch(5, 2, "c")]
    follower = Follower()
    before = [event for one in batches for event in events_of(follower, *one)]
    again = Follower(before[seen].id)
    behind = [one for one in batches if int(one[0][2:]) > seen]
    assert [data for _, data in read(again, *behind)] == ["a", "b", "c"][seen + 1 :]


def test_an_id_names_the_place_of_the_next_batch() -> None:
    assert (Follower().place, Follower("5-1").place) == ("0-0", "5-1")


def test_a_run_that_differs_rewinds_to_the_first_event_that_it_replaces() -> None:
    follower = Follower()
    assert read(follower, batch(5, 0, "a", "b", "c"), batch(6, 1, "B")) == [
        ("data", "a"),
        ("data", "b"),
        ("data", "c"),
        ("rewind", 1),
        ("data", "B"),
    ]


def test_a_run_that_goes_on_rewinds_nothing() -> None:
    assert read(Follower(), batch(5, 0, "a"), batch(6, 1, "b")) == [("data", "a"), ("data", "b")]


def test_a_run_that_ends_with_fewer_events_rewinds_at_the_end() -> None:
    assert read(Follower("5-2"), end(6, 1, b"dead")) == [("rewind", 1), ("end", "dead")]


def test_a_reader_that_comes_too_late_learns_how_many_events_are_missing() -> None:
    assert read(Follower(), batch(5, 3, "d")) == [("gap", 3), ("data", "d")]
    assert read(Follower("5-0"), batch(5, 3, "d")) == [("gap", 2), ("data", "d")]
    assert read(Follower("5-0"), end(6, 3)) == [("rewind", 0), ("gap", 3), ("end", "completed")]


def test_after_a_gap_behind_a_rewind_nothing_stands_of_what_was_read() -> None:
    assert read(Follower("5-4"), batch(6, 9, "x")) == [("rewind", 0), ("gap", 9), ("data", "x")]


def test_rewinds_and_gaps_carry_the_id_of_the_event_before_them() -> None:
    follower = Follower("5-4")
    found = [event.id for event in events_of(follower, *batch(6, 2, "x"))]
    assert found == ["5-4", "6-2"]


@pytest.mark.parametrize("fields", [{}, {b"v": b"{"}, {b"v": b"1"}])
def test_what_another_program_has_written_is_left_out(fields: dict[bytes, bytes]) -> None:
    assert events_of(Follower(), "5-0", fields) == []


@pytest.mark.parametrize("text", ["x", "5", "5-", "-1-2", "5-1-2", "9" * 20 + "-1"])
def test_other_texts_are_no_ids_of_events(text: str) -> None:
    with pytest.raises(UsageError, match="is no ID of a stream's event"):
        Follower(text)
