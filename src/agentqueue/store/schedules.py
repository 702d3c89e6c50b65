"""Schedules of a queue: written by workers, the operator, `agentqueue up` and people, and read by all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from agentqueue.errors import NotFound, QueueUnavailable, UsageError
from agentqueue.keys import KeySpace
from agentqueue.model.attempts import number_of
from agentqueue.model.cron_times import plan_times
from agentqueue.model.schedule import Schedule, Source, StoredSchedule, decode_schedule, encode_schedule
from agentqueue.store.registrations import ANY_TIME, Registrations, decode_registration
from agentqueue.store.scripts import load
from agentqueue.store.server import Server

MAX_SCHEDULES: Final = 1_000
"""Maximum number of schedules of a queue."""
BATCH: Final = 50
"""Number of schedules that one call of the script changes. It blocks the server for a few ms."""
TRIES: Final = 10
"""How often a change is tried while others change the same schedules."""


@dataclass(frozen=True, slots=True)
class TickRun:
    """The last start of a schedule's job by a worker."""

    id: str
    """ID of the job."""
    due_ms: int
    started_ms: int
    state: str | None = None
    """`completed`, `dead` or `cancelled`; None if it has not ended, or its worker could not write it."""
    ended_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """A schedule with what the engine knows of its ticks."""

    schedule: Schedule
    source: Source
    next_due_ms: int | None
    """When the next tick is due. None while the schedule is suspended or paused, or before it is computed."""
    paused: str | None
    """Note of who has paused it; None if nobody has."""
    last: TickRun | None
    """The last tick that a worker has started."""
    started: int
    """Number of ticks that have started."""
    missed: int
    """Number of ticks that were left out, since they were missed."""


@dataclass(frozen=True, slots=True)
class PutReply:
    """Reply of `Schedules.put`."""

    written: Sequence[str]
    """Names of schedules that are new or have changed."""
    removed: Sequence[str]
    shadowed: Sequence[str]
    """Names of schedules of the code that don't run, since the resource has one of the same name."""


@dataclass(frozen=True, slots=True)
class _Change:
    """An operation of schedules.lua."""

    name: str
    operation: str
    first: bytes | str = ""
    second: str = ""


class _Snapshot:
    """The schedules of a queue, as they are read at one instant."""

    def __init__(
        self,
        queue: str,
        now_ms: int,
        texts: Mapping[bytes, bytes],
        ticks: Mapping[bytes, bytes],
        registration: bytes | None,
    ) -> None:
        self.queue = queue
        self.texts = {_text(name): text for name, text in texts.items()}
        self.ticks = {_text(field): value for field, value in ticks.items()}
        self.now_ms = now_ms + number_of(ticks.get(b"shift"))
        self.registration = decode_registration(registration)
        self.stored: dict[str, StoredSchedule] = {}
        for name, text in self.texts.items():
            try:
                self.stored[name] = decode_schedule(text)
            except UsageError:
                continue  # another program's, or a newer version's: it is left alone, and `put` may replace it

    def listed(self, name: str) -> list[int]:
        """Return the due times that a schedule holds."""
        return [int(due) for due in self.ticks.get(f"next:{name}", b"").split(b",") if due.isdigit()]

    def past_ms(self, name: str) -> int | None:
        """Return the time up to which no tick of a schedule will come any more."""
        value = self.ticks.get(f"past:{name}")
        return None if value is None else number_of(value)

    def paused(self, name: str) -> str | None:
        """Return the note of who has paused a schedule."""
        note = self.ticks.get(f"held:{name}")
        return None if note is None else _text(note)

    def first_times(self, schedule: Schedule) -> str:
        """Return the due times of a schedule that begins now."""
        return _joined(plan_times(schedule.cron, schedule.timezone, schedule.missed, now_ms=self.now_ms).times)

    def state(self, stored: StoredSchedule) -> ScheduleState:
        """Return what is known of a schedule."""
        schedule = stored.schedule
        name, paused = schedule.name, self.paused(schedule.name)
        listed = self.listed(name)
        return ScheduleState(
            schedule=schedule,
            source=stored.source,
            next_due_ms=listed[0] if listed and not schedule.suspend and paused is None else None,
            paused=paused,
            last=self._last_run(name),
            started=number_of(self.ticks.get(f"started:{name}")),
            missed=number_of(self.ticks.get(f"missed:{name}")),
        )

    def _last_run(self, name: str) -> TickRun | None:
        job_id, due, started = _split(self.ticks.get(f"last:{name}"))
        if not job_id:
            return None
        ended_id, state, ended = _split(self.ticks.get(f"end:{name}"))
        run = TickRun(job_id, number_of(due.encode()), number_of(started.encode()))
        if ended_id != job_id or number_of(ended.encode()) < run.started_ms:
            return run
        return replace(run, state=state, ended_ms=number_of(ended.encode()))


