"""What a worker does with its queue: one step that finishes and claims, lease renewal, notes, and giving back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentqueue.errors import QueueUnavailable, UnsupportedServer
from agentqueue.keys import KeySpace, Level
from agentqueue.model.attempts import number_of
from agentqueue.model.new_job import NewJob
from agentqueue.model.outcomes import Again, Bury, Cancel, Claimed, Done, HandBack, Outcome
from agentqueue.store.scripts import Script, load
from agentqueue.store.server import Server

KEEP_FOREVER: Final = -1


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What a queue's workers agree on. Durations in milliseconds, as the scripts take them."""

    lease_ms: int = 8_000
    """A worker that has not renewed for so long has lost its jobs; renewed every quarter of it."""
    age_limits_ms: tuple[int, int, int] = (60_000, 300_000, 900_000)
    """How long a ready job of level high, normal, low may wait before it goes first (at most a quarter of starts)."""
    rate_max: int = 0
    """Starts allowed in any window of `rate_window_ms`, over all workers; 0: no limit."""
    rate_window_ms: int = 1_000
    history_count: int = 1_000
    """Completed jobs kept in the history; their results live by `keep_ms` alone."""
    history_ms: int = 86_400_000
    dead_ms: int = 604_800_000
    sweep: int = 200
    """Ids looked at per renewal for records that a plain arq client lets expire."""
    stale_ms: int = 60_000
    """A worker without a heartbeat for so long leaves the list."""


HOUSEKEEPING_S: Final = 2.0
"""Between two visits of a housekeeper to a queue, as between two renewals of a worker."""
LEFT_MS: Final = 1_500
"""Less than HOUSEKEEPING_S, so that a housekeeper never takes its own last visit for somebody else's."""
HOUSEKEEPER: Final = "housekeeper/0"
"""Owner under which housekeeping is done; it never holds a job."""


@dataclass(frozen=True, slots=True)
class StepReply:
    """What a step did."""

    lost: Sequence[str]
    """Outcomes not recorded: this worker no longer holds those jobs."""
    claimed: Sequence[Claimed]
    cancel: Sequence[str]
    """Watched (running) ids that somebody asked to cancel."""
    paused: bool
    retry_after_ms: int | None
    """The rate limit, or a foreign key of the queue, allows no more starts until then."""
    next_due_ms: int | None
    """When the next delayed job is due, if the queue had fewer ready jobs than wanted."""
    now_ms: int
    repeated: bool
    """The step had been carried out before, and its answer lost."""
    foreign: Sequence[tuple[str, str]] = ()
    """Keys that somebody else has filled with another Redis type, which is named. A job's were dropped; while one of
    the queue's is there, what needs it is left undone."""


@dataclass(frozen=True, slots=True)
class RenewReply:
    """What a renewal found."""

    lost: Sequence[str]
    drain: int
    """The mark by which the worker is to drain: claim no more, and name the mark in the heartbeat; 0: there is none."""
    reaped: int
    now_ms: int
    paused: bool
    foreign: Sequence[tuple[str, str]] = ()
    """See `StepReply`."""


def _children(jobs: Sequence[NewJob]) -> list[Any]:
    out: list[Any] = [len(jobs)]
    for job in jobs:
        out += (job.queue, job.id, int(job.level), job.delay_ms, job.record)
    return out


def _pairs(notes: Mapping[str, bytes | str | int]) -> list[Any]:
    out: list[Any] = [len(notes)]
    for name, value in notes.items():
        out += (name, value)
    return out


def encode_outcome(outcome: Outcome) -> list[Any]:
    """The outcome's part of a step's arguments; `step.lua` names the fields."""
    match outcome:
        case Done(id, level, result, keep_ms, run_ms, children):
            if not children:
                return ["D", id, int(level), result, keep_ms, run_ms, 0]
            return ["D", id, int(level), result, keep_ms, run_ms, *_children(children)]
        case Again(id, level, delay_ms, notes):
            return ["A", id, int(level), delay_ms, *_pairs(notes)]
        case Bury(id, level, result, keep_ms, fingerprint, letter, children):
            return ["B", id, int(level), result, keep_ms, fingerprint, letter, *_children(children)]
        case Cancel(id, level, result, keep_ms):
            return ["C", id, int(level), result, keep_ms]
        case HandBack(id, level, delay_ms, notes):
            return ["H", id, int(level), -1 if delay_ms is None else delay_ms, *_pairs(notes)]


def decode_meta(flat: Sequence[bytes] | None) -> dict[str, bytes]:
    if not flat:
        return {}
    return {flat[i].decode(errors="replace"): flat[i + 1] for i in range(0, len(flat), 2)}


_LEVELS = (Level.URGENT, *Level)  # the scripts count from 1
_NO_META: Mapping[str, bytes] = {}


