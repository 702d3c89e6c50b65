"""A worker's operations on its queue: finish and claim jobs, renew leases, write notes, release leases."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentqueue.errors import QueueUnavailable, UnsupportedServer
from agentqueue.keys import KeySpace, Level
from agentqueue.model.attempts import number_of
from agentqueue.model.new_job import NewJob
from agentqueue.model.outcomes import (
    Cancelled,
    Claimed,
    Completed,
    DeadLettered,
    Outcome,
    Released,
    Rescheduled,
    Suspended,
    Unstarted,
)
from agentqueue.store.replies import decode_hash, decode_ids, decode_pairs
from agentqueue.store.schedules import Schedules
from agentqueue.store.scripts import Script, load
from agentqueue.store.server import Server


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Settings that all workers of a queue share. Durations are in milliseconds, as the scripts take them."""

    lease_ms: int = 8_000
    """Length of a lease. A worker that does not renew its leases in this time loses its jobs; it renews four times."""
    age_limits_ms: tuple[int, int, int] = (60_000, 300_000, 900_000)
    """Time after which a ready job of level high, normal or low is claimed before jobs of higher levels. At most a
    quarter of all claims are made by age."""
    rate_max: int = 0
    """Maximum number of starts in any window of `rate_window_ms`, over all workers; 0 for no limit."""
    rate_window_ms: int = 1_000
    history_count: int = 1_000
    """Number of completed jobs in the history. Their results do not depend on it: those expire after `keep_ms`."""
    history_ms: int = 86_400_000
    """Retention of the history."""
    dead_ms: int = 604_800_000
    """Retention of dead letters."""
    sweep_limit: int = 200
    """Number of jobs per renewal whose records are checked for the expiry that plain arq clients set."""
    stale_ms: int = 60_000
    """Age of a heartbeat at which its worker leaves the list of workers."""


HOUSEKEEPING_INTERVAL_S: Final = 2.0
"""Time between two calls of `run_housekeeping`, in seconds: the interval at which a worker renews its leases."""
RECENT_VISIT_MS: Final = 1_500
"""A queue that was visited within this time, in milliseconds, is skipped, because somebody else has just done its
housekeeping. Less than HOUSEKEEPING_INTERVAL_S, so that a caller never skips a queue because of its own last visit."""


@dataclass(frozen=True, slots=True)
class FinishAndClaimReply:
    """Reply of `Engine.finish_and_claim`."""

    lost: Sequence[str]
    """IDs whose outcomes were not recorded, since this worker no longer holds the jobs."""
    claimed: Sequence[Claimed]
    """A suspect, if any, is the last one."""
    cancel: Sequence[str]
    """Watched IDs that somebody asked to cancel."""
    paused: bool
    retry_after_ms: int | None
    """Time until the next claim may start jobs, if the rate limit or a key of a wrong type stopped this one."""
    next_due_ms: int | None
    """When the next delayed job is due, in ms since the epoch, if fewer jobs were ready than wanted."""
    now_ms: int
    repeated: bool
    """The call had been carried out before, and its reply was lost."""
    aged: int = 0
    """How many jobs were claimed by age instead of priority."""
    wrong_type_keys: Sequence[tuple[str, str]] = ()
    """Keys that hold another Redis type than AgentQueue writes, with that type. Keys of jobs were deleted. Keys of the
    queue are kept; work that needs them waits until somebody deletes them."""


@dataclass(frozen=True, slots=True)
class RenewReply:
    """Reply of `Engine.renew`."""

    lost: Sequence[str]
    """IDs that this worker no longer holds."""
    drain_requested_ms: int
    """Time of the request to drain, by which the heartbeat confirms it; 0 if the worker may claim jobs."""
    reaped: int
    """Number of expired leases that were released."""
    now_ms: int
    paused: bool
    wrong_type_keys: Sequence[tuple[str, str]] = ()
    """See `FinishAndClaimReply`."""
    lacks_times: bool = False
    """A schedule needs due times; `Schedules.tend` computes them."""


@dataclass(frozen=True, slots=True)
class HousekeepingReply:
    """Reply of `run_housekeeping` for one queue."""

    reaped: int
    """Number of expired leases that were released."""
    wrong_type_keys: Sequence[tuple[str, str]] = ()
    """See `FinishAndClaimReply`."""


@dataclass(frozen=True, slots=True)
class Wakeup:
    """Reply of `Engine.wait_for_wakeup`."""

    job_id: str | None
    """A running job for which something has come, such as a signal. None for a wake-up token: there may be jobs."""


