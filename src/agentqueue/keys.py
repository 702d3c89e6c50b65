"""Every Redis key that AgentQueue reads or writes.

Keys have arq's names where arq has one, so that arq's own clients work on the same queue. Like arq's, they have no hash
tags: they need one server, or a primary with replicas, and not Redis Cluster.
"""

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from agentqueue.errors import InvalidName

JOB: Final = "arq:job:"
"""+ ID: the job record. It does not expire before the job has ended."""
IN_PROGRESS: Final = "arq:in-progress:"
"""+ ID: `owner|level|old score|claimed ms`, while a worker holds the job."""
RETRY: Final = "arq:retry:"
"""+ ID: number of failed attempts."""
RESULT: Final = "arq:result:"
"""+ ID: the result record, until its retention has passed."""
ABORT: Final = "arq:abort"
"""zset ID -> ms: requests to cancel jobs of all queues, as in arq."""
META: Final = "aq:meta:"
"""+ ID: hash of a job's changing fields (progress, checkpoint, errors, crashes, releases, expires,
journal, suspended, stream)."""
DEAD: Final = "aq:dead:"
"""+ ID: hash of a dead letter."""
JOURNAL: Final = "aq:journal:"
"""+ ID: hash of what a job's durable calls have come to. It goes with the job, and stays with a dead letter."""
SIGNALS: Final = "aq:signals:"
"""+ ID: mailbox of the signals that were sent to a job. It goes with the journal."""
CHILDREN: Final = "aq:children:"
"""+ ID: hash of the jobs that a job waits for, and of the gathers that wait for each. It goes with the journal."""
RETURNS: Final = "aq:returns:"
"""+ ID: hash of what a job's children have returned. It goes with the journal."""
STREAM: Final = "aq:stream:"
"""+ ID: stream of the events that a job has emitted. It outlives the job for the retention of its result."""
CASCADE: Final = "aq:cascade:"
"""+ ID and time: `aq:children:` of a job that was cancelled, until its children are cancelled too."""
CASCADES: Final = "aq:cascades"
"""List of the keys CASCADE that are left, of all queues."""
LAST_CALL_KEY: Final = "aq:last:"
"""+ owner: number and reply of the owner's last call, so that a call that is sent twice takes effect once."""
LIMITS: Final = "aq:limits"
"""Hash name -> definition of the limits of all queues (JSON, `agentqueue.model.limits`)."""
LIMIT: Final = "aq:limit:"
"""+ name, and tenant if each has the limit for itself: state of a limit (JSON)."""
LIMIT_CALLS: Final = "aq:limit-calls:"
"""+ name, and tenant: hash of the calls that are reserved under a limit."""
LIMIT_UNITS: Final = "aq:limit-units:"
"""+ name: histogram of the units of the calls under a limit."""
LIMIT_LINE: Final = "aq:limit-line:"
"""+ name: hash of the calls that wait for a limit."""
DECISION: Final = "aq:decision:"
"""+ queue: the last scaling decision (JSON, kept for a minute)."""
QUEUES: Final = "aq:queues"
"""Set of all queue names that were ever used on this server."""


class Level(IntEnum):
    """The four priority levels, in the order of serving. The value is the index in the key list of the Lua scripts."""

    URGENT = 1
    HIGH = 2
    NORMAL = 3
    LOW = 4

    @property
    def label(self) -> str:
        """Return the level's name for users: urgent, high, normal or low."""
        return self.name.lower()


PRIORITY_NUMBERS: Final = {Level.URGENT: 1, Level.HIGH: 5, Level.NORMAL: 10, Level.LOW: 15}
"""Priority number of each level. Jobs with smaller numbers run first."""

MAX_ID: Final = 256
"""Maximum length of a job ID."""
MAX_QUEUE_NAME: Final = 128
"""Maximum length of a queue name."""
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
        "schedules",
        "ticks",
        "registration",
        "drain",
        "health-check",
        "suspended",
        "mailboxes",
    ]
)