def _decode_claimed(flat: Sequence[Any]) -> list[Claimed]:
    return [
        Claimed(
            id=flat[i].decode(errors="surrogateescape"),
            level=_LEVELS[int(flat[i + 1])],
            score=float(flat[i + 2]),
            record=flat[i + 3],
            attempts=number_of(flat[i + 4]),
            meta=decode_meta(flat[i + 5]) if flat[i + 5] else _NO_META,
            cancel=bool(flat[i + 6]),
        )
        for i in range(0, len(flat), 7)
    ]


def _optional(value: int) -> int | None:
    return value if value >= 0 else None


def decode_ids(values: Iterable[bytes]) -> list[str]:
    return [value.decode(errors="surrogateescape") for value in values]


def _queues_of(outcomes: Sequence[Outcome]) -> set[str]:
    return {job.queue for outcome in outcomes if isinstance(outcome, Done | Bury) for job in outcome.children}


def _in_pairs(flat: Sequence[bytes]) -> list[tuple[str, str]]:
    words = decode_ids(flat)
    return list(zip(words[::2], words[1::2], strict=True))


def _renewal(
    s: EngineSettings,
    owner: str,
    worker: str,
    heartbeat: bytes | int,
    *,
    sweep: bool = True,
    counts: Mapping[str, int] = {},
) -> list[Any]:
    """The first arguments of `renew.lua`, which names them."""
    swept = s.sweep if sweep else 0
    return [owner, worker, heartbeat, s.lease_ms, swept, s.dead_ms, s.history_ms, s.stale_ms, *_pairs(counts)]