def encode_outcome(outcome: Outcome) -> list[Any]:
    """Return an outcome as arguments of finish_and_claim.lua, which lists the fields of each kind."""
    kind: str
    args: list[Any]
    match outcome:
        case Completed(id, level, result, keep_ms, run_ms, children, has_journal, has_stream=has_stream):
            kind, args = "completed", [id, int(level), result, keep_ms, run_ms, has_journal + 2 * has_stream]
            args += _encode_children(children)
        case Rescheduled(id, level, delay_ms, notes):
            kind, args = "rescheduled", [id, int(level), delay_ms, *_flatten(notes)]
        case DeadLettered(id, level, result, keep_ms, fingerprint, dead_letter, children, kept):
            fields = [id, int(level), result, keep_ms, fingerprint, dead_letter, len(kept), *_flatten(kept)]
            kind, args = "dead_lettered", [*fields, *_encode_children(children)]
        case Cancelled(id, level, result, keep_ms, has_journal, has_stream=has_stream):
            kind, args = "cancelled", [id, int(level), result, keep_ms, has_journal + 2 * has_stream]
        case Released(id, level, delay_ms, notes):
            kind, args = "released", [id, int(level), -1 if delay_ms is None else delay_ms, *_flatten(notes)]
        case Suspended(id, level, run_ms, waits, notes):
            kind, args = "suspended", [id, int(level), run_ms, 2 * len(notes), *_flatten(notes), *waits]
        case Unstarted(id, level):
            kind, args = "unstarted", [id, int(level)]
    return [kind, len(args) + 2, *args]


def _encode_children(jobs: Sequence[NewJob]) -> list[Any]:
    return [part for job in jobs for part in (job.queue, job.id, int(job.level), job.delay_ms, job.record)]


def _flatten(pairs: Mapping[str, bytes | str | int]) -> list[Any]:
    return [part for pair in pairs.items() for part in pair]


_LEVELS = (Level.URGENT, *Level)  # index 0 is a filler: the scripts count from 1
_NO_META: Mapping[str, bytes] = {}


def _decode_claimed(reply: Sequence[Any]) -> list[Claimed]:
    if not reply:
        return []
    runs, ids, scores, records, details, _ = reply
    levels = [level for number, count in zip(runs[::2], runs[1::2], strict=True) for level in [_LEVELS[number]] * count]
    claimed = [
        Claimed(job_id.decode(errors="surrogateescape"), level, float(score), record, 0, _NO_META, cancel=False)
        for level, job_id, score, record in zip(levels, ids, scores, records, strict=True)
    ]
    for position, attempts, meta, cancel in details:
        job = claimed[position - 1]
        job.attempts, job.cancel = number_of(attempts), bool(cancel)
        job.meta = decode_hash(meta) if meta else _NO_META
    return claimed


