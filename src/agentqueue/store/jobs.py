"""Operations of producers and people on queues: enqueue, inspect, cancel, replay, pause."""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar, cast

from agentqueue.keys import DECISION, QUEUES, KeySpace, Level
from agentqueue.model.attempts import number_of
from agentqueue.model.job import State
from agentqueue.model.journal import StepRecord, steps_of
from agentqueue.model.new_job import NewJob
from agentqueue.model.suspension import KINDS, Suspension, decode_suspension
from agentqueue.model.times import LAST_MS
from agentqueue.model.wait_histogram import PREFIX
from agentqueue.store.replies import decode_hash, decode_ids
from agentqueue.store.scripts import load
from agentqueue.store.server import Server

T = TypeVar("T")
BATCH: Final = 500
"""Number of jobs per call. A call of 500 blocks the server for less than 5 ms."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that the server knows of one job at one instant. `agentqueue.client` turns it into a JobStatus."""

    id: str
    queue: str
    record: bytes | None
    held: bytes | None
    """In-progress value while a worker holds the job: `owner|level|old score|claimed ms`."""
    attempts: int
    result: bytes | None
    meta: dict[str, bytes]
    dead: dict[str, bytes]
    """Fields of the dead letter: dead_letter, record, queue, level, fp."""
    level: Level | None
    """The level in which the job waits or runs; None if it is final or unknown."""
    score: float | None
    done_ms: int | None
    now_ms: int
    cancel_asked: bool
    children: tuple[int, int] = (0, 0)
    """Number of children that the job has asked for with `ctx.child`, and number of these that have ended."""
    steps: Sequence[StepRecord] = ()
    """Steps of a job that has not completed, without their values. Lists don't read them."""
    is_truncated: bool = False
    """Record, result and dead letter may be cut (`agentqueue.model.record_heads`), and `meta` has what lists show."""

    @property
    def state(self) -> State | None:
        """The job's state; None if the job is unknown. COMPLETED also stands for states that only the result names."""
        if self.score is not None:
            if self.score < 0 or self.held:
                return State.ACTIVE
            if self.score < self.now_ms + 1:
                return State.WAITING
            return State.DELAYED if self.suspension is None else State.SUSPENDED
        if self.dead:
            return State.DEAD
        return State.COMPLETED if self.result or self.done_ms is not None else None

    @property
    def suspension(self) -> Suspension | None:
        """What the job waits for. None if it is not suspended, or if its time has come and it waits for a slot."""
        if self.score is None or self.score < self.now_ms + 1:
            return None
        return decode_suspension(self.meta, self.score, self.children)


WRONG_TYPE: Final = "another program has replaced one of its keys by a key of another Redis type (WRONGTYPE)"
"""Reason of a queue that can't be read."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A job or a queue that can't be read, since one of its keys has a wrong type."""

    id: str
    queue: str
    reason: str


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """A dead letter as it is stored."""

    id: str
    queue: str
    raw: bytes | None
    """JSON; None if there is no dead letter, or it can't be read."""
    problem: str | None = None
    """Why it can't be read."""

    @property
    def exists(self) -> bool:
        """There is a dead letter, possibly one that can't be read."""
        return self.raw is not None or self.problem is not None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A worker's last heartbeat."""

    worker: str
    seen_ms: int
    raw: bytes
    """JSON, as the worker wrote it."""


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """A queue at one instant. The four numbers of a tuple are urgent, high, normal and low."""

    queue: str
    now_ms: int
    ready: tuple[int, int, int, int]
    delayed: tuple[int, int, int, int]
    active: tuple[int, int, int, int]
    oldest_ms: float | None
    """When the longest waiting ready job became ready."""
    next_due_ms: float | None
    dead: int
    done: int
    paused: bytes | None
    """Note of who paused the queue; None if it is not paused."""
    counters: dict[str, int]
    """Counters since the beginning: enqueued, completed, retried, dead, cancelled, crashed, released, lost, replayed,
    suspended, signalled, run_ms."""
    this_minute: dict[str, int]
    last_minute: dict[str, int]
    workers: Sequence[Heartbeat]
    draining: dict[str, int]
    """Workers that are requested to drain, each with the time of the request in ms."""
    due_soon: int = 0
    """Delayed jobs that are due within the requested time."""
    expired_leases: int = 0
    """Running jobs whose lease has expired. They go back to the queue unless their worker renews the lease first."""
    waits: Mapping[str, int] = field(default_factory=dict)
    """Histogram of the time for which jobs waited for a slot, by the fields of `agentqueue.model.wait_histogram`."""
    suspended: Mapping[str, int] = field(default_factory=dict)
    """Number of suspended jobs of each kind (`agentqueue.model.suspension.KINDS`). They count as delayed jobs too."""

    @property
    def waiting(self) -> int:
        """Number of ready jobs of all levels."""
        return sum(self.ready)


