"""Build `QueueStats`, the numbers of a queue as users see them, from its snapshot. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

import orjson

from agentqueue.keys import Level
from agentqueue.model.exceptions import clean_text
from agentqueue.model.json import camel
from agentqueue.store import Heartbeat, QueueSnapshot

LIVE_MS: Final = 8_000
"""Maximum age of the last heartbeat of a live worker, in ms. It is the length of a lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStats:
    """A worker, as its last heartbeat describes it."""

    name: str
    incarnation: str | None
    """Identifier of the worker's process. None if its heartbeat cannot be read."""
    busy: int
    """Number of slots that run a job."""
    slots: int
    draining: bool
    jobs: tuple[str, ...]
    """Names of the jobs that the worker knows."""
    seen_seconds_ago: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """A queue at one instant."""

    name: str
    waiting: int
    delayed: int
    """Number of jobs that a time will make ready. Suspended jobs are not among them."""
    active: int
    """Number of jobs that were started and have not ended."""
    completed: int
    """Number of completed jobs since the queue was created."""
    dead: int
    """Number of dead letters."""
    paused: bool
    paused_note: str | None
    """Time and author of the pause."""
    by_priority: Mapping[str, int]
    """Number of waiting jobs of each priority level, without those that a worker has claimed ahead of its slots."""
    oldest_waiting_seconds: float | None
    next_due_seconds: float | None
    """Seconds until the next delayed job is due."""
    enqueued_per_minute: float
    completed_per_minute: float
    failed_per_minute: float
    """Number of failed attempts and dead jobs. All three rates cover the last 60 s."""
    workers: tuple[WorkerStats, ...]
    """Live workers."""
    stalled: int = 0
    """Number of active jobs that no live worker holds. Within seconds they wait again."""
    counters: Mapping[str, int]
    """Counters since the queue was created: enqueued, completed, retried, dead, cancelled, crashed, …"""
    problem: str | None = None
    """Reason why the queue cannot be read. Its numbers are then 0."""
    suspended: int = 0
    """Number of jobs that wait without a slot for a signal, a time or their children."""
    suspended_by_kind: Mapping[str, int] = field(default_factory=dict)
    """Number of suspended jobs by what they wait for: signal, sleep, children, or several of them."""

    @property
    def busy(self) -> int:
        """Return the number of busy slots of all live workers."""
        return sum(worker.busy for worker in self.workers)

    @property
    def slots(self) -> int:
        """Return the number of slots of all live workers."""
        return sum(worker.slots for worker in self.workers)

    def to_json(self) -> dict[str, Any]:
        """Return the stats as JSON types, with camelCase names."""
        wire = {camel(f.name): getattr(self, f.name) for f in fields(self)}
        workers = [{camel(f.name): getattr(worker, f.name) for f in fields(worker)} for worker in self.workers]
        return wire | {"workers": workers, "busy": self.busy, "slots": self.slots}


def stats_of(snapshot: QueueSnapshot) -> QueueStats:
    """Return the stats of a queue."""
    now = snapshot.now_ms
    heartbeats = live_heartbeats(snapshot)
    suspended = sum(snapshot.suspended.values())
    workers = tuple(_worker(heartbeat, now) for heartbeat in sorted(heartbeats, key=lambda heartbeat: heartbeat.worker))
    slots = sum(worker.slots for worker in workers)
    held_ahead = held_ahead_of(snapshot, slots=slots, ahead=sum(ahead_of(heartbeat) for heartbeat in heartbeats))
    return QueueStats(
        name=snapshot.queue,
        waiting=snapshot.waiting + held_ahead,
        delayed=max(sum(snapshot.delayed) - suspended, 0),
        active=sum(snapshot.active) - held_ahead,
        completed=snapshot.counters.get("completed", 0),
        dead=snapshot.dead,
        paused=snapshot.paused is not None,
        paused_note=None if snapshot.paused is None else snapshot.paused.decode(errors="replace"),
        by_priority={level.label: count for level, count in zip(Level, snapshot.ready, strict=True)},
        oldest_waiting_seconds=None if snapshot.oldest_ms is None else max(0.0, (now - snapshot.oldest_ms) / 1000),
        next_due_seconds=None if snapshot.next_due_ms is None else max(0.0, (snapshot.next_due_ms - now) / 1000),
        enqueued_per_minute=_rate(snapshot, "enqueued"),
        completed_per_minute=_rate(snapshot, "completed"),
        failed_per_minute=_rate(snapshot, "retried") + _rate(snapshot, "dead"),
        workers=workers,
        stalled=stalled_of(snapshot, slots=slots, held_ahead=held_ahead),
        counters=snapshot.counters,
        suspended=suspended,
        suspended_by_kind=snapshot.suspended,
    )


