"""Every Redis key that AgentQueue reads or writes, in one place.

The key names are arq's where arq has one, so that arq's own clients work on the same queue. Keys carry no hash tags
(as arq's): one server, or a primary with replicas, not Redis Cluster.
"""

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from agentqueue.errors import InvalidName

JOB: Final = "arq:job:"
"""+ id: the job record. It never expires while the job is not final."""
IN_PROGRESS: Final = "arq:in-progress:"
"""+ id: `owner|level|old score|claimed ms`, while a worker holds the job."""
RETRY: Final = "arq:retry:"
"""+ id: attempts that ended in failure so far."""
RESULT: Final = "arq:result:"
"""+ id: the result record, for as long as results are kept."""
ABORT: Final = "arq:abort"
"""zset id -> ms: jobs somebody asked to cancel; shared by all queues, as in arq."""
META: Final = "aq:meta:"
"""+ id: hash of what changes while a job lives (progress, checkpoint, errors, crashes, releases, expires)."""
DEAD: Final = "aq:dead:"
"""+ id: hash of a dead letter."""
LAST_STEP_KEY: Final = "aq:last:"
"""+ owner: the last step's sequence number and answer, so that a step sent twice is carried out once."""
DECISION: Final = "aq:decision:"
"""+ queue: why it has as many workers as it has, as whoever scales it decided last (JSON, kept for a minute)."""
QUEUES: Final = "aq:queues"
"""Set of the queue names ever used on this server."""


class Level(IntEnum):
    """The four priority levels, in the order in which they are served; the value indexes the Lua scripts' key list."""

    URGENT = 1
    HIGH = 2
    NORMAL = 3
    LOW = 4

    @property
    def label(self) -> str:
        """The name users write: urgent, high, normal or low."""
        return self.name.lower()


PRIORITY_NUMBERS: Final = {Level.URGENT: 1, Level.HIGH: 5, Level.NORMAL: 10, Level.LOW: 15}
"""The numbers that stand for the names; smaller is sooner."""

MAX_ID: Final = 256
MAX_QUEUE_NAME: Final = 128
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+=~-]*")
_QUEUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(:[A-Za-z0-9._-]+)*")
RESERVED_PREFIXES: Final = ("aq:", "arq:job", "arq:in-progress", "arq:retry", "arq:result", "arq:abort")
RESERVED_PARTS: Final = frozenset(
    [
        "urgent",
        "high",
        "low",
        "dead",
        "done",
        "paused",
        "limit",
        "wake",
        "stats",
        "workers",
        "reaped",
        "seq",
        "sweep",
        "cron",
        "drain",
        "health-check",
    ]
)


def level_of(priority: "int | str | Level") -> Level:
    """The level a priority falls to: a name, or a number (a number in between falls to the level at or above it).

    Raises:
        InvalidName: not one of the names, or a number below 1.
    """
    if isinstance(priority, Level):
        return priority
    if isinstance(priority, str):
        try:
            return Level[priority.upper()]
        except KeyError:
            names = ", ".join(level.label for level in Level)
            raise InvalidName(f"priority {priority!r} is none of {names}; or give a number from 1 (urgent)") from None
    if type(priority) is not int or priority < 1:
        raise InvalidName(f"priority {priority!r} must be a name or a whole number from 1 (urgent) to 15 (low)")
    return next((level for level in reversed(Level) if PRIORITY_NUMBERS[level] <= priority), Level.URGENT)


def check_id(job_id: str) -> str:
    """The id itself, if it may be a job's id.

    Raises:
        InvalidName: empty, longer than 256, or with a character outside letters, digits and `._:@/+=~-`.
    """
    if type(job_id) is str and len(job_id) <= MAX_ID and _ID.fullmatch(job_id):
        return job_id
    raise InvalidName(
        f"job id {job_id!r:.80} must have 1 to {MAX_ID} characters, letters, digits and ._:@/+=~- "
        "and start with a letter or digit"
    )


def check_queue(name: str) -> str:
    """The name itself, if it may be a queue's: its keys can't meet another queue's or arq's.

    Raises:
        InvalidName: outside the alphabet, too long, or with a part that AgentQueue uses for its own keys.
    """
    if not (type(name) is str and len(name) <= MAX_QUEUE_NAME and _QUEUE.fullmatch(name)):
        raise InvalidName(
            f"queue name {name!r:.80} must have 1 to {MAX_QUEUE_NAME} characters: letters, digits and ._- "
            "(and : between parts), starting with a letter or digit"
        )
    if name.startswith(RESERVED_PREFIXES) or name == "aq":
        raise InvalidName(f"queue name {name!r} starts with a prefix reserved for arq's and AgentQueue's own keys")
    taken = RESERVED_PARTS.intersection(name.split(":")[1:])
    if taken:
        raise InvalidName(f"queue name {name!r} has the reserved part {min(taken)!r}; use - instead of : before it")
    return name


@dataclass(frozen=True, slots=True)
class KeySpace:
    """The keys of one queue. The queue's name is checked when the key space is made."""

    queue: str

    def __post_init__(self) -> None:
        check_queue(self.queue)

    def level(self, level: Level) -> str:
        """zset id -> score of the jobs of a level that are not final; `normal` is the queue's bare name, as arq's."""
        return self.queue if level is Level.NORMAL else f"{self.queue}:{level.label}"

    @property
    def levels(self) -> tuple[str, str, str, str]:
        """The four level keys, in serving order."""
        urgent, high, normal, low = (self.level(level) for level in Level)
        return urgent, high, normal, low

    def of(self, suffix: str) -> str:
        """The queue's key of that suffix: dead, done, paused, limit, wake, stats, workers, reaped, seq, sweep, …"""
        return f"{self.queue}:{suffix}"

    @property
    def dead(self) -> str:
        """zset id -> finished ms of the dead letters."""
        return self.of("dead")

    @property
    def done(self) -> str:
        """zset id -> finished ms: the history of completed jobs."""
        return self.of("done")

    @property
    def paused(self) -> str:
        """Exists while the queue is paused; its value tells since when and by whom."""
        return self.of("paused")

    @property
    def wake(self) -> str:
        """The capped list idle workers block on; only a hint."""
        return self.of("wake")

    @property
    def stats(self) -> str:
        """Hash of counters since the beginning."""
        return self.of("stats")

    def stats_of_minute(self, minute: int) -> str:
        """Hash of the counters of one minute (ms since the epoch // 60,000), kept for 24 h."""
        return f"{self.stats}:{minute}"

    @property
    def workers(self) -> str:
        """Hash worker id -> its last heartbeat (JSON)."""
        return self.of("workers")

    @property
    def drain(self) -> str:
        """Hash worker id -> ms: workers marked to drain before a scale-in."""
        return self.of("drain")

    @property
    def fingerprints(self) -> str:
        """Hash fingerprint -> number of dead letters."""
        return f"{self.dead}:fp"

    def fingerprint(self, value: str) -> str:
        """zset id -> finished ms of the dead letters with one fingerprint."""
        return f"{self.dead}:fp:{value}"


_JOB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}")


def check_job_name(name: str) -> str:
    """The name itself, if it may be a job's.

    Raises:
        InvalidName: empty, over 128 characters, or outside letters, digits and `_.:-`.
    """
    if type(name) is str and _JOB_NAME.fullmatch(name):
        return name
    raise InvalidName(f"job name {name!r:.80} must have 1 to 128 characters: letters, digits and _.:-")
