"""`agentqueue status`, `jobs` and `cancel`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentqueue.cli.connection import RedisOption, with_client
from agentqueue.cli.output import (
    AsJson,
    format_age,
    format_duration,
    print_fields,
    print_json,
    print_line,
    print_table,
    printable,
    rich_fields,
    to_text,
    warn,
)
from agentqueue.client.suggestions import check_queue_known
from agentqueue.errors import UsageError
from agentqueue.model.job import OMITTED
from agentqueue.model.json_input import read_json
from agentqueue.model.times import iso_of

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import RenderableType

    from agentqueue.client import Cancellation, Client, JobStatus, Page
    from agentqueue.model.journal import RunningStep, StepRecord

COLUMNS = ("id", "job", "state", "priority", "attempts", "age", "progress", "error")
"""Columns of `jobs`."""
OPTIONAL_COLUMNS = ("attempts", "priority", "age", "progress", "job", "error")
"""Columns that a narrow terminal drops, the least important one first."""
CANCELLATION_TEXTS: dict[str, str] = {
    "cancelled": "is cancelled",
    "requested": "runs, or has steps to undo: its worker was asked to cancel it",
    "too-late": "has already ended; see `agentqueue status`",
}
"""The message for each result of `Client.cancel`."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("status")(show_status)
    app.command("jobs")(list_jobs)
    app.command("cancel")(cancel)
    app.command("resolve")(resolve)


