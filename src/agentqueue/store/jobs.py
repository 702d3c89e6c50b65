"""What producers and people do with queues: enqueue, look, cancel, replay, pause."""

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from agentqueue.keys import DECISION, QUEUES, KeySpace, Level
from agentqueue.model.attempts import number_of
from agentqueue.model.job import State
from agentqueue.model.new_job import NewJob
from agentqueue.model.times import LAST_MS
from agentqueue.model.wait_histogram import PREFIX
from agentqueue.store.engine import decode_ids, decode_meta
from agentqueue.store.scripts import load
from agentqueue.store.server import Server

T = TypeVar("T")
BATCH: Final = 500
"""Jobs per call: keeps the server responsive to others (a call of 500 takes under 5 ms)."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that the server knows of one job at one instant; `agentqueue.client` turns it into a JobStatus."""

    id: str
    queue: str
    record: bytes | None
    held: bytes | None
    """`owner|level|old score|claimed ms`"""
    attempts: int
    result: bytes | None
    meta: dict[str, bytes]
    dead: dict[str, bytes]
    """letter, record, queue, level, fp"""
    level: Level | None
    """The level whose set has it, if any has."""
    score: float | None
    done_ms: int | None
    now_ms: int
    cancel_asked: bool
    is_head: bool = False
    """Records and letter may be cut (`agentqueue.model.record_heads`), and of the meta there is what lists show."""

    @property
    def state(self) -> State | None:
        """Where the job is; None: not known. COMPLETED for any final state that the result alone can tell."""
        if self.score is not None:
            if self.score < 0 or self.held:
                return State.ACTIVE
            return State.DELAYED if self.score >= self.now_ms + 1 else State.WAITING
        if self.dead:
            return State.DEAD
        return State.COMPLETED if self.result or self.done_ms is not None else None


ANOTHER_TYPE: Final = "somebody else has filled one of its keys with another Redis type (WRONGTYPE)"


@dataclass(frozen=True, slots=True)
class Unread:
    """A job or a queue that can't be looked at, since somebody else's value stands in one of its keys."""

    id: str
    queue: str
    why: str


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """A dead letter as it is stored."""

    id: str
    queue: str
    raw: bytes | None
    """JSON; None: there is none (any more)."""
    why: str | None = None
    """Why it can't be read."""

    @property
    def is_there(self) -> bool:
        """Whether there is one, be it one that can't be read."""
        return self.raw is not None or self.why is not None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A worker's last word."""

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
    """The note of who paused it, or None."""
    counters: dict[str, int]
    """Since the beginning: enqueued, completed, retried, dead, cancelled, crashed, handed_back, lost, replayed,
    run_ms."""
    this_minute: dict[str, int]
    last_minute: dict[str, int]
    workers: Sequence[Heartbeat]
    draining: dict[str, int]
    """Workers marked to drain -> since when, ms."""
    due_soon: int = 0
    """Delayed jobs that come due within the time asked for."""
    run_out: int = 0
    """Running jobs whose lease has run out: they go back to the queue, unless their worker renews it first."""
    waits: Mapping[str, int] = field(default_factory=dict)
    """How long jobs waited for a slot since the beginning, by the fields of `agentqueue.model.wait_histogram`."""

    @property
    def waiting(self) -> int:
        """Ready jobs of all levels."""
        return sum(self.ready)


def _numbers(flat: Sequence[bytes]) -> dict[str, int]:
    """What is no number there, somebody else wrote: it counts as 0."""
    return {name: number_of(value) for name, value in decode_meta(flat).items()}


def _optional_float(value: bytes) -> float | None:
    return float(value) if value else None


def _heartbeats(flat: Sequence[bytes]) -> list[Heartbeat]:
    return [_heartbeat(worker, value) for worker, value in decode_meta(flat).items()]


def _heartbeat(worker: str, value: bytes) -> Heartbeat:
    """One that somebody else wrote was never seen: its worker is not live, and housekeeping forgets it."""
    seen, _, raw = value.partition(b"|")
    return Heartbeat(worker, number_of(seen), raw)


