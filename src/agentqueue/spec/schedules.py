"""Model of an agent's schedules, and the pattern of their cron expressions."""

from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from agentqueue.errors import InvalidPayload, UsageError
from agentqueue.model.cron_times import check_cron
from agentqueue.model.json import encode
from agentqueue.model.new_job import NO_PAYLOAD
from agentqueue.model.schedule import MAX_DATA_BYTES, Missed, Schedule
from agentqueue.spec.base import CRON, JOB_NAME, TIME_ZONE, Bool, Label, Model, list_map, unique

MAX_SCHEDULES: Final = 32
"""Maximum number of schedules of an agent."""
RESERVED_BYTES: Final = 1_024
"""Part of the size of a tick's job that is not its data: names, times and priority, in bytes."""


def _check_data(value: Any) -> Any:
    try:
        encode(value, what="the data", max_bytes=MAX_DATA_BYTES - RESERVED_BYTES)
    except InvalidPayload as error:
        raise PydanticCustomError("schedule_data", "{problem}", {"problem": str(error)}) from error
    return value


def _check_cron(value: str) -> str:
    """Refuse days that no month has, and ranges that go backwards, which the pattern accepts."""
    try:
        check_cron(value, "UTC")
    except UsageError as error:
        raise PydanticCustomError("cron", "{problem}", {"problem": str(error)}) from error
    return value


class ScheduleSpec(Model):
    """A job that the agent runs at the times of a cron expression, once each, also while it has no worker."""

    name: Label
    """Name of the schedule, unique in this agent."""
    cron: Annotated[str, Field(min_length=9, max_length=256, pattern=CRON), AfterValidator(_check_cron)]
    """Cron expression: minute hour day month weekday, or six fields with the seconds first."""
    timezone: Annotated[str, Field(min_length=1, max_length=64, pattern=TIME_ZONE)] = "UTC"
    """IANA name of the time zone in which the expression is read, such as Europe/Berlin."""
    job: Annotated[str, Field(min_length=1, max_length=128, pattern=JOB_NAME)]
    """Name of the job that runs."""
    data: Annotated[
        Any, Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}), AfterValidator(_check_data)
    ] = None
    """Payload of the job, any JSON value of at most 63 KiB. If absent, the job gets none."""
    missed: Missed = Missed.ONE
    """Times that pass while no worker could run: skip drops them, one runs the job once, all runs it for each."""
    suspend: Bool = False
    """If true, the schedule stays but runs nothing."""

    def resolved(self) -> Schedule:
        """Return the schedule as a queue has it."""
        return Schedule(
            name=self.name,
            cron=self.cron,
            job=self.job,
            timezone=self.timezone,
            data=NO_PAYLOAD if self.data is None else self.data,
            missed=self.missed,
            suspend=self.suspend,
        )


Schedules = Annotated[
    tuple[ScheduleSpec, ...], Field(max_length=MAX_SCHEDULES, json_schema_extra=list_map("name")), unique("name")
]
