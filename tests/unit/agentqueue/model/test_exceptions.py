"""Descriptions of exceptions whose own code may fail."""

import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given

from agentqueue.model.dead_letter import DeadLetterReason, fingerprint
from agentqueue.model.exceptions import (
    MAX_FRAMES,
    MAX_TRACEBACK,
    clean_text,
    describe_traceback,
    describe_value,
    leaves_of,
    name_exception,
    shape_of,
)
from agentqueue.model.result import MAX_EXCEPTION, ResultRecord, encode_exception
from tests.support.nasty import RudeKind, RudeText, RudeValue, make_nasty, seeds


def raised(exc: BaseException) -> BaseException:
    """The same, with a traceback."""
    try:
        raise exc
    except BaseException as caught:  # noqa: BLE001  # it is what the test is of
        return caught


class Lazy(Exception):
    """An exception of a remote client, whose unknown attributes are read from the reply."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.answer: dict[str, str] = {}

    def __getattr__(self, name: str) -> str:
        return self.answer[name]


@given(seeds)
def test_nothing_an_exception_does_keeps_it_from_being_described(seed: int) -> None:
    exc = raised(make_nasty(seed))
    cause, text, wire = name_exception(exc), describe_traceback(exc), encode_exception(exc)
    assert type(cause.line) is str
    assert cause.type
    assert len(cause.line) < 2_300
    assert 0 < len(text) <= 6 * MAX_TRACEBACK  # a lone surrogate is written as six characters
    assert len(orjson.dumps([cause.line, text, wire])) < 2 * (MAX_EXCEPTION + 6 * MAX_TRACEBACK)
    assert len(fingerprint(DeadLetterReason.FAILED, "job", cause.type, cause.message)) == 12
    assert leaves_of(exc)


def test_an_ordinary_exception_is_formatted_as_python_does_it() -> None:
    def fail() -> None:
        try:
            raise KeyError("x")
        except KeyError as exc:
            exc.add_note("a note")
            raise ValueError("no") from exc

    with pytest.raises(ValueError, match="no") as failed:
        fail()
    assert describe_traceback(failed.value) == "".join(traceback.format_exception(failed.value))
    assert name_exception(failed.value).line == "ValueError: no"


def test_what_the_traceback_lacks_is_named() -> None:
    text = describe_traceback(raised(Lazy("no seat")))
    assert text.endswith("Lazy: no seat\n(full traceback unavailable: KeyError)\n")
    assert "in raised" in text


def test_only_the_line_is_left_where_the_source_cant_be_read_either(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no source")

    monkeypatch.setattr(traceback, "format_tb", refuse)
    assert describe_traceback(raised(Lazy("no seat"))) == "Lazy: no seat\n(full traceback unavailable: KeyError)\n"


def long_chain() -> BaseException:
    exc: BaseException | None = None
    for number in range(1_000):
        exc, before = ValueError(number), exc
        exc.__context__ = before
    assert exc is not None
    return exc


def endless() -> BaseException:
    class Endless(Exception):
        @property
        def __context__(self) -> BaseException:  # type: ignore[override]  # as no honest exception has it
            return type(self)()

    return Endless("no end")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(long_chain, id="a-long-chain"),
        pytest.param(lambda: ExceptionGroup("many", [ValueError(n) for n in range(100_000)]), id="a-large-group"),
        pytest.param(endless, id="a-context-without-end"),
    ],
)
def test_what_has_no_end_is_not_followed(make: Callable[[], BaseException]) -> None:
    exc = raised(make())
    assert "are not shown" in describe_traceback(exc)
    assert name_exception(exc).type in ("ValueError", "Endless")


def test_of_a_deep_recursion_the_innermost_frames_are_kept() -> None:
    def deeper(left: int) -> None:
        if not left:
            raise ValueError("here")
        other(left - 1)

    def other(left: int) -> None:
        deeper(left)

    try:
        deeper(300)
    except ValueError as exc:
        text = describe_traceback(exc)
    assert text.endswith("ValueError: here\n")
    assert text.count("File ") <= MAX_FRAMES


@pytest.mark.parametrize(
    ("members", "line"),
    [
        pytest.param([ValueError("no seat")], "ValueError: no seat", id="one"),
        pytest.param([ValueError("seat 1"), ValueError("seat 2")], "ValueError: seat 1", id="one-kind"),
        pytest.param(
            [ValueError("b"), KeyError("a")], "ExceptionGroup: KeyError: 'a'; ValueError: b", id="two-kinds-sorted"
        ),
        pytest.param([ExceptionGroup("inner", [ValueError("deep")])], "ValueError: deep", id="nested"),
        pytest.param([Lazy("x"), Lazy("x")], "Lazy: x", id="hostile"),
    ],
)
def test_a_group_is_named_by_its_leaves(members: list[Exception], line: str) -> None:
    assert name_exception(ExceptionGroup("unhandled errors in a TaskGroup", members)).line == line


def test_many_kinds_are_counted() -> None:
    group = ExceptionGroup("g", [type(f"Kind{'abcdefghijklmno'[n]}", (Exception,), {})("no") for n in range(15)])
    assert name_exception(group).message.endswith("Kindj: no; and 5 other kinds")


def test_the_order_and_number_of_equal_leaves_make_no_new_kind_of_failure() -> None:
    one = name_exception(ExceptionGroup("g", [ValueError("seat 1"), KeyError("a"), ValueError("seat 2")]))
    two = name_exception(ExceptionGroup("g", [KeyError("b"), ValueError("seat 7")]))
    three = name_exception(ExceptionGroup("g", [KeyError("b"), OSError("seat 7")]))
    prints = [fingerprint(DeadLetterReason.FAILED, "job", it.type, it.message) for it in (one, two, three)]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    ("exc", "wire"),
    [
        pytest.param(ValueError("no", 7), {"$exc": "ValueError", "args": ["no", 7]}, id="plain"),
        pytest.param(ExceptionGroup("g", [KeyError("x")]), {"$exc": "KeyError", "args": ["x"]}, id="group-of-one-kind"),
        pytest.param(
            ExceptionGroup("g", [KeyError("x"), OSError("y")]),
            {"$exc": "ExceptionGroup", "args": ["KeyError: 'x'; OSError: y"]},
            id="group-of-two",
        ),
        pytest.param(ValueError(RudeText("rude")), {"$exc": "ValueError", "args": ["rude"]}, id="rude-text"),
        pytest.param(
            ValueError({RudeValue(): 1}),
            {"$exc": "ValueError", "args": ["(dict, whose text can't be made: KeyError)"]},
            id="rude-key",
        ),
        pytest.param(ValueError(["x" * 50_000]), {"$exc": "ValueError", "args": ["['" + "x" * 1_998]}, id="large"),
        pytest.param(ValueError(["\ud83d"]), {"$exc": "ValueError", "args": ["['\\ud83d']"]}, id="surrogate"),
    ],
)
def test_an_exception_on_the_wire(exc: BaseException, wire: dict[str, Any]) -> None:
    assert encode_exception(exc) == wire


def test_another_clients_failure_is_shown_whatever_it_wrote() -> None:
    facts: dict[str, Any] = {
        "id": "j",
        "name": "job",
        "queue": "q",
        "success": False,
        "started_ms": 0,
        "finished_ms": 0,
    }
    assert ResultRecord(**facts, result={"$exc": 5, "args": 7}).error == "5: 7"
    assert ResultRecord(**facts, result={"$exc": "E", "args": ["no", 1]}).error == "E: no"
    assert ResultRecord(**facts, result=ExceptionGroup("g", [ValueError("no")])).error == "ValueError: no"


def test_a_class_that_hides_its_name_has_one() -> None:
    exc = RudeKind("Rude", (Exception,), {})("no")
    assert name_exception(exc).line == "Rude: no"


def test_text() -> None:
    assert describe_value(RudeText("rude")) == "rude"
    assert type(describe_value(RudeText("rude"))) is str
    assert describe_value(SimpleNamespace(a=1), repr, limit=9) == "namespace"
    assert clean_text("\ud83d") == "\\ud83d"
    assert shape_of("seat 5 of 'LH 1'\nmore") == "seat * of *"
    assert shape_of("") == ""
