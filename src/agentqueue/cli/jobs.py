"""`agentqueue status`, `jobs` and `cancel`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentqueue.cli.connection import RedisOption, with_client
from agentqueue.cli.output import (
    AsJson,
    ago,
    clean,
    field_grid,
    print_fields,
    print_json,
    print_line,
    print_table,
    span,
    to_text,
    warn,
)
from agentqueue.client.suggestions import check_queue_known

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import RenderableType

    from agentqueue.client import Cancellation, Client, JobStatus, Page

COLUMNS = ("id", "job", "state", "priority", "attempts", "age", "progress", "error")
OPTIONAL_COLUMNS = ("attempts", "priority", "age", "progress", "job", "error")
"""What a narrow terminal does without, the first first."""
ENDED = "--state completed and --state dead list those that ended"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("status")(show_status)
    app.command("jobs")(list_jobs)
    app.command("cancel")(cancel)


def show_status(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow the job until it ends.")] = False,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Show a job: its state, progress, result or error."""
    with_client(redis, lambda client: _show_status(client, job_id, watch=watch, as_json=as_json))


async def _show_status(client: Client, job_id: str, *, watch: bool, as_json: bool) -> None:
    if not watch:
        from agentqueue.clock import now_ms  # noqa: PLC0415
        from agentqueue.model.times import from_ms  # noqa: PLC0415

        status = await client.status(job_id)
        print_json(status.to_json()) if as_json else print_fields(status_fields(status, from_ms(now_ms())))
        return
    from agentqueue.cli.watch import LiveView, follow  # noqa: PLC0415

    def plain(status: JobStatus) -> None:
        print_json(status.to_json(), indent=False) if as_json else print_line(status_line(status))

    with LiveView(status_grid, plain, live=not as_json) as view:
        async for status in follow(client, job_id):
            view.show(status)


def status_fields(status: JobStatus, now: datetime | None = None) -> dict[str, Any]:
    """A job's fields as people read them. Without `now` (in a view that stays) nothing is told relative to it."""
    wire = status.to_json()
    if now is not None and status.due_at is not None:
        wire["dueAt"] += f" ({due_in(status.due_at, now)})"
    wire["tags"] = ", ".join(status.tags) or None
    return wire | {"progress": progress_text(status), "state": str(status.state)}


def due_in(due_at: datetime, now: datetime) -> str:
    """`in 12s`; `now`, also where this machine's clock is ahead of the server's."""
    wait = (due_at - now).total_seconds()
    return span(-wait) if wait >= 1 else "now"


def progress_text(status: JobStatus) -> str | None:
    """`40% looking up airports`."""
    if status.progress is None:
        return None
    return f"{status.progress.percent:g}% {status.progress.message or ''}".rstrip()


def status_line(status: JobStatus) -> str:
    """A job in one line, for a stream of changes."""
    due = status.to_json()["dueAt"]
    parts = [status.id, str(status.state), due and f"due {due}", progress_text(status), status.error]
    if status.result is not None:
        parts.append(to_text(status.result))
    return "  ".join(part for part in parts if part)


def status_grid(status: JobStatus) -> RenderableType:
    """A job as a live view, with a bar while it runs."""
    from rich.console import Group  # noqa: PLC0415
    from rich.progress_bar import ProgressBar  # noqa: PLC0415

    fields = {k: clean(to_text(v), lines=True) for k, v in status_fields(status).items() if v is not None}
    percent = status.progress.percent if status.progress else 0
    bar = [ProgressBar(total=100, completed=percent, width=60)] if not status.is_final and percent else []
    return Group(field_grid(fields), *bar)


def list_jobs(
    queue: Annotated[str, typer.Argument(metavar="QUEUE")],
    state: Annotated[
        str | None,
        typer.Option("--state", "-s", help="active, waiting, delayed, completed or dead. Default: the first three."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many, up to 1000.")] = 100,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Where the page before ended.")] = None,
    fields: Annotated[
        str, typer.Option("--fields", metavar="data,result", help="With --json: payloads and results, too.")
    ] = "",
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """List a queue's jobs."""
    words = [word for word in fields.split(",") if word and as_json]
    page, now = with_client(redis, lambda client: _list_jobs(client, queue, state, cursor, limit, words))
    if as_json:
        print_json({"jobs": [status.to_json() for status in page], "cursor": page.cursor})
        return
    none = f"no {state} jobs in {queue}" if state else f"no job waits or runs in {queue}; {ENDED}"
    print_table(COLUMNS, [_row(status, now) for status in page], empty=none, optional_columns=OPTIONAL_COLUMNS)
    if page.cursor is not None:
        warn(f"there are more: --cursor {page.cursor}")


async def _list_jobs(
    client: Client, queue: str, state: str | None, cursor: str | None, limit: int, fields: list[str]
) -> tuple[Page[JobStatus], datetime]:
    from agentqueue.clock import now_ms  # noqa: PLC0415
    from agentqueue.model.times import from_ms  # noqa: PLC0415

    page = await client.jobs(queue, state, cursor, limit=limit, fields=fields)
    if not page:
        await check_queue_known(client, queue)
    return page, from_ms(now_ms())


def _row(status: JobStatus, now: datetime) -> tuple[Any, ...]:
    age = ago(status.enqueued_at, now)
    return (
        status.id,
        status.name,
        str(status.state),
        status.priority,
        status.attempts,
        age,
        progress_text(status),
        status.error,
    )


def cancel(
    job_ids: Annotated[list[str], typer.Argument(metavar="ID")],
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Cancel jobs: at once before they start; running ones are stopped by their worker within a second.

    Exits with 1 if one had ended already.
    """
    done = with_client(redis, lambda client: _cancel(client, job_ids))
    if as_json:
        print_json([{"id": job_id, "outcome": outcome} for job_id, outcome in done.items()])
    else:
        for job_id, outcome in done.items():
            print_line(f"{job_id} {_CANCEL_WORDS[outcome]}")
    if "too-late" in done.values():
        raise typer.Exit(1)


_CANCEL_WORDS: dict[str, str] = {
    "cancelled": "is cancelled",
    "requested": "is running: its worker was asked to cancel it",
    "too-late": "had ended already; see `agentqueue status`",
}


async def _cancel(client: Client, job_ids: list[str]) -> dict[str, Cancellation]:
    return {job_id: await client.cancel(job_id) for job_id in job_ids}
