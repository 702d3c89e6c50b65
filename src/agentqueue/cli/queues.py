"""`agentqueue stats`, `pause` and `resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentqueue.cli.connection import RedisOption, with_client
from agentqueue.cli.output import (
    AsJson,
    cell,
    format_duration,
    plain_table,
    print_json,
    print_line,
    print_table,
    rich_table,
    user_and_host,
)
from agentqueue.client.suggestions import check_queue_known

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentqueue.client import Client, QueueStats

COLUMNS = (
    "queue",
    "waiting",
    "delayed",
    "suspended",
    "active",
    "completed",
    "dead",
    "oldest",
    "per min",
    "slots",
    "workers",
    "state",
)
OPTIONAL_COLUMNS = ("completed", "suspended", "per min", "slots", "oldest")
"""Columns that a narrow terminal drops, the least important one first."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("stats")(show_stats)
    app.command("pause")(pause)
    app.command("resume")(resume)


def show_stats(
    queue: Annotated[str | None, typer.Argument(metavar="QUEUE", help="Default: all queues.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show a live view until Ctrl-C.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, max=86_400, help="Seconds between two readings of --watch.")
    ] = 1.0,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Show the numbers of waiting, running and dead jobs, and the workers."""

    def to_json(found: Sequence[QueueStats]) -> Any:
        return {"stats": [stats.to_json() for stats in found]} if queue is None else found[0].to_json()

    def print_plain(found: Sequence[QueueStats]) -> None:
        if as_json:
            print_json(to_json(found), indent=False)
        else:
            print(plain_table(COLUMNS, _cells(found)), flush=True)

    async def watch_all(client: Client) -> None:
        import asyncio  # noqa: PLC0415

        from agentqueue.cli.watch import LiveView  # noqa: PLC0415

        with LiveView(
            lambda found: rich_table(COLUMNS, _cells(found), OPTIONAL_COLUMNS), print_plain, live=not as_json
        ) as view:
            while True:
                view.show(await _read(client, queue))
                await asyncio.sleep(interval)

    if watch:
        with_client(redis, watch_all)
        return
    found = with_client(redis, lambda client: _read(client, queue))
    if as_json:
        print_json(to_json(found))
    else:
        print_table(COLUMNS, map(_row, found), empty="no queue has had a job yet", optional_columns=OPTIONAL_COLUMNS)


async def _read(client: Client, queue: str | None) -> Sequence[QueueStats]:
    if queue is None:
        return await client.stats()
    await check_queue_known(client, queue)
    return [await client.stats(queue)]


def _cells(found: Sequence[QueueStats]) -> list[list[str]]:
    return [[cell(value) for value in _row(stats)] for stats in found]


def _row(stats: QueueStats) -> tuple[Any, ...]:
    draining = sum(worker.draining for worker in stats.workers)
    return (
        stats.name,
        stats.waiting,
        stats.delayed,
        stats.suspended,
        f"{stats.active} ({stats.stalled} stalled)" if stats.stalled else stats.active,
        stats.completed,
        stats.dead,
        format_duration(stats.oldest_waiting_seconds),
        f"{stats.completed_per_minute:.0f}",
        f"{stats.busy}/{stats.slots}",
        f"{len(stats.workers)} ({draining} draining)" if draining else len(stats.workers),
        stats.problem or ("paused" if stats.paused else "-"),
    )


def pause(
    queue: Annotated[str, typer.Argument(metavar="QUEUE")],
    note: Annotated[str | None, typer.Option("--note", help="The reason, which is shown with the queue.")] = None,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Pause a queue: no more jobs start, and running jobs continue."""

    async def pause_known(client: Client) -> bool:
        await check_queue_known(client, queue)
        return await client.pause(queue, f"by {user_and_host()}" + (f": {note}" if note else ""))

    changed = with_client(redis, pause_known)
    if as_json:
        print_json({"queue": queue, "paused": True, "changed": changed})
    else:
        print_line(f"{queue} is paused" if changed else f"{queue} was paused already")


def resume(
    queue: Annotated[str, typer.Argument(metavar="QUEUE")],
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Resume a paused queue: its jobs start again."""

    async def resume_known(client: Client) -> bool:
        await check_queue_known(client, queue)
        return await client.resume(queue)

    changed = with_client(redis, resume_known)
    if as_json:
        print_json({"queue": queue, "paused": False, "changed": changed})
    else:
        print_line(f"{queue} is resumed" if changed else f"{queue} was not paused")
