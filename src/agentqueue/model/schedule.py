"""Schedules: a job that is enqueued at the times of a cron expression. Their definitions, as JSON in Redis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal, get_args

import orjson

from agentqueue.errors import InvalidName, InvalidPayload, UsageError
from agentqueue.keys import PRIORITY_NUMBERS, Level, check_job_name, level_of
from agentqueue.model.cron_times import check_cron
from agentqueue.model.job import JobRecord, encode_job
from agentqueue.model.new_job import NO_PAYLOAD

MAX_SCHEDULE_NAME: Final = 64
"""Maximum length of a schedule's name. It is a part of the IDs of its ticks."""
MAX_DATA_BYTES: Final = 65_536
"""Maximum size of a tick's job, in bytes. Every tick reads its schedule's definition, which contains the job."""
Source = Literal["code", "resource"]
"""Who has defined a schedule: the agent's code, or the resource (`spec.agents[].schedules`)."""
SOURCES: Final[Sequence[str]] = get_args(Source)


class Missed(StrEnum):
    """What happens to ticks that could not start near their time: during an outage, or while the queue was paused."""

    SKIP = "skip"
    """None of them runs."""
    ONE = "one"
    """The last one runs, for all of them."""
    ALL = "all"
    """Each of the last 100 runs."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A job that is enqueued at the times of a cron expression.

    Raises:
        UsageError: A field is not valid. The message names the field and says what to write.
    """

    name: str
    cron: str
    """Five fields, or six with the seconds first."""
    job: str
    """Name of the job."""
    timezone: str = "UTC"
    """An IANA name."""
    data: Any = NO_PAYLOAD
    """The job's payload; NO_PAYLOAD for none."""
    missed: Missed = Missed.ONE
    suspend: bool = False
    """No tick runs. The ticks of this time are not missed ones."""
    priority: Level = Level.NORMAL

    def __post_init__(self) -> None:
        check_schedule_name(self.name)
        try:
            check_job_name(self.job)
            object.__setattr__(self, "missed", Missed(self.missed))
            object.__setattr__(self, "priority", level_of(self.priority))
        except InvalidName as exc:
            raise UsageError(f"schedule {self.name!r}: {exc}") from exc
        except ValueError as exc:
            raise UsageError(
                f"schedule {self.name!r}: missed is {self.missed!r:.80}; write {', '.join(Missed)}"
            ) from exc
        if type(self.suspend) is not bool:
            raise UsageError(f"schedule {self.name!r}: suspend is {self.suspend!r:.80}; write true or false")
        try:
            check_cron(self.cron, self.timezone)
        except UsageError as exc:
            raise UsageError(f"schedule {self.name!r}: {exc}") from exc

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> "Schedule":
        """Return the schedule of a mapping with the fields of this class, as in the resource.

        Raises:
            UsageError: A field is missing, unknown or not valid.
        """
        known = ("name", "cron", "job", "timezone", "data", "missed", "suspend", "priority")
        given = {field: value for field, value in fields.items() if value is not None or field == "data"}
        label = f"schedule {given.get('name', '')!r:.80}"
        if unknown := sorted(given.keys() - set(known)):
            raise UsageError(f"{label} has no field {unknown[0]!r}; its fields are {', '.join(known)}")
        if missing := [field for field in known[:3] if field not in given]:
            raise UsageError(f"{label} has no {missing[0]}; it needs name, cron and job")
        return cls(**given)

    def describe(self) -> dict[str, Any]:
        """Return the fields as JSON types, without those that have their default."""
        fields: dict[str, Any] = {
            "name": self.name,
            "cron": self.cron,
            "timezone": self.timezone,
            "job": self.job,
            "missed": self.missed.value,
            "suspend": self.suspend,
        }
        if self.data is not NO_PAYLOAD:
            fields["data"] = self.data
        if self.priority is not Level.NORMAL:
            fields["priority"] = self.priority.label
        return fields


@dataclass(frozen=True, slots=True)
class StoredSchedule:
    """A schedule as a queue has it."""

    schedule: Schedule
    source: Source
    text: bytes
    """JSON, as it is stored."""


def check_schedule_name(name: Any) -> str:
    """Return a schedule's name after a check.

    Raises:
        UsageError: It is not a job name of at most 64 characters.
    """
    try:
        check_job_name(name)
    except InvalidName:
        pass
    else:
        if len(name) <= MAX_SCHEDULE_NAME:
            return str(name)
    raise UsageError(
        f"schedule name {name!r:.80} must have 1 to {MAX_SCHEDULE_NAME} characters: letters, digits and _.:-"
    )


def tick_id(queue: str, name: str, due_ms: int) -> str:
    """Return the ID of a tick's job. It has the queue's name, since job IDs are unique per server."""
    return f"tick:{queue}:{name}:{due_ms}"


def tick_record(queue: str, schedule: Schedule, due_ms: int) -> bytes:
    """Return the encoded job of a tick, with its due time as the time at which it was enqueued.

    Raises:
        UsageError: The data is not JSON, or exceeds 64 KiB.
    """
    level = schedule.priority
    record = JobRecord(
        name=schedule.job,
        args=() if schedule.data is NO_PAYLOAD else (schedule.data,),
        enqueued_ms=due_ms,
        queue=queue,
        priority=None if level is Level.NORMAL else PRIORITY_NUMBERS[level],
        tick=(schedule.name, due_ms),
    )
    try:
        return encode_job(record, max_bytes=MAX_DATA_BYTES)
    except InvalidPayload as exc:
        raise UsageError(f"schedule {schedule.name!r}: its data can't be used: {exc}") from exc


def encode_schedule(queue: str, schedule: Schedule, source: Source) -> bytes:
    """Return the JSON of a schedule in Redis. Scripts make its ticks from it.

    `record` is the job's record in three parts, between which the due time stands.

    Raises:
        UsageError: The data is not JSON, or exceeds 64 KiB.
    """
    record = tick_record(queue, schedule, 0).decode()
    first, rest = record.split(",0]", 1)
    second, third = rest.split('"et":0,', 1)
    wire = {
        **schedule.describe(),
        "source": source,
        "level": int(schedule.priority),
        "record": [f"{first},", f']{second}"et":', f",{third}"],
    }
    return orjson.dumps(wire)


def decode_schedule(text: bytes) -> StoredSchedule:
    """Return a schedule from its JSON in Redis.

    Raises:
        UsageError: Another program has written it, or a newer version of AgentQueue.
    """
    try:
        wire = orjson.loads(text)
        source = wire.pop("source")
        for field in ("level", "record"):
            wire.pop(field)
        if source not in SOURCES:
            raise TypeError(f"source is {source!r:.80}")
        return StoredSchedule(Schedule.parse(wire), source, text)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as exc:
        raise UsageError(f"a schedule can't be read: {exc} ({text[:60]!r}…)") from exc
