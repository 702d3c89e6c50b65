"""Describe exceptions that users' code raised. No function here raises, even if the exception's own code does.

The description of an exception can fail in many places: `__str__`, `__repr__`, `__getattr__` (the standard library
reads `__notes__`), properties over `__cause__` or `args`, a metaclass. This module reads with the descriptors of
BaseException and type, which a subclass cannot replace. It guards calls of foreign code and copies their results into
plain strings. The number of exceptions and frames is bounded. Foreign code that never returns still blocks.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

MAX_NAME: Final = 200
"""Maximum length of a class name, in characters."""
MAX_MESSAGE: Final = 2_000
"""Maximum length of a message, in characters. The beginning is kept."""
MAX_TRACEBACK: Final = 8_000
"""Maximum length of a traceback, in characters. The end is kept."""
MAX_EXCEPTIONS: Final = 64
"""Maximum number of exceptions in one traceback: causes, contexts and members of groups."""
MAX_FRAMES: Final = 100
"""Maximum number of frames in the traceback of one exception. The innermost ones are kept."""
MAX_MEMBERS: Final = 1_000
"""Maximum number of members of groups that are read, nested groups included."""
MAX_KINDS: Final = 10
"""Maximum number of different causes that the message of a group names."""
_HEAP_TYPE: Final = 1 << 9
_REPLACED: Final = frozenset(
    ("__cause__", "__context__", "__getattribute__", "__suppress_context__", "__traceback__", "exceptions")
)
"""Attributes that the standard library reads while it formats. A class that replaces one may never end."""
_name_of: Any = type.__dict__["__name__"].__get__
_mro_of: Any = type.__dict__["__mro__"].__get__
_flags_of: Any = type.__dict__["__flags__"].__get__
_names_in: Any = type.__dict__["__dict__"].__get__
_cause_of: Any = BaseException.__dict__["__cause__"].__get__
_context_of: Any = BaseException.__dict__["__context__"].__get__
_members_of: Any = BaseExceptionGroup.__dict__["exceptions"].__get__
arguments_of: Callable[[BaseException], tuple[Any, ...]] = BaseException.__dict__["args"].__get__
"""Return an exception's `args`, even if its class has an attribute with that name."""
traceback_of: Callable[[BaseException], TracebackType | None] = BaseException.__dict__["__traceback__"].__get__
"""Return an exception's `__traceback__`, even if its class has an attribute with that name."""
_VARIABLE = re.compile(
    r"0x[0-9a-f]+|[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{16,}|\d+(?:\.\d+)?|'[^']*'|\"[^\"]*\"", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Cause:
    """Type and message of an exception. A group whose members are of one kind has those of a member."""

    type: str
    message: str
    exc: BaseException
    """The exception that the type and message are from: a member, or a group with members of several kinds."""

    @property
    def line(self) -> str:
        """Return type and message in one line."""
        return f"{self.type}: {self.message}" if self.message else self.type


def clean_text(text: str) -> str:
    """Return the text with lone surrogates escaped, which UTF-8 cannot encode. Undecodable file names have them."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def shape_of(text: str) -> str:
    """Return the text's first line without numbers, IDs, addresses and quotes, which differ between equal failures."""
    return _VARIABLE.sub("*", text.splitlines()[0] if text else "")


def class_name(value: object) -> str:
    """Return the name of the value's class, without calling its metaclass."""
    return clean_text(_name_of(type(value))[:MAX_NAME])


def is_a(exc: BaseException, kinds: type[BaseException] | tuple[type[BaseException], ...]) -> bool:
    """Return whether the exception is an instance of one of these classes. `isinstance` may run code that raises."""
    return issubclass(type(exc), kinds)


def describe_value(value: object, describe: Callable[[object], str] = str, *, limit: int | None = None) -> str:
    """Return `describe(value)` as a plain string of at most `limit` characters, or the reason why there is none."""
    try:
        return str.__getitem__(
            describe(value), slice(limit)
        )  # a plain copy, since the methods of a subclass of str may raise
    except BaseException as exc:  # noqa: BLE001  # the value's own code, which may raise anything
        return f"({class_name(value)}, whose text can't be made: {class_name(exc)})"


def leaves_of(exc: BaseException) -> list[BaseException]:
    """Return the exceptions in a group and its nested groups, in order. An exception that is no group returns itself.

    At most MAX_MEMBERS members are read.
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
    """Return type and message of an exception, with lone surrogates escaped.

    A group has those of its first leaf, if all leaves have the same type and messages of the same shape. Otherwise it
    has its own type, and a message with all kinds of leaves. They are sorted, since tasks fail in any order.
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
    """Return the last MAX_TRACEBACK characters of the traceback as Python prints it, with lone surrogates escaped.

    Outer frames whose file is in one of the `hidden` folders are left out. If the exception's own code raises while it
    is formatted, the result has the frames, the exception's line and the reason.
    """
    tb = traceback_of(exc)
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(tuple(hidden)):
        tb = tb.tb_next
    return clean_text(_format(exc, tb)[-MAX_TRACEBACK:])


def _format(exc: BaseException, tb: TracebackType | None) -> str:
    from traceback import TracebackException, format_tb  # noqa: PLC0415  # the command line starts faster without it

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
    """Return whether a traceback has at most MAX_EXCEPTIONS exceptions, and none replaces Python's own attributes."""
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