class Store:
    """Queues on one server. Ids and queue names are checked by the caller (`agentqueue.keys`)."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._scripts = {name: load(name) for name in ("enqueue", "replay", "tick")} | {
            name: load(name, allow_oom=True)
            for name in ("cancel", "discard", "inspect", "letters", "mark", "pause", "stats")
        }

    async def _run(self, name: str, queue: str, args: Sequence[Any]) -> Any:
        return await self.server.run(self._scripts[name], queue, args)

    async def enqueue(self, jobs: Sequence[NewJob], *, ids_are_random: bool = False) -> set[str]:
        """Enqueue, 500 jobs of a queue a call. Returns the ids that were known already (nothing was done for those).

        `ids_are_random`: the ids were drawn at random just now, so the server need not look whether they are known.
        On an error in the middle the earlier calls' jobs are enqueued; the same ids again are safe to send.

        Raises:
            QueueFull: the server is at `maxmemory`.
        """
        by_queue: dict[str, list[NewJob]] = {}
        for job in jobs:
            by_queue.setdefault(job.queue, []).append(job)
        known: set[str] = set()
        for queue, own in by_queue.items():
            for chunk in _chunks(own):
                args: list[Any] = [int(ids_are_random)]
                for job in chunk:
                    args += (job.id, int(job.level), job.delay_ms, job.record)
                positions = await self._run("enqueue", queue, args)
                known.update(chunk[position - 1].id for position in positions)
        return known

    async def tick(self, cron: str, tick_ms: int, job: NewJob) -> str | None:
        """Enqueue a cron's tick, once over all workers of the queue.

        Returns:
            The id that the tick's job got: its own, or, where a job of another queue has that (arq's ids of ticks
            don't name the queue), its own with the queue's name behind it. None: the tick was enqueued before.
        """
        ids = (job.id, f"{job.id}:{job.queue}")
        taken = int(await self._run("tick", job.queue, [cron, tick_ms, *ids, int(job.level), job.delay_ms, job.record]))
        return ids[taken - 1] if taken else None

    async def inspect(self, queue: str, job_id: str) -> Snapshot:
        """All that is known of a job of this queue."""
        (reply,) = await self._run("inspect", queue, [0, 0, job_id])
        return _snapshot(queue, job_id, reply, is_head=False)

    async def inspect_many(self, queue: str, ids: Sequence[str], *, head: int, most: int) -> list[Snapshot | Unread]:
        """What is known of jobs of this queue, for a list; one that can't be looked at does not hide the others.

        Args:
            queue: its name.
            ids: up to 50, so that the server stays responsive to others.
            head: bytes of each record, result and letter to read; 0: all.
            most: bytes after which no further job is read.

        Returns:
            Of the first jobs, at least one if there is one.
        """
        if not ids:
            return []
        replies = await self._run("inspect", queue, [head, most, *ids])
        return [
            Unread(job_id, queue, reply.decode(errors="replace"))
            if isinstance(reply, bytes)
            else _snapshot(queue, job_id, reply, is_head=head > 0)
            for job_id, reply in zip(ids, replies, strict=False)
        ]

    async def cancel(self, queue: str, job_id: str, *, result: bytes, keep_ms: int) -> str:
        """Cancel a waiting job, or ask a running one's worker to: `cancelled`, `asked`, `final` or `unknown`."""
        return str((await self._run("cancel", queue, [job_id, result, keep_ms])).decode())

    async def replay(self, queue: str, ids: Sequence[str]) -> list[str]:
        """Put dead letters back: `replayed`, `unknown`, `live` (it runs already) or `bare` (no record), per id."""
        out: list[str] = []
        for chunk in _chunks(ids):
            out += [status.decode() for status in await self._run("replay", queue, chunk)]
        return out

    async def discard(self, queue: str, ids: Sequence[str]) -> int:
        """Forget dead letters. Returns how many there were."""
        return sum([int(await self._run("discard", queue, chunk)) for chunk in _chunks(ids)])

    async def pause(self, queue: str, note: str) -> bool:
        """Start no more jobs of the queue; running ones go on. False: it was paused already."""
        return bool(await self._run("pause", queue, [note]))

    async def resume(self, queue: str) -> bool:
        """Start jobs again. False: it was not paused."""
        return bool(await self._run("pause", queue, [""]))

    async def snapshot(self, queue: str) -> QueueSnapshot:
        """The queue at one instant."""
        return _queue_snapshot(queue, await self._run("stats", queue, []))

    async def snapshots(self, horizons_ms: Mapping[str, int]) -> dict[str, QueueSnapshot]:
        """Many queues in one round trip, for a scaling loop: queue -> how far ahead a delayed job is due soon, ms.

        Without those that can't be read, since somebody else has filled a key of theirs with another type.
        """
        replies = await self.server.run_each(self._scripts["stats"], {q: [ms] for q, ms in horizons_ms.items()})
        found = zip(horizons_ms, replies, strict=True)
        return {queue: _queue_snapshot(queue, reply) for queue, reply in found if reply is not None}

    async def snapshots_or_why(self, queues: Sequence[str]) -> list[QueueSnapshot | Unread]:
        """Many queues in one round trip, for a list: one that can't be read does not hide the others."""
        replies = await self.server.run_each(self._scripts["stats"], dict.fromkeys(queues, (0,)))
        return [
            Unread("", queue, ANOTHER_TYPE) if reply is None else _queue_snapshot(queue, reply)
            for queue, reply in zip(queues, replies, strict=True)
        ]

    async def history(self, queue: str, *, until_ms: int, minutes: int) -> list[tuple[int, dict[str, int]]]:
        """The counters of each of the last minutes, oldest first: (start ms, counters). At most 1,440."""
        keys, last = KeySpace(queue), until_ms // 60_000
        wanted = range(last - min(minutes, 1_440) + 1, last + 1)

        async def read() -> list[list[bytes]]:
            async with self.server.redis.pipeline(transaction=False) as pipe:
                for minute in wanted:
                    pipe.execute_command("HGETALL", keys.stats_of_minute(minute), keys=[])
                return await pipe.execute()

        replies = await self.server.call(read)
        return [(minute * 60_000, _counters(reply)) for minute, reply in zip(wanted, replies, strict=True)]

    async def queues(self) -> list[str]:
        """The names of all queues on this server that were ever used, or that somebody scales, sorted."""
        redis = self.server.redis
        names = await self.server.call(lambda: cast("Awaitable[set[bytes]]", redis.smembers(QUEUES)))
        return sorted(decode_ids(names))

    async def ids(self, queue: str, state: State, *, offset: int = 0, limit: int = 100) -> list[str]:
        """A page of a queue's ids: ready, delayed, active by level, soonest first; dead, completed newest first."""
        keys = KeySpace(queue)
        if state in (State.DEAD, State.COMPLETED):
            key = keys.dead if state is State.DEAD else keys.done
            return decode_ids(
                await self.server.call(lambda: self.server.redis.zrevrange(key, offset, offset + limit - 1))
            )
        if state is State.CANCELLED:
            return []
        out: list[str] = []
        for level_key in keys.levels:
            if len(out) >= limit:
                break
            found, offset = await self._page(level_key, state, offset, limit - len(out))
            out += found
        return out

    async def _page(self, key: str, state: State, offset: int, limit: int) -> tuple[list[str], int]:
        redis = self.server.redis
        seconds, micros = await self.server.call(redis.time)
        due = int(seconds) * 1000 + int(micros) // 1000 + 1  # as the scripts have it: what is due in this millisecond
        ranges = {State.ACTIVE: ("-inf", "(0"), State.DELAYED: (str(due), "+inf"), State.WAITING: ("0", f"({due}")}
        low, high = ranges[state]
        total = await self.server.call(lambda: redis.zcount(key, low, high))
        if offset >= total:
            return [], offset - total
        ids = await self.server.call(lambda: redis.zrangebyscore(key, low, high, start=offset, num=limit))
        return decode_ids(ids), 0

    async def dead_letters(
        self, queue: str, ids: Sequence[str], *, head: int = 0, most: int = 0
    ) -> list[StoredDeadLetter]:
        """The letters of these ids, of whichever queue; `head`, `most` and the answer's end as of `inspect_many`."""
        replies = await self._run("letters", queue, [head, most, *ids]) if ids else []
        return [_letter(queue, job_id, reply) for job_id, reply in zip(ids, replies, strict=False)]

    async def fingerprints(self, queue: str) -> dict[str, int]:
        """How many dead letters of each kind there are."""
        redis, key = self.server.redis, KeySpace(queue).fingerprints
        found = await self.server.call(lambda: cast("Awaitable[dict[bytes, bytes]]", redis.hgetall(key)))
        return {name.decode(errors="surrogateescape"): number_of(value) for name, value in found.items()}

    async def ids_like(self, queue: str, fingerprint: str, *, offset: int = 0, limit: int = BATCH) -> list[str]:
        """A page of the dead letters with that fingerprint, oldest first."""
        key = KeySpace(queue).fingerprint(fingerprint)
        return decode_ids(await self.server.call(lambda: self.server.redis.zrange(key, offset, offset + limit - 1)))

    async def mark_drain(self, queue: str, worker: str, *, since_ms: int | None, keep_ms: int | None = None) -> None:
        """Mark a worker to drain (None: take the mark back). It learns of it with its next renewal.

        Also on a full server. The queue's marks go after `keep_ms`, unless `keep_marks` keeps them; None: they stay.
        """
        kept = "" if keep_ms is None else keep_ms
        await self._run("mark", queue, [worker, "" if since_ms is None else since_ms, kept])

    async def keep_marks(self, queue: str, keep_ms: int | None) -> None:
        """A queue's marks hold for so long from now on; None: until they are taken back."""
        redis, key = self.server.redis, KeySpace(queue).drain
        await self.server.call(lambda: redis.persist(key) if keep_ms is None else redis.pexpire(key, keep_ms))

    async def heartbeat(self, queue: str, worker: str) -> Heartbeat | None:
        """A worker's last word, however old; None: it has said nothing, or goodbye."""
        redis, key = self.server.redis, KeySpace(queue).workers
        value = await self.server.call(lambda: cast("Awaitable[bytes | None]", redis.hget(key, worker)))
        return None if value is None else _heartbeat(worker, value)

    async def publish_decisions(self, decisions: Mapping[str, bytes], *, keep_ms: int) -> dict[str, bytes | None]:
        """Publish why queues have as many workers as they have: queue -> JSON, in one round trip.

        They are known from then on, before the first job is sent to them. Returns what stood there before, of each
        queue: it may be of somebody else who scales it too.
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
        """What was published of a queue lately (JSON)."""
        redis = self.server.redis
        return cast("bytes | None", await self.server.call(lambda: redis.get(DECISION + queue)))

    async def ahead(self, queue: str, level: Level, score: float) -> int:
        """Ready jobs that go before one of this level and score, by priority and age in it."""
        keys, redis = KeySpace(queue), self.server.redis
        seconds, micros = await self.server.call(redis.time)
        due = int(seconds) * 1000 + int(micros) // 1000 + 1

        async def read() -> list[int]:
            async with redis.pipeline(transaction=False) as pipe:
                for other in Level:
                    if other < level:
                        pipe.zcount(keys.level(other), "0", f"({due}")
                pipe.zcount(keys.level(level), "0", f"({score!r}")
                return await pipe.execute()

        return sum(await self.server.call(read))


def _snapshot(queue: str, job_id: str, reply: Sequence[Any], *, is_head: bool) -> Snapshot:
    record, held, attempts, result, meta, dead, scores, done, now, abort = reply
    level = next((level for level, score in zip(Level, scores, strict=False) if score is not None), None)
    letter = decode_meta(dead)
    return Snapshot(
        id=job_id,
        queue=queue,
        record=record,
        held=held,
        attempts=number_of(attempts),
        result=result,
        meta=decode_meta(meta),
        dead=letter if "letter" in letter and letter.get("queue") == queue.encode() else {},
        level=level,
        score=None if level is None else float(scores[level - 1]),
        done_ms=None if done is None else whole_ms(done),
        now_ms=now,
        cancel_asked=abort is not None,
        is_head=is_head,
    )


def _letter(queue: str, job_id: str, reply: Any) -> StoredDeadLetter:
    if isinstance(reply, bytes):
        return StoredDeadLetter(job_id, queue, None, reply.decode(errors="replace"))
    raw, home = reply
    return StoredDeadLetter(job_id, queue if home is None else home.decode(errors="replace"), raw)


def whole_ms(score: bytes) -> int:
    """A zset's score as milliseconds; 0 for one that is no time."""
    value = float(score)
    return int(value) if 0 <= value <= LAST_MS else 0


def _queue_snapshot(queue: str, reply: Sequence[Any]) -> QueueSnapshot:
    now, ready, delayed, active, oldest, dead, done, paused, counted, minute, last, workers, due, drain, soon, out = (
        reply
    )
    counters = _numbers(counted)
    waits = {name: counters.pop(name) for name in list(counters) if name.startswith(PREFIX)}
    return QueueSnapshot(
        queue=queue,
        now_ms=now,
        ready=tuple(ready),
        delayed=tuple(delayed),
        active=tuple(active),
        oldest_ms=_optional_float(oldest),
        next_due_ms=_optional_float(due),
        dead=dead,
        done=done,
        paused=paused or None,
        counters=counters,
        this_minute=_numbers(minute),
        last_minute=_numbers(last),
        workers=_heartbeats(workers),
        draining=_numbers(drain),
        due_soon=soon,
        run_out=out,
        waits=waits,
    )


def _counters(reply: Any) -> dict[str, int]:
    if isinstance(reply, dict):
        return {name.decode(errors="replace"): number_of(value) for name, value in reply.items()}
    return _numbers(reply)


def _chunks(items: Sequence[T]) -> Iterable[Sequence[T]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