class Schedules:
    """The schedules of the queues of one server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def put(self, queue: str, *, source: Source, schedules: Sequence[Schedule]) -> PutReply:
        """Replace all schedules of a source. It takes one round trip if nothing has changed.

        A schedule of the resource replaces one of the code that has the same name; when it is removed, the one of the
        code comes back. The next tick of a schedule that is removed is taken back; one that runs goes on. If cron
        and time zone stay the same, the next tick keeps its time, also if it is late.

        Args:
            queue: name of the queue.
            source: `code` for what a worker has registered, `resource` for `spec.agents[].schedules`.
            schedules: all schedules of the source.

        Raises:
            UsageError: two schedules have the same name, or there are too many of them.
        """
        names = [schedule.name for schedule in schedules]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"queue {queue!r} has two schedules {twice[0]!r}; give each its own name")
        if len(names) > MAX_SCHEDULES:
            raise UsageError(f"queue {queue!r} has {len(names)} schedules; it takes {MAX_SCHEDULES}")
        for _ in range(TRIES):
            found = await self._read(queue)
            wanted, shadowed = _wanted(found, source, schedules)
            removed = [name for name, stored in found.stored.items() if stored.source == source and name not in wanted]
            written, changes = [], [_Change(name, "remove") for name in removed]
            for name, (schedule, own) in wanted.items():
                text = encode_schedule(queue, schedule, own)
                if found.texts.get(name) != text:
                    written.append(name)
                    changes.append(_Change(name, "define", text, _times_of(found, schedule)))
            if await self._apply(found, changes):
                return PutReply(written, removed, shadowed)
        raise QueueUnavailable(
            f"the schedules of queue {queue!r} were changed by others {TRIES} times while they were written; try again"
        )

    async def restore(self, queue: str, text: bytes) -> None:
        """Register a set that a worker had registered before, whatever is registered now: a rollback without a worker.

        Args:
            queue: the queue's name.
            text: `Registration.text` of that time.

        Raises:
            UsageError: another program has written the text.
        """
        registration = decode_registration(text)
        if registration is None:
            raise UsageError(f"the registration can't be read: {text[:60]!r}…")
        await Registrations(self._server).write(queue, registration.fingerprint, text, registration.jobs, mode=ANY_TIME)
        await self.put(queue, source="code", schedules=registration.crons)

    async def read(self, queue: str) -> list[ScheduleState]:
        """Return the schedules of a queue, sorted by name. One that can't be read is left out."""
        found = await self._read(queue)
        return [found.state(stored) for _, stored in sorted(found.stored.items())]

    async def find(self, queue: str, name: str) -> Schedule:
        """Return a schedule of a queue.

        Raises:
            NotFound: there is no such schedule.
        """
        return _stored(await self._read(queue), name).schedule

    async def tend(self, queue: str) -> int:
        """Compute due times for the schedules that hold few. Return the number of missed ticks that were left out."""
        found = await self._read(queue)
        changes, missed = list[_Change](), 0
        for name, stored in found.stored.items():
            schedule, listed, past = stored.schedule, found.listed(name), found.past_ms(name)
            if schedule.suspend or found.paused(name) is not None:
                continue
            plan = plan_times(
                schedule.cron,
                schedule.timezone,
                schedule.missed,
                now_ms=found.now_ms,
                listed=listed,
                past_ms=past,
            )
            if plan.times or plan.missed:
                known_until = listed[-1] if listed else "" if past is None else past
                changes.append(_Change(name, "extend", f"{known_until}|{plan.missed}", _joined(plan.times)))
                missed += plan.missed
        await self._apply(found, changes)  # a schedule that has changed meanwhile is looked at with the next sweep
        return missed

    async def pause(self, queue: str, name: str, note: str) -> bool:
        """Pause a schedule: its next tick is taken back, and none comes. Return False if it was paused already.

        Raises:
            NotFound: there is no such schedule.
        """
        return await self._change(
            queue, name, lambda found, _: None if found.paused(name) is not None else _Change(name, "hold", note)
        )

    async def resume(self, queue: str, name: str) -> bool:
        """End the pause of a schedule, which goes on with its next time. Return False if it was not paused.

        Raises:
            NotFound: there is no such schedule.
        """
        return await self._change(
            queue,
            name,
            lambda found, schedule: (
                None if found.paused(name) is None else _Change(name, "release", "", found.first_times(schedule))
            ),
        )

    async def note_end(self, queue: str, name: str, job_id: str, state: str, ended_ms: int) -> None:
        """Write how a tick's job has ended, for lists of schedules."""
        redis, key = self._server.redis, KeySpace(queue).ticks
        value = f"{job_id}|{state}|{ended_ms}"
        await self._server.call(lambda: redis.execute_command("HSET", key, f"end:{name}", value))

    async def _change(self, queue: str, name: str, make: Any) -> bool:
        for _ in range(TRIES):
            found = await self._read(queue)
            change = make(found, _stored(found, name).schedule)
            if change is None:
                return False
            if await self._apply(found, [change]):
                return True
        raise QueueUnavailable(f"schedule {name!r} of queue {queue!r} was changed by others meanwhile; try again")

    async def _read(self, queue: str) -> _Snapshot:
        redis, keys = self._server.redis, KeySpace(queue)

        async def read() -> list[Any]:
            async with redis.pipeline(transaction=False) as pipe:
                pipe.time()
                pipe.execute_command("HGETALL", keys.schedules, keys=[])
                pipe.execute_command("HGETALL", keys.ticks, keys=[])
                pipe.execute_command("HGET", keys.registration, "current", keys=[])
                return await pipe.execute()

        (seconds, micros), texts, ticks, registration = await self._server.call(read)
        return _Snapshot(queue, int(seconds) * 1000 + int(micros) // 1000, texts, ticks, registration)

    async def _apply(self, found: _Snapshot, changes: Sequence[_Change]) -> bool:
        """Return whether all changes were made. The others found a schedule that had changed since it was read."""
        script = load("schedules", allow_oom=True)
        is_done = True
        for start in range(0, len(changes), BATCH):
            args: list[Any] = []
            for change in changes[start : start + BATCH]:
                args += (change.operation, change.name, found.texts.get(change.name, b""), change.first, change.second)
            is_done = all(await self._server.run(script, found.queue, args)) and is_done
        return is_done


def _stored(found: _Snapshot, name: str) -> StoredSchedule:
    if name in found.stored:
        return found.stored[name]
    known = ", ".join(sorted(found.stored)) or "none"
    raise NotFound(f"queue {found.queue!r} has no schedule {name!r:.80}; it has {known}")


def _wanted(
    found: _Snapshot, source: Source, schedules: Sequence[Schedule]
) -> tuple[dict[str, tuple[Schedule, Source]], list[str]]:
    """Return the schedules to write with their sources, and the names of those that the resource replaces."""
    wanted: dict[str, tuple[Schedule, Source]] = {}
    if source == "resource":
        code: Sequence[Schedule] = [] if found.registration is None else found.registration.crons
        wanted = {schedule.name: (schedule, source) for schedule in schedules}
        resource = set(wanted)
    else:
        code = schedules
        resource = {name for name, stored in found.stored.items() if stored.source == "resource"}
    wanted |= {schedule.name: (schedule, "code") for schedule in code if schedule.name not in resource}
    return wanted, [schedule.name for schedule in code if schedule.name in resource]


def _times_of(found: _Snapshot, schedule: Schedule) -> str:
    """Return the due times of a schedule that is written: `keep` if it goes on with those that it has."""
    before = found.stored.get(schedule.name)
    if before is not None and not (before.schedule.suspend or schedule.suspend) and found.listed(schedule.name):
        same = before.schedule.cron == schedule.cron and before.schedule.timezone == schedule.timezone
        if same:
            return "keep"
    return found.first_times(schedule)


def _joined(times: Sequence[int]) -> str:
    return ",".join(map(str, times))


def _text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")


def _split(value: bytes | None) -> tuple[str, str, str]:
    first, _, rest = _text(value or b"").partition("|")
    second, _, third = rest.partition("|")
    return first, second, third