class Engine:
    """One queue, as a worker uses it. Every method is one round trip unless its docstring says otherwise."""

    def __init__(self, server: Server, queue: str, settings: EngineSettings | None = None) -> None:
        self.server = server
        self.keys = KeySpace(queue)
        self.settings = settings or EngineSettings()
        s = self.settings
        self._limits = (*s.age_limits_ms, s.rate_max, s.rate_window_ms, s.history_count)
        self._finish_and_claim = load("finish_and_claim", allow_oom=True)
        self._finish_and_claim_strict = load("finish_and_claim")
        self._renew = load("renew", allow_oom=True)
        self._annotate = load("annotate", allow_oom=True)
        self._increment_counters = load("increment_counters", allow_oom=True)
        self._release_leases = load("release_leases", allow_oom=True)
        self._find_wrong_type_keys = load("find_wrong_type_keys", allow_oom=True)

    async def finish_and_claim(
        self,
        *,
        seq: int,
        owner: str,
        want: int,
        age_credit: int = 0,
        free: int | None = None,
        is_idle: bool = False,
        outcomes: Sequence[Outcome] = (),
        watch: Sequence[str] = (),
    ) -> FinishAndClaimReply:
        """Record the outcomes of jobs and claim new jobs.

        A call whose reply was lost is sent again with the same arguments. It is carried out once, and the reply is the
        same. Outcomes with children are refused as a whole on a full server.

        Args:
            seq: sequence number; each call of an owner has a higher one than the call before.
            owner: owner of the leases, new for each process.
            want: maximum number of jobs to claim.
            age_credit: credit for claims by age instead of priority, in starts. Each start of this call earns 1, and
                each claim by age costs 4.
            free: how many of the claimed jobs start at once. If the worker crashes, that counts for these jobs alone.
                None means all.
            is_idle: the worker holds no job, so that a suspect may start alone.
            outcomes: outcomes to record, at most MAX_JOBS_PER_CALL.
            watch: IDs of running jobs; the reply names those that somebody asked to cancel.

        Raises:
            QueueFull: outcomes have children and the server is at `maxmemory`; nothing was done.
            QueueUnavailable: the call may or may not have been carried out; send it again.
        """
        groups: dict[tuple[Level, int], list[Any]] = {}
        group, level, keep_ms = [], None, 0
        others: list[Outcome] = []
        returning: list[Completed | DeadLettered | Cancelled] = []
        for outcome in outcomes:
            if type(outcome) is Completed and not (
                outcome.children or outcome.has_journal or outcome.has_stream
            ):  # most jobs
                if outcome.level is not level or outcome.keep_ms != keep_ms:
                    level, keep_ms = outcome.level, outcome.keep_ms
                    group = groups.setdefault((level, keep_ms), [])
                group += (outcome.id, outcome.result, outcome.run_ms)
                if outcome.returns is not None:
                    returning.append(outcome)
            else:
                others.append(outcome)
        args: list[Any] = [seq, owner, want, self.settings.lease_ms, age_credit, want if free is None else free]
        args += (int(is_idle), *self._limits)
        args += (len(groups), len(others), len(watch))
        for (level, keep_ms), group in groups.items():
            args += (int(level), keep_ms, len(group) // 3)
            args += group
        child_queues: set[str] = set()
        for outcome in others:
            args += encode_outcome(outcome)
            if isinstance(outcome, Completed | DeadLettered):
                child_queues.update(job.queue for job in outcome.children)
            if isinstance(outcome, Completed | DeadLettered | Cancelled) and outcome.returns is not None:
                returning.append(outcome)
        args += watch
        for ended in returning:
            if ended.returns is not None:
                args += (ended.id, ended.returns.parent, ended.returns.queue, ended.returns.value)
        script = self._finish_and_claim_strict if child_queues else self._finish_and_claim
        reply = await self._run(script, args, child_queues, run=self.server.run_dedicated)
        lost, claimed, cancel, paused, retry_after, next_due, now, repeated, deleted, skipped = reply
        return FinishAndClaimReply(
            lost=decode_ids(lost),
            claimed=_decode_claimed(claimed),
            aged=claimed[-1] if claimed else 0,
            cancel=decode_ids(cancel),
            paused=bool(paused),
            retry_after_ms=retry_after if retry_after >= 0 else None,
            next_due_ms=next_due if next_due >= 0 else None,
            now_ms=now,
            repeated=bool(repeated),
            wrong_type_keys=await self.wrong_type_keys(deleted, skipped) if deleted or skipped else (),
        )

    async def renew(
        self,
        *,
        owner: str,
        worker: str,
        heartbeat: bytes,
        held: Iterable[tuple[str, Level]],
        counts: Mapping[str, int] | None = None,
    ) -> RenewReply:
        """Renew leases, write the heartbeat, and do a bounded part of the queue's housekeeping.

        Args:
            owner: owner of the leases.
            worker: worker ID.
            heartbeat: JSON.
            held: ID and level of each job whose lease is renewed.
            counts: what to add to the queue's counters (`agentqueue.model.wait_histogram`).
        """
        s = self.settings
        args = [owner, worker, heartbeat, s.lease_ms, s.sweep_limit, s.dead_ms, s.history_ms, s.stale_ms]
        args += [len(counts or ()), *_flatten(counts or {})]
        for job_id, level in held:
            args += (job_id, int(level))
        lost, drain_requested, reaped, now, paused, deleted, skipped, lacks_times = await self._run(self._renew, args)
        keys = await self.wrong_type_keys(deleted, skipped) if deleted or skipped else ()
        return RenewReply(decode_ids(lost), drain_requested, reaped, now, bool(paused), keys, bool(lacks_times))

    async def wrong_type_keys(self, deleted: Sequence[bytes], skipped: bytes) -> list[tuple[str, str]]:
        """Return the keys of a wrong type that a script has met, with their types.

        Args:
            deleted: keys of jobs that the script has deleted; flat, with their types.
            skipped: why the script has skipped a part of its work. Then the keys of the queue are looked at in a round
                trip of their own. If they are all right, the queue and this reason are returned in their place.
        """
        found = await self._wrong_type_keys_of(self.keys.queue) if skipped else []
        unexplained = [(self.keys.queue, skipped.decode(errors="replace"))] if skipped and not found else []
        return [*decode_pairs(deleted), *found, *unexplained]

    async def _wrong_type_keys_of(self, queue: str) -> list[tuple[str, str]]:
        try:
            return decode_pairs(await self.server.run(self._find_wrong_type_keys, queue, ()))
        except (QueueUnavailable, UnsupportedServer):  # The work is done and must be reported; the next call fails too.
            return []

    async def _run(
        self,
        script: Script,
        args: Sequence[Any],
        child_queues: Iterable[str] = (),
        *,
        run: Callable[[Script, str, Sequence[Any]], Awaitable[Any]] | None = None,
    ) -> Any:
        """Run a script. If a key of the wrong type stops it, find and name the key, which Redis does not."""
        try:
            return await (run or self.server.run)(script, self.keys.queue, args)
        except QueueUnavailable as exc:
            if "WRONGTYPE" not in str(exc):
                raise
            for queue in (self.keys.queue, *child_queues):
                if found := await self._wrong_type_keys_of(queue):
                    names = ", ".join(f"{key} is a {kind}" for key, kind in found)
                    raise QueueUnavailable(
                        f"Redis at {self.server.name}: {names}, which AgentQueue did not write; "
                        "delete it, or restore the key that it replaced"
                    ) from exc
            raise

    async def annotate(self, *, owner: str, job_id: str, notes: Mapping[str, bytes | str | int]) -> bool:
        """Write notes of a running job, such as its progress. Return False if this worker no longer holds the job."""
        return bool(await self.server.run(self._annotate, self.keys.queue, [owner, job_id, *_flatten(notes)]))

    async def release_worker_leases(self, *, worker: str, reason: str, except_owner: str = "") -> int:
        """Release the leases of a worker that has crashed, and count a crash of each job. Return how many.

        Looks at 500 running jobs per round trip.

        Args:
            worker: worker ID, the part of its owners before `/`.
            reason: how the worker ended.
            except_owner: an owner whose leases stay, such as the caller's own.
        """
        return await self._release(f"{worker}/", reason, except_owner)

    async def release_owner_leases(self, *, owner: str, reason: str) -> int:
        """Release the leases of one process of a worker, as `release_worker_leases` does. Return how many."""
        return await self._release(f"{owner}|", reason)

    async def _release(self, prefix: str, reason: str, except_owner: str = "") -> int:
        released, offset = 0, 0
        while offset >= 0:
            count, offset = await self._run(self._release_leases, [prefix, except_owner, reason, offset])
            released += count
        return released

    async def increment_counters(self, counts: Mapping[str, int]) -> None:
        """Add to the queue's counters, as `renew` does."""
        await self._run(self._increment_counters, _flatten(counts))

    async def deregister_worker(self, worker: str) -> None:
        """Delete the worker's heartbeat and its drain request."""
        redis = self.server.redis

        async def delete() -> None:
            async with redis.pipeline(transaction=False) as pipe:
                pipe.hdel(self.keys.workers, worker)
                pipe.hdel(self.keys.drain, worker)
                await pipe.execute()

        await self.server.call(delete)

    async def wake_another_worker(self) -> None:
        """Pass on a wake-up token that this worker can't use."""
        redis, key = self.server.redis, self.keys.wake
        await self.server.call(lambda: redis.execute_command("LPUSH", key, "1"))

    async def wait_for_wakeup(self, timeout: float, owner: str, *, tokens: bool = True) -> Wakeup | None:
        """Wait until there is a wake-up token or news of a running job, or for `timeout` seconds.

        Blocks its connection, so it needs one of its own.

        Args:
            timeout: seconds; then None is returned.
            owner: owner of the leases, for the news of its jobs.
            tokens: False waits for news alone.
        """
        redis, news = self.server.redis, self.keys.wake_of(owner)
        keys = (self.keys.wake, news) if tokens else (news,)
        popped = await self.server.call(lambda: redis.execute_command("BLPOP", *keys, timeout))
        if popped is None:
            return None
        key, value = popped
        return Wakeup(value.decode(errors="surrogateescape") if key == news.encode() else None)


async def run_housekeeping(
    server: Server, queues: Mapping[str, EngineSettings], *, recent_ms: int = RECENT_VISIT_MS
) -> dict[str, HousekeepingReply]:
    """Do the housekeeping of queues that may have no worker, in one round trip: release expired leases, and sweep.

    For schedules that hold few due times ahead, it takes two more round trips.

    Call it every `HOUSEKEEPING_INTERVAL_S`. Leases are released only in queues that somebody has visited at least every
    4 s for the last 4 s. After an outage, live workers renew theirs first.

    Args:
        server: the server of the queues.
        queues: names of the queues, each with its retention.
        recent_ms: a queue that a worker or another housekeeper has visited within this time is skipped.

    Raises:
        QueueUnavailable: the housekeeping may be done for some of the queues, which does no harm.
    """
    calls = {
        queue: (recent_ms, settings.sweep_limit, settings.dead_ms, settings.history_ms, settings.stale_ms)
        for queue, settings in queues.items()
    }
    replies = await server.run_each(load("housekeep", allow_oom=True), calls)
    out: dict[str, HousekeepingReply] = {}
    schedules = Schedules(server)
    for queue, reply in zip(calls, replies, strict=True):
        if reply is not None:
            reaped, deleted, skipped, lacks_times = reply
            engine = Engine(server, queue)
            out[queue] = HousekeepingReply(reaped, await engine.wrong_type_keys(deleted, skipped))
            if lacks_times:
                await schedules.tend(queue)
    return out
