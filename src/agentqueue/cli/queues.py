"""`agentqueue stats`, `pause` and `resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentqueue.cli.connection import RedisOption, with_client
from agentqueue.cli.output import AsJson, aligned, cell, print_json, print_line, print_table, span, table
from agentqueue.client.suggestions import check_queue_known

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from agentqueue.client import Client, QueueStats

COLUMNS = (
    "queue",
    "waiting",
    "delayed",
    "active",
    "completed",
    "dead",
    "oldest",
    "per min",
    "slots",
    "workers",
    "state",
)
OPTIONAL_COLUMNS = ("completed", "per min", "slots", "oldest")
"""What a narrow terminal does without, the first first."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("stats")(show_stats)
    app.command("pause")(pause)
    app.command("resume")(resume)


def show_stats(
    queue: Annotated[str | None, typer.Argument(metavar="QUEUE", help="Default: all queues.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="A live view, until Ctrl-C.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, max=86_400, help="Seconds between looks of --watch.")
    ] = 1.0,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Show how many jobs wait, run and died, and who works on them."""
    if watch:
        with_client(redis, lambda client: _watch(client, queue, interval, as_json=as_json))
        return
    found = with_client(redis, lambda client: _read(client, queue))
    if as_json:
        print_json(_as_json(found, queue))
    else:
        print_table(COLUMNS, map(_row, found), empty="no queue has had a job yet", optional_columns=OPTIONAL_COLUMNS)


async def _read(client: Client, queue: str | None) -> Sequence[QueueStats]:
    if queue is None:
        return await client.stats()
    await check_queue_known(client, queue)
    return [await client.stats(queue)]


def _as_json(found: Sequence[QueueStats], queue: str | None) -> Any:
    return {"stats": [stats.to_json() for stats in found]} if queue is None else found[0].to_json()


async def _watch(client: Client, queue: str | None, interval: float, *, as_json: bool) -> None:
    import asyncio  # noqa: PLC0415

    from agentqueue.cli.watch import LiveView  # noqa: PLC0415

    def plain(found: Sequence[QueueStats]) -> None:
        if as_json:
            print_json(_as_json(found, queue), indent=False)
        else:
            print(aligned(COLUMNS, _cells(found)), flush=True)

    with LiveView(_live_table, plain, live=not as_json) as view:
        while True:
            view.show(await _read(client, queue))
            await asyncio.sleep(interval)


def _live_table(found: Sequence[QueueStats]) -> RenderableType:
    return table(COLUMNS, _cells(found), OPTIONAL_COLUMNS)


def _cells(found: Sequence[QueueStats]) -> list[list[str]]:
    return [[cell(value) for value in _row(stats)] for stats in found]


def _row(stats: QueueStats) -> tuple[Any, ...]:
    draining = sum(worker.draining for worker in stats.workers)
    return (
        stats.name,
        stats.waiting,
        stats.delayed,
        f"{stats.active} ({stats.stalled} stalled)" if stats.stalled else stats.active,
        stats.completed,
        stats.dead,
        span(stats.oldest_waiting_seconds),
        f"{stats.completed_per_minute:.0f}",
        f"{stats.busy}/{stats.slots}",
        f"{len(stats.workers)} ({draining} draining)" if draining else len(stats.workers),
        stats.problem or ("paused" if stats.paused else "-"),
    )


def pause(
    queue: Annotated[str, typer.Argument(metavar="QUEUE")],
    note: Annotated[str | None, typer.Option("--note", help="Why; shown with the queue.")] = None,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Start no more jobs of a queue; running ones go on."""
    changed = with_client(redis, lambda client: _pause(client, queue, note))
    _tell(queue, "paused", changed, as_json=as_json)


def resume(
    queue: Annotated[str, typer.Argument(metavar="QUEUE")],
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Start a paused queue's jobs again."""
    changed = with_client(redis, lambda client: _resume(client, queue))
    _tell(queue, "resumed", changed, as_json=as_json)


async def _pause(client: Client, queue: str, note: str | None) -> bool:
    await check_queue_known(client, queue)
    by = f"by {_who()}" + (f": {note}" if note else "")
    return await client.pause(queue, by)


async def _resume(client: Client, queue: str) -> bool:
    await check_queue_known(client, queue)
    return await client.resume(queue)


def _who() -> str:
    import getpass  # noqa: PLC0415
    import socket  # noqa: PLC0415

    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a uid without a name, as in many containers
        return socket.gethostname()


def _tell(queue: str, done: str, changed: bool, *, as_json: bool) -> None:
    if as_json:
        print_json({"queue": queue, "paused": done == "paused", "changed": changed})
    else:
        before = "was paused already" if done == "paused" else "was not paused"
        print_line(f"{queue} is {done}" if changed else f"{queue} {before}")