def _numbers(flat: Sequence[bytes]) -> dict[str, int]:
    """Decode a hash of numbers. A value that is not a number was not written by AgentQueue and counts as 0."""
    return {name: number_of(value) for name, value in decode_hash(flat).items()}


def _heartbeat(worker: str, value: bytes) -> Heartbeat:
    """Decode a heartbeat. One without a time was not written by AgentQueue: its worker does not count as live."""
    seen, _, raw = value.partition(b"|")
    return Heartbeat(worker, number_of(seen), raw)


@dataclass(frozen=True, slots=True)
class ReplayReply:
    """Reply of `Store.replay`."""

    now_ms: int
    """Server time of the call. A job that dies again has died at this time or later."""
    statuses: Sequence[str]
    """For each ID `replayed`, `unknown` (no such dead letter), `live` (enqueued already), `bare` (no record) or
    `no-step`."""


@dataclass(frozen=True, slots=True)
class DiscardReply:
    """Reply of `Store.discard`."""

    now_ms: int
    """Server time of the call."""
    count: int
    """Number of dead letters that were deleted."""


class Store:
    """Queues on one server, as producers and people use them. Callers check IDs and queue names (`agentqueue.keys`)."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._scripts = {name: load(name) for name in ("enqueue", "replay", "resolve", "tick")} | {
            name: load(name, allow_oom=True)
            for name in ("cancel", "dead_letters", "discard", "inspect", "pause", "request_drain", "stats")
        }

    async def _run(self, name: str, queue: str, args: Sequence[Any]) -> Any:
        return await self.server.run(self._scripts[name], queue, args)

    async def enqueue(self, jobs: Sequence[NewJob], *, ids_are_random: bool = False) -> set[str]:
        """Enqueue jobs, up to 500 of a queue per call. After an error it is safe to send all of them again.

        Args:
            jobs: jobs of any queues.
            ids_are_random: the IDs were drawn at random just now, so the server does not check results for them.

        Returns:
            The IDs that are already known. Those jobs are not enqueued.

        Raises:
            QueueFull: the server is at `maxmemory`.
        """
        by_queue: dict[str, list[NewJob]] = {}
        for job in jobs:
            by_queue.setdefault(job.queue, []).append(job)
        known: set[str] = set()
        for queue, own in by_queue.items():
            for start in range(0, len(own), BATCH):
                chunk = own[start : start + BATCH]
                args: list[Any] = [int(ids_are_random)]
                for job in chunk:
                    args += (job.id, int(job.level), job.delay_ms, job.record)
                positions = await self.server.run_dedicated(self._scripts["enqueue"], queue, args)
                known.update(chunk[position - 1].id for position in positions)
        return known

    async def tick(self, cron: str, tick_ms: int, job: NewJob) -> str | None:
        """Enqueue the job of a cron tick, once over all workers of the queue.

        Args:
            cron: name of the cron.
            tick_ms: time of the tick, in ms since the epoch.
            job: the job to enqueue.

        Returns:
            The job's ID. If a job of another queue has that ID, since arq's IDs of ticks do not contain the queue's
            name, the name is appended. None if the tick was enqueued before.
        """
        ids = (job.id, f"{job.id}:{job.queue}")
        args = [cron, tick_ms, *ids, int(job.level), job.delay_ms, job.record]
        position = int(await self._run("tick", job.queue, args))
        return ids[position - 1] if position else None

    async def inspect(self, queue: str, job_id: str) -> Snapshot:
        """Return all that the server knows of a job of this queue."""
        (reply,) = await self._run("inspect", queue, [0, 0, job_id])
        return _snapshot(queue, job_id, reply, is_truncated=False)

    async def inspect_many(
        self, queue: str, ids: Sequence[str], *, max_value_bytes: int, max_reply_bytes: int
    ) -> list[Snapshot | Unreadable]:
        """Return what the server knows of jobs of this queue, for a list.

        Args:
            queue: name of the queue.
            ids: at most 50, so that the server stays responsive.
            max_value_bytes: bytes to read of each record, result and dead letter; 0 reads all of it.
            max_reply_bytes: bytes after which no further job is read.

        Returns:
            The first of the jobs, at least one.
        """
        if not ids:
            return []
        replies = await self._run("inspect", queue, [max_value_bytes, max_reply_bytes, *ids])
        return [
            Unreadable(job_id, queue, reply.decode(errors="replace"))
            if isinstance(reply, bytes)
            else _snapshot(queue, job_id, reply, is_truncated=max_value_bytes > 0)
            for job_id, reply in zip(ids, replies, strict=False)
        ]

    async def cancel(self, queue: str, job_id: str, *, result: bytes, keep_ms: int, cascade: bool = True) -> str:
        """Cancel a waiting job, or ask the worker of a running job to cancel it.

        Args:
            queue: name of the queue.
            job_id: ID of the job.
            result: encoded result of a cancelled job.
            keep_ms: how long the result is kept; 0 stores none.
            cascade: cancel the children that the job waits for, too.

        Returns:
            `cancelled`, `asked` (it runs), `final` (too late) or `unknown`.
        """
        return str((await self._run("cancel", queue, [job_id, result, keep_ms, int(cascade)])).decode())

    async def replay(self, queue: str, ids: Sequence[str], *, start_from: str = "") -> ReplayReply:
        """Enqueue the jobs of up to 500 dead letters again, at the end of the queue and without their failures.

        Args:
            queue: the queue's name.
            ids: IDs of the dead letters.
            start_from: '' to go on with checkpoint and journal, `start` to run all again, or a field of the journal.
        """
        now, statuses = await self._run("replay", queue, [start_from, *ids])
        return ReplayReply(now, [status.decode() for status in statuses])

    async def resolve(self, queue: str, job_id: str, field: str, value: bytes) -> str:
        """Say what has become of a step, and replay its dead job.

        Args:
            queue: the queue of the job.
            job_id: ID of the job.
            field: the step's field in the journal.
            value: JSON of the step's value, or empty to run the step again.

        Returns:
            `replayed`; `no-step` (no such step), `ended` (its outcome is known); or a status of `replay`.
        """
        return str((await self._run("resolve", queue, [job_id, field, value])).decode())

    async def discard(self, queue: str, ids: Sequence[str]) -> DiscardReply:
        """Delete up to 500 dead letters and the results of their jobs."""
        count, now = await self._run("discard", queue, ids)
        return DiscardReply(now, count)

    async def pause(self, queue: str, note: str) -> bool:
        """Stop starting jobs of the queue; running jobs go on. Return False if the queue was paused already."""
        return bool(await self._run("pause", queue, [note]))

    async def resume(self, queue: str) -> bool:
        """Start jobs of the queue again. Return False if the queue was not paused."""
        return bool(await self._run("pause", queue, [""]))

    async def snapshot(self, queue: str) -> QueueSnapshot:
        """Return the state of the queue at one instant."""
        return _queue_snapshot(queue, await self._run("stats", queue, []))

    async def snapshots(self, horizons_ms: Mapping[str, int]) -> dict[str, QueueSnapshot]:
        """Return the states of many queues, in one round trip. Queues with a key of a wrong type are left out.

        Args:
            horizons_ms: names of the queues, each with the time within which a delayed job counts as due soon.
        """
        replies = await self.server.run_each(self._scripts["stats"], {q: [ms] for q, ms in horizons_ms.items()})
        found = zip(horizons_ms, replies, strict=True)
        return {queue: _queue_snapshot(queue, reply) for queue, reply in found if reply is not None}

    async def snapshots_or_unreadable(self, queues: Sequence[str]) -> list[QueueSnapshot | Unreadable]:
        """Return the states of many queues, in one round trip; `Unreadable` for a queue with a key of a wrong type."""
        replies = await self.server.run_each(self._scripts["stats"], dict.fromkeys(queues, (0,)))
        return [
            Unreadable("", queue, WRONG_TYPE) if reply is None else _queue_snapshot(queue, reply)
            for queue, reply in zip(queues, replies, strict=True)
        ]

    async def history(self, queue: str, *, until_ms: int, minutes: int) -> list[tuple[int, dict[str, int]]]:
        """Return the counters of the last minutes, at most 1,440, oldest first, each with its start in ms."""
        keys, last = KeySpace(queue), until_ms // 60_000
        wanted = range(last - min(minutes, 1_440) + 1, last + 1)

        async def read() -> list[dict[bytes, bytes]]:
            async with self.server.redis.pipeline(transaction=False) as pipe:
                for minute in wanted:
                    pipe.execute_command("HGETALL", keys.stats_of_minute(minute), keys=[])
                return await pipe.execute()

        replies = await self.server.call(read)
        return [
            (minute * 60_000, {name.decode(errors="replace"): number_of(value) for name, value in reply.items()})
            for minute, reply in zip(wanted, replies, strict=True)
        ]

    async def queues(self) -> list[str]:
        """Return the names of all queues on this server that were ever used or are scaled, sorted."""
        redis = self.server.redis
        names = await self.server.call(lambda: cast("Awaitable[set[bytes]]", redis.smembers(QUEUES)))
        return sorted(decode_ids(names))

    async def ids(self, queue: str, state: State, *, offset: int = 0, limit: int = 100) -> list[str]:
        """Return a page of the queue's IDs in a state.

        Waiting, delayed and active jobs are sorted by level and due time, suspended ones by what they wait for and by
        the time that wakes them, dead and completed jobs newest first. Cancelled jobs are not indexed.
        """
        keys = KeySpace(queue)
        if state is State.DELAYED and await self._has_suspended(keys):
            return await self._delayed_ids(keys, offset=offset, limit=limit)
        if state in (State.DEAD, State.COMPLETED):
            key = keys.dead if state is State.DEAD else keys.done
            return decode_ids(
                await self.server.call(lambda: self.server.redis.zrevrange(key, offset, offset + limit - 1))
            )
        if state is State.CANCELLED:
            return []
        out: list[str] = []
        for key in map(keys.suspended, KINDS) if state is State.SUSPENDED else keys.levels:
            if len(out) >= limit:
                break
            found, offset = await self._page(key, state, offset, limit - len(out))
            out += found
        return out

    async def _has_suspended(self, keys: KeySpace) -> bool:
        redis = self.server.redis

        async def count() -> int:
            async with redis.pipeline(transaction=False) as pipe:
                for kind in KINDS:
                    pipe.zcount(keys.suspended(kind), "1", "+inf")
                return sum(await pipe.execute())

        return await self.server.call(count) > 0

    async def _delayed_ids(self, keys: KeySpace, *, offset: int, limit: int) -> list[str]:
        """Return a page of the delayed jobs that are not suspended. Both stand in the same sets."""
        redis, out = self.server.redis, list[bytes]()
        due = await self._first_delayed_score()

        async def read(level_key: str, start: int) -> tuple[list[bytes], list[list[float | None]]]:
            ids: list[Any] = await redis.zrangebyscore(level_key, due, "+inf", start=start, num=BATCH)
            async with redis.pipeline(transaction=False) as pipe:
                for kind in KINDS if ids else ():
                    pipe.zmscore(keys.suspended(kind), ids)
                return ids, await pipe.execute()

        for level_key in keys.levels:
            start = 0
            while len(out) < offset + limit:
                ids, scores = await self.server.call(partial(read, level_key, start))
                out += [job_id for job_id, found in zip(ids, zip(*scores, strict=True), strict=True) if not any(found)]
                start += len(ids)
                if len(ids) < BATCH:
                    break
        return decode_ids(out[offset : offset + limit])

    async def _page(self, key: str, state: State, offset: int, limit: int) -> tuple[list[str], int]:
        redis = self.server.redis
        due = await self._first_delayed_score()
        later = (str(due), "+inf")
        ranges = {
            State.ACTIVE: ("-inf", "(0"),
            State.DELAYED: later,
            State.SUSPENDED: later,
            State.WAITING: ("0", f"({due}"),
        }
        low, high = ranges[state]
        total = await self.server.call(lambda: redis.zcount(key, low, high))
        if offset >= total:
            return [], offset - total
        ids = await self.server.call(lambda: redis.zrangebyscore(key, low, high, start=offset, num=limit))
        return decode_ids(ids), 0

    async def _first_delayed_score(self) -> int:
        """Return the lowest score of a delayed job. As in the scripts, a job of this millisecond is due."""
        seconds, micros = await self.server.call(self.server.redis.time)
        return int(seconds) * 1000 + int(micros) // 1000 + 1

    async def dead_letters(
        self, queue: str, ids: Sequence[str], *, max_value_bytes: int = 0, max_reply_bytes: int = 0
    ) -> list[StoredDeadLetter]:
        """Return the dead letters of these IDs, whichever queue they are of.

        Args:
            queue: any queue.
            ids: at most 500.
            max_value_bytes: bytes to read of each dead letter; 0 reads all of it.
            max_reply_bytes: bytes after which no further one is read; 0 for no limit.

        Returns:
            The first of the dead letters, at least one.
        """
        if not ids:
            return []
        replies = await self._run("dead_letters", queue, [max_value_bytes, max_reply_bytes, *ids])
        return [_dead_letter(queue, job_id, reply) for job_id, reply in zip(ids, replies, strict=False)]

    async def fingerprints(self, queue: str) -> dict[str, int]:
        """Return the number of dead letters of each fingerprint."""
        redis, key = self.server.redis, KeySpace(queue).fingerprints
        found = await self.server.call(lambda: cast("Awaitable[dict[bytes, bytes]]", redis.hgetall(key)))
        return {name.decode(errors="surrogateescape"): number_of(value) for name, value in found.items()}

    async def request_drain(self, queue: str, worker: str, *, at_ms: int, keep_ms: int | None = None) -> None:
        """Request that a worker claims no more jobs. It reads the request with its next renewal.

        Args:
            queue: name of the queue.
            worker: worker ID.
            at_ms: time of the request, in ms since the epoch, by which the worker confirms it.
            keep_ms: how long all drain requests of the queue are kept from now on; None keeps them for ever.
        """
        await self._run("request_drain", queue, [worker, at_ms, "" if keep_ms is None else keep_ms])

    async def cancel_drain(self, queue: str, worker: str) -> None:
        """Cancel the drain request of a worker, which may claim jobs again."""
        redis, key = self.server.redis, KeySpace(queue).drain
        await self.server.call(lambda: cast("Awaitable[int]", redis.hdel(key, worker)))

    async def keep_drain_requests(self, queue: str, keep_ms: int | None) -> None:
        """Keep the drain requests of a queue for `keep_ms` from now on; None keeps them for ever."""
        redis, key = self.server.redis, KeySpace(queue).drain
        await self.server.call(lambda: redis.persist(key) if keep_ms is None else redis.pexpire(key, keep_ms))

    async def heartbeat(self, queue: str, worker: str) -> Heartbeat | None:
        """Return a worker's last heartbeat, however old; None if there is none, or the worker has deregistered."""
        redis, key = self.server.redis, KeySpace(queue).workers
        value = await self.server.call(lambda: cast("Awaitable[bytes | None]", redis.hget(key, worker)))
        return None if value is None else _heartbeat(worker, value)

    async def publish_decisions(self, decisions: Mapping[str, bytes], *, keep_ms: int) -> dict[str, bytes | None]:
        """Publish the autoscaling decisions of queues, in one round trip. The queues are listed from then on.

        Args:
            decisions: names of the queues, each with its decision (JSON).
            keep_ms: how long they are kept.

        Returns:
            The decision that each queue had before, which may be of another autoscaler.
        """

        async def write() -> dict[str, bytes | None]:
            async with self.server.redis.pipeline(transaction=False) as pipe:
                pipe.sadd(QUEUES, *decisions)
                for queue, decision in decisions.items():
                    pipe.set(DECISION + queue, decision, px=keep_ms, get=True)
                _, *before = await pipe.execute()
                return dict(zip(decisions, before, strict=True))

        return await self.server.call(write)

    async def decision(self, queue: str) -> bytes | None:
        """Return the queue's last published autoscaling decision (JSON), if it is still kept."""
        redis = self.server.redis
        return cast("bytes | None", await self.server.call(lambda: redis.get(DECISION + queue)))

    async def count_ahead(self, queue: str, level: Level, score: float) -> int:
        """Return the number of ready jobs that are claimed before a job of this level and score."""
        keys, redis = KeySpace(queue), self.server.redis
        due = await self._first_delayed_score()

        async def read() -> list[int]:
            async with redis.pipeline(transaction=False) as pipe:
                for other in Level:
                    if other < level:
                        pipe.zcount(keys.level(other), "0", f"({due}")
                pipe.zcount(keys.level(level), "0", f"({score!r}")
                return await pipe.execute()

        return sum(await self.server.call(read))


