"""Exceptions whose own code raises, lies, or gives what nobody expects, wherever Python or a library may ask it."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import strategies as st

from agentqueue import Fatal, Retry

RAISED = (KeyError, RecursionError, ValueError, KeyboardInterrupt, SystemExit, asyncio.CancelledError, MemoryError)
BASES = (
    *(Exception, BaseException, ValueError, KeyError, OSError, SyntaxError, UnicodeDecodeError, StopIteration),
    *(StopAsyncIteration, GeneratorExit, KeyboardInterrupt, SystemExit, asyncio.CancelledError, TimeoutError),
    *(RecursionError, MemoryError, ImportError, AttributeError, NameError, Fatal, Retry),
)
RAISING = (
    *("__str__", "__repr__", "__getattr__", "__getattribute__", "__eq__", "__hash__", "__bool__", "__len__"),
    *("__reduce__", "__reduce_ex__", "__setattr__", "with_traceback", "add_note", "__format__", "__dir__", "__iter__"),
)
PROPERTIES = (
    *("__class__", "__cause__", "__context__", "__traceback__", "__notes__", "__suppress_context__", "__dict__"),
    *("args", "after", "name", "obj", "msg", "filename", "text", "lineno", "exceptions", "message"),
)


class RudeText(str):
    """Text that is a str and refuses to be used as one."""

    __slots__ = ()

    def _refuse(self, *_: object) -> Any:
        raise KeyError("text")

    def __str__(self) -> str:
        return self

    __getitem__ = __repr__ = __format__ = __add__ = __len__ = __iter__ = _refuse
    isascii = encode = splitlines = replace = strip = split = join = _refuse  # type: ignore[assignment]  # on purpose


class RudeKind(type):
    """A class that refuses to say its name."""

    def __getattribute__(cls, name: str) -> Any:
        if name in ("__name__", "__qualname__", "__module__", "__mro__", "__dict__"):
            raise KeyError(name)
        return super().__getattribute__(name)

    def __instancecheck__(cls, _: object) -> bool:
        raise KeyError("instance")

    def __repr__(cls) -> str:
        raise KeyError("repr")


class RudeValue:
    """A value that can't be written in any way."""

    def __repr__(self) -> str:
        raise KeyError("repr")

    def __reduce__(self) -> Any:
        raise KeyError("pickle")

    __str__ = __repr__
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        raise KeyError("eq")


def _shared(levels: int) -> list[Any]:
    """A list that holds the level below twice: few objects, 2**levels values."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value, value]
    return value


def _circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


TEXTS: tuple[Any, ...] = ("", "no", "ü\n\x00\x1b[31m", "\ud83d", "x" * 100_000, "'" * 3_000, RudeText("rude"), 5, None)
ARGUMENTS: tuple[tuple[Any, ...], ...] = (
    *((), (1,), ("no",), ("\ud83d",), (RudeValue(),), ({RudeValue(): 1},), (float("nan"),), (2**80,), (b"\xff",)),
    *((_shared(12),), (_circle(),), ("x" * 50_000,), ([RudeText("rude")],), (RudeText("rude"),), (object,)),
)
NAMES = ("Nasty", "N" * 5_000, "A\nB", "<b>", "Näme")
NOTES: tuple[Any, ...] = (["a note"], [RudeValue()], 5, "note", RudeText("rude"), ["n"] * 5_000)
SYNTAX = ("filename", "lineno", "offset", "text", "end_offset", "end_lineno", "print_file_and_line")
seeds = st.integers(0, 2**63)
"""For `make_nasty`. There is no strategy of exceptions: Hypothesis prints its examples, and can't print these."""


def make_nasty(seed: int) -> BaseException:
    """Any exception that a handler may raise: alone, in a chain, in groups of groups."""
    rng = Random(seed)
    members = [_chain(rng) for _ in range(rng.choice((1, 1, 1, 2, 4)))]
    while len(members) > 1 or rng.random() < 0.2:
        cut = rng.randint(1, len(members))
        members = [_group(members[:cut]), *members[cut:]]
    return members[0]


def _group(members: list[BaseException]) -> BaseException:
    try:
        return BaseExceptionGroup("a group", members)
    except BaseException:  # noqa: BLE001  # it asks for their `__class__`
        return members[0]


def _chain(rng: Random) -> BaseException:
    exc = inner = _single(rng)
    others = [_single(rng) for _ in range(rng.choice((0, 0, 1, 3)))]
    for other in [*others, *(ValueError(number) for number in range(rng.choice((0, 0, 1, 200))))]:
        link = rng.choice(("__cause__", "__context__"))
        BaseException.__dict__[link].__set__(inner, other)
        inner = other
    return exc


def _single(rng: Random) -> BaseException:
    kind = _class(rng)
    exc = kind.__new__(kind, *rng.choice(ARGUMENTS))
    if rng.random() < 0.3:
        _set(exc, "__notes__", rng.choice(NOTES))
    if issubclass(kind, SyntaxError):
        for name in SYNTAX:
            _set(exc, name, rng.choice((None, 5, -1, "x", "\ud83d", RudeValue(), RudeText("rude"))))
    return exc


def _class(rng: Random) -> type[BaseException]:
    body: dict[str, Any] = {"__module__": rng.choice(("nasty", "__main__", None, 5, "\ud83d"))}
    for _ in range(rng.randint(0, 3)):
        body[rng.choice(RAISING)] = _raiser(rng.choice(RAISED))
        body[rng.choice(PROPERTIES)] = property(rng.choice((_raiser(rng.choice(RAISED)), _endless)))
    if rng.random() < 0.5:
        text = rng.choice(TEXTS)
        body["__str__"] = lambda self: text
    # A class whose own __init__ never calls that of its base has none of the attributes that this sets.
    body["__init__"] = lambda self, *args: None
    kind = RudeKind if rng.random() < 0.2 else type
    return kind(rng.choice(NAMES), (rng.choice(BASES),), body)


def _raiser(error: type[BaseException]) -> Callable[..., Any]:
    def raise_it(*_: object) -> Any:
        raise error("from the exception's own code")

    return raise_it


def _endless(self: object) -> BaseException:
    return Exception("one more")


def _set(exc: BaseException, name: str, value: object) -> None:
    try:
        object.__setattr__(exc, name, value)
    except BaseException:  # noqa: BLE001  # a property stands there
        return