def level_of(priority: "int | str | Level") -> Level:
    """Return the level of a priority, which is a name or a number. A number in between has the more urgent one.

    Raises:
        InvalidName: The name is unknown, or the number is below 1.
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
    """Return a job ID after a check.

    Raises:
        InvalidName: The ID is empty, longer than 256, or has characters outside letters, digits and `._:@/+=~-`.
    """
    if type(job_id) is str and len(job_id) <= MAX_ID and _ID.fullmatch(job_id):
        return job_id
    raise InvalidName(
        f"job id {job_id!r:.80} must have 1 to {MAX_ID} characters, letters, digits and ._:@/+=~- "
        "and start with a letter or digit"
    )


def check_queue(name: str) -> str:
    """Return a queue name after a check. Its keys cannot collide with those of another queue or of arq.

    Raises:
        InvalidName: The name is outside the alphabet, too long, or has a part that AgentQueue's own keys use.
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
    """The keys of one queue. The constructor checks the queue's name."""

    queue: str

    def __post_init__(self) -> None:
        check_queue(self.queue)

    def level(self, level: Level) -> str:
        """Return the zset ID -> score of a level's jobs, not ended yet. `normal` has the queue's name, as in arq."""
        return self.queue if level is Level.NORMAL else f"{self.queue}:{level.label}"

    @property
    def levels(self) -> tuple[str, str, str, str]:
        """Return the keys of the four levels, in the order of serving."""
        urgent, high, normal, low = (self.level(level) for level in Level)
        return urgent, high, normal, low

    def of(self, suffix: str) -> str:
        """Return the queue's key with a suffix, such as dead, done, paused, limit, wake, stats or workers."""
        return f"{self.queue}:{suffix}"

    @property
    def dead(self) -> str:
        """Return the zset ID -> finished ms of the dead letters."""
        return self.of("dead")

    @property
    def done(self) -> str:
        """Return the zset ID -> finished ms of the completed jobs in the history."""
        return self.of("done")

    @property
    def paused(self) -> str:
        """Return the key that exists while the queue is paused. Its value has the time and the author."""
        return self.of("paused")

    @property
    def wake(self) -> str:
        """Return the capped list that wakes up idle workers. It is only a hint."""
        return self.of("wake")

    def wake_of(self, owner: str) -> str:
        """Return the list of jobs of a worker's process for which something has come while they run."""
        return f"{self.wake}:{owner}"

    def suspended(self, kind: str) -> str:
        """Return the zset ID -> until of the suspended jobs of a kind (`agentqueue.model.suspension.KINDS`)."""
        return f"{self.of('suspended')}:{kind}"

    @property
    def stats(self) -> str:
        """Return the hash of counters since the queue was created."""
        return self.of("stats")

    def stats_of_minute(self, minute: int) -> str:
        """Return the hash of counters of one minute (ms since the epoch // 60,000), which is kept for 24 h."""
        return f"{self.stats}:{minute}"

    @property
    def workers(self) -> str:
        """Return the hash worker ID -> last heartbeat (JSON)."""
        return self.of("workers")

    @property
    def templates(self) -> str:
        """Return the hash of the versions of the workers that have registered (`agentqueue.store.templates`)."""
        return self.of("registration:templates")

    @property
    def drain(self) -> str:
        """Return the hash worker ID -> ms of the workers that must drain before a scale-in."""
        return self.of("drain")

    @property
    def schedules(self) -> str:
        """Return the hash name -> definition (JSON) of the queue's schedules."""
        return self.of("schedules")

    @property
    def ticks(self) -> str:
        """Return the hash of what the engine knows of the schedules' ticks (scripts/includes/schedules.lua)."""
        return self.of("ticks")

    @property
    def registration(self) -> str:
        """Return the hash of what the code of the workers has (scripts/register.lua)."""
        return self.of("registration")

    @property
    def fingerprints(self) -> str:
        """Return the hash fingerprint -> number of dead letters."""
        return f"{self.dead}:fp"

    def fingerprint(self, value: str) -> str:
        """Return the zset ID -> finished ms of the dead letters with a fingerprint."""
        return f"{self.dead}:fp:{value}"


_JOB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}")


def check_job_name(name: str) -> str:
    """Return a job name after a check.

    Raises:
        InvalidName: The name is empty, over 128 characters, or outside letters, digits and `_.:-`.
    """
    if type(name) is str and _JOB_NAME.fullmatch(name):
        return name
    raise InvalidName(f"job name {name!r:.80} must have 1 to 128 characters: letters, digits and _.:-")


_SIGNAL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,99}")


def check_signal_name(name: str) -> str:
    """Return the name of a signal after a check.

    Raises:
        InvalidName: The name is empty, over 100 characters, or outside letters, digits and `_.:-`.
    """
    if type(name) is str and _SIGNAL_NAME.fullmatch(name):
        return name
    raise InvalidName(f"signal name {name!r:.80} must have 1 to 100 characters: letters, digits and _.:-")


_LIMIT_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def check_limit_name(name: str) -> str:
    """Return the name of a limit after a check.

    Raises:
        InvalidName: The name is empty, over 63 characters, or outside lower-case letters, digits and `-`.
    """
    if type(name) is str and _LIMIT_NAME.fullmatch(name):
        return name
    raise InvalidName(
        f"limit name {name!r:.80} must have 1 to 63 characters: lower-case letters, digits and -, "
        "with a letter or digit at both ends"
    )