def _snapshot(queue: str, job_id: str, reply: Sequence[Any], *, is_truncated: bool) -> Snapshot:
    record, held, attempts, result, meta, dead, scores, done, now, abort, children, steps = reply
    level = next((level for level, score in zip(Level, scores, strict=False) if score is not None), None)
    dead_letter = decode_hash(dead)
    return Snapshot(
        id=job_id,
        queue=queue,
        record=record,
        held=held,
        attempts=number_of(attempts),
        result=result,
        meta=decode_hash(meta),
        dead=dead_letter if "dead_letter" in dead_letter and dead_letter.get("queue") == queue.encode() else {},
        level=level,
        score=None if level is None else float(scores[level - 1]),
        done_ms=None if done is None else whole_ms(done),
        now_ms=now,
        cancel_asked=abort is not None,
        children=(number_of(children[0]), number_of(children[1])) if children else (0, 0),
        steps=steps_of(decode_hash(steps)),
        is_truncated=is_truncated,
    )


def _dead_letter(queue: str, job_id: str, reply: Any) -> StoredDeadLetter:
    if isinstance(reply, bytes):
        return StoredDeadLetter(job_id, queue, None, reply.decode(errors="replace"))
    raw, own_queue = reply
    return StoredDeadLetter(job_id, queue if own_queue is None else own_queue.decode(errors="replace"), raw)