def show_status(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow the job until it ends.")] = False,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Show a job: its state, progress, result or error."""

    async def show(client: Client) -> None:
        from agentqueue.cli.watch import LiveView, follow  # noqa: PLC0415
        from agentqueue.clock import now_ms  # noqa: PLC0415
        from agentqueue.model.times import from_ms  # noqa: PLC0415

        if not watch:
            status = await client.status(job_id)
            print_json(status.to_json()) if as_json else print_fields(status_fields(status, from_ms(now_ms())))
            return

        def print_change(status: JobStatus) -> None:
            print_json(status.to_json(), indent=False) if as_json else print_line(status_line(status))

        with LiveView(status_grid, print_change, live=not as_json) as view:
            async for status in follow(client, job_id):
                view.show(status)

    with_client(redis, show)


def status_fields(status: JobStatus, now: datetime | None = None) -> dict[str, Any]:
    """Return a job's fields in a form for people. With `now`, the due time is also shown relative to it."""
    fields = status.to_json()
    if now is not None and status.due_at is not None:
        fields["dueAt"] += f" ({due_in(status.due_at, now)})"
    fields["tags"] = ", ".join(status.tags) or None
    if status.waits_for is not None and status.due_at is None:
        fields["waitsFor"] += ", no timeout"
    fields["steps"] = "\n".join(map(step_text, status.steps)) or None
    fields["runningSteps"] = "\n".join(running_step_text(step, now) for step in status.running_steps) or None
    ended = fields.pop("childrenEnded")
    fields["children"] = f"{status.children}, of which {ended} have ended" if status.children else None
    return fields | {"progress": progress_text(status), "state": str(status.state)}


def step_text(step: StepRecord) -> str:
    """Return a step in one line, like `plan#1: done in 1.20 s, start 1`."""
    text = f"{step.name}: {step.outcome} in {step.ms / 1000:.2f} s, start {step.delivery}"
    return text if step.error is None else f"{text}: {step.error}"


def running_step_text(step: RunningStep, now: datetime | None) -> str:
    """Return a step that runs in one line, like `plan#1: since 12s, attempt 1`."""
    since = iso_of(step.since_ms) if now is None else format_duration(max(now.timestamp() - step.since_ms / 1000, 0))
    return f"{step.name}: since {since}, attempt {step.attempt}"


def due_in(due_at: datetime, now: datetime) -> str:
    """Return the time until a moment, like `in 12s`, or `now` if it has passed on this machine's clock."""
    wait = (due_at - now).total_seconds()
    return format_duration(-wait) if wait >= 1 else "now"


def progress_text(status: JobStatus) -> str | None:
    """Return the progress of a job, like `40% looking up airports`."""
    if status.progress is None:
        return None
    return f"{status.progress.percent:g}% {status.progress.message or ''}".rstrip()


def status_line(status: JobStatus) -> str:
    """Return a job as one line, for a stream of changes."""
    due, waits_for = status.to_json()["dueAt"], status.waits_for
    parts = [status.id, str(status.state), waits_for and f"waits for {waits_for}", due and f"due {due}"]
    parts += [progress_text(status), status.error]
    if status.result is not None:
        parts.append(to_text(status.result))
    return "  ".join(part for part in parts if part)


def status_grid(status: JobStatus) -> RenderableType:
    """Return a job for a live view, with a progress bar while it runs."""
    from rich.console import Group  # noqa: PLC0415
    from rich.progress_bar import ProgressBar  # noqa: PLC0415

    fields = {k: printable(to_text(v), lines=True) for k, v in status_fields(status).items() if v is not None}
    percent = status.progress.percent if status.progress else 0
    bar = [ProgressBar(total=100, completed=percent, width=60)] if not status.is_final and percent else []
    return Group(rich_fields(fields), *bar)


def list_jobs(
    queue: Annotated[str, typer.Argument(metavar="QUEUE")],
    state: Annotated[
        str | None,
        typer.Option(
            "--state", "-s", help="active, waiting, delayed, suspended, completed or dead. Default: the first 4."
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="Number of jobs, up to 1000.")] = 100,
    cursor: Annotated[str | None, typer.Option("--cursor", help="The cursor at the end of the previous page.")] = None,
    fields: Annotated[
        str, typer.Option("--fields", metavar="data,result", help="With --json: payloads and results, too.")
    ] = "",
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """List a queue's jobs."""
    from agentqueue.clock import now_ms  # noqa: PLC0415
    from agentqueue.model.times import from_ms  # noqa: PLC0415

    words = [word for word in fields.split(",") if word and as_json]

    async def read(client: Client) -> Page[JobStatus]:
        page = await client.jobs(queue, state, cursor, limit=limit, fields=words)
        if not page:
            await check_queue_known(client, queue)
        return page

    page = with_client(redis, read)
    if as_json:
        print_json({"jobs": [status.to_json() for status in page], "cursor": page.cursor})
        return
    now = from_ms(now_ms())
    rows = [
        (
            it.id,
            it.name,
            str(it.state),
            it.priority,
            it.attempts,
            format_age(it.enqueued_at, now),
            progress_text(it),
            it.error if it.waits_for is None else f"waits for {it.waits_for}",
        )
        for it in page
    ]
    ended = "list ended jobs with --state completed or --state dead"
    none = f"no {state} jobs in {queue}" if state else f"no job waits or runs in {queue}; {ended}"
    print_table(COLUMNS, rows, empty=none, optional_columns=OPTIONAL_COLUMNS)
    if page.cursor is not None:
        warn(f"there are more: --cursor {page.cursor}")


def cancel(
    job_ids: Annotated[list[str], typer.Argument(metavar="ID")],
    leave_children: Annotated[
        bool, typer.Option("--leave-children", help="Let the children that they wait for go on.")
    ] = False,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Cancel jobs. A job that has not started is cancelled at once; a worker stops a running one within a second.

    Exits with 1 if a job has already ended.
    """

    async def cancel_all(client: Client) -> dict[str, Cancellation]:
        return {job_id: await client.cancel(job_id, cascade=not leave_children) for job_id in job_ids}

    results = with_client(redis, cancel_all)
    if as_json:
        print_json([{"id": job_id, "outcome": result} for job_id, result in results.items()])
    else:
        for job_id, result in results.items():
            print_line(f"{job_id} {CANCELLATION_TEXTS[result]}")
    if "too-late" in results.values():
        raise typer.Exit(1)


def resolve(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    step: Annotated[str, typer.Argument(metavar="STEP", help="The step, as the job's error names it: `pay#1`.")],
    value: Annotated[str | None, typer.Option(metavar="JSON", help="The value that the step has returned.")] = None,
    run_again: Annotated[bool, typer.Option("--run-again", help="Nothing has happened: call the step again.")] = False,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Say what has become of a step whose outcome is not known (`once=True`), and send its job again.

    Find it out first: at the provider, with the idempotency key in the job's error.
    """
    if run_again is (value is not None):
        raise UsageError("give --value JSON, the value that the step has returned, or --run-again")
    data = OMITTED if value is None else read_json(value.encode(), "--value")
    with_client(redis, lambda client: client.resolve(job_id, step, data, run_again=run_again))
    if as_json:
        print_json({"id": job_id, "step": step, "outcome": "replayed"})
    else:
        print_line(f"{job_id} is sent again")