class Engine:
    """One queue as a worker sees it. Every method is one round trip."""

    def __init__(self, server: Server, queue: str, settings: EngineSettings | None = None) -> None:
        self.server = server
        self.keys = KeySpace(queue)
        self.settings = settings or EngineSettings()
        s = self.settings
        self._tail = (*s.age_limits_ms, s.rate_max, s.rate_window_ms, s.history_count, s.history_ms, s.dead_ms)
        self._step = load("step", allow_oom=True)
        self._step_strict = load("step")
        self._renew = load("renew", allow_oom=True)
        self._annotate = load("annotate", allow_oom=True)
        self._count = load("count", allow_oom=True)
        self._hand_back = load("hand_back", allow_oom=True)
        self._look = load("foreign", allow_oom=True)

    async def step(
        self,
        *,
        seq: int,
        owner: str,
        want: int,
        aged: int = 0,
        outcomes: Sequence[Outcome] = (),
        watch: Sequence[str] = (),
    ) -> StepReply:
        """Record outcomes and claim up to `want` jobs, `aged` of them by age before priority.

        A step whose answer was lost is sent again with the same `seq` and arguments: it is carried out once, and the
        answer is the same. `owner` must be new for each process and each `seq` used once by it.
        Outcomes with children are refused as a whole on a full server.

        Raises:
            QueueFull: the outcomes have children and the server is at `maxmemory`; nothing was done.
            QueueUnavailable: it may or may not have been carried out; send it again.
        """
        args: list[Any] = [seq, owner, want, self.settings.lease_ms, aged, *self._tail, len(outcomes), len(watch)]
        strict = False
        for outcome in outcomes:
            args += encode_outcome(outcome)
            strict = strict or (isinstance(outcome, Done | Bury) and bool(outcome.children))
        args += watch
        script = self._step_strict if strict else self._step
        reply = await self._run(script, args, _queues_of(outcomes) if strict else ())
        lost, claimed, cancel, paused, retry_after, due, now, repeated, foreign, left_out = reply
        return StepReply(
            lost=decode_ids(lost),
            claimed=_decode_claimed(claimed),
            cancel=decode_ids(cancel),
            paused=bool(paused),
            retry_after_ms=_optional(retry_after),
            next_due_ms=_optional(due),
            now_ms=now,
            repeated=bool(repeated),
            foreign=await self._foreign(foreign, left_out) if foreign or left_out else (),
        )

    async def renew(
        self,
        *,
        owner: str,
        worker: str,
        heartbeat: bytes,
        held: Iterable[tuple[str, Level]],
        sweep: bool = True,
        counts: Mapping[str, int] | None = None,
    ) -> RenewReply:
        """Push the deadlines of the named jobs out, write the heartbeat, reap and sweep a bounded number.

        `counts` are added to the queue's counters (`agentqueue.model.wait_histogram`).
        """
        args = _renewal(self.settings, owner, worker, heartbeat, sweep=sweep, counts=counts or {})
        for job_id, level in held:
            args += (job_id, int(level))
        return await self.read_renewal(await self._run(self._renew, args))

    async def read_renewal(self, reply: Sequence[Any]) -> RenewReply:
        """What `renew.lua` has answered for this queue; where something was left out, the keys are looked for."""
        lost, drain, reaped, now, paused, dropped, left_out = reply
        foreign = await self._foreign(dropped, left_out) if dropped or left_out else ()
        return RenewReply(decode_ids(lost), drain, reaped, now, bool(paused), foreign)

    async def _run(self, script: Script, args: Sequence[Any], others: Iterable[str] = ()) -> Any:
        """A refusal for a key of a wrong type names the key, which Redis does not. `others`: queues it writes to."""
        try:
            return await self.server.run(script, self.keys.queue, args)
        except QueueUnavailable as exc:
            if "WRONGTYPE" not in str(exc):
                raise
            for queue in (self.keys.queue, *others):
                if found := await self._find_foreign(queue):
                    what = ", ".join(f"{key} is a {kind}" for key, kind in found)
                    raise QueueUnavailable(
                        f"Redis at {self.server.name}: {what}, which AgentQueue did not write; "
                        "delete it, or put back what it replaced"
                    ) from exc
            raise

    async def _foreign(self, dropped: Sequence[bytes], left_out: bytes) -> list[tuple[str, str]]:
        """With the queue's keys, where something was left out; if it is none of them, the queue and why."""
        found = await self._find_foreign(self.keys.queue) if left_out else []
        unknown = [(self.keys.queue, left_out.decode(errors="replace"))] if left_out and not found else []
        return [*_in_pairs(dropped), *found, *unknown]

    async def _find_foreign(self, queue: str) -> list[tuple[str, str]]:
        try:
            return _in_pairs(await self.server.run(self._look, queue, ()))
        except (QueueUnavailable, UnsupportedServer):  # what was done stands, and is told; the next call says so too
            return []

    async def annotate(self, *, owner: str, job_id: str, notes: Mapping[str, bytes | str | int]) -> bool:
        """Write notes (progress, checkpoint) of a running job. False: this worker no longer holds it."""
        return bool(await self.server.run(self._annotate, self.keys.queue, [owner, job_id, *_pairs(notes)[1:]]))

    async def hand_back_all(self, *, worker: str, why: str, spare: str = "") -> int:
        """Give back every job held by the dead incarnations of `worker`; each counts as a crash. Returns how many.

        `worker` is the part of the owner before `/`; `spare` an owner (the caller's own) to leave alone.
        """
        return await self._give_back(f"{worker}/", why, spare)

    async def hand_back_of(self, *, owner: str, why: str) -> int:
        """The same for one incarnation: those of the same worker before and after it keep what they hold."""
        return await self._give_back(f"{owner}|", why)

    async def _give_back(self, prefix: str, why: str, spare: str = "") -> int:
        given, offset = 0, 0
        while offset >= 0:
            args = [prefix, spare, why, offset]
            some, offset = await self._run(self._hand_back, args)
            given += some
        return given

    async def count(self, counts: Mapping[str, int]) -> None:
        """Add to the queue's counters, as `renew` does."""
        await self._run(self._count, _pairs(counts)[1:])

    async def say_goodbye(self, worker: str) -> None:
        """Take the worker off the list, and its drain mark with it."""
        redis = self.server.redis

        async def forget() -> None:
            async with redis.pipeline(transaction=False) as pipe:
                pipe.hdel(self.keys.workers, worker)
                pipe.hdel(self.keys.drain, worker)
                await pipe.execute()

        await self.server.call(forget)

    async def wake_another(self) -> None:
        """Pass a wake-up token on that this worker can't use."""
        redis, key = self.server.redis, self.keys.wake
        await self.server.call(lambda: redis.execute_command("LPUSH", key, "1"))

    async def wait_for_wake(self, timeout: float) -> bool:
        """Block until somebody pushes a wake-up token, or `timeout` seconds. Needs a connection of its own."""

        redis = self.server.redis
        popped = await self.server.call(lambda: redis.execute_command("BLPOP", self.keys.wake, timeout))
        return popped is not None


async def keep_house(
    server: Server, queues: Mapping[str, EngineSettings], *, left_ms: int = LEFT_MS
) -> dict[str, RenewReply]:
    """Do for queues what their workers do beside running jobs, in one round trip: reap run-out leases, sweep.

    Call it every `HOUSEKEEPING_S` seconds for queues that may have no worker. Leases are reaped only where somebody
    has come to the queue at least every 4 s for the last 4 s: after an outage live workers renew theirs first.

    Args:
        server: where the queues are.
        queues: with the retention of each.
        left_ms: a queue that a worker or another housekeeper came to within so many ms is left to them.

    Raises:
        QueueUnavailable: it may have been done for some of them; that does no harm.
    """
    calls = {queue: _renewal(settings, HOUSEKEEPER, "", left_ms) for queue, settings in queues.items()}
    replies = await server.run_each(load("renew", allow_oom=True), calls)
    return {
        queue: await Engine(server, queue, queues[queue]).read_renewal(reply)
        for queue, reply in zip(calls, replies, strict=True)
        if reply is not None
    }