def live_heartbeats(snapshot: QueueSnapshot) -> list[Heartbeat]:
    """Return the heartbeats of live workers. One from the future is ignored: the clock has gone back since."""
    return [heartbeat for heartbeat in snapshot.workers if abs(snapshot.now_ms - heartbeat.seen_ms) < LIVE_MS]


def ahead_of(heartbeat: Heartbeat) -> int:
    """Return the number of jobs beyond its slots that a worker may hold. They start within milliseconds."""
    return _count(_content(heartbeat).get("ahead"))


def held_ahead_of(snapshot: QueueSnapshot, *, slots: int, ahead: int) -> int:
    """Return the number of held jobs that wait for a slot of their worker.

    Args:
        snapshot: the queue.
        slots: the slots of all live workers.
        ahead: how many jobs beyond its slots each of them may hold (`ahead_of`), added up.
    """
    return max(0, min(sum(snapshot.active) - snapshot.expired_leases - slots, ahead))


def stalled_of(snapshot: QueueSnapshot, *, slots: int, held_ahead: int) -> int:
    """Return the number of held jobs whose worker is gone.

    These are the jobs whose lease has expired, and those that exceed `slots`, the slots of all live workers, and
    `held_ahead`.
    """
    active = sum(snapshot.active) - held_ahead
    return active - min(active - snapshot.expired_leases, slots)


def unreadable_stats(name: str, why: str) -> QueueStats:
    """Return the stats of a queue that can't be read."""
    return QueueStats(
        name=clean_text(name),
        waiting=0,
        delayed=0,
        active=0,
        completed=0,
        dead=0,
        paused=False,
        paused_note=None,
        by_priority=dict.fromkeys((level.label for level in Level), 0),
        oldest_waiting_seconds=None,
        next_due_seconds=None,
        enqueued_per_minute=0.0,
        completed_per_minute=0.0,
        failed_per_minute=0.0,
        workers=(),
        counters={},
        problem=why,
    )


def _rate(snapshot: QueueSnapshot, counter: str) -> float:
    """Return a counter's increase in the last 60 s: this minute, and a proportional share of the last one."""
    share = 1 - (snapshot.now_ms % 60_000) / 60_000
    return round(snapshot.this_minute.get(counter, 0) + share * snapshot.last_minute.get(counter, 0), 1)


def _worker(heartbeat: Heartbeat, now_ms: int) -> WorkerStats:
    """Return a worker's stats. A heartbeat that this version cannot read still shows that the worker is alive."""
    content = _content(heartbeat)
    jobs, incarnation = content.get("jobs"), content.get("incarnation")
    return WorkerStats(
        name=heartbeat.worker.partition("/")[0],
        incarnation=incarnation if isinstance(incarnation, str) else None,
        busy=_count(content.get("busy")),
        slots=_count(content.get("slots")),
        draining=content.get("draining") is True,
        jobs=tuple(name for name in jobs if isinstance(name, str)) if isinstance(jobs, list) else (),
        seen_seconds_ago=max(0, now_ms - heartbeat.seen_ms) / 1000,
    )


def _content(heartbeat: Heartbeat) -> dict[str, Any]:
    try:
        content = orjson.loads(heartbeat.raw)
    except orjson.JSONDecodeError:
        content = {}
    return content if isinstance(content, dict) else {}


def _count(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0
