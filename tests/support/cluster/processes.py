"""This machine's processes, as far as they can be a cluster's. What runs is read from /proc, never from notes.

So a kill -9 at any moment leaves nothing that the next start does not find.
"""

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.cluster.shell import until

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A process and its command line."""

    pid: int
    argv: tuple[str, ...]


def processes() -> Iterator[Process]:
    """All processes that have a command line."""
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it has ended meanwhile
            line = (entry / "cmdline").read_bytes().decode(errors="replace")
            if line:
                yield Process(int(entry.name), tuple(line.removesuffix("\0").split("\0")))


def identity(pid: int) -> str | None:
    """A process's number and start time, which no later process shares; None if it is gone.

    One whose first thread has ended is a zombie to look at, but lives until its other threads have ended too.
    """
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, threads, start = fields[0], fields[17], fields[19]
    return None if state == "Z" and int(threads) <= 1 else f"{pid}:{start}"


def is_alive(known: str) -> bool:
    """Whether the process of this identity still runs."""
    return identity(int(known.partition(":")[0])) == known


def pid_namespace(pid: int) -> str | None:
    """The process-number namespace that a process is in; None if it is gone."""
    try:
        return str((PROC / str(pid) / "ns" / "pid").readlink())
    except OSError:
        return None


def end(pids: Iterable[int], number: signal.Signals = signal.SIGKILL, *, timeout: float = 20) -> None:
    """Send a signal and wait until the processes are gone."""
    known = [who for pid in pids if (who := identity(pid))]
    for who in known:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(who.partition(":")[0]), number)
    until(lambda: not any(map(is_alive, known)), f"the end of processes {', '.join(known)}", timeout=timeout)
