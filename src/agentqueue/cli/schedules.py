"""`agentqueue schedules`: the schedules of a queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from agentqueue.cli.connection import RedisOption, with_client
from agentqueue.cli.output import (
    AsJson,
    format_age,
    format_duration,
    print_json,
    print_line,
    print_table,
    user_and_host,
)
from agentqueue.client.suggestions import check_queue_known

if TYPE_CHECKING:
    from datetime import datetime

    from agentqueue.client import Client, ScheduleStatus

COLUMNS = ("queue", "schedule", "cron", "job", "next", "last", "outcome", "started", "missed", "state")
OPTIONAL_COLUMNS = ("missed", "started", "job")
"""Columns that a narrow terminal drops, the least important one first."""
QueueArgument = Annotated[str, typer.Argument(metavar="QUEUE")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Schedules: jobs that come at the times of a cron expression.")
    group.command("list")(list_schedules)
    group.command("run")(run)
    group.command("pause")(pause)
    group.command("resume")(resume)
    app.add_typer(group, name="schedules")


def list_schedules(
    queue: Annotated[str | None, typer.Argument(metavar="QUEUE", help="Default: all queues.")] = None,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """List schedules with their next time, and the outcome of their last run."""
    from agentqueue.clock import now_ms  # noqa: PLC0415
    from agentqueue.model.times import from_ms  # noqa: PLC0415

    async def read(client: Client) -> list[ScheduleStatus]:
        if queue is not None:
            await check_queue_known(client, queue)
        names = await client.queues() if queue is None else [queue]
        return [schedule for name in names for schedule in await client.schedules(name)]

    found = with_client(redis, read)
    if as_json:
        print_json({"schedules": [schedule.to_json() for schedule in found]})
        return
    now = from_ms(now_ms())
    empty = "there are no schedules" if queue is None else f"{queue} has no schedules"
    print_table(COLUMNS, [_row(schedule, now) for schedule in found], empty=empty, optional_columns=OPTIONAL_COLUMNS)


def _row(schedule: ScheduleStatus, now: datetime) -> tuple[object, ...]:
    last, due = schedule.last, schedule.next_at
    state = "paused" if schedule.paused is not None else "suspended" if schedule.suspended else "-"
    zone = "" if schedule.timezone == "UTC" else f" {schedule.timezone}"
    return (
        schedule.queue,
        schedule.name,
        schedule.cron + zone,
        schedule.job,
        "-" if due is None else f"in {format_duration(max((due - now).total_seconds(), 0))}",
        "-" if last is None else format_age(last.started_at, now),
        "-" if last is None else last.state,
        schedule.started,
        schedule.missed_ticks,
        state,
    )


def run(
    queue: QueueArgument,
    name: NameArgument,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Enqueue a schedule's job now. Its next tick does not change."""

    async def run_known(client: Client) -> str:
        await check_queue_known(client, queue)
        return (await client.run_schedule(queue, name)).id

    job_id = with_client(redis, run_known)
    if as_json:
        print_json({"queue": queue, "schedule": name, "id": job_id})
    else:
        print_line(job_id)


def pause(
    queue: QueueArgument,
    name: NameArgument,
    note: Annotated[str | None, typer.Option("--note", help="The reason, which is shown with the schedule.")] = None,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Pause a schedule: none of its ticks comes."""

    async def pause_known(client: Client) -> bool:
        await check_queue_known(client, queue)
        return await client.pause_schedule(queue, name, f"by {user_and_host()}" + (f": {note}" if note else ""))

    changed = with_client(redis, pause_known)
    if as_json:
        print_json({"queue": queue, "schedule": name, "paused": True, "changed": changed})
    else:
        print_line(f"{name} is paused" if changed else f"{name} was paused already")


def resume(
    queue: QueueArgument,
    name: NameArgument,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Resume a paused schedule: it goes on with its next time."""

    async def resume_known(client: Client) -> tuple[bool, bool]:
        await check_queue_known(client, queue)
        changed = await client.resume_schedule(queue, name)
        return changed, any(found.suspended for found in await client.schedules(queue) if found.name == name)

    changed, is_suspended = with_client(redis, resume_known)
    if as_json:
        print_json({"queue": queue, "schedule": name, "paused": False, "changed": changed, "suspended": is_suspended})
        return
    done = f"{name} is resumed" if changed else f"{name} was not paused"
    print_line(f"{done}, but the resource suspends it: write suspend: false there" if is_suspended else done)
