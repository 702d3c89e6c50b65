"""Describe exceptions that other people's code raised. No function here raises, whatever the exception's own code does.

What describes an exception can fail in many places: `__str__`, `__repr__`, `__getattr__` (the standard library asks for
`__notes__`), properties over `__cause__` or `args`, a metaclass. Here the facts are read by the descriptors of
BaseException and type, which a subclass can't replace; calls of foreign code are guarded, and what they give is copied
into plain strings. The number of exceptions and frames that are looked at is bounded. Only foreign code that never
returns can't be helped.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

MAX_NAME: Final = 200
"""Characters of a class's name."""
MAX_MESSAGE: Final = 2_000
"""Characters of a message that are kept: its beginning."""
MAX_TRACEBACK: Final = 8_000
"""Characters of a traceback that are kept: its end."""
MAX_EXCEPTIONS: Final = 64
"""Exceptions that one traceback shows: causes, contexts and members of groups."""
MAX_FRAMES: Final = 100
"""Frames of one exception's traceback: the innermost ones."""
MAX_MEMBERS: Final = 1_000
"""Members of groups, groups themselves included, that are looked at."""
MAX_KINDS: Final = 10
"""Different causes that a group's message names."""
_HEAP_TYPE: Final = 1 << 9
_REPLACED: Final = frozenset(
    ("__cause__", "__context__", "__getattribute__", "__suppress_context__", "__traceback__", "exceptions")
)
"""Attributes that the standard library reads while it formats; what replaces one may never come to an end."""
_name_of: Any = type.__dict__["__name__"].__get__
_mro_of: Any = type.__dict__["__mro__"].__get__
_flags_of: Any = type.__dict__["__flags__"].__get__
_names_in: Any = type.__dict__["__dict__"].__get__
_cause_of: Any = BaseException.__dict__["__cause__"].__get__
_context_of: Any = BaseException.__dict__["__context__"].__get__
_members_of: Any = BaseExceptionGroup.__dict__["exceptions"].__get__
arguments_of: Callable[[BaseException], tuple[Any, ...]] = BaseException.__dict__["args"].__get__
"""The exception's `args`, though its class may have an attribute of that name."""
traceback_of: Callable[[BaseException], TracebackType | None] = BaseException.__dict__["__traceback__"].__get__
"""The exception's `__traceback__`, though its class may have an attribute of that name."""
_VARIABLE = re.compile(
    r"0x[0-9a-f]+|[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{16,}|\d+(?:\.\d+)?|'[^']*'|\"[^\"]*\"", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Cause:
    """What an exception is called: of a group whose members are of one kind, what a member is called."""

    type: str
    message: str
    exc: BaseException
    """The exception whose arguments say the message; a group, if its members are of several kinds."""

    @property
    def line(self) -> str:
        """Type and message in one line."""
        return f"{self.type}: {self.message}" if self.message else self.type


def clean_text(text: str) -> str:
    """The text without lone surrogates (as undecodable file names have them), which JSON in UTF-8 can't say."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def shape_of(text: str) -> str:
    """The text's first line without what differs between failures of one kind: numbers, ids, addresses, quotes."""
    return _VARIABLE.sub("*", text.splitlines()[0] if text else "")


def class_name(value: object) -> str:
    """The name of the value's class, whatever its metaclass says."""
    return clean_text(_name_of(type(value))[:MAX_NAME])


def is_a(exc: BaseException, kinds: type[BaseException] | tuple[type[BaseException], ...]) -> bool:
    """Whether it was made from one of these classes; isinstance would ask its `__class__`, which may raise."""
    return issubclass(type(exc), kinds)


def describe_value(value: object, say: Callable[[object], str] = str, *, limit: int | None = None) -> str:
    """`say(value)` as a plain string, or why there is none. `limit`: the characters that are kept."""
    try:
        return str.__getitem__(say(value), slice(limit))  # of a subclass of str, whose methods may raise, a plain copy
    except BaseException as exc:  # noqa: BLE001  # the value's own code, which may raise anything
        return f"({class_name(value)}, whose text can't be made: {class_name(exc)})"


def leaves_of(exc: BaseException) -> list[BaseException]:
    """The exceptions in a group and in the groups in it, in order; the exception itself if it is no group.

    At most MAX_MEMBERS members are looked at.
    """
    leaves: list[BaseException] = []
    rest, looked_at = [exc], 0
    while rest and looked_at < MAX_MEMBERS:
        one, looked_at = rest.pop(), looked_at + 1
        if is_a(one, BaseExceptionGroup):
            rest += reversed(_members_of(one)[:MAX_MEMBERS])
        else:
            leaves.append(one)
    return leaves or [exc]


def name_exception(exc: BaseException) -> Cause:
    """What it is called: type and message, with no lone surrogates.

    A group is named by its leaves: like the leaf, if all are of one type and their messages differ in numbers, ids and
    quoted values alone; else by its own type and all kinds of leaves, sorted, since tasks fail in any order.
    """
    if not is_a(exc, BaseExceptionGroup):
        return _named(exc)
    kinds: dict[str, Cause] = {}
    for leaf in leaves_of(exc):
        cause = _named(leaf)
        kinds.setdefault(f"{cause.type}: {shape_of(cause.message)}", cause)
    if len(kinds) == 1:
        return next(iter(kinds.values()))
    lines = [kinds[kind].line.splitlines()[0][:MAX_NAME] for kind in sorted(kinds)[:MAX_KINDS]]
    if len(kinds) > MAX_KINDS:
        lines.append(f"and {len(kinds) - MAX_KINDS} other kinds")
    return Cause(class_name(exc), "; ".join(lines)[:MAX_MESSAGE], exc)


def _named(exc: BaseException) -> Cause:
    return Cause(class_name(exc), clean_text(describe_value(exc, limit=MAX_MESSAGE)), exc)


def describe_traceback(exc: BaseException, hidden: Sequence[str] = ()) -> str:
    """The traceback's last MAX_TRACEBACK characters, as Python prints it, with no lone surrogates.

    Frames at the top whose file is under one of the `hidden` folders are left out. If the exception's own code raises
    while it is formatted, its frames and its line are there, and "traceback unavailable: " with what was raised.
    """
    tb = traceback_of(exc)
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(tuple(hidden)):
        tb = tb.tb_next
    return clean_text(_format(exc, tb)[-MAX_TRACEBACK:])


def _format(exc: BaseException, tb: TracebackType | None) -> str:
    from traceback import TracebackException, format_tb  # noqa: PLC0415  # the command line starts without it

    if not _is_bounded(exc):
        why = f"causes, contexts and members are not shown: more than {MAX_EXCEPTIONS}, or not by Python's own rules"
    else:
        try:
            shown = TracebackException(type(exc), exc, tb, limit=-MAX_FRAMES, compact=True)
            return "".join(shown.format())
        except BaseException as problem:  # noqa: BLE001  # the exception's own code, which may raise anything
            why = f"full traceback unavailable: {class_name(problem)}"
    end = f"{_named(exc).line}\n({why})\n"
    try:
        return "".join(["Traceback (most recent call last):\n", *format_tb(tb, -MAX_FRAMES), end])
    except BaseException:  # noqa: BLE001  # the loader of a frame's module
        return end


def _is_bounded(exc: BaseException) -> bool:
    """Whether formatting it looks at no more than MAX_EXCEPTIONS, each by Python's own attributes."""
    rest, seen = [exc], set[int]()
    while rest:
        one = rest.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if len(seen) > MAX_EXCEPTIONS or _replaces_attributes(type(one)):
            return False
        rest += [it for it in (_cause_of(one), _context_of(one)) if it is not None]
        if is_a(one, BaseExceptionGroup):
            rest += _members_of(one)[: MAX_EXCEPTIONS + 1]
    return True


def _replaces_attributes(kind: type) -> bool:
    return any(not _REPLACED.isdisjoint(_names_in(base)) for base in _mro_of(kind) if _flags_of(base) & _HEAP_TYPE)