def whole_ms(score: bytes) -> int:
    """Return the score of a sorted set as milliseconds; 0 for a score that is not a time."""
    value = float(score)
    return int(value) if 0 <= value <= LAST_MS else 0


def _queue_snapshot(queue: str, reply: Sequence[Any]) -> QueueSnapshot:
    now, ready, delayed, active, oldest, dead, done, paused, counted, this_minute, last_minute, *rest = reply
    workers, next_due, draining, due_soon, expired_leases, suspended = rest
    counters = _numbers(counted)
    waits = {name: counters.pop(name) for name in list(counters) if name.startswith(PREFIX)}
    return QueueSnapshot(
        queue=queue,
        now_ms=now,
        ready=tuple(ready),
        delayed=tuple(delayed),
        active=tuple(active),
        oldest_ms=float(oldest) if oldest else None,
        next_due_ms=float(next_due) if next_due else None,
        dead=dead,
        done=done,
        paused=paused or None,
        counters=counters,
        this_minute=_numbers(this_minute),
        last_minute=_numbers(last_minute),
        workers=[_heartbeat(worker, value) for worker, value in decode_hash(workers).items()],
        draining=_numbers(draining),
        due_soon=due_soon,
        expired_leases=expired_leases,
        waits=waits,
        suspended=_numbers(suspended),
    )
