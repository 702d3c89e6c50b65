"""What of a text stands when a job runs again, against every order of its steps, crashes and flushes."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby

from hypothesis import given, settings
from hypothesis import strategies as st

from agentqueue.model.stream import Follower, events_of
from agentqueue_worker.domain.emitted_text import Emitted, EmittedText


def text_of(*events: str) -> EmittedText:
    """Return a text with a batch for each event; `s:x` is of step s."""
    return EmittedText([(step, [event.encode()]) for step, _, event in (word.rpartition(":") for word in events)])


def test_what_is_there_already_stands() -> None:
    text = text_of("a", "s:b", "c")
    assert [text.emit("", b"a"), text.emit("s", b"b"), text.emit("", b"c")] == [True, True, True]
    assert text.is_settled
    assert text.emit("", b"d") is False
    assert len(text) == 4


def test_steps_that_ran_at_the_same_time_are_compared_each_for_itself() -> None:
    text = text_of("x:1", "y:1", "x:2", "y:2")
    assert [text.emit(*event) for event in (("y", b"1"), ("y", b"2"), ("x", b"1"), ("x", b"2"))] == [True] * 4
    assert text.is_settled


def test_a_difference_drops_what_this_run_has_not_emitted_and_moves_up_what_it_has() -> None:
    text = text_of("a", "x:1", "y:1", "x:2")
    assert text.emit("", b"a")
    assert text.emit("x", b"1")
    assert text.emit("x", b"2")
    assert text.emit("y", b"other") is None
    assert text.settle() == (2, [("x", b"2")])


def test_a_batch_is_replaced_as_a_whole() -> None:
    text = EmittedText([("", [b"a"]), ("", [b"b", b"c"])])
    assert text.emit("", b"a")
    assert text.emit("", b"b")
    assert text.emit("", b"other") is None
    assert text.settle() == (1, [("", b"b")])


def test_what_comes_behind_the_text_while_a_step_is_open_moves_up_too() -> None:
    text = text_of("x:1")
    assert text.emit("", b"new") is False
    assert text.emit("x", b"other") is None
    assert text.settle() == (0, [("", b"new")])


def test_a_step_that_is_called_again_takes_its_events_back() -> None:
    text = EmittedText([("", [b"a"]), ("s", [b"1", b"2"]), ("", [b"b"])], first=7)
    text.claim_all()
    text.take_back("s")
    assert text.emit("s", b"1")
    assert not text.is_settled
    assert text.settle() == (8, [("s", b"1"), ("", b"b")])


# --- a model of a worker and its stream


@dataclass
class Stream:
    """A stream as emit.lua writes it."""

    batches: list[tuple[int, int, str, list[bytes]]] = field(default_factory=list)
    """Run, position of the last event, step and events of each batch."""

    def drop_from(self, position: int, run: int) -> None:
        self.batches = [it for it in self.batches if it[0] >= run or it[1] < position]

    def read(self, follower: Follower, pieces: list[bytes]) -> None:
        """Let a reader get what follows its place."""
        run, position = map(int, follower.place.split("-"))
        for number, last, _, events in self.batches:
            if (number, last) > (run, position) or not follower.id:
                fields = {b"v": b"[" + b",".join(events) + b"]"}
                for event in events_of(follower, f"{number}-{last}", fields):
                    if event.type == "rewind":
                        del pieces[event.data :]
                    else:
                        assert event.type == "data"
                        pieces.append(str(event.data).encode())


class Run:
    """One delivery: it compares, and adds what is new."""

    def __init__(self, stream: Stream, number: int) -> None:
        self.stream = stream
        self.number = number
        self.count = stream.batches[-1][1] + 1 if stream.batches else 0
        self.text: EmittedText | None = EmittedText([(step, events) for _, _, step, events in stream.batches])
        self.emitted: list[Emitted] = []
        self.buffer: list[Emitted] = []

    def emit(self, step: str, event: bytes) -> None:
        self.emitted.append((step, event))
        self.buffer.append((step, event))

    def flush(self, *, settles: bool = False) -> None:
        keep, new = None, list[Emitted]()
        for step, event in self.buffer:
            is_there = False if self.text is None else self.text.emit(step, event)
            if is_there:
                continue
            if is_there is None:
                assert self.text is not None
                keep, new = self.text.settle()
                self.text = None
            new.append((step, event))
        if settles and self.text is not None and not self.text.is_settled:
            keep, new = self.text.settle()
        self.buffer = []
        if keep is not None:
            self.number += 1
            self.count = keep
            self.stream.drop_from(keep, self.number)
        for step, events in groupby(new, key=lambda event: event[0]):
            part = [event for _, event in events]
            self.count += len(part)
            self.stream.batches.append((self.number, self.count - 1, step, part))


programs = st.lists(
    st.tuples(st.sampled_from(["", "", "x", "y", "z"]), st.integers(0, 3), st.sampled_from(["same", "differs"])),
    max_size=12,
)
"""Scopes, events and whether the event differs from run to run."""


@settings(max_examples=600, deadline=None)
@given(
    program=programs,
    crashes=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 4), st.randoms(use_true_random=False)), max_size=4),
    data=st.data(),
)
def test_every_reader_has_exactly_what_the_last_run_has_emitted(
    program: list[tuple[str, int, str]], crashes: list[tuple[int, int, object]], data: st.DataObject
) -> None:
    stream, pieces, follower = Stream(), list[bytes](), Follower()
    last: Run | None = None
    for number, (length, flush_every, _) in enumerate([*crashes, (len(program), 3, None)]):
        run = last = Run(stream, 10 * number + 1)
        scopes = data.draw(st.permutations(list(dict.fromkeys(step for step, _, _ in program))))
        in_order = sorted(program, key=lambda part: scopes.index(part[0])) if number % 2 else program
        for index, (step, event, kind) in enumerate(in_order[:length]):
            run.emit(step, b"%d" % (event if kind == "same" else 100 * number + 100 + event))
            if index % flush_every == 0:
                run.flush()
                stream.read(follower, pieces)
    assert last is not None
    last.flush(settles=True)
    stream.read(follower, pieces)
    late: list[bytes] = []
    stream.read(Follower(), late)
    assert Counter(late) == Counter(event for _, event in last.emitted)
    written = [(step, event) for _, _, step, events in stream.batches for event in events]
    for scope in {step for step, _ in last.emitted}:
        assert [it for it in written if it[0] == scope] == [it for it in last.emitted if it[0] == scope]
    assert [event for _, event in written] == late
    assert pieces[: len(late)] == late
