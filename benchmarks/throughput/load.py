"""Jobs of a run and the journal of their starts. Every Python side imports this module, so it needs no package."""

import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

URL: Final = os.environ.get("BENCH_URL", "redis://127.0.0.1:1/0")
"""Server of the run."""
CONCURRENCY: Final = int(os.environ.get("BENCH_CONCURRENCY", "1"))
"""Jobs that one worker process runs at a time."""
DATABASE: Final = os.environ.get("BENCH_DATABASE", "")
"""URL of the trial's own database, for a side that does not work on Redis."""
FSYNC: Final = os.environ.get("BENCH_FSYNC", "everysec")
"""Setting `appendfsync` of the trial's Redis, to which such a database must be equal."""
NEEDS: Final = frozenset(os.environ.get("BENCH_NEEDS", "").split())
"""Features that the case uses, `priority` or `delay`, for the sides that must be set up differently for one."""
KEEP_S: Final = 3_600
"""Seconds that every side keeps the result of a job: the default of AgentQueue and of arq."""
GRACE_S: Final = 60
"""Seconds that running jobs have after SIGTERM, on sides that cancel them otherwise: the default of AgentQueue."""
ENDS: Final = ".ends"
"""Suffix of a journal of ends."""
RECORD: Final = struct.Struct("<qq")
"""Journal record: the number of a job and CLOCK_MONOTONIC in nanoseconds, which all processes of a machine share."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job as a side sends it."""

    n: int
    seconds: float = 0.0
    payload: str = ""
    delay: float = 0.0
    urgent: bool = False
    call: str = "work"
    size: int = 0

    @property
    def arguments(self) -> tuple[int, float, str]:
        """Arguments of the handler."""
        return self.n, self.seconds, self.payload


@dataclass(frozen=True, slots=True)
class Load:
    """Jobs that one producer sends.

    Attributes:
        first: number of the first job; the others follow it.
        count: number of jobs.
        seconds: time that a job sleeps.
        payload_bytes: size of the text that a job carries.
        delay: seconds before a job may start.
        urgent: send with the highest priority, where the others have the lowest.
        call: name of the handler: `work`, or for durable work `steps`, `wait` (for a signal) or `gather`. `signal` is
            no handler: it sends a signal to each job that waits.
        size: number of a job's steps or children.
        bulk: send many jobs a call, where the side can.
        pace: mean seconds between two sends; 0 sends as fast as possible. Gaps vary by half, so that they never fall
            into step with a poll.
        limit: seconds after which the producer stops, whatever it has sent.
    """

    first: int = 0
    count: int = 0
    seconds: float = 0.0
    payload_bytes: int = 0
    delay: float = 0.0
    urgent: bool = False
    call: str = "work"
    size: int = 0
    bulk: bool = False
    pace: float = 0.0
    limit: float = 60.0

    def jobs(self) -> Iterator[Job]:
        """Yield the jobs in order."""
        payload = "x" * self.payload_bytes
        for n in range(self.first, self.first + self.count):
            yield Job(n, self.seconds, payload, self.delay, self.urgent, self.call, self.size)


@cache
def _journal(suffix: str = "") -> int:
    return os.open(os.environ["BENCH_JOURNAL"] + suffix, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def started(n: int) -> None:
    """Record that job `n` starts now. One write to a file in memory costs about a microsecond on every side."""
    os.write(_journal(), RECORD.pack(n, time.monotonic_ns()))


def ended(n: int) -> None:
    """Record that job `n` has run to its end. Only jobs that sleep do."""
    os.write(_journal(ENDS), RECORD.pack(n, time.monotonic_ns()))


def read_journal(path: Path) -> list[tuple[int, int]]:
    """Return the whole records (job number, nanoseconds) of a journal; none if the file is not there."""
    data = path.read_bytes() if path.exists() else b""
    return list(RECORD.iter_unpack(data[: len(data) - len(data) % RECORD.size]))
